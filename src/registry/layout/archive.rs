//! A store in one tar, read where it lies: nothing is unpacked, and opening it reads the members'
//! headers alone.
//!
//! The file is held by descriptor. INVARIANT: no member's byte is returned once the file was seen
//! to be another one or of another length or time than when it was opened.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::carried::FILE_MAX;
use super::headers::{TarMember, TarMembers};
use super::medium::{CARRIED, Medium, NotOpened, Unreadable};
use crate::digest::Digest;
use crate::disk::piece_at;
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Repo, RepoName};
use crate::oci::layout::LayoutPart;

/// The most members of an archive.
pub const MEMBERS_MAX: usize = 200_000;
/// A directory of a layout that writers use for themselves, and that is passed over.
const OWN: &str = super::directory::OWN;

/// See the module.
#[derive(Debug)]
pub struct LayoutArchive {
    file: OwnedFd,
    identity: Identity,
    /// Where the file's name stands, to see whether it stands for another file by now.
    parent: OwnedFd,
    file_name: PathBuf,
    name: String,
    repositories: BTreeMap<Repo, Files>,
    /// Where it says what it carries, with the digest that its writer noted.
    carried: Option<(MemberExtent, Option<Digest>)>,
}

/// What tells a file from another one, and from itself before it was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    length: i64,
    seconds: i64,
    nanoseconds: u64,
}

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: stat.st_size,
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec,
        }
    }
}

/// Where the content of a member lies.
#[derive(Clone, Copy, Debug)]
struct MemberExtent {
    offset: u64,
    size: u64,
}

/// The files of one layout.
#[derive(Default, Debug)]
struct Files {
    /// With the digest that the archive's writer noted, if one did.
    version: Option<(MemberExtent, Option<Digest>)>,
    index: Option<(MemberExtent, Option<Digest>)>,
    blobs: HashMap<Digest, MemberExtent>,
}

#[derive(Debug)]
pub struct OpenMember {
    name: String,
    extent: MemberExtent,
}

impl LayoutArchive {
    /// Opens the archive `path` and reads the headers of its members.
    ///
    /// # Errors
    /// `Io` where it cannot be read; `Integrity` where it was cut off; `Structure` and `TooLarge`
    /// where it holds anything but image layouts as `HOST/REPOSITORY`, or too much of them.
    pub fn open(path: &Path) -> Result<LayoutArchive, Refusal> {
        let name = format!("oci-archive:{}", path.display());
        let failed = |e: &dyn std::fmt::Display| {
            Refusal::new(Failure::Io, &name, format!("the archive cannot be opened: {e}"))
                .remedy("name a tar that `tofufs bundle` wrote")
        };
        let real = path.canonicalize().map_err(|e| failed(&e))?;
        let (Some(parent), Some(file_name)) = (real.parent(), real.file_name()) else {
            return Err(failed(&Errno::ISDIR));
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // It is not read: nothing of it may be in reach but the file.
        let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, place, Mode::empty()).map_err(|e| failed(&e))?;
        let only_file = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file =
            openat(&parent, file_name, flags | only_file, Mode::empty()).map_err(|e| failed(&e))?;
        let stat = fstat(&file).map_err(|e| failed(&e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(&"it is no regular file"));
        }
        let refused = |(failure, rule): (Failure, String)| {
            let error = Refusal::new(failure, &name, format!("the archive is refused: {rule}"));
            match failure {
                Failure::Integrity => error.remedy("copy it again from where it was made"),
                _ => error,
            }
        };
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let (repositories, carried) =
            read_members(TarMembers::new(&file, length)).map_err(refused)?;
        let identity = Identity::of(&stat);
        Ok(LayoutArchive {
            file,
            identity,
            parent,
            file_name: file_name.into(),
            name,
            repositories,
            carried,
        })
    }

    /// The repositories of which the archive holds a file, sorted.
    pub fn repositories(&self) -> impl Iterator<Item = &Repo> {
        self.repositories.keys()
    }

    /// Refuses to read `member` if the file is not what it was.
    pub(super) fn check(&self, member: &str) -> Result<(), Unreadable> {
        let changed = |what: &str| Unreadable {
            failure: Failure::Io,
            rule: format!("{member} in {} cannot be read: {what} since it was opened", self.name),
            remedy: Some("unmount and mount again"),
        };
        match fstat(&self.file) {
            Ok(stat) if Identity::of(&stat) == self.identity => {}
            Ok(_) => return Err(changed("the archive was changed")),
            Err(e) => return Err(changed(&format!("it went away ({e})"))),
        }
        match statat(&self.parent, &self.file_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if Identity::of(&stat) != self.identity => {
                Err(changed("the archive was replaced by another file"))
            }
            // Removed, but held open here: its bytes are those that were opened.
            _ => Ok(()),
        }
    }

    fn read_at(
        &self,
        member: &str,
        extent: MemberExtent,
        at: u64,
        want: usize,
    ) -> Result<Bytes, Unreadable> {
        self.check(member)?;
        let want = extent.size.saturating_sub(at).min(want as u64) as usize;
        let piece = piece_at(&self.file, want, extent.offset + at).map_err(|e| Unreadable {
            failure: Failure::Io,
            rule: format!("reading {member} in {} failed: {e}", self.name),
            remedy: None,
        })?;
        // What was read may have been written while it was.
        self.check(member)?;
        Ok(piece.into())
    }

    /// Opens a member, if there is one; what its writer noted of it has to be so.
    fn member(
        &self,
        name: String,
        found: Option<(MemberExtent, Option<Digest>)>,
    ) -> Result<(OpenMember, u64), NotOpened> {
        let (extent, noted) = found.ok_or(NotOpened::Missing)?;
        self.check(&name).map_err(NotOpened::Failed)?;
        // Who reads a longer one refuses it.
        if let Some(noted) = noted.filter(|_| extent.size <= FILE_MAX) {
            self.check_document(&name, extent, noted).map_err(NotOpened::Failed)?;
        }
        Ok((OpenMember { name, extent }, extent.size))
    }

