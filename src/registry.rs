//! One interface to everything that holds repositories: remote registries and image layouts on
//! disk.
//!
//! What comes from a [`Registry`] is unverified, except that sizes are bounded and documents arrive
//! whole; the digest is checked by who keeps the bytes. Retrying happens inside the back ends and
//! nowhere above them.

mod address;
mod answer;
pub mod auth;
mod breaker;
pub mod challenge;
mod connection;
pub mod connections;
pub mod credentials;
pub mod decorate;
pub mod discovery;
mod gate;
mod greeting;
pub mod layout;
pub mod mirror;
mod no_answer;
pub mod observed;
pub mod origin;
mod outage;
pub mod paging;
mod process;
mod push;
pub mod referrers;
pub mod remote;
mod request;
mod retry;
mod scope;
mod server_text;
pub mod service_host;
mod small;
mod transfer;
pub mod transport;
pub mod turn;
mod upload;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

pub use outage::Asker;
pub use referrers::Referrers;
pub use small::small_blob;
pub use upload::{BlobSource, Hold, Removed, Upload, Uploaded};

use crate::artifact::SignatureOutcome;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::mapping::Carried;
use crate::name::{Host, Repo, RepoName, Selector, Tag, ZipName};
use crate::oci::Descriptor;

/// What kind of document a release has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum DocumentKind {
    /// An OCI manifest.
    #[default]
    Manifest,
    /// The `SHA256SUMS` of a provider registry, with what was found of its signature.
    Sums {
        outcome: SignatureOutcome,
        /// The signature itself, where a key is named that made it.
        signature: Option<Arc<[u8]>>,
    },
}

/// The bytes of a release's document as they came, not yet compared with a digest.
#[derive(Clone, Debug)]
pub struct RawManifest {
    /// The body, at most [`crate::oci::MANIFEST_MAX`] bytes.
    pub bytes: Arc<[u8]>,
    /// The transport's Content-Type without parameters, where there is a transport.
    pub content_type: Option<String>,
    /// The registry's claim of the digest, where it made one. Never more than a claim.
    pub claimed: Option<Digest>,
    /// What it is.
    pub kind: DocumentKind,
}

/// Where a blob's bytes go. A back end writes them in order, from the position at which the sink
/// stands.
#[async_trait]
pub trait BlobSink: Send {
    /// How many bytes, from the blob's start, the sink already holds.
    fn position(&self) -> u64;

    /// Takes the next bytes. Waits while the sink's queue is full.
    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError>;

    /// Forgets all bytes: the next ones are again the blob's first.
    async fn restart(&mut self) -> Result<(), SinkError>;
}

/// A sink takes no more (its disk is full, or who wanted the blob is gone). The sink's owner knows
/// the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the receiver of the blob takes no more bytes")]
pub struct SinkError;

/// Why a blob's transfer ended early.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlobError {
    /// The registry's side failed.
    #[error(transparent)]
    Registry(#[from] Refusal),
    /// Our side did.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What is wanted of a registry that is asked whether it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// An answer of any kind, without logging in.
    Reach,
    /// That it lets in who asks.
    LogIn,
}

/// A source of repositories of one host.
///
/// Contract of every back end: a call retries what can be retried, by itself, and ends within the
/// deadline that the back end was made with, counted without progress. A call may be dropped at any
/// await. Calls may run concurrently. `Absent` is said only with authority; an outage is
/// `TimedOut`, `Unreachable` or `Untrusted`.
#[async_trait]
pub trait Registry: Send + Sync {
    /// All tags of a repository: sorted, without duplicates, and only such as are valid tags and
    /// not [hidden](Tag::is_hidden). `Absent` if there is no such repository.
    async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>, Refusal>;

    /// All repositories, sorted. `Absent` if the registry does not list them.
    async fn catalog(&self) -> Result<Vec<RepoName>, Refusal>;

    /// The digest that a tag stands for now, by the cheapest request (HEAD). `None` if the registry
    /// answers but does not tell the digest.
    async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, Refusal>;

