//! Reading a tape: from any request on, one frame in memory at a time.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::{Error, ErrorKind, Holds};
use super::format::{Entry, Footer, Header, Request};
use super::frame::{FrameError, SeekTable, Unpacker};
use super::line::{self, Line};
use super::records::Records;
use super::salvage::Salvage;

/// An open tape. What it holds in memory is bounded by the largest frame, never by the tape.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    compressed_bytes: u64,
    table: SeekTable,
    header: Header,
    footer: Footer,
}

impl Reader {
    /// Opens a tape: reads its header, seek table and footer, and checks that they agree.
    ///
    /// A tape without a seek table is read through once, to say where its good part ends.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let fail = |kind: ErrorKind| Error::new(path, kind);
        let mut salvage = Salvage::open(path)?;
        let file = File::open(path).map_err(|error| fail(error.into()))?;
        let compressed_bytes = file.metadata().map_err(|error| fail(error.into()))?.len();
        let Some(table) =
            SeekTable::read(&file, compressed_bytes).map_err(|error| fail(seek_table_kind(error)))?
        else {
            let missing =
                || fail(ErrorKind::SeekTable { reason: "it is not at the end of the file".to_owned() });
            return Err(salvage.find_map(Result::err).unwrap_or_else(missing));
        };
        let (header, header_line) = salvage.into_header();
        let footer = read_ends(&file, &table, &header_line).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, compressed_bytes, table, header, footer })
    }

    /// The tape's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What made the tape.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the tape should hold, by its own word: [`Reader::verify`] checks it.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The file's size, in bytes.
    #[must_use]
    pub fn compressed_bytes(&self) -> u64 {
        self.compressed_bytes
    }

    /// The size of all its lines, in bytes.
    #[must_use]
    pub fn decompressed_bytes(&self) -> u64 {
        self.table.frames.iter().map(|frame| u64::from(frame.decompressed)).sum()
    }

    /// The number of its frames, those of the header and the footer included.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.table.frames.len()
    }

    /// Every request, in order. The iterator ends after its first error.
    #[must_use]
    pub fn requests(&self) -> Requests<'_> {
        self.requests_in(0..u64::MAX)
    }

    /// The requests whose index is in `range`, in order, without reading the frames before them. The iterator ends
    /// after its first error. A range past the tape's end gives what there is of it.
    #[must_use]
    pub fn requests_in(&self, range: Range<u64>) -> Requests<'_> {
        Requests { entries: self.walk(range, false) }
    }

    /// Every request and every response, in the order of the file. The iterator ends after its first error.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        self.entries_in(0..u64::MAX)
    }

    /// The requests whose index is in `range`, and the responses to them, in the order of the file. Where each of
    /// them has its response, nothing behind the last one is read.
    #[must_use]
    pub fn entries_in(&self, range: Range<u64>) -> Entries<'_> {
        self.walk(range, true)
    }

    fn walk(&self, range: Range<u64>, with_responses: bool) -> Entries<'_> {
        // 1.0 had no responses: what stands there is passed over.
        let with_responses = with_responses && self.header.version.has_responses();
        // Entry i of the index belongs to frame i + 1: frame 0 is the header's.
        let frame = self.footer.index.partition_point(|&first| first <= range.start);
        let due = frame.checked_sub(1).map_or(0, |entry| self.footer.index[entry]);
        Entries {
            reader: self,
            unpacker: Unpacker::new(),
            records: Records::from(due, with_responses),
            next_frame: frame.max(1),
            range,
            unanswered: 0,
            ended: false,
        }
    }

    /// What a frame holds, by the footer.
    fn holds(&self, frame: usize) -> Holds {
        let first = self.footer.index[frame - 1];
        let end = self.footer.index.get(frame).copied().unwrap_or(self.footer.requests);
        Holds::Requests { frame, first, end: Some(end) }
    }
}

/// A tape's requests, streaming. See [`Reader::requests`].
#[derive(Debug)]
pub struct Requests<'a> {
    entries: Entries<'a>,
}

/// A tape's requests and responses, streaming. See [`Reader::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    reader: &'a Reader,
    unpacker: Unpacker,
    records: Records,
    next_frame: usize,
    range: Range<u64>,
    /// Requests given whose response has not come yet; 0 where responses are not asked for.
    unanswered: u64,
    ended: bool,
}

