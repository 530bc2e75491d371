//! All that a manifest names, down to the blobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::digest::Digest;
use crate::facts::Facts;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector, Tag};
use crate::oci::referrer::{is_bundle, signature_tag};
use crate::oci::{Descriptor, Manifest, ManifestBody};

/// The most manifests of one artifact: one more than an index may name.
const MANIFESTS_MAX: usize = crate::oci::INDEX_ENTRIES_MAX + 1;
/// The most manifests that speak about one artifact, or about each other.
const SPEAKING_MAX: usize = 10_000;

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
    /// The tags under which some of them are found: those of cosign 2.
    pub tags: BTreeMap<Tag, Digest>,
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
        graph.referrers = speaking(facts, repo, root, &subjects, referrers).await?;
    }
    Ok(graph)
}

/// What speaks about any of `subjects`, and what speaks about that; of `root` also the signatures
/// that cosign 2 keeps under a tag. Blobs are not fetched.
///
/// # Errors
/// A list or a manifest cannot be had, or there are too many.
pub async fn speaking(
    facts: &Arc<Facts>,
    repo: &Repo,
    root: Digest,
    subjects: &[Digest],
    wanted: CarriedReferrers,
) -> Result<ReferrerGraph, Refusal> {
    let mut speaking = ReferrerGraph::default();
    let mut seen: BTreeSet<Digest> = subjects.iter().copied().collect();
    let mut pending: VecDeque<Digest> = subjects.iter().copied().collect();
    while let Some(subject) = pending.pop_front() {
        let found = facts.referrers().all(repo, subject).await?;
        if subject == root && found.is_empty() {
            speaking.add_tagged(facts, repo, root).await?;
        }
        for manifest in found {
            let is_signature = manifest.kind().is_some_and(|kind| is_bundle(&kind));
            if wanted == CarriedReferrers::Signatures && !is_signature
                || !seen.insert(manifest.digest)
            {
                continue;
            }
            pending.push_back(manifest.digest);
            speaking.add(repo, manifest)?;
        }
        if speaking.manifests.len() > SPEAKING_MAX {
            let rule = format!("more than {SPEAKING_MAX} manifests speak about it");
            return Err(Refusal::new(Failure::TooLarge, repo.at(Selector::Digest(root)), rule));
        }
    }
    Ok(speaking)
}

impl ReferrerGraph {
    fn add(&mut self, repo: &Repo, manifest: Arc<Manifest>) -> Result<(), Refusal> {
        let about =
            |e: crate::oci::DocumentError| e.about(repo.at(Selector::Digest(manifest.digest)));
        let blobs = manifest.blobs().map_err(about)?;
        self.blobs.extend(blobs.into_iter().map(|blob| (blob.digest, blob)));
        self.manifests.push(manifest);
        Ok(())
    }

    /// The signatures that cosign 2 left, where there are some.
    async fn add_tagged(
        &mut self,
        facts: &Arc<Facts>,
        repo: &Repo,
        root: Digest,
    ) -> Result<(), Refusal> {
        let tag = signature_tag(&root);
        let digest = match facts.tags().resolve(&repo.at(Selector::Tag(tag.clone()))).await {
            Ok(digest) => digest,
            // What no registry is asked for is not there; and of one that is away the last answer
            // counts, as with lists.
            Err(e) if matches!(e.failure, Failure::Absent | Failure::Offline) => return Ok(()),
            Err(e)
                if e.failure.is_outage() && facts.referrers().kept(repo, root).await.is_some() =>
            {
                tracing::warn!("{repo}@{root}: whether cosign 2 signed it is not known: {e}");
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.add(repo, facts.manifests().get(repo, digest).await?)?;
        self.tags.insert(tag, digest);
        Ok(())
    }
}
