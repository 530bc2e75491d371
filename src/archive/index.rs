//! The strict index: central directory against every local header, and every byte of the archive
//! accounted for.
//!
//! An archive that is accepted consists of, in this order and without a gap: entries (local header,
//! data, data descriptor where announced), the central directory, the end records. Each entry
//! stands in both places and both agree, so that no reader can see another tree in it.

use super::headers::{
    CENTRAL_LENGTH, Central, Common, FLAG_DESCRIPTOR, FLAG_UTF8, FLAGS_EFFORT, FLAGS_ENCRYPTION,
    LOCAL_LENGTH, Local, Sizes, central_length, is_descriptor, is_split_mark, local_length,
};
use super::window::Window;
use super::{ArchiveError, Class, HashingSink, Limits, ReadAt, end, names, read};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::members::{Builder, Conflict, FileNo, MemberFile, Members, Method};

/// The most data a directory entry may have: an empty deflate stream, as some writers make it.
const EMPTY_STREAM: u64 = 64;

/// The tree that OpenTofu's extractor would make of `zip`.
///
/// Everything but the members' content is checked: structure, names, declared sizes against
/// `limits`. Entries that stand in the archive twice with the same content count once, for which
/// their content is read. That empty files are empty is checked as well.
///
/// # Errors
/// Every class but [`Class::Write`]; [`Class::Integrity`] only for the content of entries that
/// stand there twice or are declared empty.
pub fn index(zip: &dyn ReadAt, limits: &Limits) -> Result<Members, ArchiveError> {
    if zip.len() > limits.archive {
        return Err(ArchiveError::too_large(
            "the archive's size",
            zip.len(),
            "archive",
            limits.archive,
        ));
    }
    let directory = end::locate(zip, limits)?;
    let mut indexer = Indexer {
        zip,
        limits,
        most: limits.total.max(zip.len().saturating_mul(limits.ratio)),
        total: 0,
        locals: Window::new(zip),
        directory_start: directory.start,
        extents: Vec::new(),
        members: Builder::new(),
        written_once: Vec::new(),
        empty_files: Vec::new(),
        twice: Vec::new(),
    };
    for_each_of(zip, &directory, &mut |entry| indexer.add(entry))?;
    indexer.check_extents()?;
    // The tree takes its final form in the memory that the extents held.
    drop(std::mem::take(&mut indexer.extents));
    indexer.check_empty_files()?;
    indexer.check_twice()?;
    Ok(indexer.members.finish())
}

/// Calls `take` for each entry of the central directory, in its order; an error of it gets the
/// entry's name.
pub(super) fn for_each(
    zip: &dyn ReadAt,
    limits: &Limits,
    take: &mut dyn FnMut(&Central) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    for_each_of(zip, &end::locate(zip, limits)?, take)
}

fn for_each_of(
    zip: &dyn ReadAt,
    directory: &end::CentralDirectory,
    take: &mut dyn FnMut(&Central) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut headers = Window::new(zip);
    let mut at = directory.start;
    for _ in 0..directory.entries {
        let broken = || {
            ArchiveError::structure(
                "the central directory has fewer entries than the end record declares",
            )
        };
        let room = directory.end - at;
        let fixed = headers
            .get(at, CENTRAL_LENGTH)?
            .filter(|_| CENTRAL_LENGTH as u64 <= room)
            .ok_or_else(broken)?;
        let length =
            central_length(fixed).filter(|length| *length as u64 <= room).ok_or_else(broken)?;
        let record = headers.get(at, length)?.ok_or_else(broken)?;
        let entry = Central::parse(record)?;
        take(&entry).map_err(|error| error.of(entry.common.name))?;
        at += length as u64;
    }
    if at != directory.end {
        return Err(ArchiveError::structure(
            "the central directory holds more than the entries it declares",
        ));
    }
    Ok(())
}

/// The bytes of one entry before the central directory.
struct EntryExtent {
    /// Offset of the local header.
    start: u64,
    /// Offset behind the data.
    end: u64,
    sizes: Sizes,
    /// Whether a data descriptor follows.
    descriptor: bool,
    /// Whether the central directory marks both sizes.
    wide_sizes: bool,
}

/// The state of one pass over the central directory.
struct Indexer<'a> {
    zip: &'a dyn ReadAt,
    limits: &'a Limits,
    /// The most bytes that all entries may declare together.
    most: u64,
    total: u64,
    locals: Window<'a>,
    directory_start: u64,
    extents: Vec<EntryExtent>,
    members: Builder,
    /// Files whose mode does not let OpenTofu write over them, in the order of their numbers.
    written_once: Vec<FileNo>,
    /// Files that are empty as declared, and deflated or with a CRC: where they stand. They are
    /// checked here, since who reads an empty file asks nobody for its content.
    empty_files: Vec<(u64, MemberFile)>,
    /// Files whose path was there before, to be compared once it is known that no extents overlap:
    /// before, comparing could cost far more than reading the archive.
    twice: Vec<(FileNo, MemberFile, Box<[u8]>)>,
}

