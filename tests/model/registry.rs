//! The registry of the model.

use crate::memory::MemoryRegistry;
use crate::pack::Artifact;

/// Holds every artifact in every repository; only the tags differ.
pub fn registry_of(repos: &[&str], artifacts: &[Artifact], has_catalog: bool) -> MemoryRegistry {
    let registry = MemoryRegistry::default();
    registry.state().has_catalog = has_catalog;
    for repo in repos {
        for artifact in artifacts {
            for document in &artifact.manifests {
                registry.add(repo, &document.bytes, Some(document.media_type));
            }
            artifact.blobs.iter().for_each(|blob| registry.add_blob(repo, blob));
        }
        registry.state().repo(repo);
    }
    registry
}
