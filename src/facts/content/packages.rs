//! The packages that are known: those that somebody holds, and those that were used last.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::bounded::Bounded;
use crate::digest::Digest;
use crate::facts::admit::admitted::Admitted;
use crate::facts::package::VerifiedPackage;
use crate::name::Repo;
use crate::oci::Descriptor;
use crate::trust::Asked;

/// How many packages are kept beside those that an inode holds, and how many bytes their trees may
/// take.
const RECENT_MAX: (usize, u64) = (16, 32 << 20);

/// A repository, and digest and size of an archive in it. With the size, since a manifest that lies
/// about it must not spoil the same archive for one that does not; and as what it was admitted,
/// since another release of the same archive need not be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PackageKey {
    repo: Repo,
    digest: Digest,
    size: u64,
    asked: Option<Asked>,
}

impl PackageKey {
    pub(super) fn admitted_as(mut self, admitted: &Admitted) -> PackageKey {
        self.asked = admitted.asked().cloned();
        self
    }
}

pub(super) fn key_of(repo: &Repo, archive: &Descriptor) -> PackageKey {
    let (digest, size) = (archive.digest, archive.size);
    PackageKey { repo: repo.clone(), digest, size, asked: None }
}

/// What somebody holds, and when those are looked for that nobody holds any more.
#[derive(Default)]
struct HeldPackages {
    packages: HashMap<PackageKey, Weak<VerifiedPackage>>,
    swept_at: usize,
}

impl HeldPackages {
    /// Adds one, for as long as somebody holds it. At most half of all are held by nobody.
    fn add(&mut self, key: PackageKey, package: &Arc<VerifiedPackage>) {
        if self.packages.len() >= self.swept_at {
            self.packages.retain(|_, package| package.strong_count() > 0);
            self.swept_at = 2 * self.packages.len() + RECENT_MAX.0;
        }
        self.packages.insert(key, Arc::downgrade(package));
    }
}

/// See the module.
pub(super) struct KnownPackages {
    held: Mutex<HeldPackages>,
    recent: Mutex<Bounded<PackageKey, Arc<VerifiedPackage>>>,
}

impl KnownPackages {
    pub(super) fn new() -> KnownPackages {
        let weigh = |package: &Arc<VerifiedPackage>| package.members.weight() as u64;
        let recent = Bounded::weighed(RECENT_MAX.0, RECENT_MAX.1, weigh);
        KnownPackages { held: Mutex::default(), recent: Mutex::new(recent) }
    }

    pub(super) fn get(&self, key: &PackageKey) -> Option<Arc<VerifiedPackage>> {
        if let Some(package) = self.recent.lock().get(key) {
            return Some(package.clone());
        }
        let package = self.held.lock().packages.get(key)?.upgrade()?;
        self.recent.lock().put(key.clone(), package.clone());
        Some(package)
    }

    pub(super) fn keep(&self, key: PackageKey, package: &Arc<VerifiedPackage>) {
        self.held.lock().add(key.clone(), package);
        self.recent.lock().put(key, package.clone());
    }
}
