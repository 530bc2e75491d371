//! Writing an archive: equal files give equal bytes, on every machine and day.
//!
//! Entries stand in byte order of their names, all of 1980-01-01, with modes 0644 or 0755, without
//! entries for directories, data descriptors, or extra fields but those of ZIP64, where numbers do
//! not fit into a header. INVARIANT: [`super::index`] accepts what was written.
//!
//! Files up to [`WHOLE`] bytes are read and deflated by several threads, each file at once; larger
//! ones go through in pieces. Memory is bounded by the number of threads, beside the names.

mod records;

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{ArchiveError, Limits, names};
use crate::digest::{Algorithm, Digest, H1, Hasher};
use records::{DEFLATE, Data, STORED, central_header, end_records, header_length, local_header};

/// The largest file that is deflated at once, in bytes.
const WHOLE: u64 = 1 << 20;
/// Threads that deflate small files.
const THREADS: usize = 2;
/// Deflated files that wait for their turn, per thread.
const WAITING: usize = 4;
/// What is written at once.
const PIECE: usize = 256 << 10;
/// How hard deflate tries. Another level gives every archive another digest.
const LEVEL: u32 = 6;

/// A file to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZipEntry<'a> {
    /// The path, with slashes.
    pub name: &'a [u8],
    /// Length of the content, in bytes.
    pub size: u64,
    /// Whether its mode is 0755.
    pub executable: bool,
}

/// Where the content of entries comes from.
pub trait EntryContents: Sync {
    /// The content of the entry of that number. It is read to its end, once.
    ///
    /// # Errors
    /// Whatever makes the archive impossible; it comes back as [`super::Class::Read`].
    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>>;
}

/// Where an archive is written to.
pub trait ArchiveOutput {
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads back what was written.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

/// What an archive became.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenArchive {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Its length, in bytes.
    pub size: u64,
    /// The hash of its files, which is that of the directory it unpacks to as well.
    pub h1: H1,
}

