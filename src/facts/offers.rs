//! What provider registries say of packages: which zip, and of which size. Neither changes, since
//! a zip is what its digest says, so it is asked for once and kept for later mounts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::blocking::blocking;
use super::budget::{self, Budgets};
use super::error::lost;
use super::recent_failures::RecentFailures;
use super::registries::JoinedRegistries;
use crate::artifact::{TITLE_ANNOTATION, ZIP};
use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::flight::Flights;
use crate::name::{Repo, ZipName};
use crate::oci::Descriptor;
use crate::store::{Key, Store};

/// How many packages are remembered beside those that the store remembers.
const KNOWN_MAX: usize = 16_384;

type OfferKey = (Repo, ZipName);

/// A package as the store remembers it.
#[derive(Serialize, Deserialize)]
struct OfferRecord {
    digest: String,
    size: u64,
}

/// See the module.
pub(super) struct Offers {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
    budgets: Arc<Budgets>,
    known: Mutex<Bounded<OfferKey, Descriptor>>,
    flights: Flights<OfferKey, Descriptor, Refusal>,
    failures: RecentFailures<OfferKey>,
}

impl Offers {
    pub(super) fn new(
        store: Arc<Store>,
        registries: Arc<JoinedRegistries>,
        budgets: Arc<Budgets>,
        linger: Duration,
    ) -> Offers {
        Offers {
            store,
            registries,
            budgets,
            known: Mutex::new(Bounded::counted(KNOWN_MAX)),
            flights: Flights::new(linger, |_| lost()),
            failures: RecentFailures::default(),
        }
    }

    pub(super) fn forget_failures(&self) {
        self.failures.clear();
    }

    /// What is known without waiting.
    pub(super) fn known(&self, repo: &Repo, zip: &ZipName) -> Option<Descriptor> {
        self.known.lock().get(&(repo.clone(), zip.clone())).cloned()
    }

    /// What the registry of `repo` says of `zip`, or has said before.
    pub(super) async fn of(
        self: &Arc<Self>,
        repo: &Repo,
        zip: &ZipName,
    ) -> Result<Descriptor, Refusal> {
        if let Some(known) = self.known(repo, zip) {
            return Ok(known);
        }
        if let Some(remembered) = self.remembered(repo, zip).await? {
            self.known.lock().put((repo.clone(), zip.clone()), remembered.clone());
            return Ok(remembered);
        }
        self.asked(repo, zip).await
    }

    /// The zip that has `digest`, with its size: from the store, if it is there, else as the
    /// registry says.
    ///
    /// # Errors
    /// `Structure` where the registry names another zip.
    pub(super) async fn with_digest(
        self: &Arc<Self>,
        repo: &Repo,
        name: &str,
        digest: Digest,
    ) -> Result<Descriptor, Refusal> {
        let zip: ZipName = name.parse().map_err(|e| Refusal::new(Failure::Structure, repo, e))?;
        if let Some(known) = self.known(repo, &zip).filter(|known| known.digest == digest) {
            return Ok(known);
        }
        let store = self.store.clone();
        if let Some(size) = blocking(move || store.stored(&Key::Blob(digest))).await? {
            let stored = descriptor(&zip, digest, size);
            self.known.lock().put((repo.clone(), zip), stored.clone());
            return Ok(stored);
        }
        if let Some(kept) = self.remembered(repo, &zip).await?.filter(|it| it.digest == digest) {
            self.known.lock().put((repo.clone(), zip), kept.clone());
            return Ok(kept);
        }
        let offered = self.asked(repo, &zip).await?;
        if offered.digest == digest {
            return Ok(offered);
        }
        let rule = format!(
            "its SHA256SUMS says {digest} of {name}, and the download document {}",
            offered.digest
        );
        Err(Refusal::new(Failure::Structure, repo, rule))
    }

    async fn asked(self: &Arc<Self>, repo: &Repo, zip: &ZipName) -> Result<Descriptor, Refusal> {
        let key = (repo.clone(), zip.clone());
        self.failures.check(&key)?;
        let (offers, wanted) = (self.clone(), key.clone());
        let ask = move || {
            let (offers, wanted) = (offers.clone(), wanted.clone());
            async move {
                let outcome = offers.ask(&wanted.0, &wanted.1).await;
                offers.failures.note(wanted, &outcome);
                outcome
            }
        };
        budget::join(&self.flights, key, ask).await
    }

    async fn ask(&self, repo: &Repo, zip: &ZipName) -> Result<Descriptor, Refusal> {
        let registry = self.registries.reached(&repo.host)?.registry.clone();
        let offered = self.budgets.spend(&repo.host, registry.offered(&repo.name, zip)).await?;
        let record = OfferRecord { digest: offered.digest.to_string(), size: offered.size };
        let (store, edge) = (self.store.clone(), edge(repo, zip));
        if let Ok(bytes) = serde_json::to_vec(&record)
            && let Err(e) = blocking(move || store.put_edge(&edge, &bytes)).await?
        {
            tracing::warn!("the size of a package of {repo} cannot be kept: {e}");
        }
        let offered = descriptor(zip, offered.digest, offered.size);
        self.known.lock().put((repo.clone(), zip.clone()), offered.clone());
        Ok(offered)
    }

    async fn remembered(&self, repo: &Repo, zip: &ZipName) -> Result<Option<Descriptor>, Refusal> {
        let (store, edge) = (self.store.clone(), edge(repo, zip));
        let bytes = blocking(move || store.edge(&edge)).await?;
        let read = |bytes: Vec<u8>| {
            let OfferRecord { digest, size } = serde_json::from_slice(&bytes).ok()?;
            Some(descriptor(zip, digest.parse().ok()?, size))
        };
        Ok(bytes.and_then(read))
    }
}

/// The name under which the store keeps it.
fn edge(repo: &Repo, zip: &ZipName) -> String {
    format!("package {repo} {} {}", zip.version, zip.platform)
}

/// A zip, by the name under which its registry finds it.
fn descriptor(zip: &ZipName, digest: Digest, size: u64) -> Descriptor {
    let mut descriptor = Descriptor::bare(digest, size);
    ZIP.clone_into(&mut descriptor.media_type);
    descriptor.annotations.insert(TITLE_ANNOTATION.to_owned(), zip.to_string());
    descriptor
}
