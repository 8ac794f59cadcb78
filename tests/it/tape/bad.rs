//! Every way in which a tape can be bad.
//!
//! The tapes are put together from lines and frames, not by the crate's writer: so this is also a second
//! implementation of the format.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;
use tokentape::tape::{self, ErrorKind, MAX_FRAME_BYTES, Reader, Salvage};
use zstd::zstd_safe::CParameter;

use super::{fixture, path_str, save, small, tokentape, written};

const HEADER: &str =
    r#"{"type":"header","version":{"major":1,"minor":0},"created_by":"test","source":"test","params":{}}"#;
/// The digest of no requests.
const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn request_line(index: u64) -> String {
    format!(r#"{{"type":"request","index":{index},"offset_ns":0,"method":"POST","path":"/","body":"{{}}"}}"#)
}

/// A header of a minor version to come.
fn later() -> String {
    HEADER.replace(r#""minor":0"#, r#""minor":9,"codename":"x""#)
}

fn response_line(index: u64) -> String {
    format!(
        r#"{{"type":"response","index":{index},"status":200,"head_ns":5,"chunks":[[1,1],[2,1]],"body":"{{}}","end_ns":8,"outcome":"complete","rtt":1}}"#
    )
}

fn footer_line(requests: u64, index: &[u64], digest: &str) -> String {
    format!(
        r#"{{"type":"footer","requests":{requests},"input_tokens":0,"output_tokens":0,"body_bytes":{},"workload_digest":"{digest}","index":{index:?}}}"#,
        2 * requests
    )
}

/// The digest of `requests` such lines, from the described layout.
fn digest(requests: u64) -> String {
    let mut bytes = Vec::new();
    for _ in 0..requests {
        bytes.extend(b"\x04\0\0\0\0\0\0\0POST\x01\0\0\0\0\0\0\0/\x02\0\0\0\0\0\0\0{}\0\0\0\0\0\0\0\0\0");
    }
    blake3::hash(&bytes).to_hex().to_string()
}

fn frame_of(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
    compressor.compress(bytes).unwrap()
}

fn lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect()
}

/// A file of frames, each with the size that the seek table is to claim.
fn assemble(frames: &[(Vec<u8>, usize)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut table = Vec::new();
    for (frame, claimed) in frames {
        file.extend(frame);
        table.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        table.extend(u32::try_from(*claimed).unwrap().to_le_bytes());
    }
    file.extend(0x184D_2A5E_u32.to_le_bytes());
    file.extend(u32::try_from(table.len() + 9).unwrap().to_le_bytes());
    file.extend(table);
    file.extend(u32::try_from(frames.len()).unwrap().to_le_bytes());
    file.push(0);
    file.extend(0x8F92_EAB1_u32.to_le_bytes());
    file
}

/// A tape of a header, frames of lines, and a footer.
fn tape_of(header: &str, frames: &[Vec<String>], footer: &str) -> Vec<u8> {
    let ends = |line: &str| lines(&[line.to_owned()]);
    let all: Vec<_> = [ends(header)]
        .into_iter()
        .chain(frames.iter().map(|frame| lines(frame)))
        .chain([ends(footer)])
        .collect();
    assemble(&all.iter().map(|bytes| (frame_of(bytes), bytes.len())).collect::<Vec<_>>())
}

/// Two frames of two and three requests.
fn five() -> Vec<Vec<String>> {
    vec![(0..2).map(request_line).collect(), (2..5).map(request_line).collect()]
}

fn good() -> Vec<u8> {
    tape_of(HEADER, &five(), &footer_line(5, &[0, 2], &digest(5)))
}

pub(super) fn newer() -> Vec<u8> {
    let header = r#"{"type":"header","version":{"major":2,"minor":0},"what":"no one knows yet"}"#;
    tape_of(header, &[vec![r#"{"type":"unheard-of"}"#.to_owned()]], r#"{"type":"end"}"#)
}

/// A tape with a frame that claims 2 KB and unpacks to 64 MiB; the frame's own header says so, or says nothing.
pub(super) fn bomb(says_so: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    if says_so {
        encoder.set_pledged_src_size(Some(64 << 20)).unwrap();
    }
    let zeros = vec![0; 1 << 20];
    (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
    let bomb = encoder.finish().unwrap();
    // The seek table's claim must be one that a frame of this compressed size could have.
    let claimed = bomb.len();
    one_frame(bomb, claimed)
}

/// A tape of a header, this frame, and a footer that knows of five requests in it.
fn one_frame(frame: Vec<u8>, claimed: usize) -> Vec<u8> {
    let header = lines(&[HEADER.to_owned()]);
    let footer = lines(&[footer_line(5, &[0], EMPTY)]);
    assemble(&[(frame_of(&header), header.len()), (frame, claimed), (frame_of(&footer), footer.len())])
}

#[test]
fn a_second_writer_is_understood() {
    let folder = TempDir::new().unwrap();
    let footer = tape::verify(save(&folder, &good()), &mut |_| {}).unwrap();
    assert_eq!((footer.requests, footer.workload_digest), (5, digest(5)));

    // Where version 1.0 has a line that was reserved then, it is passed over, even if a frame has nothing else.
    let reserved = || r#"{"type":"response","index":0,"status":200}"#.to_owned();
    let frames = [vec![request_line(0), reserved()], vec![reserved()], vec![request_line(1)]];
    let bytes = tape_of(HEADER, &frames, &footer_line(2, &[0, 1, 1], &digest(2)));
    let path = save(&folder, &bytes);
    tape::verify(&path, &mut |_| {}).unwrap();
    let second: Vec<_> = Reader::open(&path).unwrap().requests_in(1..2).collect::<Result<_, _>>().unwrap();
    assert_eq!(second.len(), 1);

    // Later minor versions have responses, and may add fields.
    let frames = [vec![request_line(0)], vec![response_line(0)], vec![request_line(1), response_line(1)]];
    let footer = footer_line(2, &[0, 1, 1], &digest(2)).replace('}', r#","responses":2,"more":[]}"#);
    let path = save(&folder, &tape_of(&later(), &frames, &footer));
    assert_eq!(tape::verify(&path, &mut |_| {}).unwrap().responses, 2);
    let second: Vec<_> = Reader::open(&path).unwrap().entries_in(1..2).collect::<Result<_, _>>().unwrap();
    assert_eq!(second.len(), 2);

    let empty = tape_of(HEADER, &[], &footer_line(0, &[], EMPTY));
    assert_eq!(tape::verify(save(&folder, &empty), &mut |_| {}).unwrap().requests, 0);
}

// Bad tapes.

/// One request, and these lines.
fn answered(responses: &[String], count: u64) -> Vec<u8> {
    let frame = [&[request_line(0)], responses].concat();
    let footer = footer_line(1, &[0], &digest(1)).replace('}', &format!(r#","responses":{count}}}"#));
    tape_of(&later(), &[frame], &footer)
}

/// Each bad tape, with what is bad about it.
fn bad_tapes() -> Vec<(&'static str, Vec<u8>)> {
    let frames = five();
    let with = |line: &str| {
        let mut frames = five();
        line.clone_into(&mut frames[1][1]);
        tape_of(HEADER, &frames, &footer_line(5, &[0, 2], &digest(5)))
    };
    let footer = |line: &str| tape_of(HEADER, &five(), line);
    let flipped = |at: usize| {
        let mut bytes = good();
        bytes[at] ^= 1;
        bytes
    };
    let good = good();
    let header_end = frame_of(&lines(&[HEADER.to_owned()])).len();
    let first_end = header_end + frame_of(&lines(&frames[0])).len();
    let second_end = first_end + frame_of(&lines(&frames[1])).len();
    let huge_claim = {
        let mut bytes = good.clone();
        let at = bytes.len() - 9 - 3 * 8 + 4;
        bytes[at..at + 4].copy_from_slice(&(MAX_FRAME_BYTES + 1).to_le_bytes());
        bytes
    };
    let line = lines(&[request_line(0)]);
    let big_header = format!("{}{}", " ".repeat(17 << 20), HEADER);
    vec![
        ("empty", vec![]),
        ("text", b"hello\n".to_vec()),
        ("other zstd", frame_of(b"hello\n")),
        ("header without fields", tape_of(r#"{"type":"header","version":{"major":1,"minor":0}}"#, &[], "{}")),
        ("header too long", tape_of(&big_header, &[], "{}")),
        ("newer", newer()),
        ("cut in the header", good[..header_end - 1].to_vec()),
        ("cut after the header", good[..header_end].to_vec()),
        ("cut in a frame", good[..first_end + 9].to_vec()),
        ("cut after the requests", good[..second_end].to_vec()),
        ("cut in the seek table", good[..good.len() - 1].to_vec()),
        ("flipped in a frame", flipped(second_end - 6)),
        ("flipped checksum", flipped(second_end - 1)),
        ("flipped footer", flipped(second_end + 20)),
        ("flipped size in the seek table", flipped(good.len() - 9 - 8)),
        ("claim above the limit", huge_claim),
        ("bomb that says so", bomb(true)),
        ("bomb that says nothing", bomb(false)),
        ("without a checksum", one_frame(zstd::bulk::compress(&line, 3).unwrap(), line.len())),
        ("two frames in one entry", one_frame([frame_of(&line), frame_of(&line)].concat(), 2 * line.len())),
        ("another size", one_frame(frame_of(&line), line.len() + 1)),
        ("no newline at a frame's end", one_frame(frame_of(&line[..line.len() - 1]), line.len() - 1)),
        ("malformed line", with("{\"type\":\"request\",\"index\":3,")),
        ("unknown line", with(r#"{"type":"rumour"}"#)),
        ("second header", with(HEADER)),
        ("footer too early", with(&footer_line(5, &[0, 2], EMPTY))),
        ("out of order", with(&request_line(7))),
        ("wrong index", footer(&footer_line(5, &[0, 3], &digest(5)))),
        ("short index", footer(&footer_line(5, &[0], &digest(5)))),
        ("falling index", footer(&footer_line(5, &[0, 9], &digest(5)))),
        ("too few", footer(&footer_line(6, &[0, 2], &digest(6)))),
        ("other body", with(&request_line(3).replace("{}", "[]"))),
        ("other tokens", with(&request_line(3).replace("\"body\"", "\"input_tokens\":3,\"body\""))),
        ("no footer", footer(&request_line(5))),
        ("response before its request", answered(&[response_line(2)], 1)),
        ("two responses", answered(&[response_line(0), response_line(0)], 2)),
        ("too few responses", answered(&[response_line(0)], 2)),
        ("chunks of another body", answered(&[response_line(0).replace("[2,1]", "[2,2]")], 1)),
    ]
}

#[test]
fn every_bad_tape_has_one_clear_error() {
    let folder = TempDir::new().unwrap();
    let mut errors = String::new();
    for (name, bytes) in bad_tapes() {
        let path = save(&folder, &bytes);
        let error = tape::verify(&path, &mut |_| {}).expect_err(name);
        let kind = format!("{:?}", error.kind());
        let kind = kind.split([' ', '(']).next().unwrap();
        let message = error.to_string().replace(path_str(&path), "T");
        writeln!(errors, "{name}: {kind}\n    {message}").unwrap();

        let output = tokentape(["verify", path_str(&path)]);
        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("error: {error}\n"), "{name}");
        assert!(output.stdout.is_empty(), "{name}: {output:?}");
    }
    insta::assert_snapshot!(errors, @r##"
    empty: NotATape
        tape T is not a tape: it is empty; a tape is a NAME.tape.zst that `tokentape generate` wrote
    text: NotATape
        tape T is not a tape: it does not begin with a Zstandard frame; a tape is a NAME.tape.zst that `tokentape generate` wrote
    other zstd: NotATape
        tape T is not a tape: its first line is not a tape's header; a tape is a NAME.tape.zst that `tokentape generate` wrote
    header without fields: NotATape
        tape T is not a tape: its header is malformed: missing field `created_by` at byte 49; a tape is a NAME.tape.zst that `tokentape generate` wrote
    header too long: Bomb
        tape T is not safe to read: frame 0 (the header) unpacks to more than 16777216 bytes; do not use this copy
    newer: Newer
        tape T is format 2.0; this tokentape reads 1.x: upgrade tokentape
    cut in the header: Truncated
        tape T is cut short: not one of its requests can be read; copy it again, or make it again
    cut after the header: Truncated
        tape T is cut short: not one of its requests can be read; copy it again, or make it again
    cut in a frame: Truncated
        tape T is cut short: its last good record is request 1; copy it again, or make it again
    cut after the requests: Truncated
        tape T is cut short: its last good record is request 4; copy it again, or make it again
    cut in the seek table: SeekTable
        tape T has a damaged seek table: it is not at the end of the file; use another copy, or make it again
    flipped in a frame: Frame
        tape T is damaged in frame 2 (requests 2..5): Data corruption detected; use another copy, or make it again
    flipped checksum: Frame
        tape T is damaged in frame 2 (requests 2..5): Restored data doesn't match checksum; use another copy, or make it again
    flipped footer: Frame
        tape T is damaged in frame 3 (the footer): Data corruption detected; use another copy, or make it again
    flipped size in the seek table: SeekTable
        tape T has a damaged seek table: its frames add up to 451 bytes, the file has 452; use another copy, or make it again
    claim above the limit: SeekTable
        tape T has a damaged seek table: frame 1 claims to unpack to 268435457 bytes, above the limit of 268435456; use another copy, or make it again
    bomb that says so: Bomb
        tape T is not safe to read: frame 1 (requests 0..5) claims to unpack to 2070 bytes and unpacks to 67108864; do not use this copy
    bomb that says nothing: Bomb
        tape T is not safe to read: frame 1 (requests 0..5) claims to unpack to 2066 bytes and unpacks to more; do not use this copy
    without a checksum: Frame
        tape T is damaged in frame 1 (requests 0..5): it has no checksum; use another copy, or make it again
    two frames in one entry: Frame
        tape T is damaged in frame 1 (requests 0..5): it is 91 bytes long, by the seek table 182; use another copy, or make it again
    another size: Frame
        tape T is damaged in frame 1 (requests 0..5): it unpacks to 82 bytes, by the seek table 83; use another copy, or make it again
    no newline at a frame's end: Record
        tape T has a malformed record where request 0 is due, in frame 1: the frame ends within a line; make it again
    malformed line: Record
        tape T has a malformed record where request 3 is due, in frame 2: EOF while parsing a value at byte 28; make it again
    unknown line: Record
        tape T has a malformed record where request 3 is due, in frame 2: a line of unknown type "rumour"; make it again
    second header: Record
        tape T has a malformed record where request 3 is due, in frame 2: a second header; make it again
    footer too early: Record
        tape T has a malformed record where request 3 is due, in frame 2: a footer before the last frame; make it again
    out of order: Order
        tape T is out of order: request 7 stands where request 3 is due, in frame 2; make it again
    wrong index: Index
        tape T has a wrong index: frame 2 begins with request 2, by the footer with 3; make it again
    short index: Index
        tape T has a wrong index: it describes 1 frames of 2; make it again
    falling index: Index
        tape T has a wrong index: it does not rise from request 0 to the last; make it again
    too few: Count
        tape T does not hold what its footer says: number of requests 5, by the footer 6; use another copy, or make it again
    other body: Digest
        tape T was altered: its requests have the workload digest 36e68fe81b5f807aa70907973595ba17f5f9b812bf81d718fd4da7f8f7b11482, by its footer 95e3675197780858e34464342c39710a85aeaf4ec76f19f41ab1cd3ff5bf76bc; use another copy, or make it again
    other tokens: Count
        tape T does not hold what its footer says: sum of input tokens 3, by the footer 0; use another copy, or make it again
    no footer: Frame
        tape T is damaged in frame 3 (the footer): its line is not a footer; use another copy, or make it again
    response before its request: Record
        tape T has a malformed record where request 1 is due, in frame 1: a response to request 2, which has not come; make it again
    two responses: Responses
        tape T has more than one response to request 0; make it again
    too few responses: Count
        tape T does not hold what its footer says: number of responses 1, by the footer 2; use another copy, or make it again
    chunks of another body: Record
        tape T has a malformed record where request 1 is due, in frame 1: its chunks add up to 3 bytes, its body has 2; make it again
    "##);
}

#[test]
fn every_command_refuses_a_tape_that_it_cannot_read() {
    let folder = TempDir::new().unwrap();
    let cut = save(&folder, &good()[..500]);
    for path in [
        fixture("newer.tape.zst"),
        fixture("bomb.tape.zst"),
        fixture("none.tape.zst"),
        folder.path().into(),
        cut,
    ] {
        for command in ["verify", "inspect", "cat"] {
            let output = tokentape([command, path_str(&path)]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{command}: {stderr}");
            assert!(stderr.starts_with("error: tape ") && stderr.lines().count() == 1, "{command}: {stderr}");
            assert!(output.stdout.is_empty(), "{command}: {output:?}");
        }
    }
}

#[test]
fn a_cut_tape_gives_what_precedes_the_cut() {
    let folder = TempDir::new().unwrap();
    let good = good();
    let all: Vec<_> =
        Reader::open(save(&folder, &good)).unwrap().requests().collect::<Result<_, _>>().unwrap();
    // From the end on, so that the file is only ever shortened, never rewritten.
    let path = save(&folder, &good);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut most = 0;
    for length in (0..good.len()).rev() {
        file.set_len(length as u64).unwrap();
        tape::verify(&path, &mut |_| {}).expect_err("a cut tape is not whole");
        let Ok(salvage) = Salvage::open(&path) else {
            continue;
        };
        let mut read: Vec<_> = salvage.collect();
        if read.last().is_some_and(Result::is_err) {
            let error = read.pop().unwrap().unwrap_err();
            let last_good = (read.len() as u64).checked_sub(1);
            assert!(
                matches!(*error.kind(), ErrorKind::Truncated { last_good: l } if l == last_good),
                "{error}"
            );
        }
        let read: Vec<_> = read.into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, all[..read.len()]);
        most = most.max(read.len());
    }
    assert_eq!(most, all.len(), "without its seek table, a tape still has all its requests");
}

/// Whichever bit is flipped, the tape is refused, or the bit carried nothing.
#[test]
fn no_flipped_bit_changes_a_tape_that_verifies() {
    let folder = TempDir::new().unwrap();
    let (header, requests) = small();
    let golden = written(&header, &requests);
    let path = save(&folder, &golden);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut harmless = 0;
    for (at, byte) in golden.iter().enumerate() {
        for bit in 0..8 {
            file.write_all_at(&[byte ^ 1 << bit], at as u64).unwrap();
            if tape::verify(&path, &mut |_| {}).is_ok() {
                let reader = Reader::open(&path).unwrap();
                assert_eq!(reader.header(), &header, "byte {at} bit {bit}");
                let read: Vec<_> = reader.requests().collect::<Result<_, _>>().unwrap();
                assert_eq!(read, requests, "byte {at} bit {bit}");
                harmless += 1;
            }
        }
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    // Zstandard pads its bit streams, and leaves bits of its headers unused.
    assert!(harmless * 100 < golden.len() * 8, "{harmless} flips went unseen");
}
