//! What a store's files lie in: a directory, or an archive. Everything above this reads both alike.

use bytes::Bytes;

use crate::digest::Digest;
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Host, Repo, RepoName};
use crate::oci::layout::LayoutPart;

/// The path of what a store says of its providers.
pub(super) const CARRIED: &str = ".tofufs/providers.json";

/// A store, as far as its files go. Every call may wait for a disk.
pub trait Medium: Send + Sync + 'static {
    /// Where the files of one repository lie.
    type Place: Send;
    /// An open file.
    type File: Send + Sync + 'static;

    /// The store as the user named it, for sentences.
    fn name(&self) -> &str;

    /// See [`super::HostStore::hosts`].
    fn hosts(&self) -> Result<Vec<Host>, Refusal>;

    /// See [`super::HostStore::holds`].
    fn holds(&self, host: &Host) -> bool;

    /// Every layout of `host`, sorted. A layout may hold others, except in its `blobs`.
    fn catalog(&self, host: &Host) -> Result<Vec<RepoName>, Refusal>;

    /// Where `repo` would have its files.
    fn place(&self, repo: &Repo) -> Result<Self::Place, NotOpened>;

    /// A file of a repository, and its length in bytes.
    fn open(&self, place: &Self::Place, part: LayoutPart) -> Result<(Self::File, u64), NotOpened>;

    /// The file that says what the store carries, and its length in bytes.
    fn open_carried(&self) -> Result<(Self::File, u64), NotOpened>;

    /// The blobs of a repository, sorted, with their lengths.
    fn list(&self, place: &Self::Place) -> Result<Vec<(Digest, u64)>, Unreadable>;

    /// At most `want` bytes at `at`; none at the end of the file alone.
    fn read(&self, file: &Self::File, at: u64, want: usize) -> Result<Bytes, Unreadable>;
}

/// Why a file was not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// There is none of that name.
    Missing,
    /// It is a link, lies behind one, or is no regular file.
    NotRegular,
    /// It is there.
    Failed(Unreadable),
}

/// Why something that is there cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The class.
    pub failure: Failure,
    /// The rest of the sentence.
    pub rule: String,
    /// What the user can do, where there is something.
    pub remedy: Option<&'static str>,
}

impl Unreadable {
    /// The error about `subject`.
    pub fn about(self, subject: impl Into<Subject>) -> Refusal {
        let refusal = Refusal::new(self.failure, subject, self.rule);
        Refusal { remedy: self.remedy.map(str::to_owned), ..refusal }
    }
}