    /// Whether a document is what its archive's writer noted, where one did. Nothing else names its
    /// bytes.
    fn check_document(
        &self,
        member: &str,
        extent: MemberExtent,
        noted: Digest,
    ) -> Result<(), Unreadable> {
        let mut hasher = crate::digest::Hasher::new(noted.algorithm());
        let mut at = 0;
        while at < extent.size {
            let piece = self.read_at(member, extent, at, super::PIECE)?;
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        if hasher.finish() == noted {
            return Ok(());
        }
        Err(Unreadable {
            failure: Failure::Integrity,
            rule: format!(
                "{member} in {} is damaged: its bytes are not what the archive notes",
                self.name
            ),
            remedy: Some("copy the archive again from where it was made"),
        })
    }
}

impl Medium for LayoutArchive {
    type Place = Repo;
    type File = OpenMember;

    fn name(&self) -> &str {
        &self.name
    }

    fn hosts(&self) -> Result<Vec<Host>, Refusal> {
        let mut hosts: Vec<Host> = self.repositories.keys().map(|repo| repo.host.clone()).collect();
        hosts.dedup();
        Ok(hosts)
    }

    fn holds(&self, host: &Host) -> bool {
        self.repositories.keys().any(|repo| repo.host == *host)
    }

    fn catalog(&self, host: &Host) -> Result<Vec<RepoName>, Refusal> {
        let layouts = self
            .repositories
            .iter()
            .filter(|(repo, files)| repo.host == *host && files.version.is_some());
        Ok(layouts.map(|(repo, _)| repo.name.clone()).collect())
    }

    fn place(&self, repo: &Repo) -> Result<Repo, NotOpened> {
        if self.repositories.contains_key(repo) {
            Ok(repo.clone())
        } else {
            Err(NotOpened::Missing)
        }
    }

    fn open(&self, place: &Repo, part: LayoutPart) -> Result<(OpenMember, u64), NotOpened> {
        let files = self.repositories.get(place).ok_or(NotOpened::Missing)?;
        let found = match part {
            LayoutPart::Version => files.version,
            LayoutPart::Index => files.index,
            LayoutPart::Blob(digest) => files.blobs.get(&digest).map(|extent| (*extent, None)),
        };
        self.member(format!("{place}/{part}"), found)
    }

    fn open_carried(&self) -> Result<(OpenMember, u64), NotOpened> {
        self.member(CARRIED.to_owned(), self.carried)
    }

    fn list(&self, place: &Repo) -> Result<Vec<(Digest, u64)>, Unreadable> {
        let blobs = self.repositories.get(place).into_iter().flat_map(|files| &files.blobs);
        let mut found: Vec<_> = blobs.map(|(digest, extent)| (*digest, extent.size)).collect();
        found.sort();
        Ok(found)
    }

    fn read(&self, file: &OpenMember, at: u64, want: usize) -> Result<Bytes, Unreadable> {
        self.read_at(&file.name, file.extent, at, want)
    }
}

/// The files of the repositories, and the file that says what is carried.
type ArchiveFiles = (BTreeMap<Repo, Files>, Option<(MemberExtent, Option<Digest>)>);

/// What lies where. Refuses what is no part of a store, and what is there twice.
fn read_members<F: std::os::fd::AsFd>(
    mut members: TarMembers<F>,
) -> Result<ArchiveFiles, (Failure, String)> {
    let (mut repositories, mut carried): ArchiveFiles = Default::default();
    let mut count = 0;
    while let Some(member) = members.next()? {
        count += 1;
        if count > MEMBERS_MAX {
            return Err((
                Failure::TooLarge,
                format!("it has more than {MEMBERS_MAX} members, which is the limit"),
            ));
        }
        let is_carried = member.name == CARRIED;
        if !is_carried && member.name.split('/').any(|component| component == OWN) {
            continue;
        }
        let extent = MemberExtent { offset: member.offset, size: member.size };
        let noted = member.comment.as_ref().and_then(|comment| comment.parse().ok());
        let is_new = if is_carried {
            carried.replace((extent, noted)).is_none()
        } else {
            let (repo, part) = place_of(&member)?;
            let files = repositories.entry(repo).or_default();
            match part {
                LayoutPart::Version => files.version.replace((extent, noted)).is_none(),
                LayoutPart::Index => files.index.replace((extent, noted)).is_none(),
                LayoutPart::Blob(digest) => files.blobs.insert(digest, extent).is_none(),
            }
        };
        if !is_new {
            return Err((
                Failure::Structure,
                format!("the member {:?} is there twice", member.name),
            ));
        }
    }
    Ok((repositories, carried))
}

/// Which file of which repository a member is.
fn place_of(member: &TarMember) -> Result<(Repo, LayoutPart), (Failure, String)> {
    let refuse = |rule: String| Err((Failure::Structure, rule));
    match LayoutPart::split(&member.name) {
        Some(("", _)) => refuse(
            "this is one image layout and no store of them; unpack it as HOST/REPOSITORY of a \
             directory and name that with oci:DIR"
                .to_owned(),
        ),
        Some((path, part)) => match path.parse() {
            Ok(repo) => Ok((repo, part)),
            Err(_) => refuse(format!("the member {:?} lies in no HOST/REPOSITORY", member.name)),
        },
        None => refuse(format!(
            "the member {:?} is no file of an image layout HOST/REPOSITORY",
            member.name
        )),
    }
}
