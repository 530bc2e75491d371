//! What the writer makes: the same bytes for the same files, and nothing that the reader would
//! refuse.

use std::io::{self, Read};

use parking_lot::Mutex;

use super::*;
use crate::archive::{self, ArchiveOutput, ReadAt, WrittenArchive, ZipEntry, hashes, write};
use crate::digest::Digest;
use crate::skip::skip;

#[derive(Default)]
struct Memory(Mutex<Vec<u8>>);

impl ArchiveOutput for Memory {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut memory, at) = (self.0.lock(), offset as usize);
        if memory.len() < at + bytes.len() {
            memory.resize(at + bytes.len(), 0xee);
        }
        memory[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.lock().read_exact_at(buf, offset)
    }
}

/// `(name, content, executable)`
type Files = Vec<(Vec<u8>, Vec<u8>, bool)>;

struct Source<'a>(&'a Files);

impl archive::EntryContents for Source<'_> {
    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.0[number].1.as_slice()))
    }
}

fn entries(files: &Files) -> Vec<ZipEntry<'_>> {
    files
        .iter()
        .map(|(name, content, x)| ZipEntry { name, size: content.len() as u64, executable: *x })
        .collect()
}

fn written_within(
    files: &Files,
    limits: &Limits,
) -> Result<(WrittenArchive, Vec<u8>), ArchiveError> {
    let out = Memory::default();
    let written = write(&entries(files), &Source(files), &out, limits)?;
    Ok((written, out.0.into_inner()))
}

fn written(files: &Files) -> (WrittenArchive, Vec<u8>) {
    let (written, zip) = written_within(files, &Limits::default()).unwrap();
    assert_eq!((written.size, written.digest), (zip.len() as u64, Digest::of(&zip)));
    (written, zip)
}

/// Bytes of which deflate saves half.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..16)).collect()
}

fn some_files() -> Files {
    let mut files: Files = vec![
        (b"README.md".to_vec(), b"# A module\n".repeat(40), false),
        (b"bin/run".to_vec(), b"#!/bin/sh\n".to_vec(), true),
        (b"empty".to_vec(), vec![], false),
        (b"large".to_vec(), noise(3_000_000, 1), false),
        (
            b"large.bin".to_vec(),
            (0..2_500_000).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            true,
        ),
        (b"main.tf".to_vec(), b"resource \"x\" \"y\" {}\n".to_vec(), false),
        (vec![b'n', 0xff, b'x'], b"a name that is no UTF-8".to_vec(), false),
        ("z/ü".into(), b"u".to_vec(), false),
    ];
    let mut random = fastrand::Rng::with_seed(2);
    files[4].1.iter_mut().for_each(|byte| *byte = random.u8(..));
    files
}

/// A change of this digest gives every module that was ever published another digest.
#[test]
fn an_archive_has_the_bytes_that_it_always_had() {
    let (made, zip) = written(&some_files());
    assert_eq!(
        made.digest.to_string(),
        "sha256:328d96d1bdfaf71722b8da16ebde1bf3b530f2cfb8a45c675b4e4e18c1c5aebc"
    );
    assert_eq!(made.h1.to_string(), "h1:AP0v7xJJfFjwAArBUemQC7sM/B1qynBaoVaGqFuIpVA=");
    for _ in 0..3 {
        assert!(written(&some_files()).1 == zip);
    }
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let files = some_files();
    let (made, zip) = written(&files);
    let read = contents(&zip).unwrap();
    let expected: super::Contents =
        files.iter().map(|(name, content, x)| (name.clone(), (content.clone(), *x))).collect();
    assert!(read.into_iter().filter(|(path, _)| !path.ends_with(b"/")).eq(expected));
    let members = index(&zip, &Limits::default()).unwrap();
    let hashes = hashes(&zip, &members, &Limits::default()).unwrap();
    assert_eq!((hashes.directory, hashes.archive), (made.h1, made.h1));
    let methods: Vec<_> =
        tree(&zip).unwrap().into_values().flatten().map(|f| (f.size, f.method)).collect();
    assert!(methods.contains(&(3_000_000, crate::members::Method::Deflate)));
    assert!(methods.contains(&(2_500_000, crate::members::Method::Stored)));
}

#[test]
fn other_programs_read_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.zip");
    std::fs::write(&path, written(&some_files()).1).unwrap();
    match std::process::Command::new("unzip").arg("-t").arg(&path).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(e) => skip(&format!("unzip: {e}")),
    }
}

#[test]
fn more_files_than_the_plain_end_record_counts() {
    let files: Files =
        (0..66_000).map(|n| (format!("{n:06}").into_bytes(), vec![], false)).collect();
    assert_eq!(tree(&written(&files).1).unwrap().len(), 66_000);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let one = |name: &[u8]| vec![(name.to_vec(), b"x".to_vec(), false)];
    for name in
        [&b"../x"[..], b"/x", b"a//b", b"./a", b"a\\..\\b", b"a\nb", b"", b"a/", &[b'x'; 256]]
    {
        assert!(written_within(&one(name), &Limits::default()).is_err(), "{}", name.escape_ascii());
    }
    for order in [[b"b", b"a"], [b"a", b"a"]] {
        let files = order.iter().map(|name| (name.to_vec(), vec![], false)).collect();
        assert!(written_within(&files, &Limits::default()).is_err());
    }
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let files = some_files();
    for (limits, name) in [
        (limits(|l| l.entries = 7), "(entries)"),
        (limits(|l| l.entry = 2_999_999), "(entry;"),
        (limits(|l| l.total = 5_000_000), "(total)"),
        (limits(|l| l.archive = 3_000_000), "(archive;"),
        (limits(|l| l.archive = 1_000), "(archive;"),
    ] {
        let error = written_within(&files, &limits).unwrap_err();
        assert!(
            matches!(error.class(), Class::TooLarge) && error.to_string().contains(name),
            "{error}"
        );
    }
}

