//! Zstandard frames, and the seek table that makes each one reachable.
//!
//! The layout is Zstandard's seekable format, version 0.1.0 (`contrib/seekable_format` in the zstd sources): frames
//! that any decompressor reads, then a skippable frame with every frame's two sizes. Here alone compressed bytes are
//! handled, and here no frame unpacks to more than it claims.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;

use zstd::bulk::Compressor;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{self, CParameter, DCtx};

/// The most that one frame may unpack to, in bytes; so also the longest line.
pub const MAX_FRAME_BYTES: u32 = 256 << 20;

/// The most that the header's frame may unpack to, in bytes.
pub(super) const MAX_HEADER_BYTES: u32 = 16 << 20;

/// Room for a block's header and a frame's ends, in bytes.
const END_BYTES: usize = 64;

/// The most frames that a reader will take: at 1 MiB each, 4 TiB of requests.
const MAX_FRAMES: usize = 1 << 22;

const FRAME_MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const FOOTER_BYTES: usize = 9;
const CHECKSUM_FLAG: u8 = 1 << 7;
const RESERVED_BITS: u8 = 0b0111_1100;

/// Why a frame does not unpack.
#[derive(Debug)]
pub(super) enum FrameError {
    Bomb(String),
    /// The input ended within the frame.
    Cut,
    Damaged(String),
    Io(io::Error),
    /// No frame begins where one is due.
    Missing,
}

/// Where a frame lies and how large it is, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) compressed: u32,
    pub(super) decompressed: u32,
}

/// Every frame of a file, in order.
#[derive(Debug, Default)]
pub(super) struct SeekTable {
    pub(super) frames: Vec<Frame>,
    /// Where the next frame goes.
    end: u64,
}

impl SeekTable {
    fn push(&mut self, compressed: u32, decompressed: u32) {
        self.frames.push(Frame { offset: self.end, compressed, decompressed });
        self.end += u64::from(compressed);
    }

