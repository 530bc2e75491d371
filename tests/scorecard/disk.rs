//! A disk that remembers in which order it was written to and when it was told to sync: a file of a
//! small FUSE file system of its own, with a loop device and ext4 on it.
//!
//! From the record follows what such a disk can hold after the power went at any moment: all that
//! was written before the last sync that it had answered, and any part of what came after it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, WriteFlags,
};

use super::support::skip;
use super::*;

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
/// What a disk writes as a whole or not at all, in bytes.
const SECTOR: usize = 512;

/// What happened to the disk.
enum Event {
    Write { at: usize, bytes: Vec<u8> },
    Sync,
}

#[derive(Default)]
struct Record {
    image: Vec<u8>,
    events: Vec<Event>,
}

struct OneFile(Arc<Mutex<Record>>);

impl OneFile {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, nlink) = match ino {
            FILE => (FileType::RegularFile, 0o600, 1),
            _ => (FileType::Directory, 0o700, 2),
        };
        let size = self.0.lock().unwrap().image.len() as u64;
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&Duration::from_secs(3600), &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(3600), &self.attr(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let record = self.0.lock().unwrap();
        let from = (offset as usize).min(record.image.len());
        let to = (from + size as usize).min(record.image.len());
        reply.data(&record.image[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut record = self.0.lock().unwrap();
        let at = offset as usize;
        match record.image.get_mut(at..at + data.len()) {
            Some(place) => place.copy_from_slice(data),
            None => return reply.error(Errno::ENOSPC),
        }
        record.events.push(Event::Write { at, bytes: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.lock().unwrap().events.push(Event::Sync);
        reply.ok();
    }
}

/// The disk while it is written to. It is unmounted when it is dropped.
pub struct Disk {
    at: PathBuf,
    record: Arc<Mutex<Record>>,
    first: Vec<u8>,
    device: String,
    _session: BackgroundSession,
    _dir: tempfile::TempDir,
}

/// Runs a program of the system; what it printed.
fn system(program: &str, words: &[&OsStr]) -> Result<String, String> {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program).env("PATH", path).args(words).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Disk {
    /// A disk of so many bytes with an empty ext4, mounted at `at`, a directory; `None`, with the
    /// reason printed, where that cannot be had.
    pub fn mounted(bytes: usize, at: &Path) -> Option<Disk> {
        Disk::try_mounted(bytes, at).map_err(|why| skip(&why)).ok()
    }

    fn try_mounted(bytes: usize, at: &Path) -> Result<Disk, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        fs::File::create(&file).unwrap().set_len(bytes as u64).unwrap();
        system("mkfs.ext4", &["-q".as_ref(), "-b".as_ref(), "4096".as_ref(), file.as_ref()])?;
        let first = fs::read(&file).unwrap();
        let record = Record { image: first.clone(), events: Vec::new() };
        let record = Arc::new(Mutex::new(record));
        let point = dir.path().join("fuse");
        fs::create_dir(&point).unwrap();
        let session = fuser::spawn_mount(OneFile(Arc::clone(&record)), &point, &Config::default())
            .map_err(|e| format!("a disk that keeps a record cannot be mounted: {e}"))?;
        let backing = point.join(NAME);
        let device = system("losetup", &["-f".as_ref(), "--show".as_ref(), backing.as_ref()])?;
        let disk = Disk { at: at.to_owned(), record, first, device, _session: session, _dir: dir };
        system("mount", &["-t".as_ref(), "ext4".as_ref(), disk.device.as_ref(), at.as_ref()])?;
        Ok(disk)
    }

    /// How much has happened so far.
    pub fn now(&self) -> usize {
        self.record.lock().unwrap().events.len()
    }

    /// Unmounts it; what was recorded.
    pub fn end(self) -> Recorded {
        system("umount", &[self.at.as_ref()]).unwrap();
        let record = std::mem::take(&mut *self.record.lock().unwrap());
        Recorded { first: self.first.clone(), events: record.events }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        let _ = system("losetup", &["-d".as_ref(), self.device.as_ref()]);
    }
}

/// What a disk went through.
pub struct Recorded {
    first: Vec<u8>,
    events: Vec<Event>,
}

impl Recorded {
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// What the disk may hold when the power goes after the first `count` events: all that was
    /// synced, a random part of what was not, and of one write perhaps its first sectors.
    pub fn after(&self, count: usize, random: &mut fastrand::Rng) -> Vec<u8> {
        let events = &self.events[..count];
        let synced = events.iter().rposition(|e| matches!(e, Event::Sync)).map_or(0, |at| at + 1);
        let mut image = self.first.clone();
        let in_order = random.bool();
        for (number, event) in events.iter().enumerate() {
            let Event::Write { at, bytes } = event else { continue };
            let is_last = number + 1 == count;
            let written = match number < synced || (in_order && !is_last) {
                true => bytes.len(),
                false if random.bool() => bytes.len(),
                false => random.usize(..=bytes.len() / SECTOR) * SECTOR * usize::from(is_last),
            };
            image[*at..at + written].copy_from_slice(&bytes[..written]);
        }
        image
    }
}

/// An image of a disk that is mounted. It is unmounted when it is dropped.
pub struct Replayed(PathBuf);

impl Replayed {
    /// Mounts the image in `file` at `at`.
    pub fn mounted(file: &Path, at: &Path) -> Result<Replayed, String> {
        let words = ["-t", "ext4", "-o", "loop"].map(OsStr::new);
        system("mount", &[&words[..], &[file.as_os_str(), at.as_os_str()]].concat())?;
        Ok(Replayed(at.to_owned()))
    }
}

impl Drop for Replayed {
    fn drop(&mut self) {
        if system("umount", &[self.0.as_ref()]).is_err() {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
