//! The content of one member.
//!
//! Both ways give the same answer for the same member: the declared size and CRC hold, and the
//! compressed data is one complete deflate stream without anything behind it.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::headers::Sizes;
use super::{ArchiveError, ReadAt};
use crate::members::{MemberFile, Method};

/// How much compressed data is read at once.
const INPUT: usize = 64 * 1024;
/// How much longer than its content the data of a small member may be, to be read in one go.
const SLACK: usize = 1024;
/// How much content is written at once, at most.
const OUTPUT: usize = 128 * 1024;

/// Writes the content of `file` to `out`, in constant memory.
///
/// # Errors
/// [`super::Class::Integrity`] if size or CRC are not as declared, [`super::Class::Read`],
/// [`super::Class::Write`]. What was written before an error is not the content of the file and
/// must not be served.
pub fn extract(
    zip: &dyn ReadAt,
    file: &MemberFile,
    out: &mut dyn io::Write,
) -> Result<(), ArchiveError> {
    let mut input = Input::new(zip, file);
    let mut output = MemberOutput::new(out, file.size);
    match file.method {
        Method::Stored => {
            while input.fill()? {
                output.write(&input.bytes[input.held.clone()])?;
                input.held = 0..0;
            }
        }
        Method::Deflate => {
            inflate_stream(&mut input, &mut output)?;
            if !input.held.is_empty() || input.left != 0 {
                return Err(ArchiveError::integrity(
                    "its data goes on behind the end of its deflate stream",
                ));
            }
        }
    }
    if output.written != file.size {
        return Err(too_short());
    }
    if output.crc.finalize() != file.crc32 {
        return Err(ArchiveError::integrity("its content does not have the declared CRC"));
    }
    Ok(())
}

/// Writes the content of a deflated entry that says only behind its data where that ends. Of
/// `file`, `offset` counts; `size` and `compressed` are the most that there can be.
///
/// # Errors
/// [`super::Class::TooLarge`] for content of more than `size` bytes, [`super::Class::Integrity`],
/// [`super::Class::Read`], [`super::Class::Write`].
pub(super) fn inflate_to_end(
    zip: &dyn ReadAt,
    file: &MemberFile,
    out: &mut dyn io::Write,
) -> Result<Sizes, ArchiveError> {
    let mut input = Input::new(zip, file);
    let mut output = MemberOutput { is_declared: false, ..MemberOutput::new(out, file.size) };
    inflate_stream(&mut input, &mut output)?;
    let compressed = file.compressed - input.left - input.held.len() as u64;
    Ok(Sizes { crc32: output.crc.finalize(), compressed, size: output.written })
}

/// The content of `file`, for members that fit in memory.
///
/// # Errors
/// As [`extract`], without [`super::Class::Write`].
pub fn inflate(zip: &dyn ReadAt, file: &MemberFile) -> Result<Vec<u8>, ArchiveError> {
    if file.method == Method::Deflate
        && let Some(content) = inflate_whole(zip, file)?
    {
        return Ok(content);
    }
    let mut content = Vec::with_capacity(capacity(file));
    extract(zip, file, &mut content)?;
    Ok(content)
}

/// The content of `file` in one go, or `None` where [`extract`] has to decide.
///
/// It is the same library as there: others take streams for right that OpenTofu refuses (codes that
/// do not exist, or that their tables leave out).
fn inflate_whole(zip: &dyn ReadAt, file: &MemberFile) -> Result<Option<Vec<u8>>, ArchiveError> {
    let (Ok(size), Ok(compressed)) = (usize::try_from(file.size), usize::try_from(file.compressed))
    else {
        return Ok(None);
    };
    // Memory is for what a compressor makes, not for a stream that is padded with empty blocks.
    if size > capacity(file) || compressed > size + size / 8 + SLACK {
        return Ok(None);
    }
    let mut data = vec![0; compressed];
    zip.read_exact_at(&mut data, file.offset).map_err(ArchiveError::read)?;
    let mut content = vec![0; size];
    let mut inflater = Decompress::new(false);
    let ended = matches!(
        inflater.decompress(&data, &mut content, FlushDecompress::Finish),
        Ok(Status::StreamEnd)
    );
    let whole =
        ended && (inflater.total_in(), inflater.total_out()) == (file.compressed, file.size);
    Ok((whole && crc32fast::hash(&content) == file.crc32).then_some(content))
}