    /// The skippable frame that ends the file.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let too_many = || io::Error::other(format!("more than {MAX_FRAMES} frames"));
        if self.frames.len() > MAX_FRAMES {
            return Err(too_many());
        }
        let count = u32::try_from(self.frames.len()).map_err(|_| too_many())?;
        let mut bytes = Vec::with_capacity(17 + 8 * self.frames.len());
        bytes.extend(SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend((8 * count + 9).to_le_bytes());
        for frame in &self.frames {
            bytes.extend(frame.compressed.to_le_bytes());
            bytes.extend(frame.decompressed.to_le_bytes());
        }
        bytes.extend(count.to_le_bytes());
        bytes.push(0);
        bytes.extend(SEEKABLE_MAGIC.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the table at the end of a file of `length` bytes; none when there is no such table.
    pub(super) fn read(file: &File, length: u64) -> Result<Option<Self>, FrameError> {
        let damaged = |reason: &str| Err(FrameError::Damaged(reason.to_owned()));
        let Some(footer_at) = length.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(None);
        };
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let [c0, c1, c2, c3, descriptor, m0, m1, m2, m3] = footer;
        if u32::from_le_bytes([m0, m1, m2, m3]) != SEEKABLE_MAGIC {
            return Ok(None);
        }
        if descriptor & RESERVED_BITS != 0 {
            return damaged("its descriptor has reserved bits");
        }
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        if count > MAX_FRAMES {
            return damaged(&format!("it lists {count} frames, above the limit of {MAX_FRAMES}"));
        }
        // Entries of other writers may carry a checksum; the frames have their own.
        let entry_bytes = if descriptor & CHECKSUM_FLAG == 0 { 8 } else { 12 };
        let size = count * entry_bytes;
        let Some(table_at) = footer_at.checked_sub(size as u64 + 8) else {
            return damaged(&format!("it lists {count} frames, more than the file has room for"));
        };
        let mut bytes = vec![0; size + 8];
        file.read_exact_at(&mut bytes, table_at)?;
        let (head, entries) = bytes.split_at(8);
        if le_u32(head) != SKIPPABLE_MAGIC || le_u32(&head[4..]) as usize != size + 9 {
            return damaged("it does not begin where its frame count says");
        }
        let mut table = Self { frames: Vec::with_capacity(count), end: 0 };
        for entry in entries.chunks_exact(entry_bytes) {
            let (compressed, decompressed) = (le_u32(entry), le_u32(&entry[4..]));
            let number = table.frames.len();
            if decompressed > MAX_FRAME_BYTES {
                return Err(FrameError::Bomb(format!(
                    "frame {number} claims to unpack to {decompressed} bytes, above the limit of {MAX_FRAME_BYTES}"
                )));
            }
            if compressed as usize > zstd_safe::compress_bound(decompressed as usize) {
                return damaged(&format!(
                    "frame {number} is larger compressed ({compressed} bytes) than its {decompressed} bytes can be"
                ));
            }
            table.push(compressed, decompressed);
        }
        if table.end != table_at {
            return damaged(&format!("its frames add up to {} bytes, the file has {table_at}", table.end));
        }
        Ok(Some(table))
    }
}

/// The first four bytes as a number. Callers pass at least four.
fn le_u32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Writes frames, and their sizes into a seek table.
pub(super) struct Packer {
    level: i32,
    compressor: Compressor<'static>,
    compressed: Vec<u8>,
    table: SeekTable,
    open: Option<Open>,
}

/// A frame that is written piece by piece.
struct Open {
    encoder: Encoder<'static>,
    compressed: u64,
    decompressed: u64,
}

impl Packer {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let mut compressor = Compressor::new(level)?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { level, compressor, compressed: Vec::new(), table: SeekTable::default(), open: None })
    }

    /// Writes one frame of `bytes`.
    pub(super) fn pack(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.compressed.clear();
        self.compressed.reserve(zstd_safe::compress_bound(bytes.len()));
        self.compressor.compress_to_buffer(bytes, &mut self.compressed)?;
        out.write_all(&self.compressed)?;
        let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.table.push(size(self.compressed.len())?, size(bytes.len())?);
        Ok(())
    }

    /// Writes `bytes` as the next piece of a frame, whole: a decompressor that has seen it gives all of them.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.push_piece(bytes, out, Encoder::flush)
    }

    /// Writes `bytes` as the last piece of the frame that is open.
    pub(super) fn push_last(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.push_piece(bytes, out, |encoder, room| encoder.finish(room, true))?;
        if let Some(open) = self.open.take() {
            let size = |length: u64| u32::try_from(length).map_err(io::Error::other);
            self.table.push(size(open.compressed)?, size(open.decompressed)?);
        }
        Ok(())
    }

    fn push_piece(
        &mut self,
        bytes: &[u8],
        out: &mut impl Write,
        end: impl Fn(&mut Encoder<'static>, &mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
    ) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::new(self.level)?),
        };
        self.compressed.clear();
        self.compressed.reserve(zstd_safe::compress_bound(bytes.len()) + END_BYTES);
        let mut input = InBuffer::around(bytes);
        // The memory reserved is nearly always enough; a round is one fill of it.
        loop {
            let mut room = OutBuffer::around(&mut self.compressed);
            while input.pos() < bytes.len() && room.pos() < room.capacity() {
                open.encoder.run(&mut input, &mut room)?;
            }
            let left = if input.pos() < bytes.len() { 1 } else { end(&mut open.encoder, &mut room)? };
            out.write_all(room.as_slice())?;
            open.compressed += room.as_slice().len() as u64;
            if left == 0 {
                break;
            }
            self.compressed.clear();
        }
        open.decompressed += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.table.end + self.open.as_ref().map_or(0, |open| open.compressed)
    }

    /// Writes the seek table.
    pub(super) fn finish(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.table.encode()?)
    }
}

