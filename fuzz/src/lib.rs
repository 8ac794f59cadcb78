//! What is fuzzed: everything that reads bytes which others wrote. No input may make any of it panic, hang or take
//! memory without bound; where a result has to hold, it is checked.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tempfile::NamedTempFile;
use tokentape::convert::import::{self, Format, Import, Input, Params};
use tokentape::replay::{event, sse};
use tokentape::tape::{Entry, Reader, Salvage};
use tokentape_mock::{Config, Timing};
use tokentape_tokenizer::Tokenizer;

const FORMATS: [Format; 14] = [
    Format::Aiperf,
    Format::Azure,
    Format::Bailian,
    Format::Burstgpt,
    Format::EvalscopeLines,
    Format::EvalscopeTrace,
    Format::Guidellm,
    Format::Jsonl,
    Format::Mooncake,
    Format::OpenaiBatch,
    Format::RawPayload,
    Format::Sharegpt,
    Format::VllmCustom,
    Format::VllmTimedTrace,
];

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let load = || Arc::new(Tokenizer::embedded().expect("the embedded tokenizer is whole"));
    Arc::clone(TOKENIZER.get_or_init(load))
}

/// The first byte is the format; the rest is the file. Of formats that prompts are made for, the rows are read and no
/// prompt is made: a row may ask for two million tokens.
pub fn importers(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let format = FORMATS[usize::from(first) % FORMATS.len()];
    let params = Params { requests: Some(100), ..Params::default() };
    let tokenizer = tokenizer();
    let tokenizer = (format.makes_prompts() || first >= 128).then_some(&*tokenizer);
    if format.makes_prompts() {
        let input = Input::Bytes { name: "input".to_owned(), bytes: bytes.into() };
        drop(Import::new(format, params, input, tokenizer));
    } else if let Ok(requests) = import::import(format, params, bytes, tokenizer) {
        for (request, index) in requests.iter().zip(0..) {
            assert_eq!(request.index, index);
        }
    }
}

/// The first byte is the endpoint; the rest is a body that a client sent.
pub fn mock_request(data: &[u8]) {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Config::new("m", tokenizer(), Timing::fixed(0, 0)));
    let Some((&first, body)) = data.split_first() else { return };
    let paths = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"];
    black_box(tokentape_mock::read_request(paths[usize::from(first) % paths.len()], body, config));
}

/// A response's body: its events lie within it, in order, and reading goes on from any of their ends to the same ones.
pub fn sse_client(data: &[u8]) {
    let events: Vec<sse::Event<'_>> = sse::events(data).collect();
    let mut last = 0;
    for read in &events {
        assert!(last <= read.end && read.end <= data.len());
        last = read.end;
        if let sse::Payload::Data(data) = &read.payload {
            black_box(event::read(data).text());
        }
    }
    black_box(event::document::read(data));
    black_box(event::document::asks_for_stream(data));
}

/// A tape, opened as such: what verifies can be read, and every part of it as a range.
pub fn tape_reader(data: &[u8]) {
    on_disk(data, |path| {
        let Ok(reader) = Reader::open(path) else { return };
        let mut requests = 0;
        let is_sound = reader.verify(&mut |_| requests += 1).is_ok();
        let read = reader.entries().take_while(Result::is_ok).count() as u64;
        assert!(!is_sound || read == reader.footer().requests + reader.footer().responses);
        let from = requests / 2;
        let rest = reader.requests_in(from..u64::MAX).take_while(Result::is_ok).count() as u64;
        assert!(!is_sound || from + rest == requests);
    });
}

/// The same, from its start and without its footer: requests come in order, responses after them.
pub fn tape_salvage(data: &[u8]) {
    on_disk(data, |path| {
        let Ok(salvage) = Salvage::open(path) else { return };
        let mut due = 0;
        for entry in salvage.entries() {
            match entry {
                Ok(Entry::Request(request)) => {
                    assert_eq!(request.index, due);
                    due += 1;
                }
                Ok(Entry::Response(response)) => assert!(response.index < due),
                Err(_) => {}
            }
        }
    });
}

/// Calls `read` with a file of `data`. After an odd first byte the rest is the file as it is; after an even one it is the
/// contents of its frames, with a zero byte between them, and is packed with a seek table: no mutation would ever get
/// past the checksums.
fn on_disk(data: &[u8], read: impl FnOnce(&Path)) {
    static SCRATCH: OnceLock<NamedTempFile> = OnceLock::new();
    let Some((&first, rest)) = data.split_first() else { return };
    let packed = if first % 2 == 0 { packed(rest) } else { rest.to_vec() };
    let scratch = SCRATCH.get_or_init(|| NamedTempFile::new().expect("a temporary file"));
    let file: &File = scratch.as_file();
    file.set_len(0).expect("a file that can be emptied");
    file.write_all_at(&packed, 0).expect("a file that can be written");
    read(scratch.path());
}

fn packed(contents: &[u8]) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for frame in contents.split(|&byte| byte == 0) {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.include_checksum(true).expect("a known parameter");
        encoder.write_all(frame).expect("memory");
        let bytes = encoder.finish().expect("memory");
        table.extend((bytes.len() as u32).to_le_bytes());
        table.extend((frame.len() as u32).to_le_bytes());
        file.extend(bytes);
    }
    let frames = table.len() as u32 / 8;
    file.extend(0x184D_2A5E_u32.to_le_bytes());
    file.extend((table.len() as u32 + 9).to_le_bytes());
    file.extend(table);
    file.extend(frames.to_le_bytes());
    file.push(0);
    file.extend(0x8F92_EAB1_u32.to_le_bytes());
    file
}
