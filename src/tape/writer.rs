//! Writing a tape: one pass, one frame in memory at a time.
//!
//! A recorder [flushes](Writer::flush) after each few records, so that a tape that is never finished can still be read
//! as far as it was written.

use std::io::{self, Write};

use super::digest::WorkloadDigest;
use super::error::WriteError;
use super::format::{Footer, Header, Request, Response};
use super::frame::{MAX_FRAME_BYTES, MAX_HEADER_BYTES, Packer};
use super::line;

/// How a tape's bytes are laid out. It changes the file, never the workload digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// A frame is closed before it would grow beyond this many bytes uncompressed, unless one request is larger.
    pub frame_bytes: usize,
    /// Zstandard's compression level.
    pub level: i32,
}

impl Default for Layout {
    /// Frames of 1 MiB at level 3: what every tape has unless it was asked otherwise.
    fn default() -> Self {
        Self { frame_bytes: 1 << 20, level: 3 }
    }
}

/// Writes a tape. Its memory is bounded by a frame and a record. A tape that was not [finished](Writer::finish) reads
/// as cut short.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    layout: Layout,
    packer: Packer,
    /// The lines of the frame being filled, and the index of its first request.
    lines: Vec<u8>,
    first: u64,
    /// Bytes of that frame's lines that were flushed before those in `lines`.
    flushed: usize,
    digest: WorkloadDigest,
    footer: Footer,
}

impl<W: Write> Writer<W> {
    /// Begins a tape with its header.
    pub fn new(out: W, header: &Header) -> Result<Self, WriteError> {
        Self::with_layout(out, header, Layout::default())
    }

    /// Begins a tape with its header, in a layout of one's own.
    pub fn with_layout(out: W, header: &Header, layout: Layout) -> Result<Self, WriteError> {
        let mut writer = Self {
            out,
            layout,
            packer: Packer::new(layout.level)?,
            lines: Vec::with_capacity(layout.frame_bytes.min(1 << 20)),
            first: 0,
            flushed: 0,
            digest: WorkloadDigest::new(),
            footer: Footer::default(),
        };
        line::write_header(&mut writer.lines, header).map_err(io::Error::from)?;
        if writer.lines.len() > MAX_HEADER_BYTES as usize {
            return Err(WriteError::HeaderTooLarge { bytes: writer.lines.len(), limit: MAX_HEADER_BYTES });
        }
        writer.pack_first(writer.lines.len())?;
        Ok(writer)
    }

    /// Adds a request; its index must be the next one, from 0.
    pub fn write(&mut self, request: &Request) -> Result<(), WriteError> {
        let due = self.footer.requests;
        if request.index != due {
            return Err(WriteError::Order { due, found: request.index });
        }
        self.append(due, |lines| line::write_request(lines, request))?;
        self.digest.add(request);
        self.footer.count(request);
        Ok(())
    }

    /// Adds the response to a request that was written before. Each request has one at most: the caller sees to that,
    /// and [`verify`](super::verify) checks it.
    pub fn response(&mut self, response: &Response) -> Result<(), WriteError> {
        if response.index >= self.footer.requests {
            return Err(WriteError::NoRequest { index: response.index });
        }
        self.append(response.index, |lines| line::write_response(lines, response))?;
        self.footer.responses += 1;
        Ok(())
    }