impl Open {
    fn new(level: i32) -> io::Result<Self> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { encoder, compressed: 0, decompressed: 0 })
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Unpacks frames whose sizes are known.
pub(super) struct Unpacker {
    context: DCtx<'static>,
    compressed: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self { context: DCtx::create(), compressed: Vec::new() }
    }

    /// Replaces `out` by what `frame` unpacks to, which is exactly as much as it claims. Positional reads leave the
    /// file's cursor alone, so one open file serves any number of readers.
    pub(super) fn unpack(&mut self, file: &File, frame: Frame, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let claimed = frame.decompressed as usize;
        let bomb = |found: &dyn fmt::Display| {
            Err(FrameError::Bomb(format!("claims to unpack to {claimed} bytes and unpacks to {found}")))
        };
        self.compressed.resize(frame.compressed as usize, 0);
        file.read_exact_at(&mut self.compressed, frame.offset)?;
        let extent = zstd_safe::find_frame_compressed_size(&self.compressed).map_err(damaged)?;
        if extent != self.compressed.len() {
            return Err(FrameError::Damaged(format!(
                "it is {extent} bytes long, by the seek table {}",
                frame.compressed
            )));
        }
        if let Ok(Some(size)) = zstd_safe::get_frame_content_size(&self.compressed)
            && size > claimed as u64
        {
            return bomb(&size);
        }
        out.clear();
        out.reserve(claimed);
        // The decompressor stops at the buffer's capacity, which never exceeds a claim that passed the limit.
        match self.context.decompress(out, &self.compressed) {
            Ok(size) if size > claimed => bomb(&size),
            Ok(size) if size < claimed => {
                Err(FrameError::Damaged(format!("it unpacks to {size} bytes, by the seek table {claimed}")))
            }
            Ok(_) if !has_checksum(&self.compressed) => {
                Err(FrameError::Damaged("it has no checksum".to_owned()))
            }
            Ok(_) => Ok(()),
            Err(code) if zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
                bomb(&"more")
            }
            Err(code) => Err(damaged(code)),
        }
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// Whether a frame carries a checksum of its content: bit 2 of the descriptor, which follows the magic number.
fn has_checksum(frame: &[u8]) -> bool {
    frame.get(4).is_some_and(|descriptor| descriptor & 1 << 2 != 0)
}

/// The decompressor's reason, in its own words.
fn damaged(code: zstd_safe::ErrorCode) -> FrameError {
    FrameError::Damaged(zstd_safe::get_error_name(code).to_owned())
}

/// Unpacks frames one after another from the start of a file, without a seek table.
#[derive(Debug)]
pub(super) struct Sequential<R> {
    input: R,
}

impl<R: BufRead> Sequential<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input }
    }

    /// Replaces `out` by what the next frame unpacks to; false at the end of the frames. When the frame is cut,
    /// `out` has what could still be unpacked.
    pub(super) fn unpack(&mut self, limit: u32, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        out.clear();
        let mut magic = Vec::with_capacity(4);
        (&mut self.input).take(4).read_to_end(&mut magic)?;
        if magic.is_empty() || magic == SKIPPABLE_MAGIC.to_le_bytes() {
            return Ok(false);
        }
        if !FRAME_MAGIC.to_le_bytes().starts_with(&magic) {
            return Err(FrameError::Missing);
        }
        if magic.len() < 4 {
            return Err(FrameError::Cut);
        }
        let frame = magic.as_slice().chain(&mut self.input);
        let mut decoder = zstd::Decoder::with_buffer(frame)?.single_frame();
        decoder.window_log_max(MAX_FRAME_BYTES.ilog2())?;
        decoder.take(u64::from(limit) + 1).read_to_end(out)?;
        if out.len() > limit as usize {
            return Err(FrameError::Bomb(format!("unpacks to more than {limit} bytes")));
        }
        Ok(true)
    }
}

/// An error of the system carries its code; all others come from the decompressor.
impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            FrameError::Io(error)
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            FrameError::Cut
        } else {
            FrameError::Damaged(error.to_string())
        }
    }
}