/// A file that is shorter or longer than it was, and one that cannot be read, end the archive.
#[test]
fn a_file_that_changes_ends_the_archive() {
    for at in [0, 3] {
        let files = some_files();
        for change in [1i64, -1] {
            let mut entries = entries(&files);
            entries[at].size = entries[at].size.checked_add_signed(change).unwrap();
            let error = write(&entries, &Source(&files), &Memory::default(), &Limits::default())
                .unwrap_err();
            assert!(
                matches!(error.class(), Class::Read(_)) && error.to_string().contains("no longer"),
                "{error}"
            );
        }
        struct Broken(usize);
        impl archive::EntryContents for Broken {
            fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
                if number == self.0 {
                    Err(io::Error::other("it is gone"))
                } else {
                    Ok(Box::new(io::repeat(0)))
                }
            }
        }
        let entries: Vec<_> = entries(&files)[at..=at].to_vec();
        let error =
            write(&entries, &Broken(0), &Memory::default(), &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("it is gone") && error.entry().is_some(), "{error}");
    }
}

/// Archives and files beyond 4 GiB. Zeros are holes on disk, and need not be held in memory.
mod beyond {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file in which no zeros are written.
    struct Sparse(File);

    impl ArchiveOutput for Sparse {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let end = offset + bytes.len() as u64;
            if self.0.metadata()?.len() < end {
                self.0.set_len(end)?;
            }
            if bytes.iter().all(|byte| *byte == 0) {
                Ok(())
            } else {
                self.0.write_all_at(bytes, offset)
            }
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_exact_at(buf, offset)
        }
    }

    impl ReadAt for Sparse {
        fn len(&self) -> u64 {
            self.0.metadata().unwrap().len()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_exact_at(buf, offset)
        }
    }

    const DEFLATED: u64 = 5 << 30;
    const STORED: u64 = 4 << 30;

    /// A file of zeros, one that begins with what cannot be deflated, and one that lies beyond 4
    /// GiB.
    struct Huge(Vec<u8>);

    impl archive::EntryContents for Huge {
        fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
            Ok(match number {
                0 => Box::new(io::repeat(0).take(DEFLATED)),
                1 => Box::new(
                    self.0.as_slice().chain(io::repeat(0).take(STORED - self.0.len() as u64)),
                ),
                _ => Box::new(&b"last"[..]),
            })
        }
    }

    /// Takes a minute, so it is for those who ask for it with `TOFUFS_LARGE_MIB`.
    #[test]
    fn what_lies_beyond_four_gibibytes_is_written_so_that_all_readers_find_it() {
        if std::env::var_os("TOFUFS_LARGE_MIB").is_none() {
            return skip("TOFUFS_LARGE_MIB is not set");
        }
        let mut random = fastrand::Rng::with_seed(1);
        let huge = Huge((0..1 << 20).map(|_| random.u8(..)).collect());
        let entries = [(b"a", DEFLATED), (b"b", STORED), (b"c", 4)];
        let entries = entries.map(|(name, size)| ZipEntry { name, size, executable: false });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.zip");
        let out =
            Sparse(File::options().create_new(true).read(true).write(true).open(&path).unwrap());
        let limits = Limits::up_to(8 << 30, 5 << 30);
        let error = write(&entries, &huge, &out, &limits).unwrap_err();
        assert!(error.to_string().contains("(total)"), "{error}");
        let limits = Limits::up_to(16 << 30, 5 << 30);
        let made = write(&entries, &huge, &out, &limits).unwrap();
        assert!(made.size > STORED && made.size < STORED + (16 << 20), "{}", made.size);

        let members = index(&out, &limits).unwrap();
        let mut all = Tree::new();
        walk(&members, TOP, b"", &mut all);
        let file = |name: &[u8]| all[name].unwrap();
        assert_eq!((file(b"a").size, file(b"b").size), (DEFLATED, STORED));
        assert!(file(b"c").offset > STORED);
        assert_eq!(inflate(&out, &file(b"c")).unwrap(), b"last");
        extract(&out, &file(b"b"), &mut io::sink()).unwrap();

        const SCRIPT: &str = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
            print([i.file_size for i in z.infolist()], z.read('c'))";
        let python = std::process::Command::new("python3").args(["-c", SCRIPT]).arg(&path).output();
        let said = format!("[{DEFLATED}, {STORED}, 4] b'last'\n");
        assert_eq!(String::from_utf8(python.unwrap().stdout).unwrap(), said);
        let unzip = std::process::Command::new("unzip").args(["-p"]).arg(&path).arg("c").output();
        assert_eq!(unzip.unwrap().stdout, b"last");
    }
}
