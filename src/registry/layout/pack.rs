//! Writing a store into one tar.
//!
//! The same members in the same order give the same bytes: times, owners and modes are fixed.
//! INVARIANT: what stands under the archive's name is whole at every moment; a new one takes its
//! place by one rename, when all of it is on the disk, and only over the one that was there when it
//! was begun.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, statat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::super::BlobSource;
use super::archive::LayoutArchive;
use super::headers::BLOCK;
use super::medium::CARRIED;
use super::{PIECE, carried};
use crate::digest::{Digest, Hasher};
use crate::disk::draft::{Draft, clean};
use crate::failure::{Failure, Refusal};
use crate::mapping::Carried;
use crate::name::{Repo, Selector};
use crate::oci::layout::LayoutPart;

/// 1980-01-01, the time of everything that has no time of its own.
const TIME: u64 = 315_532_800;

/// A new archive. Nothing is left of it if it is dropped before it is [finished](Packer::finish).
pub struct Packer {
    parent: Arc<OwnedFd>,
    file_name: String,
    name: String,
    draft: Draft,
    before: Option<Arc<LayoutArchive>>,
}

impl Packer {
    /// Begins an archive that takes the place of `before`, where there is one at `path`.
    ///
    /// # Errors
    /// The directory of `path` cannot be written.
    pub async fn create(
        path: &Path,
        before: Option<Arc<LayoutArchive>>,
    ) -> Result<Packer, Refusal> {
        let (path, name) = (path.to_owned(), format!("oci-archive:{}", path.display()));
        let created = on_disk(move || {
            let path = path.canonicalize().unwrap_or(path);
            let (Some(dir), Some(file_name)) =
                (path.parent(), path.file_name().and_then(OsStr::to_str))
            else {
                return Err(Errno::INVAL);
            };
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let parent = rustix::fs::open(
                dir,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let prefix = format!(".{file_name}.");
            clean(&parent, &prefix);
            let draft = Draft::new(rustix::io::fcntl_dupfd_cloexec(&parent, 0)?, &prefix)?;
            Ok((parent, file_name.to_owned(), draft))
        });
        let (parent, file_name, draft) = created.await.map_err(|e| not_written(&name, e))?;
        Ok(Packer { parent: Arc::new(parent), file_name, name, draft, before })
    }

    /// Adds a document that no digest names: its own is noted beside it.
    ///
    /// # Errors
    /// The disk.
    pub async fn document(
        self,
        repo: &Repo,
        part: LayoutPart,
        bytes: Vec<u8>,
    ) -> Result<Packer, Refusal> {
        let header =
            headers(&format!("{repo}/{part}"), bytes.len() as u64, Some(&Digest::of(&bytes)));
        self.write([header, bytes].concat()).await
    }

    /// Adds what the archive says of the providers in it.
    ///
    /// # Errors
    /// It is too large; the disk.
    pub async fn carried(self, carried: &Carried) -> Result<Packer, Refusal> {
        let bytes = carried::document(carried, &self.name)?;
        let header = headers(CARRIED, bytes.len() as u64, Some(&Digest::of(&bytes)));
        self.write([header, bytes].concat()).await
    }

    /// Adds a manifest or another small blob.
    ///
    /// # Errors
    /// The disk.
    pub async fn manifest(
        self,
        repo: &Repo,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Packer, Refusal> {
        let header =
            headers(&format!("{repo}/{}", LayoutPart::Blob(*digest)), bytes.len() as u64, None);
        self.write([&header, bytes].concat()).await
    }

    /// Adds a blob from a source.
    ///
    /// # Errors
    /// `Integrity` where the source has other bytes than `digest` says, `Io` where it cannot be
    /// read; the disk.
    pub async fn blob(
        mut self,
        repo: &Repo,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
    ) -> Result<Packer, Refusal> {
        let subject = repo.at(Selector::Digest(*digest));
        let integrity = |rule: String| Refusal::new(Failure::Integrity, &subject, rule);
        self = self
            .append(headers(&format!("{repo}/{}", LayoutPart::Blob(*digest)), size, None))
            .await?;
        let mut hasher = Box::new(Hasher::new(digest.algorithm()));
        let mut at = 0;
        while at < size {
            let want = (size - at).min(PIECE as u64) as usize;
            let piece = source.read_at(at, want).await.map_err(|e| {
                Refusal::new(
                    Failure::Io,
                    &subject,
                    format!("what is to be stored cannot be read: {e}"),
                )
            })?;
            if piece.is_empty() || piece.len() > want {
                return Err(integrity(format!(
                    "there are not the {size} bytes that its descriptor gives it"
                )));
            }
            at += piece.len() as u64;
            let (packer, hashed) = self.append_hashed(piece, hasher).await?;
            (self, hasher) = (packer, hashed);
        }
        let got = hasher.finish();
        if got != *digest {
            return Err(integrity(format!("the bytes have the digest {got}")));
        }
        self.pad().await
    }

    /// Ends the archive and puts it in its place.
    ///
    /// # Errors
    /// Another archive came to stand there meanwhile; the disk.
    pub async fn finish(self) -> Result<(), Refusal> {
        let Packer { parent, file_name, name, mut draft, before } = self;
        let subject = name.clone();
        let finished = on_disk(move || {
            draft.write(&[0; 2 * BLOCK as usize])?;
            let is_there = statat(&parent, &file_name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            let is_same = match &before {
                Some(before) => before.check(&file_name).is_ok(),
                None => !is_there,
            };
            if is_same { draft.publish(&parent, &file_name).map(|()| true) } else { Ok(false) }
        });
        match finished.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(
                Failure::Io,
                &subject,
                "another program wrote it at the same time",
            )
            .remedy("do this again, to add to what is there now")),
            Err(e) => Err(not_written(&name, e)),
        }
    }

    async fn write(self, bytes: Vec<u8>) -> Result<Packer, Refusal> {
        self.append(bytes).await?.pad().await
    }

    async fn pad(self) -> Result<Packer, Refusal> {
        let missing = self.draft.written().next_multiple_of(BLOCK) - self.draft.written();
        self.append(vec![0; missing as usize]).await
    }

    async fn append(self, bytes: Vec<u8>) -> Result<Packer, Refusal> {
        let name = self.name.clone();
        let mut packer = self;
        on_disk(move || packer.draft.write(&bytes).map(|()| packer))
            .await
            .map_err(|e| not_written(&name, e))
    }

    async fn append_hashed(
        self,
        piece: bytes::Bytes,
        mut hasher: Box<Hasher>,
    ) -> Result<(Packer, Box<Hasher>), Refusal> {
        let name = self.name.clone();
        let mut packer = self;
        let written = on_disk(move || {
            hasher.update(&piece);
            packer.draft.write(&piece).map(|()| (packer, hasher))
        });
        written.await.map_err(|e| not_written(&name, e))
    }
}

/// Runs `work` on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> Result<T, Errno> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Errno::IO))
}