    /// A manifest's bytes. `Integrity` if the back end noticed that claim and content differ.
    async fn manifest(&self, repo: &RepoName, selector: &Selector) -> Result<RawManifest, Refusal>;

    /// Those of `manifests` of which it is certain, without a request, that they are not held here.
    /// A store that carries an index without all that it names can say so.
    async fn lacking(&self, _repo: &RepoName, _manifests: &[Digest]) -> Vec<Digest> {
        Vec::new()
    }

    /// The manifests that say that they speak about `subject`: tagged or not, each once, unverified.
    async fn referrers(&self, repo: &RepoName, subject: &Digest) -> Referrers;

    /// Writes the rest of a blob into `sink`, from the sink's position on; exactly `blob.size`
    /// bytes in all, else `Integrity`. A blob that a manifest names and the registry lacks is
    /// `Integrity`, never `Absent`.
    async fn blob(
        &self,
        repo: &RepoName,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<(), BlobError>;

    /// What a provider registry says of a package before anything was checked: its zip, by name,
    /// digest and size. Asked where a release is not resolved yet, or names no sizes.
    async fn offered(&self, repo: &RepoName, _zip: &ZipName) -> Result<Descriptor, Refusal> {
        Err(Refusal::new(Failure::Unsupported, repo.as_str(), "it names its packages by manifests"))
    }

    /// The repositories that lie on this machine, sorted: no network is asked for them. A registry
    /// has none.
    async fn held(&self) -> Result<Vec<RepoName>, Refusal> {
        Ok(Vec::new())
    }

    /// When a list that is being fetched moved last: the tags of `repo`, or the repositories where
    /// it is `None`. `None` of one that has not moved, or is not being fetched.
    fn last_moved(&self, _repo: Option<&RepoName>) -> Option<Instant> {
        None
    }

    /// Asks whether it is there, by the smallest question and once, whatever it holds. What lies on
    /// this machine is.
    async fn greet(&self, _greeting: Greeting) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether it refused the login of who asked last, or the lack of one. Such a refusal need not
    /// be an error of what was asked for: a registry without a catalog may refuse it like that.
    fn refused_login(&self) -> bool {
        false
    }

    /// Who may be asked about what moves (tags, lists of them) where this one is out of reach and
    /// nothing is remembered. Its answers may be old and lists may be short: they are never taken
    /// for confirmed.
    fn stand_in(&self) -> Option<Arc<dyn Registry>> {
        None
    }
}

/// What holds repositories of any number of registries, some of which may come while it is used.
pub trait HostStore: Send + Sync {
    /// The registries of which it holds something now, sorted.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn hosts(&self) -> Result<Vec<Host>, Refusal>;

    /// Whether `host` is one of [`HostStore::hosts`].
    fn holds(&self, host: &Host) -> bool;

    /// The manifests that a repository says it holds, tagged or not, in no order. Those that an
    /// index names need not be among them.
    ///
    /// # Errors
    /// As of [`Registry::tags`].
    fn entries(&self, repo: &Repo) -> Result<Vec<Descriptor>, Refusal>;

    /// Every blob and manifest that lies in a repository, sorted, with its length in bytes,
    /// unverified.
    ///
    /// # Errors
    /// As of [`Registry::tags`].
    fn blobs(&self, repo: &Repo) -> Result<Vec<(Digest, u64)>, Refusal>;

    /// What it says of the providers of which it holds releases; nothing where it was not made by a
    /// bundle.
    ///
    /// # Errors
    /// What it says cannot be read, or is wrong.
    fn carried(&self) -> Result<Carried, Refusal>;

    /// The part of it that stands for `host`, of which it may hold nothing yet.
    fn registry(self: Arc<Self>, host: &Host) -> Arc<dyn Registry>;
}

/// Counts of the HTTP requests that one mount has sent: token requests and those answered 401
/// aside.
#[derive(Debug, Default)]
pub struct Requests {
    /// All requests to registries, redirects included once.
    pub total: std::sync::atomic::AtomicU64,
    /// Those for blobs.
    pub blob: std::sync::atomic::AtomicU64,
}
