//! All that a manifest names, down to the blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::digest::Digest;
use crate::facts::Facts;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector};
use crate::oci::referrer::is_bundle;
use crate::oci::{Descriptor, Manifest, ManifestBody};

/// The most manifests of one artifact: one more than an index may name.
const MANIFESTS_MAX: usize = crate::oci::INDEX_ENTRIES_MAX + 1;

/// A manifest and what it names.
#[derive(Clone, Default, Debug)]
pub struct Graph {
    /// Each once, and behind all that it names: the last is the one that was asked for.
    pub manifests: Vec<Arc<Manifest>>,
    /// Configs and layers, each once.
    pub blobs: BTreeMap<Digest, Descriptor>,
    /// What speaks about any of the manifests.
    pub referrers: ReferrerGraph,
}

/// What speaks about the manifests of a graph.
#[derive(Clone, Default, Debug)]
pub struct ReferrerGraph {
    /// Each once.
    pub manifests: Vec<Arc<Manifest>>,
    /// Their configs and layers, each once.
    pub blobs: BTreeMap<Digest, Descriptor>,
}

impl Graph {
    /// All blobs, also those of what speaks about the manifests.
    pub fn all_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let named = &self.blobs;
        let speaking =
            self.referrers.blobs.iter().filter(|(digest, _)| !named.contains_key(digest));
        named.values().chain(speaking.map(|(_, blob)| blob))
    }
}

/// What is carried of that which speaks about an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CarriedReferrers {
    #[default]
    All,
    /// Signatures and attestations as Sigstore bundles.
    Signatures,
    None,
}

/// Reads the manifest `root` and all that it names, except what `carried` says of an index's
/// entries; and what speaks about any of them. Blobs are not fetched.
///
/// # Errors
/// A manifest cannot be had or is refused, or there are too many.
pub async fn graph(
    facts: &Arc<Facts>,
    repo: &Repo,
    root: Digest,
    carried: &(dyn Fn(&Descriptor) -> bool + Sync),
    referrers: CarriedReferrers,
) -> Result<Graph, Refusal> {
    let mut graph = Graph::default();
    let mut seen = BTreeSet::from([root]);
    let mut pending = vec![(root, None::<Arc<Manifest>>)];
    while let Some((digest, read)) = pending.pop() {
        // The second time all that it names is in.
        if let Some(manifest) = read {
            graph.manifests.push(manifest);
            continue;
        }
        let manifest = facts.manifests().get(repo, digest).await?;
        let subject = || repo.at(Selector::Digest(digest));
        pending.push((digest, Some(manifest.clone())));
        match &manifest.body {
            ManifestBody::Index(children) => {
                let wanted = children.iter().filter(|child| carried(child));
                pending.extend(
                    wanted
                        .filter(|child| seen.insert(child.digest))
                        .map(|child| (child.digest, None)),
                );
            }
            ManifestBody::Image(_) => {
                let blobs = manifest.blobs().map_err(|e| e.about(subject()))?;
                graph.blobs.extend(blobs.into_iter().map(|blob| (blob.digest, blob)));
            }
        }
        if seen.len() > MANIFESTS_MAX {
            let rule = format!("it names more than {MANIFESTS_MAX} manifests");
            return Err(Refusal::new(Failure::TooLarge, repo.at(Selector::Digest(root)), rule));
        }
    }
    if referrers != CarriedReferrers::None {
        let subjects: Vec<Digest> = graph.manifests.iter().map(|m| m.digest).collect();
        graph.referrers = speaking(facts, repo, &subjects, referrers).await?;
    }
    Ok(graph)
}

/// What speaks about any of `subjects`. Blobs are not fetched.
///
/// # Errors
/// A list or a manifest cannot be had.
pub async fn speaking(
    facts: &Arc<Facts>,
    repo: &Repo,
    subjects: &[Digest],
    wanted: CarriedReferrers,
) -> Result<ReferrerGraph, Refusal> {
    let mut speaking = ReferrerGraph::default();
    let mut seen: BTreeSet<Digest> = subjects.iter().copied().collect();
    for subject in subjects {
        for manifest in facts.referrers().all(repo, *subject).await? {
            let is_signature = manifest.kind().is_some_and(|kind| is_bundle(&kind));
            if wanted == CarriedReferrers::Signatures && !is_signature
                || !seen.insert(manifest.digest)
            {
                continue;
            }
            let about =
                |e: crate::oci::DocumentError| e.about(repo.at(Selector::Digest(manifest.digest)));
            let blobs = manifest.blobs().map_err(about)?;
            speaking.blobs.extend(blobs.into_iter().map(|blob| (blob.digest, blob)));
            speaking.manifests.push(manifest);
        }
    }
    Ok(speaking)
}
