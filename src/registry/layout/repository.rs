//! One image layout: its documents and blobs, read from whatever holds them.

use std::time::Duration;

use serde::de::IgnoredAny;

use super::super::{DocumentKind, RawManifest};
use super::PIECE;
use super::medium::{Medium, NotOpened, Unreadable};
use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Repo, Selector, Tag};
use crate::oci::layout::{
    INDEX_FILE, INDEX_FILE_MAX, LAYOUT_FILE, LAYOUT_FILE_MAX, LayoutPart, check_version, entries,
    tag_of,
};
use crate::oci::referrer::{listed, referrers_tag};
use crate::oci::{Descriptor, DocumentError, MANIFEST_MAX, Manifest};

/// How often, and after which pause, a document that breaks off is read again.
const REREADS: u32 = 25;
const REREAD_PAUSE: Duration = Duration::from_millis(10);

/// One image layout of a version that is known.
pub(super) struct Repository<'a, M: Medium> {
    pub(super) medium: &'a M,
    pub(super) repo: Repo,
    pub(super) place: M::Place,
}

impl<'a, M: Medium> Repository<'a, M> {
    /// The layout of `repo`. `Absent` where there is none.
    pub(super) fn open(medium: &'a M, repo: &Repo) -> Result<Self, Refusal> {
        let absent = |what| {
            Refusal::new(Failure::Absent, repo, format!("{what} in the store {}", medium.name()))
                .remedy("list the repository's parent to see what the store holds")
        };
        let place = match medium.place(repo) {
            Ok(place) => place,
            Err(NotOpened::Missing) => return Err(absent("there is no such repository")),
            Err(e) => return Err(not_opened(medium, repo, "the directory", e)),
        };
        let repository = Repository { medium, repo: repo.clone(), place };
        match repository.document(LayoutPart::Version)? {
            Some(version) => {
                check_version(&version).map_err(|e| repository.refused(LAYOUT_FILE, e))?
            }
            None => return Err(absent("the directory is no image layout (it has no oci-layout)")),
        }
        Ok(repository)
    }

    /// The content of a document, at most `max` bytes and one, and its length. Some programs
    /// (skopeo) write a document anew in its place, so one that breaks off is read again for a
    /// while.
    fn text(&self, part: LayoutPart, max: u64) -> Result<(Vec<u8>, u64), NotOpened> {
        let mut rereads = 0;
        loop {
            let (file, length) = self.medium.open(&self.place, part)?;
            let bytes = up_to(self.medium, &file, max + 1).map_err(NotOpened::Failed)?;
            if rereads == REREADS || !breaks_off(&bytes) {
                let read = bytes.len() as u64;
                return Ok((bytes, if read > max { length.max(read) } else { read }));
            }
            rereads += 1;
            std::thread::sleep(REREAD_PAUSE);
        }
    }

    /// The whole content of one of the layout's own documents; `None` where it is missing.
    pub(super) fn document(&self, part: LayoutPart) -> Result<Option<Vec<u8>>, Refusal> {
        let max = match part {
            LayoutPart::Version => LAYOUT_FILE_MAX,
            LayoutPart::Index => INDEX_FILE_MAX,
            LayoutPart::Blob(_) => MANIFEST_MAX,
        };
        let name = part.to_string();
        let bytes = match self.text(part, max) {
            Ok((bytes, _)) => bytes,
            Err(NotOpened::Missing) => return Ok(None),
            Err(e) => return Err(not_opened(self.medium, &self.repo, &name, e)),
        };
        if bytes.len() as u64 > max {
            let rule = format!("the file has more than {max} bytes, which is the limit");
            return Err(self.refused(&name, DocumentError::TooLarge(rule)));
        }
        Ok(Some(bytes))
    }

    pub(super) fn refused(&self, file: &str, e: DocumentError) -> Refusal {
        let rule = format!("{file} in the store {} is refused: {e}", self.medium.name());
        Refusal { rule, ..e.about(&self.repo) }
    }

    pub(super) fn list(&self) -> Result<Vec<(Digest, u64)>, Refusal> {
        self.medium.list(&self.place).map_err(|e| e.about(&self.repo))
    }

    pub(super) fn entries(&self) -> Result<Vec<Descriptor>, Refusal> {
        let Some(bytes) = self.document(LayoutPart::Index)? else {
            return Err(
                self.refused(INDEX_FILE, DocumentError::Structure("the file is missing".into()))
            );
        };
        entries(&bytes).map_err(|e| self.refused(INDEX_FILE, e))
    }

    /// The one manifest that `tag` stands for.
    pub(super) fn tagged(&self, tag: &Tag) -> Result<Descriptor, Refusal> {
        let subject = self.repo.clone().at(Selector::Tag(tag.clone()));
        let mut found =
            self.entries()?.into_iter().filter(|entry| tag_of(entry).as_ref() == Some(tag));
        let Some(first) = found.next() else {
            let rule = format!("{INDEX_FILE} in the store {} has no such tag", self.medium.name());
            return Err(Refusal::new(Failure::Absent, subject, rule));
        };
        match found.find(|other| other.digest != first.digest) {
            None => Ok(first),
            Some(other) => {
                let rule = format!(
                    "{INDEX_FILE} in the store {} gives this tag to two manifests, {} and {}",
                    self.medium.name(),
                    first.digest,
                    other.digest
                );
                Err(Refusal::new(Failure::Structure, subject, rule)
                    .remedy("name the digest instead of the tag"))
            }
        }
    }

