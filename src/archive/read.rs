//! The content of one member.
//!
//! Both ways give the same answer for the same member: the declared size and CRC hold, and the compressed data is one
//! complete deflate stream without anything behind it.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::{ArchiveError, ReadAt};
use crate::members::{File, Method};

/// How much compressed data is read at once.
const INPUT: usize = 64 * 1024;
/// How much content is written at once, at most.
const OUTPUT: usize = 128 * 1024;

/// Writes the content of `file` to `out`, in constant memory.
///
/// # Errors
/// [`super::Class::Integrity`] if size or CRC are not as declared, [`super::Class::Read`], [`super::Class::Write`].
/// What was written before an error is not the content of the file and must not be served.
pub fn extract(zip: &dyn ReadAt, file: &File, out: &mut dyn io::Write) -> Result<(), ArchiveError> {
    let mut input = Input { zip, offset: file.offset, left: file.compressed, bytes: vec![0; INPUT], held: 0..0 };
    let mut output = Output { out, written: 0, size: file.size, crc: crc32fast::Hasher::new() };
    match file.method {
        Method::Stored => {
            while input.fill()? {
                output.write(&input.bytes[input.held.clone()])?;
                input.held = 0..0;
            }
        }
        Method::Deflate => inflate_stream(&mut input, &mut output)?,
    }
    if output.written != file.size {
        return Err(too_short());
    }
    if output.crc.finalize() != file.crc32 {
        return Err(ArchiveError::integrity("its content does not have the declared CRC"));
    }
    Ok(())
}

/// The content of `file`, for members that fit in memory.
///
/// # Errors
/// As [`extract`], without [`super::Class::Write`].
pub fn inflate(zip: &dyn ReadAt, file: &File) -> Result<Vec<u8>, ArchiveError> {
    if file.method == Method::Deflate
        && let Some(content) = inflate_whole(zip, file)?
    {
        return Ok(content);
    }
    let mut content = Vec::with_capacity(capacity(file));
    extract(zip, file, &mut content)?;
    Ok(content)
}

/// The content of `file` by the fastest library, or `None` where [`extract`] has to decide.
///
/// The library does not tell where a raw deflate stream ended, and bytes behind it are to be refused. But in a gzip
/// member it compares what follows the stream with a trailer of CRC and size. So the data is given a gzip header and
/// the declared trailer: if that trailer is not found in the data itself, then the stream that passes ends where the
/// data ends, and has the declared CRC and size.
fn inflate_whole(zip: &dyn ReadAt, file: &File) -> Result<Option<Vec<u8>>, ArchiveError> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let (Ok(size), Ok(compressed)) = (usize::try_from(file.size), usize::try_from(file.compressed)) else {
        return Ok(None);
    };
    if size > capacity(file) {
        return Ok(None);
    }
    let trailer = u64::from(file.crc32) | u64::from(file.size as u32) << 32;
    let end = HEADER.len() + compressed;
    let mut gzip = vec![0; end + 8];
    gzip[..HEADER.len()].copy_from_slice(&HEADER);
    zip.read_exact_at(&mut gzip[HEADER.len()..end], file.offset).map_err(ArchiveError::read)?;
    gzip[end..].copy_from_slice(&trailer.to_le_bytes());
    if gzip[HEADER.len()..end].windows(8).any(|bytes| bytes == trailer.to_le_bytes()) {
        return Ok(None);
    }
    let mut content = vec![0; size];
    match libdeflater::Decompressor::new().gzip_decompress(&gzip, &mut content) {
        Ok(length) if length == size => Ok(Some(content)),
        _ => Ok(None),
    }
}

/// How much memory the content of `file` can need: no more than deflate can make of its data.
fn capacity(file: &File) -> usize {
    let most = file.compressed.saturating_mul(1032).saturating_add(1032);
    usize::try_from(file.size.min(most)).unwrap_or(0)
}

fn too_short() -> ArchiveError {
    ArchiveError::integrity("its content is shorter than declared")
}

/// Inflates `input` to its end.
fn inflate_stream(input: &mut Input, output: &mut Output) -> Result<(), ArchiveError> {
    let mut inflater = Decompress::new(false);
    let mut content = vec![0; OUTPUT.min(usize::try_from(output.size.saturating_add(1)).unwrap_or(OUTPUT))];
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
            let rule = if more { "its data is no deflate stream" } else { "its deflate stream is cut off" };
            return Err(ArchiveError::integrity(rule));
        }
    }
    if !input.held.is_empty() || input.left != 0 {
        return Err(ArchiveError::integrity("its data goes on behind the end of its deflate stream"));
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

impl Input<'_> {
    /// Reads on where everything was consumed. False: there is no more.
    fn fill(&mut self) -> Result<bool, ArchiveError> {
        if self.held.is_empty() {
            let length = self.left.min(self.bytes.len() as u64) as usize;
            if length != 0 {
                self.zip.read_exact_at(&mut self.bytes[..length], self.offset).map_err(ArchiveError::read)?;
            }
            self.offset += length as u64;
            self.left -= length as u64;
            self.held = 0..length;
        }
        Ok(!self.held.is_empty())
    }
}

/// The content of a member, counted and summed on its way.
struct Output<'a> {
    out: &'a mut dyn io::Write,
    written: u64,
    size: u64,
    crc: crc32fast::Hasher,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if bytes.len() as u64 > self.size - self.written {
            return Err(ArchiveError::integrity("its content is longer than declared"));
        }
        self.crc.update(bytes);
        self.out.write_all(bytes).map_err(ArchiveError::write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