fn not_written(name: &str, e: Errno) -> Refusal {
    match e {
        Errno::NOSPC | Errno::DQUOT => {
            Refusal::new(Failure::NoSpace, name, format!("the disk of the archive is full: {e}"))
                .remedy("free space there, and try again: what stood there before still does")
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Refusal::new(Failure::Denied, name, format!("the archive cannot be written: {e}"))
        }
        e => Refusal::new(Failure::Io, name, format!("writing the archive failed: {e}")),
    }
}

/// The header of a regular file, behind one of its own for what does not fit into it.
fn headers(name: &str, size: u64, noted: Option<&Digest>) -> Vec<u8> {
    /// The largest size of twelve octal digits.
    const SIZE_MAX: u64 = (8 << 30) - 1;
    let mut records = String::new();
    let mut plain = header(EntryType::Regular, size.min(SIZE_MAX));
    if plain.set_path(name).is_err() {
        plain = header(EntryType::Regular, size.min(SIZE_MAX));
        plain.as_old_mut().name[..4].copy_from_slice(b"long");
        record(&mut records, "path", name);
    }
    if let Some(noted) = noted {
        record(&mut records, "comment", &noted.to_string());
    }
    if size > SIZE_MAX {
        record(&mut records, "size", &size.to_string());
    }
    plain.set_cksum();
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let mut extended = header(EntryType::XHeader, records.len() as u64);
        extended.as_old_mut().name[..3].copy_from_slice(b"pax");
        extended.set_cksum();
        bytes.extend_from_slice(extended.as_bytes());
        bytes.extend_from_slice(records.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    }
    bytes.extend_from_slice(plain.as_bytes());
    bytes
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size);
    header
}

/// One record of an extended header: `LENGTH KEY=VALUE`, where the length counts itself.
fn record(records: &mut String, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    records.push_str(&format!("{length} {key}={value}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for (value, wanted) in
            [("x", "9 path=x\n"), ("xy", "11 path=xy\n"), (&"y".repeat(91), "101 path=")]
        {
            let mut records = String::new();
            record(&mut records, "path", value);
            assert!(records.starts_with(wanted), "{records}");
            assert_eq!(records.split(' ').next().unwrap().parse(), Ok(records.len()));
        }
    }
}