/// How much memory the content of `file` can need: no more than deflate can make of its data.
fn capacity(file: &MemberFile) -> usize {
    let most = file.compressed.saturating_mul(1032).saturating_add(1032);
    usize::try_from(file.size.min(most)).unwrap_or(0)
}

fn too_short() -> ArchiveError {
    ArchiveError::integrity("its content is shorter than declared")
}

/// Inflates `input` to the end of its deflate stream.
fn inflate_stream(input: &mut Input, output: &mut MemberOutput) -> Result<(), ArchiveError> {
    let mut inflater = Decompress::new(false);
    let mut content =
        vec![0; OUTPUT.min(usize::try_from(output.size.saturating_add(1)).unwrap_or(OUTPUT))];
    loop {
        let more = input.fill()?;
        let (consumed, produced) = (inflater.total_in(), inflater.total_out());
        let status = inflater
            .decompress(&input.bytes[input.held.clone()], &mut content, FlushDecompress::None)
            .map_err(|_| ArchiveError::integrity("its data is no deflate stream"))?;
        let consumed = (inflater.total_in() - consumed) as usize;
        let produced = (inflater.total_out() - produced) as usize;
        input.held.start += consumed;
        output.write(&content[..produced])?;
        if status == Status::StreamEnd {
            break;
        }
        if consumed == 0 && produced == 0 {
            let rule = if more {
                "its data is no deflate stream"
            } else {
                "its deflate stream is cut off"
            };
            return Err(ArchiveError::integrity(rule));
        }
    }
    Ok(())
}

/// The data of a member, read piece by piece.
struct Input<'a> {
    zip: &'a dyn ReadAt,
    offset: u64,
    /// Bytes that are not read yet.
    left: u64,
    bytes: Vec<u8>,
    /// The part of `bytes` that is not consumed yet.
    held: std::ops::Range<usize>,
}

impl<'a> Input<'a> {
    fn new(zip: &'a dyn ReadAt, file: &MemberFile) -> Self {
        Input { zip, offset: file.offset, left: file.compressed, bytes: vec![0; INPUT], held: 0..0 }
    }

    /// Reads on where everything was consumed. False: there is no more.
    fn fill(&mut self) -> Result<bool, ArchiveError> {
        if self.held.is_empty() {
            let length = self.left.min(self.bytes.len() as u64) as usize;
            if length != 0 {
                self.zip
                    .read_exact_at(&mut self.bytes[..length], self.offset)
                    .map_err(ArchiveError::read)?;
            }
            self.offset += length as u64;
            self.left -= length as u64;
            self.held = 0..length;
        }
        Ok(!self.held.is_empty())
    }
}

/// The content of a member, counted and summed on its way.
struct MemberOutput<'a> {
    out: &'a mut dyn io::Write,
    written: u64,
    /// The most bytes that it may have.
    size: u64,
    /// Whether it has to have so many.
    is_declared: bool,
    crc: crc32fast::Hasher,
}

impl<'a> MemberOutput<'a> {
    fn new(out: &'a mut dyn io::Write, size: u64) -> Self {
        MemberOutput { out, written: 0, size, is_declared: true, crc: crc32fast::Hasher::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let length = self.written + bytes.len() as u64;
        if length > self.size {
            return Err(if self.is_declared {
                ArchiveError::integrity("its content is longer than declared")
            } else {
                ArchiveError::too_large(
                    "its size",
                    format_args!("at least {length}"),
                    "streamed",
                    self.size,
                )
            });
        }
        self.crc.update(bytes);
        self.out.write_all(bytes).map_err(ArchiveError::write)?;
        self.written = length;
        Ok(())
    }
}