impl Indexer<'_> {
    /// Adds one entry of the central directory.
    fn add(&mut self, entry: &Central) -> Result<(), ArchiveError> {
        if entry.disk != 0 {
            return Err(ArchiveError::unsupported("it stands on another disk of a split archive"));
        }
        let method = method_of(&entry.common)?;
        let sizes = entry.common.sizes;
        self.count(sizes)?;
        let path = names::components(entry.common.name, self.limits)?;
        let offset = self.data_offset(entry)?;
        let end = offset
            .checked_add(sizes.compressed)
            .filter(|end| *end <= self.directory_start)
            .ok_or_else(|| {
            ArchiveError::structure("its data runs into the central directory")
        })?;
        let descriptor = entry.common.flags & FLAG_DESCRIPTOR != 0;
        let wide_sizes = entry.common.wide_sizes;
        self.extents.push(EntryExtent { start: entry.offset, end, sizes, descriptor, wide_sizes });
        let file = MemberFile {
            size: sizes.size,
            compressed: sizes.compressed,
            offset,
            crc32: sizes.crc32,
            method,
            executable: entry.is_executable(),
            modified: entry.modified(),
        };
        if entry.is_directory() {
            self.check_empty(&file)?;
            self.members.directory(path).map_err(conflict)?;
            return Ok(());
        }
        if path.is_empty() {
            return Err(ArchiveError::structure(
                "it is a file in the place of the archive's top directory",
            ));
        }
        if file.size == 0 && (method == Method::Deflate || file.crc32 != 0) {
            self.empty_files.push((entry.offset, file));
        }
        match self.members.file(path, file) {
            Ok(_) if entry.is_writable() => {}
            Ok(no) => self.written_once.push(no),
            Err(Conflict::Twice(before))
                if !entry.is_writable() || self.written_once.binary_search(&before).is_ok() =>
            {
                let rule = "it stands in the archive twice, with a mode that lets OpenTofu write \
                     it only once";
                return Err(ArchiveError::structure(rule));
            }
            Err(Conflict::Twice(before)) => {
                self.twice.push((before, file, entry.common.name.into()))
            }
            Err(other) => return Err(conflict(other)),
        }
        Ok(())
    }

    /// Holds declared sizes against the limits.
    fn count(&mut self, sizes: Sizes) -> Result<(), ArchiveError> {
        if sizes.size > self.limits.entry {
            return Err(ArchiveError::too_large(
                "its size",
                sizes.size,
                "entry",
                self.limits.entry,
            ));
        }
        self.total = self.total.saturating_add(sizes.size);
        if self.total > self.most {
            let what = "the size of all entries up to this one";
            let limit =
                format!("{} or {} times the archive's size", self.limits.total, self.limits.ratio);
            return Err(ArchiveError::too_large(what, self.total, "total and ratio", limit));
        }
        Ok(())
    }

    /// Checks the local header of `entry` against it: the offset of the data.
    fn data_offset(&mut self, entry: &Central) -> Result<u64, ArchiveError> {
        let missing =
            || ArchiveError::structure("it has no local header where the central directory says");
        let room = self.directory_start.checked_sub(entry.offset).ok_or_else(missing)?;
        let fixed =
            self.locals.get(entry.offset, LOCAL_LENGTH)?.filter(|_| LOCAL_LENGTH as u64 <= room);
        let length = fixed
            .and_then(local_length)
            .filter(|length| *length as u64 <= room)
            .ok_or_else(missing)?;
        let local = Local::parse(self.locals.get(entry.offset, length)?.ok_or_else(missing)?)?;

        let (here, there) = (&local.common, &entry.common);
        let mut indifferent = FLAGS_EFFORT;
        if there.name.is_ascii() {
            indifferent |= FLAG_UTF8;
        }
        let disagree = |what: &str| {
            ArchiveError::structure(format!(
                "its {what} differs between local header and central directory"
            ))
        };
        if here.name != there.name {
            return Err(disagree("name"));
        }
        if here.method != there.method {
            return Err(disagree("compression method"));
        }
        if (here.flags ^ there.flags) & !indifferent != 0 {
            return Err(disagree("flag word"));
        }
        if !local.agrees(there.sizes, there.flags & FLAG_DESCRIPTOR != 0) {
            return Err(disagree("CRC or size"));
        }
        if here.has_other_name() || there.has_other_name() {
            let rule = "its Unicode-Path field gives another name, which OpenTofu ignores; pack it \
                 with names in UTF-8";
            return Err(ArchiveError::structure(rule));
        }
        Ok(entry.offset + length as u64)
    }

    /// Whether a directory entry has no content.
    fn check_empty(&self, entry: &MemberFile) -> Result<(), ArchiveError> {
        let empty = match entry.compressed {
            0 => entry.size == 0,
            1..=EMPTY_STREAM if entry.size == 0 => match read::inflate(self.zip, entry) {
                Ok(_) => true,
                Err(error) if matches!(error.class(), Class::Integrity) => false,
                Err(error) => return Err(error),
            },
            _ => false,
        };
        if empty { Ok(()) } else { Err(ArchiveError::structure("it is a directory with content")) }
    }

    /// Checks that the entries cover everything before the central directory, each byte once.
    fn check_extents(&mut self) -> Result<(), ArchiveError> {
        self.extents.sort_unstable_by_key(|extent| extent.start);
        let first = self.extents.first().map_or(0, |extent| extent.start);
        if first != 0 {
            if self.locals.get(0, 4)?.is_some_and(is_split_mark) {
                return Err(ArchiveError::unsupported("the archive is split over several files"));
            }
            return Err(ArchiveError::structure("there are bytes before the first entry"));
        }
        for at in 0..self.extents.len() {
            let EntryExtent { start, end, sizes, descriptor, wide_sizes } = self.extents[at];
            let next = self.extents.get(at + 1).map_or(self.directory_start, |extent| extent.start);
            let rule = match next.checked_sub(end) {
                None => Some("it overlaps the next entry"),
                Some(0) if !descriptor => None,
                Some(_) if !descriptor => Some("behind its data are bytes that belong to no entry"),
                Some(gap @ 1..=24)
                    if self
                        .locals
                        .get(end, gap as usize)?
                        .is_some_and(|bytes| is_descriptor(bytes, sizes, wide_sizes)) =>
                {
                    None
                }
                Some(_) => Some(
                    "behind its data is not the data descriptor that agrees with the central \
                     directory",
                ),
            };
            if let Some(rule) = rule {
                return Err(self.at(start, ArchiveError::structure(rule)));
            }
        }
        Ok(())
    }

    /// `error` with the name of the entry whose local header, checked before, stands at `start`.
    fn at(&mut self, start: u64, error: ArchiveError) -> ArchiveError {
        let Ok(Some(length)) =
            self.locals.get(start, LOCAL_LENGTH).map(|fixed| fixed.and_then(local_length))
        else {
            return error;
        };
        match self.locals.get(start, length).map(|record| record.map(Local::parse)) {
            Ok(Some(Ok(local))) => error.of(local.common.name),
            _ => error,
        }
    }

    /// Checks that files are empty that say so.
    fn check_empty_files(&mut self) -> Result<(), ArchiveError> {
        for (start, file) in std::mem::take(&mut self.empty_files) {
            read::inflate(self.zip, &file).map_err(|error| self.at(start, error))?;
        }
        Ok(())
    }

    /// Checks that files of one path have one content. No data is read twice for it.
    fn check_twice(&mut self) -> Result<(), ArchiveError> {
        let look = |file: &MemberFile| (file.size, file.crc32, file.executable);
        self.twice.sort_by_key(|(before, ..)| *before);
        let mut known = None;
        for (no, again, name) in &self.twice {
            let before = self.members.added(*no);
            let mut same = look(before) == look(again);
            if same {
                let digest = match known {
                    Some((known, digest)) if known == *no => digest,
                    _ => self.digest(before).map_err(|error| error.of(name))?,
                };
                known = Some((*no, digest));
                same = self.digest(again).map_err(|error| error.of(name))? == digest;
            }
            if !same {
                let rule = "it stands in the archive twice, with different content or mode";
                return Err(ArchiveError::structure(rule).of(name));
            }
        }
        Ok(())
    }

    fn digest(&self, file: &MemberFile) -> Result<Digest, ArchiveError> {
        let mut sink = HashingSink(Hasher::new(Algorithm::Sha256));
        read::extract(self.zip, file, &mut sink)?;
        Ok(sink.0.finish())
    }
}

/// What a header may say by itself: its compression method.
pub(super) fn method_of(common: &Common) -> Result<Method, ArchiveError> {
    if common.flags & FLAGS_ENCRYPTION != 0 {
        return Err(ArchiveError::unsupported("it is encrypted"));
    }
    let unknown = common.flags & !(FLAGS_EFFORT | FLAG_DESCRIPTOR | FLAG_UTF8);
    if unknown != 0 {
        return Err(ArchiveError::structure(format!(
            "it has patch or reserved flag bits set ({unknown:#06x})"
        )));
    }
    match common.method {
        0 if common.sizes.compressed != common.sizes.size => {
            Err(ArchiveError::structure("it is stored as it is, yet its two sizes differ"))
        }
        0 => Ok(Method::Stored),
        8 => Ok(Method::Deflate),
        99 => Err(ArchiveError::unsupported("it is encrypted")),
        other => Err(ArchiveError::unsupported(format!(
            "its compression method is {other}; OpenTofu reads only 0 (stored) and 8 (deflate)"
        ))),
    }
}

fn conflict(conflict: Conflict) -> ArchiveError {
    ArchiveError::structure(conflict.to_string())
}