impl Entries<'_> {
    fn step(&mut self) -> Result<Option<Entry>, ErrorKind> {
        while self.records.due < self.range.end || self.unanswered > 0 {
            match self.records.next().transpose()? {
                Some(Line::Request(request)) if self.range.contains(&request.index) => {
                    self.unanswered += u64::from(self.records.with_responses);
                    return Ok(Some(Entry::Request(request)));
                }
                Some(Line::Response(response)) if self.range.contains(&response.index) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    return Ok(Some(Entry::Response(response)));
                }
                Some(Line::Request(_) | Line::Response(_) | Line::Passed) => {}
                Some(Line::Footer(_)) => {
                    return Err(self.records.malformed("a footer before the last frame".to_owned()));
                }
                None if self.next_frame < self.reader.frames() - 1 => self.load()?,
                None => return self.at_end(),
            }
        }
        Ok(None)
    }

    /// Unpacks the next frame.
    fn load(&mut self) -> Result<(), ErrorKind> {
        let (reader, number) = (self.reader, self.next_frame);
        let first = reader.footer.index[number - 1];
        if first != self.records.due {
            let due = self.records.due;
            let reason = format!("frame {number} begins with request {due}, by the footer with {first}");
            return Err(ErrorKind::Index { reason });
        }
        self.unpacker
            .unpack(&reader.file, reader.table.frames[number], &mut self.records.bytes)
            .map_err(|error| error.into_kind(reader.holds(number), first.checked_sub(1)))?;
        self.records.frame = number;
        self.records.rewind();
        self.next_frame += 1;
        Ok(())
    }

    /// After the last frame of requests: the last one must have been reached.
    fn at_end(&self) -> Result<Option<Entry>, ErrorKind> {
        let (found, recorded) = (self.records.due, self.reader.footer.requests);
        if found == recorded {
            return Ok(None);
        }
        Err(ErrorKind::Count { what: "number of requests", recorded, found })
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.entries.next()? {
                Ok(Entry::Request(request)) => return Some(Ok(request)),
                // None comes: responses are not asked for.
                Ok(Entry::Response(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().map_err(|kind| Error::new(&self.reader.path, kind)).transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Reads the first and the last frame by the seek table: the header as it was read without the table, and the footer.
fn read_ends(file: &File, table: &SeekTable, header_line: &[u8]) -> Result<Footer, ErrorKind> {
    let seek_table = |reason: &str| Err(ErrorKind::SeekTable { reason: reason.to_owned() });
    let ([first, .., last], frames) = (table.frames.as_slice(), table.frames.len()) else {
        return seek_table("it lists fewer than the two frames of a header and a footer");
    };
    let mut unpacker = Unpacker::new();
    let mut bytes = Vec::new();
    unpacker.unpack(file, *first, &mut bytes).map_err(|error| error.into_kind(Holds::Header, None))?;
    if bytes != header_line {
        return seek_table("its first frame is not the header's");
    }
    let holds = Holds::Footer { frame: frames - 1 };
    unpacker.unpack(file, *last, &mut bytes).map_err(|error| error.into_kind(holds, None))?;
    let no_footer = |reason: String| Err(ErrorKind::Frame { holds, reason });
    let footer = match bytes.strip_suffix(b"\n").map(|line| line::parse(line, false)) {
        Some(Ok(Line::Footer(footer))) => footer,
        Some(Err(reason)) => return no_footer(format!("its line is malformed: {reason}")),
        _ => return no_footer("its line is not a footer".to_owned()),
    };
    check_index(&footer, frames - 2)?;
    Ok(footer)
}

/// Holds the footer's index against the number of frames that it should describe.
fn check_index(footer: &Footer, frames: usize) -> Result<(), ErrorKind> {
    let index = &footer.index;
    let reason = if index.len() != frames {
        format!("it describes {} frames of {frames}", index.len())
    } else if index.first().is_some_and(|&first| first != 0) {
        "it does not begin with request 0".to_owned()
    } else if !index.is_sorted() || index.last().is_some_and(|&last| last > footer.requests) {
        "it does not rise from request 0 to the last".to_owned()
    } else {
        return Ok(());
    };
    Err(ErrorKind::Index { reason })
}

/// A frame's size in the seek table can be a bomb before there is a frame to name.
fn seek_table_kind(error: FrameError) -> ErrorKind {
    match error {
        FrameError::Bomb(reason) | FrameError::Damaged(reason) => ErrorKind::SeekTable { reason },
        FrameError::Cut | FrameError::Missing => ErrorKind::SeekTable { reason: "it is cut".to_owned() },
        FrameError::Io(error) => ErrorKind::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::tape::{Chunk, Layout, Outcome, Response, ResponseHead, Session, VERSION, Writer, verify};

    fn header() -> Header {
        Header {
            version: VERSION,
            created_by: "tokentape test".to_owned(),
            source: "test".to_owned(),
            params: serde_json::Map::new(),
            seed: Some(u64::MAX),
            tokenizer: None,
        }
    }

    fn write(requests: &[Request], layout: Layout) -> (NamedTempFile, Footer) {
        let file = NamedTempFile::new().unwrap();
        let mut writer = Writer::with_layout(file.as_file(), &header(), layout).unwrap();
        for request in requests {
            writer.write(request).unwrap();
        }
        let footer = writer.finish().unwrap();
        (file, footer)
    }

    fn write_entries(entries: &[Entry], layout: Layout, flush_each: usize) -> (NamedTempFile, Footer) {
        let file = NamedTempFile::new().unwrap();
        let mut writer = Writer::with_layout(file.as_file(), &header(), layout).unwrap();
        for (place, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Request(request) => writer.write(request).unwrap(),
                Entry::Response(response) => writer.response(response).unwrap(),
            }
            if (place + 1).is_multiple_of(flush_each) {
                writer.flush().unwrap();
            }
        }
        let footer = writer.finish().unwrap();
        (file, footer)
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..200),
            ".{0,100}".prop_map(String::into_bytes),
            Just(br#"{"model":"m","prompt":"\u0000\n\" \ud83d\ude00 "}"#.to_vec()),
            Just(Vec::new()),
        ]
    }

    prop_compose! {
        fn request()(
            offset_ns in any::<u64>(),
            method in ".{0,8}",
            path in ".{0,30}",
            body in body(),
            input_tokens in option::of(any::<u32>()),
            output_tokens in option::of(any::<u32>()),
            session in option::of((".{0,10}", any::<u32>()).prop_map(|(id, turn)| Session { id, turn })),
        ) -> Request {
            Request { index: 0, offset_ns, method, path, body, input_tokens, output_tokens, session }
        }
    }

    fn requests() -> impl Strategy<Value = Vec<Request>> {
        vec(request(), 0..40).prop_map(|mut requests| {
            requests.iter_mut().zip(0..).for_each(|(request, index)| request.index = index);
            requests
        })
    }

    prop_compose! {
        /// A response whose chunks share out its body.
        fn response()(
            status in 100..600u16,
            headers in vec((".{0,8}", ".{0,20}"), 0..3),
            body in body(),
            cuts in vec((any::<u32>(), 0..300usize), 0..10),
            head_ns in any::<u32>(),
            later_ns in any::<u32>(),
            answered in any::<bool>(),
            outcome in prop_oneof![
                Just(Outcome::ClientGone), Just(Outcome::Complete), Just(Outcome::ServerGone), Just(Outcome::Stopped)
            ],
        ) -> Response {
            let mut at_ns = u64::from(head_ns);
            let end_of = |at_ns: u64| at_ns + u64::from(later_ns);
            if !answered {
                let end_ns = end_of(at_ns);
                return Response { index: 0, head: None, chunks: Vec::new(), body: Vec::new(), end_ns, outcome };
            }
            let mut left = body.len();
            let mut chunks = Vec::new();
            for (gap_ns, bytes) in cuts.into_iter().chain([(1, usize::MAX)]) {
                at_ns += u64::from(gap_ns);
                let bytes = bytes.min(left);
                left -= bytes;
                chunks.push(Chunk { at_ns, bytes: u32::try_from(bytes).unwrap() });
            }
            let head = Some(ResponseHead { status, headers, at_ns: u64::from(head_ns) });
            Response { index: 0, head, chunks, body, end_ns: end_of(at_ns), outcome }
        }
    }

    /// Requests with their responses anywhere after them, or none.
    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        vec((request(), option::of((response(), 0..10usize))), 0..30).prop_map(|exchanges| {
            let mut entries = Vec::new();
            let mut due: Vec<(usize, Response)> = Vec::new();
            for (index, (request, answer)) in exchanges.into_iter().enumerate() {
                due.extend(
                    answer.map(|(response, after)| {
                        (index + after, Response { index: index as u64, ..response })
                    }),
                );
                entries.push(Entry::Request(Request { index: index as u64, ..request }));
                entries.extend(due.extract_if(.., |(at, _)| *at <= index).map(|(_, r)| Entry::Response(r)));
            }
            entries.extend(due.into_iter().map(|(_, response)| Entry::Response(response)));
            entries
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn responses_are_read_as_they_are_written(
            entries in entries(),
            frame_bytes in prop_oneof![Just(0usize), 100..2000usize, Just(1 << 20)],
            flush_each in 1..5usize,
            a in 0..35u64,
            b in 0..35u64,
        ) {
            let (file, footer) = write_entries(&entries, Layout { frame_bytes, level: 1 }, flush_each);
            let reader = Reader::open(file.path()).unwrap();
            let read: Vec<_> = reader.entries().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&read, &entries);
            let salvaged: Vec<_> = Salvage::open(file.path()).unwrap().entries().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&salvaged, &entries);

            let part: Vec<_> = reader.entries_in(a..b).collect::<Result<_, _>>().unwrap();
            let index = |entry: &Entry| match entry {
                Entry::Request(request) => request.index,
                Entry::Response(response) => response.index,
            };
            let expected: Vec<_> = entries.iter().filter(|e| (a..b).contains(&index(e))).cloned().collect();
            prop_assert_eq!(part, expected);

            // Without the responses, it is the same workload.
            let requests: Vec<_> = reader.requests().collect::<Result<_, _>>().unwrap();
            let (_, plain) = write(&requests, Layout::default());
            prop_assert_eq!(&plain.workload_digest, &footer.workload_digest);
            prop_assert_eq!(verify(file.path(), &mut |_| {}).unwrap(), footer);
        }

        #[test]
        fn what_is_written_is_read(
            requests in requests(),
            frame_bytes in prop_oneof![Just(0usize), 100..2000usize, Just(1 << 20)],
            a in 0..50u64,
            b in 0..50u64,
        ) {
            let (file, footer) = write(&requests, Layout { frame_bytes, level: 1 });
            let reader = Reader::open(file.path()).unwrap();
            prop_assert_eq!(reader.header(), &header());
            prop_assert_eq!(reader.footer(), &footer);
            let read: Vec<_> = reader.requests().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&read, &requests);

            let part: Vec<_> = reader.requests_in(a..b).collect::<Result<_, _>>().unwrap();
            let expected: Vec<_> = requests.iter().filter(|r| (a..b).contains(&r.index)).cloned().collect();
            prop_assert_eq!(part, expected);

            let salvaged: Vec<_> = Salvage::open(file.path()).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&salvaged, &requests);

            let (_, other) = write(&requests, Layout::default());
            prop_assert_eq!(&other.workload_digest, &footer.workload_digest);
            prop_assert_eq!(verify(file.path(), &mut |_| {}).unwrap(), footer);
        }
    }

    #[test]
    fn a_range_reads_only_the_frames_that_it_needs() {
        let requests: Vec<_> = (0..30)
            .map(|index| Request {
                index,
                offset_ns: 0,
                method: "POST".to_owned(),
                path: "/".to_owned(),
                body: vec![b'x'; 1000],
                input_tokens: None,
                output_tokens: None,
                session: None,
            })
            .collect();
        let (file, footer) = write(&requests, Layout { frame_bytes: 5 << 10, level: 3 });
        assert_eq!(footer.index, [0, 4, 8, 12, 16, 20, 24, 28]);
        let reader = Reader::open(file.path()).unwrap();
        let mut part = reader.requests_in(17..19);
        assert_eq!(part.next().unwrap().unwrap().index, 17);
        assert_eq!((part.entries.records.frame, part.entries.next_frame), (5, 6));
        assert_eq!(part.next().unwrap().unwrap().index, 18);
        assert!(part.next().is_none());
        assert_eq!(part.entries.next_frame, 6);
        assert_eq!(reader.requests_in(30..40).count(), 0);
        assert_eq!(reader.requests_in(99..u64::MAX).count(), 0);
    }
}
