//! Fetching what is needed into the cache, so that it is there when it is wanted.
//!
//! INVARIANT: it is said to be there only after it was found there, on the disk, with all that a
//! mount without a network needs to find it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::RegistryFacts;
use super::graph::{CarriedReferrers, speaking};
use super::needs::{NeededArtifact, Needs, ReleaseContents};
use crate::digest::Digest;
use crate::facts::{Admitted, Facts, Unpacking, blocking, signed_sums};
use crate::failure::{Failure, Refusal, Subject};
use crate::name::{Repo, Selector};
use crate::oci::Descriptor;
use crate::store::Key;
use crate::trust::vendor::SUMS_MAX;

/// How many packages are fetched at a time.
const AT_ONCE: usize = 4;
/// How often it is told how far the fetching is.
const TICK: Duration = Duration::from_millis(250);

/// What became of the packages of one release.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fetched {
    /// Their size, in bytes.
    pub bytes: u64,
    /// How much of it was not in the cache before.
    pub fetched: u64,
}

/// How a fetch ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchEnding {
    /// Everything is in the cache: for each of [`Needs::artifacts`] what that took.
    Complete(Vec<Fetched>),
    /// The caller broke it off. What was fetched stays, also in part.
    Stopped,
}

/// One package to fetch.
#[derive(Clone)]
struct Wanted {
    artifact: usize,
    facts: Arc<Facts>,
    admitted: Admitted,
    repo: Repo,
    zip: Descriptor,
    /// Bytes that were there before.
    held: u64,
}

/// Fetches every package that is needed, reads its index, and asks for the tag lists of the
/// repositories, by which an offline mount lists them. `progress` is told how many of all bytes are
/// in the cache, and may break off. The caller holds what is needed, so that nothing of it is
/// evicted meanwhile.
///
/// # Errors
/// The first package that cannot be had, is refused, or is not in the cache after it was fetched.
/// What was fetched stays.
pub async fn fetch(
    needs: &Needs,
    origins: &dyn RegistryFacts,
    progress: &mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send),
) -> Result<FetchEnding, Refusal> {
    let mut fetched = vec![Fetched::default(); needs.artifacts.len()];
    let (wanted, listed) = wanted(needs, origins).await?;
    let total = wanted.iter().map(|wanted| wanted.zip.size).sum();
    let mut packages = stream::iter(wanted.clone()).map(package).buffer_unordered(AT_ONCE);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            next = packages.next() => match next {
                None => break,
                Some(outcome) => {
                    let Wanted { artifact, zip, held, .. } = outcome?;
                    fetched[artifact].bytes += zip.size;
                    fetched[artifact].fetched += zip.size.saturating_sub(held);
                }
            },
            _ = tick.tick() => {
                let all = wanted.clone();
                let held = blocking(move || all.iter().map(Wanted::held_now).sum()).await?;
                if progress(held, total).is_break() {
                    return Ok(FetchEnding::Stopped);
                }
            }
        }
    }
    count(needs, &listed, origins).await?;
    let _ = progress(total, total);
    Ok(FetchEnding::Complete(fetched))
}

/// Fetches what speaks about each of the releases into the cache, where a mount without a network
/// finds it: the digests of manifests and blobs, for each of [`Needs::artifacts`].
///
/// # Errors
/// What cannot be had.
pub async fn referrers(
    needs: &Needs,
    wanted: CarriedReferrers,
    origins: &dyn RegistryFacts,
) -> Result<Vec<BTreeSet<Digest>>, Refusal> {
    let mut all = Vec::new();
    for artifact in &needs.artifacts {
        let (facts, mut objects) = (origins.facts(&artifact.repo.host)?, BTreeSet::new());
        if wanted != CarriedReferrers::None {
            let (repo, subjects) = (&artifact.repo, artifact.manifests());
            let found = speaking(&facts, repo, artifact.digest, &subjects, wanted).await?;
            for blob in found.blobs.values() {
                facts.referrers().blob(repo, blob).await?;
            }
            objects.extend(found.manifests.iter().map(|manifest| manifest.digest));
            objects.extend(found.blobs.into_keys());
            objects.extend(of_vendors(&facts, artifact).await?);
        }
        all.push(objects);
    }
    Ok(all)
}

/// Fetches what vendors signed of a release, which its platforms keep beside their zips.
async fn of_vendors(
    facts: &Arc<Facts>,
    artifact: &NeededArtifact,
) -> Result<BTreeSet<Digest>, Refusal> {
    let ReleaseContents::Provider(packages) = &artifact.contents else {
        return Ok(BTreeSet::new());
    };
    let mut found = BTreeSet::new();
    for manifest in packages.iter().filter_map(|package| package.manifest.as_ref()) {
        let manifest = facts.manifests().get(&artifact.repo, manifest.digest).await?;
        for (sums, signature) in signed_sums(&manifest) {
            for blob in [sums, signature].into_iter().filter(|blob| blob.size <= SUMS_MAX) {
                facts.referrers().blob(&artifact.repo, blob).await?;
                found.insert(blob.digest);
            }
        }
    }
    Ok(found)
}