    /// Hands every record so far to the output, within an open frame: whoever reads the file now finds them all, by
    /// way of [`Salvage`](super::Salvage). Costs a few bytes each time.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if !self.lines.is_empty() {
            self.packer.push(&self.lines, &mut self.out)?;
            self.flushed += self.lines.len();
            self.lines.clear();
        }
        self.out.flush()?;
        Ok(())
    }

    /// Ends the frame that is open: what is in it can then be read whatever befalls the bytes after it.
    pub fn end_frame(&mut self) -> Result<(), WriteError> {
        if self.flushed + self.lines.len() > 0 {
            self.close_frame(self.lines.len())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Bytes that the file has so far, those of the open frame only as far as they were flushed.
    #[must_use]
    pub fn compressed_bytes(&self) -> u64 {
        self.packer.written()
    }

    /// What the footer would say now, less the digest.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Adds a line; it begins a new frame where the open one has no room for it.
    fn append(
        &mut self,
        index: u64,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) -> Result<(), WriteError> {
        let start = self.lines.len();
        write(&mut self.lines).map_err(io::Error::from)?;
        let bytes = self.lines.len() - start;
        if bytes > MAX_FRAME_BYTES as usize {
            self.lines.truncate(start);
            return Err(WriteError::TooLarge { index, bytes, limit: MAX_FRAME_BYTES });
        }
        let limit = self.layout.frame_bytes.min(MAX_FRAME_BYTES as usize);
        if self.flushed + start > 0 && self.flushed + self.lines.len() > limit {
            self.close_frame(start)?;
        }
        Ok(())
    }

    /// Ends the tape with its footer and seek table, and flushes the output.
    pub fn finish(mut self) -> Result<Footer, WriteError> {
        self.end_frame()?;
        self.footer.workload_digest = self.digest.finish();
        line::write_footer(&mut self.lines, &self.footer).map_err(io::Error::from)?;
        self.packer.pack(&self.lines, &mut self.out)?;
        self.packer.finish(&mut self.out)?;
        self.out.flush()?;
        Ok(self.footer)
    }

    /// Ends the open frame with the first `length` bytes of the lines.
    fn close_frame(&mut self, length: usize) -> io::Result<()> {
        self.footer.index.push(self.first);
        self.first = self.footer.requests;
        if self.flushed == 0 {
            return self.pack_first(length);
        }
        self.packer.push_last(&self.lines[..length], &mut self.out)?;
        self.lines.drain(..length);
        self.flushed = 0;
        Ok(())
    }

    fn pack_first(&mut self, length: usize) -> io::Result<()> {
        self.packer.pack(&self.lines[..length], &mut self.out)?;
        self.lines.drain(..length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Outcome, Salvage, VERSION, verify};

    fn header() -> Header {
        Header {
            version: VERSION,
            created_by: "tokentape test".to_owned(),
            source: "test".to_owned(),
            params: serde_json::Map::new(),
            seed: None,
            tokenizer: None,
        }
    }

    fn request(index: u64, bytes: usize) -> Request {
        Request {
            index,
            offset_ns: 0,
            method: "POST".to_owned(),
            path: "/v1/completions".to_owned(),
            body: vec![b'x'; bytes],
            input_tokens: Some(3),
            output_tokens: None,
            session: None,
        }
    }

    #[test]
    fn requests_come_in_order() {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.write(&request(0, 1)).unwrap();
        let error = writer.write(&request(2, 1)).unwrap_err();
        assert!(matches!(error, WriteError::Order { due: 1, found: 2 }));
        writer.write(&request(1, 1)).unwrap();
        let footer = writer.finish().unwrap();
        assert_eq!((footer.requests, footer.input_tokens, footer.body_bytes), (2, 6, 2));
    }

    /// Flushed or not, the lines and the digest are the same; and each flush lets everything so far be read.
    #[test]
    fn what_is_flushed_can_be_read_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let layout = Layout { frame_bytes: 4000, level: 3 };
        let mut writer = Writer::with_layout(file.as_file(), &header(), layout).unwrap();
        for index in 0..20 {
            writer.write(&request(index, 700)).unwrap();
            if index % 3 != 1 {
                writer.flush().unwrap();
                let read = Salvage::open(file.path()).unwrap().map_while(Result::ok).count();
                assert_eq!(read as u64, index + 1);
                assert_eq!(writer.compressed_bytes(), file.as_file().metadata().unwrap().len());
            }
        }
        let footer = writer.finish().unwrap();
        assert_eq!(verify(file.path(), &mut |_| {}).unwrap(), footer);
        let mut plain = Writer::with_layout(Vec::new(), &header(), layout).unwrap();
        (0..20).for_each(|index| plain.write(&request(index, 700)).unwrap());
        assert_eq!(plain.finish().unwrap(), footer);
    }

    #[test]
    fn a_response_stands_after_its_request() {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        let response = Response {
            index: 0,
            head: None,
            chunks: Vec::new(),
            body: Vec::new(),
            end_ns: 1,
            outcome: Outcome::ServerGone,
        };
        assert!(matches!(writer.response(&response).unwrap_err(), WriteError::NoRequest { index: 0 }));
        writer.write(&request(0, 1)).unwrap();
        writer.response(&response).unwrap();
        assert_eq!(writer.finish().unwrap().responses, 1);
    }

    #[test]
    fn a_header_that_no_reader_would_take_is_not_written() {
        let header = Header { source: "x".repeat(MAX_HEADER_BYTES as usize), ..header() };
        let error = Writer::new(Vec::new(), &header).unwrap_err();
        assert!(matches!(error, WriteError::HeaderTooLarge { .. }));
    }

    #[test]
    fn frames_end_between_records_and_only_a_large_record_exceeds_them() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &header()).unwrap();
        let sizes = [10, 2 << 20, 10, 900 << 10, 900 << 10];
        for (size, index) in sizes.into_iter().zip(0..) {
            writer.write(&request(index, size)).unwrap();
        }
        let footer = writer.finish().unwrap();
        assert_eq!(footer.index, [0, 1, 2, 4]);
    }

    /// The seek table as its specification has it, byte for byte.
    #[test]
    fn the_file_ends_with_a_seek_table() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &header()).unwrap();
        writer.write(&request(0, 100)).unwrap();
        writer.finish().unwrap();
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());

        let end = file.len();
        assert_eq!(word(end - 4), 0x8F92_EAB1);
        assert_eq!(file[end - 5], 0, "no checksums in the table");
        assert_eq!(word(end - 9), 3, "header, requests, footer");
        let table = end - 9 - 3 * 8;
        assert_eq!(word(table - 4), 3 * 8 + 9);
        assert_eq!(word(table - 8), 0x184D_2A5E);
        let mut at = 0;
        for entry in 0..3 {
            assert_eq!(word(at), 0xFD2F_B528, "frame {entry}");
            at += word(table + 8 * entry) as usize;
        }
        assert_eq!(at, table - 8);

        // A plain decompressor sees the lines and nothing else.
        let mut lines = Vec::new();
        io::Read::read_to_end(&mut zstd::Decoder::new(file.as_slice()).unwrap(), &mut lines).unwrap();
        let starts: Vec<_> = lines.split_inclusive(|&byte| byte == b'\n').map(|line| &line[..14]).collect();
        assert_eq!(starts, [br#"{"type":"heade"#, br#"{"type":"reque"#, br#"{"type":"foote"#]);
        assert_eq!(lines.last(), Some(&b'\n'));
    }
}
