//! `benchmark_data.db`, with the schema of each version (`evalscope/perf/utils/db_util.py`).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};
use thiserror::Error;

use crate::metrics::evalscope::{Row, Version};
use crate::python::Json;

/// The database's name in a run's folder.
pub const FILE: &str = "benchmark_data.db";

/// Why a database was not written.
#[derive(Debug, Error)]
#[error("cannot write the database {}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What `SQLite` says.
    #[source]
    pub source: rusqlite::Error,
}

/// The original stores Python's pickle of the response's chunks, in base64. A timeline does not keep the chunks: this is
/// the pickle of an empty list, so that whatever loads the column goes on working.
const NO_MESSAGES: &str = "gARdlC4=";

/// Writes a new database: a row a request, in order. `request` gives the body that was sent, as JSON text, by the
/// request's index in the tape. The table's text is the original's, to the white space.
///
/// Failures keep their gaps and no other figure, as there; a file that exists is an error, as there.
pub fn write(
    path: &Path,
    version: Version,
    rows: &[Row],
    request: &dyn Fn(u64) -> Option<String>,
) -> Result<(), Error> {
    try_write(path, version, rows, request).map_err(|source| Error { path: path.to_owned(), source })
}

fn try_write(
    path: &Path,
    version: Version,
    rows: &[Row],
    request: &dyn Fn(u64) -> Option<String>,
) -> rusqlite::Result<()> {
    let mut database = create(path)?;
    let transaction = database.transaction()?;
    transaction.execute_batch(&schema(version))?;
    {
        let mut insert = transaction.prepare(insertion(version))?;
        for row in rows {
            let gaps = Json::list(row.inter_chunk.iter().copied()).dumps();
            let figures = row.success.then_some(row);
            let common = params![
                request(row.index),
                row.start_time,
                gaps,
                row.success,
                NO_MESSAGES,
                row.completed_time,
                figures.map(|row| row.latency),
                figures.map(|row| row.first_chunk_latency),
                figures.map(|row| row.prompt_tokens),
                figures.map(|row| row.completion_tokens),
                // The memory of GPUs on this machine, of which the original finds none either when it only sends.
                figures.map(|_| 0.0),
                figures.map(|row| row.time_per_output_token),
            ];
            match version {
                Version::V1_1_1 => insert.execute(common)?,
                Version::V1_14_1 => {
                    let stream: &dyn rusqlite::ToSql = &row.stream;
                    let all: Vec<_> = common.iter().copied().chain([stream]).collect();
                    insert.execute(all.as_slice())?
                }
            };
        }
    }
    transaction.commit()
}

/// Opens a database that is not there yet.
fn create(path: &Path) -> rusqlite::Result<Connection> {
    if path.exists() {
        let exists = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let remedy = "the file exists; remove it or name another folder";
        return Err(rusqlite::Error::SqliteFailure(exists, Some(remedy.to_owned())));
    }
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
}

/// The table as both versions write it, down to its white space.
fn schema(version: Version) -> String {
    const COMMON: &str = "CREATE TABLE IF NOT EXISTS result(
                      request TEXT,
                      start_time REAL,
                      inter_token_latencies TEXT,
                      success INTEGER,
                      response_messages TEXT,
                      completed_time REAL,
                      latency REAL,
                      first_chunk_latency REAL,
                      prompt_tokens INTEGER,
                      completion_tokens INTEGER,
                      max_gpu_memory_cost REAL,
                      time_per_output_token REAL";
    let further = match version {
        Version::V1_1_1 => "",
        Version::V1_14_1 => {
            ",
                      request_id TEXT,
                      is_stream INTEGER"
        }
    };
    format!("{COMMON}{further}\n                   )")
}

fn insertion(version: Version) -> &'static str {
    match version {
        Version::V1_1_1 => "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        // The request id is that of a trace's record; a tape's request has none.
        Version::V1_14_1 => "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
    }
}
