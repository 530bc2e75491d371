//! All that a manifest names, down to the blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::digest::Digest;
use crate::facts::Facts;
use crate::failure::{Failure, Refusal};
use crate::name::{Repo, Selector};
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
}

/// Reads the manifest `root` and all that it names, except what `carried` says of an index's
/// entries. Blobs are not fetched.
///
/// # Errors
/// A manifest cannot be had or is refused, or there are too many.
pub async fn graph(
    facts: &Arc<Facts>,
    repo: &Repo,
    root: Digest,
    carried: &(dyn Fn(&Descriptor) -> bool + Sync),
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
        let manifest = facts.manifest(repo, digest).await?;
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
    Ok(graph)
}