/// Writes an archive of `entries`, which stand in byte order of their names, none twice.
///
/// # Errors
/// [`super::Class::Structure`] and [`super::Class::TooLarge`] for what [`super::index`] would
/// refuse, [`super::Class::Read`] with the error of `contents`, [`super::Class::Write`] with that
/// of `out`.
pub fn write(
    entries: &[ZipEntry],
    contents: &dyn EntryContents,
    out: &dyn ArchiveOutput,
    limits: &Limits,
) -> Result<WrittenArchive, ArchiveError> {
    check(entries, limits)?;
    let threads = THREADS.min(entries.len().max(1));
    thread::scope(|scope| {
        let mut deflated = Vec::new();
        for first in 0..threads {
            let (done, wanted) = sync_channel(WAITING);
            deflated.push(wanted);
            let deflate_all = move || {
                let mut deflater = Deflater::new();
                for number in (first..entries.len()).step_by(threads) {
                    let small = entries[number].size <= WHOLE;
                    // Nobody waits any more where another entry failed.
                    if small
                        && done.send(deflater.deflate(contents, number, &entries[number])).is_err()
                    {
                        return;
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, deflate_all).map_err(ArchiveError::write)?;
        }
        ZipWriter::new(out, limits).write_all(entries, contents, &deflated)
    })
}

/// What the reader would refuse is refused before anything is written.
fn check(entries: &[ZipEntry], limits: &Limits) -> Result<(), ArchiveError> {
    if entries.len() as u64 > limits.entries {
        return Err(ArchiveError::too_large(
            "the number of files",
            entries.len(),
            "entries",
            limits.entries,
        ));
    }
    let mut total = 0u64;
    for (at, entry) in entries.iter().enumerate() {
        let ZipEntry { name, size, .. } = *entry;
        let sound = names::components(name, limits).map_err(|e| e.of(name))?;
        if name.is_empty()
            || sound.join(&b'/') != name
            || name.len() > usize::from(u16::MAX)
            || name.contains(&b'\n')
        {
            let rule =
                "its name is no plain path, or holds a line end, which no lock file can hash";
            return Err(ArchiveError::structure(rule).of(name));
        }
        if at > 0 && entries[at - 1].name >= name {
            return Err(ArchiveError::structure("it does not stand in the order of names").of(name));
        }
        if size > limits.entry {
            return Err(ArchiveError::too_large("its size", size, "entry", limits.entry).of(name));
        }
        total = total.saturating_add(size);
        if total > limits.total {
            let what = "the size of all files up to this one";
            return Err(ArchiveError::too_large(what, total, "total", limits.total).of(name));
        }
    }
    Ok(())
}

/// A small file, ready to be written.
struct Deflated {
    data: Data,
    bytes: Vec<u8>,
}

struct Deflater {
    library: libdeflater::Compressor,
    content: Vec<u8>,
}

impl Deflater {
    fn new() -> Self {
        Deflater {
            library: libdeflater::Compressor::new(libdeflater::CompressionLvl::default()),
            content: Vec::new(),
        }
    }

    fn deflate(
        &mut self,
        contents: &dyn EntryContents,
        number: usize,
        entry: &ZipEntry,
    ) -> Result<Deflated, ArchiveError> {
        self.content.clear();
        let mut source = contents.open(number).map_err(|e| ArchiveError::read(e).of(entry.name))?;
        // One byte more tells a file that has grown.
        source
            .by_ref()
            .take(entry.size + 1)
            .read_to_end(&mut self.content)
            .map_err(|e| ArchiveError::read(e).of(entry.name))?;
        if self.content.len() as u64 != entry.size {
            return Err(changed(entry));
        }
        let mut bytes = vec![0; self.library.deflate_compress_bound(self.content.len())];
        let length = self.library.deflate_compress(&self.content, &mut bytes);
        let method = match length {
            Ok(length) if length < self.content.len() => {
                bytes.truncate(length);
                DEFLATE
            }
            _ => {
                bytes.clear();
                bytes.extend_from_slice(&self.content);
                STORED
            }
        };
        let data = Data {
            method,
            crc32: crc32fast::hash(&self.content),
            compressed: bytes.len() as u64,
            sum: Digest::of(&self.content),
        };
        Ok(Deflated { data, bytes })
    }
}

fn changed(entry: &ZipEntry) -> ArchiveError {
    let error =
        io::Error::other(format!("it no longer has the {} bytes that it had before", entry.size));
    ArchiveError::read(error).of(entry.name)
}

/// An archive in the making.
struct ZipWriter<'a> {
    out: &'a dyn ArchiveOutput,
    limits: &'a Limits,
    hasher: Hasher,
    /// Bytes that were hashed and are not written yet; they follow those before `end`.
    pending: Vec<u8>,
    /// Length of what is written.
    end: u64,
    directory: Vec<u8>,
}

impl<'a> ZipWriter<'a> {
    fn new(out: &'a dyn ArchiveOutput, limits: &'a Limits) -> Self {
        let hasher = Hasher::new(Algorithm::Sha256);
        ZipWriter {
            out,
            limits,
            hasher,
            pending: Vec::with_capacity(2 * PIECE),
            end: 0,
            directory: Vec::new(),
        }
    }

    /// Writes everything; small files come from `deflated`, in turn.
    fn write_all(
        mut self,
        entries: &[ZipEntry],
        contents: &dyn EntryContents,
        deflated: &[Receiver<Result<Deflated, ArchiveError>>],
    ) -> Result<WrittenArchive, ArchiveError> {
        let mut files = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            let start = self.length();
            let data = if entry.size <= WHOLE {
                let small = deflated[number % deflated.len()].recv();
                let ended =
                    |_| ArchiveError::read(io::Error::other("an internal task ended early"));
                let Deflated { data, bytes } = small.map_err(ended)??;
                self.push(&local_header(entry, &data))?;
                self.push(&bytes)?;
                data
            } else {
                self.push_large(entry, contents, number)?
            };
            self.directory.extend(central_header(entry, &data, start));
            files.push((entry.name, data.sum));
        }
        self.finish(entries.len() as u64)?;
        let h1 = H1::of(&files)
            .map_err(|name| ArchiveError::structure("its name holds a line end").of(name))?;
        Ok(WrittenArchive { digest: self.hasher.finish(), size: self.end, h1 })
    }

    /// Length of the archive so far.
    fn length(&self) -> u64 {
        self.end + self.pending.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hasher.update(bytes);
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE { self.flush() } else { self.check_length(self.length()) }
    }

    fn flush(&mut self) -> Result<(), ArchiveError> {
        self.check_length(self.length())?;
        self.out.write_all_at(&self.pending, self.end).map_err(ArchiveError::write)?;
        self.end = self.length();
        self.pending.clear();
        Ok(())
    }

    fn check_length(&self, length: u64) -> Result<(), ArchiveError> {
        if length > self.limits.archive {
            return Err(ArchiveError::too_large(
                "the archive's size",
                length,
                "archive",
                self.limits.archive,
            ));
        }
        Ok(())
    }

    /// Writes a large file: its data first, and its header, which tells the data's length, when
    /// that is known.
    fn push_large(
        &mut self,
        entry: &ZipEntry,
        contents: &dyn EntryContents,
        number: usize,
    ) -> Result<Data, ArchiveError> {
        self.flush()?;
        let mut source = contents.open(number).map_err(|e| ArchiveError::read(e).of(entry.name))?;
        let first = self.end + header_length(entry);
        let mut large = Large::new(self, first);
        let mut piece = vec![0; PIECE];
        loop {
            let got =
                fill(&mut source, &mut piece).map_err(|e| ArchiveError::read(e).of(entry.name))?;
            if large.size + got as u64 > entry.size {
                return Err(changed(entry));
            }
            large.add(&piece[..got])?;
            if got < piece.len() {
                break;
            }
        }
        if large.size != entry.size {
            return Err(changed(entry));
        }
        let (data, end) = large.finish()?;
        self.push(&local_header(entry, &data))?;
        self.flush()?;
        while self.end < end {
            let length = usize::try_from(end - self.end).unwrap_or(PIECE).min(PIECE);
            self.out.read_exact_at(&mut piece[..length], self.end).map_err(ArchiveError::write)?;
            self.hasher.update(&piece[..length]);
            self.end += length as u64;
        }
        Ok(data)
    }

    /// Writes the central directory and the end records.
    fn finish(&mut self, entries: u64) -> Result<(), ArchiveError> {
        let start = self.length();
        let directory = std::mem::take(&mut self.directory);
        self.push(&directory)?;
        let end = self.length();
        self.push(&end_records(entries, start, end))?;
        self.flush()
    }
}

