//! Edges as the store keeps them for later mounts, so that one can serve them while the registry is
//! away.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::slots::{Confirmed, TagAnswer};
use crate::facts::registries::JoinedRegistries;
use crate::name::{Platform, RepoName, Tag};
use crate::store::Store;
use crate::tree::Need;

/// The name of an edge in the store.
fn name_of(need: &Need) -> String {
    match need {
        Need::Tags(repo) => format!("tags {repo}"),
        Need::Catalog(host) => format!("catalog {host}"),
        Need::Binding(repo, tag) => format!("tag {repo}:{tag}"),
        Need::Platforms(repo, tag) => format!("platforms {repo}:{tag}"),
        Need::Held(host) => format!("held {host}"),
    }
}

/// An edge as the store keeps it.
#[derive(Serialize, Deserialize)]
struct TagRecord {
    /// Seconds since 1970 at which the registry confirmed it.
    at: u64,
    /// Of a catalog: `None` if the registry does not list its repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl TagRecord {
    fn of(confirmed: &Confirmed) -> TagRecord {
        let at = confirmed.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (names, digest) = match &confirmed.answer {
            TagAnswer::Tags(tags) => (Some(tags.iter().map(Tag::to_string).collect()), None),
            TagAnswer::Catalog(names) => {
                (Some(names.iter().map(RepoName::to_string).collect()), None)
            }
            TagAnswer::NoCatalog => (None, None),
            TagAnswer::Binding(digest) => (None, Some(digest.to_string())),
            TagAnswer::Platforms(platforms) => {
                (Some(platforms.iter().map(Platform::to_string).collect()), None)
            }
        };
        TagRecord { at, names, digest }
    }

    fn answer(self, need: &Need) -> Option<(TagAnswer, SystemTime)> {
        let wall = UNIX_EPOCH.checked_add(Duration::from_secs(self.at))?;
        let answer = match need {
            Need::Tags(_) => TagAnswer::Tags(Arc::new(
                self.names?.iter().map(|t| t.parse().ok()).collect::<Option<_>>()?,
            )),
            Need::Catalog(_) | Need::Held(_) => match self.names {
                Some(names) => TagAnswer::Catalog(Arc::new(
                    names.iter().map(|n| n.parse().ok()).collect::<Option<_>>()?,
                )),
                None => TagAnswer::NoCatalog,
            },
            Need::Binding(..) => TagAnswer::Binding(self.digest?.parse().ok()?),
            Need::Platforms(..) => TagAnswer::Platforms(Arc::new(
                self.names?.iter().map(|p| p.parse().ok()).collect::<Option<_>>()?,
            )),
        };
        Some((answer, wall))
    }
}

/// What the store keeps of edges for later mounts.
pub(super) struct KeptTags {
    store: Arc<Store>,
    registries: Arc<JoinedRegistries>,
}

impl KeptTags {
    pub(super) fn new(store: Arc<Store>, registries: Arc<JoinedRegistries>) -> KeptTags {
        KeptTags { store, registries }
    }

    /// The name under which `need` is kept for mounts of the same sources.
    fn name_of(&self, need: &Need) -> String {
        let joined = self.registries.get(need.host());
        let apart = joined.map(|joined| match need {
            Need::Catalog(_) => joined.lists_kept_apart(),
            _ => joined.kept_apart().to_owned(),
        });
        name_of(need) + &apart.unwrap_or_default()
    }

    /// What a mount of the same sources was told, and when.
    pub(super) async fn get(&self, need: &Need) -> Option<(TagAnswer, SystemTime)> {
        self.named(need, self.name_of(need)).await
    }

    /// What a mount of the registry alone was told, and when.
    pub(super) async fn of_registry(&self, need: &Need) -> Option<(TagAnswer, SystemTime)> {
        self.named(need, name_of(need)).await
    }

    async fn named(&self, need: &Need, name: String) -> Option<(TagAnswer, SystemTime)> {
        let store = self.store.clone();
        let bytes = tokio::task::spawn_blocking(move || store.edge(&name)).await.ok().flatten()?;
        serde_json::from_slice::<TagRecord>(&bytes).ok()?.answer(need)
    }

    pub(super) async fn put(&self, need: &Need, confirmed: &Confirmed) {
        let (store, name) = (self.store.clone(), self.name_of(need));
        let Ok(bytes) = serde_json::to_vec(&TagRecord::of(confirmed)) else { return };
        let kept = tokio::task::spawn_blocking(move || store.put_edge(&name, &bytes)).await;
        if let Ok(Err(e)) = kept {
            tracing::warn!("{need} cannot be kept for later mounts: {e}");
        }
    }

    /// The same as [`KeptTags::remove`], for who may wait for the disk.
    pub(super) fn remove_now(&self, need: &Need) {
        self.store.remove_edge(&self.name_of(need));
    }

    pub(super) async fn remove(&self, need: &Need) {
        let (store, name) = (self.store.clone(), self.name_of(need));
        tokio::task::spawn_blocking(move || store.remove_edge(&name)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::name::Repo;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let repo = Repo { host: "a.b".parse().unwrap(), name: "n".parse().unwrap() };
        let tags: Vec<Tag> = ["1", "2"].iter().map(|t| t.parse().unwrap()).collect();
        let written = Confirmed {
            answer: TagAnswer::Tags(Arc::new(tags.clone())),
            wall: SystemTime::now(),
            fresh: None,
        };
        let bytes = serde_json::to_vec(&TagRecord::of(&written)).unwrap();
        let record: TagRecord = serde_json::from_slice(&bytes).unwrap();
        let Some((TagAnswer::Tags(read), _)) = record.answer(&Need::Tags(repo.clone())) else {
            panic!("tags")
        };
        assert_eq!(*read, tags);
        let record: TagRecord = serde_json::from_slice(&bytes).unwrap();
        assert!(record.answer(&Need::Binding(repo.clone(), "1".parse().unwrap())).is_none());
        let unlisted = Confirmed { answer: TagAnswer::NoCatalog, ..written };
        let bytes = serde_json::to_vec(&TagRecord::of(&unlisted)).unwrap();
        let record: TagRecord = serde_json::from_slice(&bytes).unwrap();
        assert!(matches!(
            record.answer(&Need::Catalog(repo.host)),
            Some((TagAnswer::NoCatalog, _))
        ));
    }

    #[test]
    fn edges_of_one_map_are_kept_apart() {
        let repo = Repo { host: "a.b".parse().unwrap(), name: "n".parse().unwrap() };
        let names: BTreeSet<String> = [
            Need::Tags(repo.clone()),
            Need::Catalog(repo.host.clone()),
            Need::Binding(repo.clone(), "1".parse().unwrap()),
        ]
        .iter()
        .map(name_of)
        .collect();
        assert_eq!(names.len(), 3);
    }
}