/// Looks for everything once more: manifests, packages, what tags stand for, and the lists of tags
/// that there are.
async fn count(
    needs: &Needs,
    listed: &BTreeSet<Repo>,
    origins: &dyn RegistryFacts,
) -> Result<(), Refusal> {
    for artifact in &needs.artifacts {
        let facts = origins.facts(&artifact.repo.host)?;
        find(&facts, artifact).await?;
        let mut is_kept =
            !listed.contains(&artifact.repo) || facts.tags().keeps_list(&artifact.repo).await;
        for tag in &artifact.tags {
            is_kept &= facts.tags().keeps_binding(&artifact.repo, tag, artifact.digest).await;
        }
        if !is_kept {
            return Err(lost(
                &facts,
                artifact.reference(),
                "its name (on which a mirror's word is not taken) is",
            ));
        }
    }
    Ok(())
}

/// Looks for the files of one release.
async fn find(facts: &Arc<Facts>, artifact: &NeededArtifact) -> Result<(), Refusal> {
    let zips = artifact.zips().into_iter().map(|zip| (zip.digest, Some(zip.size)));
    let manifests = artifact.manifests().into_iter().map(|digest| (digest, None));
    let all: Vec<(Digest, Option<u64>)> = manifests.chain(zips).collect();
    let at = facts.clone();
    let missing =
        blocking(move || all.into_iter().find(|(digest, size)| !is_stored(&at, *digest, *size)))
            .await?;
    match missing {
        None => Ok(()),
        Some((digest, _)) => Err(lost(facts, artifact.repo.at(Selector::Digest(digest)), "it is")),
    }
}

/// Whether the cache's disk has a blob, of that size where one is known.
fn is_stored(facts: &Facts, digest: Digest, size: Option<u64>) -> bool {
    let stored = facts.store().stored(&Key::Blob(digest));
    stored.is_some() && (size.is_none() || stored == size)
}

/// What is not in the cache although it was fetched.
fn lost(facts: &Facts, subject: impl Into<Subject>, what: &str) -> Refusal {
    let store = facts.store();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let free = store.space().map_or_else(
        |e| e.to_string(),
        |space| {
            format!(
                "{:.1} of its {:.1} MiB are free",
                mebibytes(space.available),
                mebibytes(space.total)
            )
        },
    );
    let rule = format!(
        "{what} not kept in the cache {} after it was fetched: the disk is full or takes no \
         writes ({free}), or another program removed it; free space there, or give another \
         --cache-dir",
        store.dir().display()
    );
    Refusal::new(Failure::NoSpace, subject, rule)
}

/// The packages, and the repositories whose tags are listed.
async fn wanted(
    needs: &Needs,
    origins: &dyn RegistryFacts,
) -> Result<(Vec<Wanted>, BTreeSet<Repo>), Refusal> {
    let (mut all, mut listed) = (Vec::new(), BTreeSet::new());
    for (artifact, needed) in needs.artifacts.iter().enumerate() {
        let facts = origins.facts(&needed.repo.host)?;
        // A registry that does not list its tags has releases all the same.
        match facts.tags().list(&needed.repo).await {
            Err(e)
                if !matches!(e.failure, Failure::Absent | Failure::Denied)
                    && !e.failure.is_outage() =>
            {
                return Err(e);
            }
            Err(_) => {}
            Ok(_) => drop(listed.insert(needed.repo.clone())),
        }
        let admitted = needed.admitted(&facts).await?;
        for zip in needed.zips() {
            let (facts, admitted) = (Arc::clone(&facts), admitted.clone());
            let (repo, zip) = (needed.repo.clone(), zip.clone());
            all.push(Wanted { artifact, facts, admitted, repo, zip, held: 0 });
        }
    }
    let counted = blocking(move || {
        all.iter_mut().for_each(|wanted| wanted.held = wanted.held_now());
        all
    });
    Ok((counted.await?, listed))
}

impl Wanted {
    /// Blocks on the disk.
    fn held_now(&self) -> u64 {
        self.facts.store().held(&Key::Blob(self.zip.digest)).min(self.zip.size)
    }
}

async fn package(wanted: Wanted) -> Result<Wanted, Refusal> {
    let Wanted { facts, admitted, repo, zip, .. } = &wanted;
    facts.content().package(admitted, repo, zip, Unpacking::WhenOpened).await?;
    let (facts, zip) = (wanted.facts.clone(), wanted.zip.clone());
    if !blocking(move || is_stored(&facts, zip.digest, Some(zip.size))).await? {
        let subject = wanted.repo.at(Selector::Digest(wanted.zip.digest));
        return Err(lost(&wanted.facts, subject, "it is"));
    }
    Ok(wanted)
}