/// The data of a large file, on its way through the compressor.
struct Large<'a, 'b> {
    archive: &'b ZipWriter<'a>,
    packing: Packing,
    out: Vec<u8>,
    at: u64,
    start: u64,
    size: u64,
    crc: crc32fast::Hasher,
    hasher: Hasher,
}

impl<'a, 'b> Large<'a, 'b> {
    fn new(archive: &'b ZipWriter<'a>, start: u64) -> Self {
        Large {
            archive,
            packing: Packing::Undecided,
            out: Vec::with_capacity(PIECE),
            at: start,
            start,
            size: 0,
            crc: crc32fast::Hasher::new(),
            hasher: Hasher::new(Algorithm::Sha256),
        }
    }

    /// Takes the next bytes: a full piece, except at the end.
    fn add(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.size += bytes.len() as u64;
        self.crc.update(bytes);
        self.hasher.update(bytes);
        if let Packing::Undecided = self.packing {
            self.packing = Packing::of(bytes);
        }
        match self.packing {
            Packing::Deflated(_) => self.deflate(bytes, FlushCompress::None),
            _ => self.write(bytes),
        }
    }

    fn deflate(&mut self, mut bytes: &[u8], flush: FlushCompress) -> Result<(), ArchiveError> {
        let broken = || ArchiveError::write(io::Error::other("the compressor failed"));
        loop {
            let Packing::Deflated(compress) = &mut self.packing else { return Ok(()) };
            let before = compress.total_in();
            let status =
                compress.compress_vec(bytes, &mut self.out, flush).map_err(|_| broken())?;
            bytes = &bytes[(compress.total_in() - before) as usize..];
            if self.out.len() == self.out.capacity() || status == Status::StreamEnd {
                let out = std::mem::take(&mut self.out);
                self.write(&out)?;
                self.out = out;
                self.out.clear();
            } else if bytes.is_empty() && matches!(flush, FlushCompress::None) {
                return Ok(());
            }
            if status == Status::StreamEnd {
                return Ok(());
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.archive.check_length(self.at + bytes.len() as u64)?;
        self.archive.out.write_all_at(bytes, self.at).map_err(ArchiveError::write)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// What the headers say, and where the data ends.
    fn finish(mut self) -> Result<(Data, u64), ArchiveError> {
        self.deflate(&[], FlushCompress::Finish)?;
        let method = if matches!(self.packing, Packing::Deflated(_)) { DEFLATE } else { STORED };
        let compressed = self.at - self.start;
        let data =
            Data { method, crc32: self.crc.finalize(), compressed, sum: self.hasher.finish() };
        Ok((data, self.at))
    }
}

/// How the data of a large file is written.
enum Packing {
    /// The first piece is not there yet.
    Undecided,
    Stored,
    Deflated(Compress),
}

impl Packing {
    /// That of data which begins with `first`: stored where deflate gains less than a sixteenth.
    fn of(first: &[u8]) -> Packing {
        let mut probe = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut room = vec![0; first.len() - first.len() / 16];
        match probe.deflate_compress(first, &mut room) {
            Ok(_) => Packing::Deflated(Compress::new(Compression::new(LEVEL), false)),
            Err(_) => Packing::Stored,
        }
    }
}

/// Reads until `buf` is full or the source ends.
fn fill(source: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut held = 0;
    while held < buf.len() {
        match source.read(&mut buf[held..]) {
            Ok(0) => break,
            Ok(got) => held += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(held)
}