    pub(super) fn manifest(&self, selector: &Selector) -> Result<RawManifest, Refusal> {
        let subject = self.repo.at(selector.clone());
        let (digest, entry) = match selector {
            Selector::Tag(tag) => {
                let entry = self.tagged(tag)?;
                (entry.digest, Some(entry))
            }
            Selector::Digest(digest) => (*digest, None),
        };
        let refuse = |failure, rule: String| Err(Refusal::new(failure, &subject, rule));
        let (bytes, length) = match self.text(LayoutPart::Blob(digest), MANIFEST_MAX) {
            Ok(read) => read,
            Err(NotOpened::Missing)
                if entry.is_none() && !self.entries()?.iter().any(|e| e.digest == digest) =>
            {
                return refuse(
                    Failure::Absent,
                    format!("the store {} has no such manifest", self.medium.name()),
                );
            }
            Err(e) => return Err(self.no_blob(&subject, &digest, e)),
        };
        if length > MANIFEST_MAX {
            return refuse(
                Failure::TooLarge,
                format!("the manifest has {length} bytes; the limit is {MANIFEST_MAX}"),
            );
        }
        if let Some(entry) = entry
            && entry.size != length
        {
            let rule = format!(
                "the manifest {digest} has {length} bytes; {INDEX_FILE} says {}",
                entry.size
            );
            return refuse(Failure::Integrity, rule);
        }
        let got = Digest::of_with(digest.algorithm(), &bytes);
        if got != digest {
            return refuse(Failure::Integrity, format!("the file named {digest} holds {got}"));
        }
        Ok(RawManifest {
            bytes: bytes.into(),
            content_type: None,
            claimed: Some(digest),
            kind: DocumentKind::Manifest,
        })
    }

    /// The manifests in the layout that speak about `subject`: those without a tag whose own
    /// text says so, and what a list says that was copied along from a registry.
    pub(super) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Refusal> {
        let list = referrers_tag(subject);
        let mut found = Vec::new();
        for entry in self.entries()? {
            let tag = tag_of(&entry);
            let is_list = tag.as_ref() == Some(&list);
            if entry.digest == *subject || tag.is_some() && !is_list {
                continue;
            }
            let raw = self.manifest(&Selector::Digest(entry.digest))?;
            if is_list {
                let listed = listed(&raw.bytes).map_err(|e| self.refused(list.as_str(), e))?;
                found.extend(listed);
                continue;
            }
            let read = Manifest::parse(raw.bytes, entry.digest, None);
            if let Ok(manifest) = read
                && let Ok(Some(named)) = manifest.subject()
                && named.digest == *subject
            {
                found.push(Descriptor { digest: entry.digest, ..manifest.as_referrer() });
            }
        }
        Ok(found)
    }

    pub(super) fn blob(&self, blob: &Descriptor) -> Result<M::File, Refusal> {
        let subject = self.repo.at(Selector::Digest(blob.digest));
        let (file, length) = self
            .medium
            .open(&self.place, LayoutPart::Blob(blob.digest))
            .map_err(|e| self.no_blob(&subject, &blob.digest, e))?;
        if length != blob.size {
            let rule = format!("the file has {length} bytes; its descriptor says {}", blob.size);
            return Err(Refusal::new(Failure::Integrity, subject, rule));
        }
        Ok(file)
    }

    /// What it means that the file of a blob that a document names was not opened.
    fn no_blob(&self, subject: impl Into<Subject>, digest: &Digest, e: NotOpened) -> Refusal {
        let store = self.medium.name();
        let rule = match e {
            NotOpened::Missing => {
                format!("a manifest or index names {digest}, which the store {store} lacks")
            }
            NotOpened::NotRegular => {
                format!(
                    "the file named {digest} in the store {store} is no regular file or lies \
                     behind a link"
                )
            }
            NotOpened::Failed(e) => return e.about(subject),
        };
        Refusal::new(Failure::Integrity, subject, rule)
            .remedy("copy the artifact into the store again")
    }
}

/// The first `max` bytes of a file, or all of it.
pub(super) fn up_to<M: Medium>(
    medium: &M,
    file: &M::File,
    max: u64,
) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < max {
        let want = (max - bytes.len() as u64).min(PIECE as u64) as usize;
        let piece = medium.read(file, bytes.len() as u64, want)?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// What a failed open of a directory or document means.
pub(super) fn not_opened<M: Medium>(medium: &M, repo: &Repo, what: &str, e: NotOpened) -> Refusal {
    let store = medium.name();
    match e {
        NotOpened::Missing => {
            Refusal::new(Failure::Structure, repo, format!("{what} is missing in {store}"))
        }
        NotOpened::NotRegular => Refusal::new(
            Failure::Structure,
            repo,
            format!("{what} in the store {store} is, or lies behind, a symbolic link"),
        )
        .remedy("copy the layout itself to this place"),
        NotOpened::Failed(e) => e.about(format!("{repo} ({what})")),
    }
}

/// Whether a JSON document ends before it is complete.
fn breaks_off(document: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(document).is_err_and(|e| e.is_eof())
}
