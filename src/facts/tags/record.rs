//! Edges as the store keeps them for later mounts, and the names of the repositories that were
//! used.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Confirmed, TagAnswer};
use crate::name::{Host, Platform, RepoName, Tag};
use crate::store::Store;
use crate::tree::Need;

/// The name of an edge in the store.
pub(super) fn name_of(need: &Need) -> String {
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
pub(super) struct TagRecord {
    /// Seconds since 1970 at which the registry confirmed it.
    at: u64,
    /// Of a catalog: `None` if the registry does not list its repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl TagRecord {
    pub(super) fn of(confirmed: &Confirmed) -> TagRecord {
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

    pub(super) fn answer(self, need: &Need) -> Option<(TagAnswer, SystemTime)> {
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

fn used_name(host: &Host, kept_apart: &str) -> String {
    format!("repositories {host}{kept_apart}")
}

/// The repositories of `host` that any mount of this cache has used of the same stores.
pub(in crate::facts) fn formerly_used(
    store: &Store,
    host: &Host,
    kept_apart: &str,
) -> BTreeSet<RepoName> {
    store
        .edge(&used_name(host, kept_apart))
        .and_then(|bytes| serde_json::from_slice::<Vec<String>>(&bytes).ok())
        .map(|names| names.iter().filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default()
}

/// Adds `names` to the used repositories of `host` in the store.
pub(in crate::facts) fn remember_used(
    store: &Store,
    host: &Host,
    kept_apart: &str,
    names: BTreeSet<RepoName>,
) {
    let mut all = formerly_used(store, host, kept_apart);
    all.extend(names);
    let all: Vec<String> = all.iter().map(RepoName::to_string).collect();
    let kept =
        serde_json::to_vec(&all).map(|bytes| store.put_edge(&used_name(host, kept_apart), &bytes));
    if let Ok(Err(e)) = kept {
        tracing::warn!("the used repositories of {host} cannot be kept for later mounts: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Repo;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let repo = Repo { host: "a.b".parse().unwrap(), name: "n".parse().unwrap() };
        let tags: Vec<Tag> = ["1", "2"].iter().map(|t| t.parse().unwrap()).collect();
        let written = Confirmed {
            answer: TagAnswer::Tags(Arc::new(tags.clone())),
            at: None,
            wall: SystemTime::now(),
            fresh_until: None,
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
