//! One look at each source when a mount begins, so that one that cannot work is told before its
//! first use.
//!
//! A registry is asked what its first use would ask anyway, and the answer counts as any other. A
//! failure is not kept: the first use asks by itself. Where nothing had to be asked, or the answer
//! tells a closed repository from a closed registry by nothing, the registry is greeted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::health::{FailingSource, Health, SourceState};
use super::providers::Providers;
use super::registries::JoinedRegistries;
use super::tags::Tags;
use super::watched_source::WatchedSource;
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Repo};
use crate::registry::{Greeting, Registry};
use crate::tree::Need;

/// The part of a look's time that is left for the greeting of a registry that has not answered by
/// then: a long list may take longer, and is no outage.
const LEFT_TO_GREET: u32 = 5;

/// A look at all sources of a mount.
pub(super) struct SourceLook<'a> {
    pub(super) registries: &'a Arc<JoinedRegistries>,
    pub(super) providers: &'a Providers,
    pub(super) tags: &'a Arc<Tags>,
    /// How long it takes at most.
    pub(super) limit: Duration,
}

impl SourceLook<'_> {
    /// Looks at every source, at all of them at once; those that fail.
    pub(super) async fn at_all(&self) -> Vec<FailingSource> {
        let registries = self.registries.clone();
        let stores = tokio::task::spawn_blocking(move || registries.ailing_stores());
        let hosts: Vec<Host> = self.registries.registries().into_iter().collect();
        let registries = join_all(hosts.iter().map(|host| self.at(host))).await;
        stores
            .await
            .unwrap_or_default()
            .into_iter()
            .chain(registries.into_iter().flatten())
            .collect()
    }

    async fn at(&self, host: &Host) -> Option<FailingSource> {
        let asked = self.registries.get(host)?.asked.clone();
        let limit = self.limit - self.limit / LEFT_TO_GREET;
        let health = match tokio::time::timeout(limit, self.asked(host, &asked)).await {
            Ok(health) => health,
            Err(_) => greeted_late(&asked, self.limit).await,
        };
        asked.iter().for_each(|registry| registry.mark(health.clone()));
        health.state.is_failing().then(|| FailingSource { name: host.to_string(), health })
    }

    /// Asks what the first use of `host` would ask.
    async fn asked(&self, host: &Host, asked: &[Arc<WatchedSource>]) -> Health {
        let is_of_providers =
            self.registries.get(host).is_some_and(|joined| joined.is_of_providers());
        // The protocol has no question about all of it.
        if is_of_providers && self.providers.declared_repo(host).is_none() {
            return greeted(asked, Greeting::LogIn, Health::of(SourceState::Unknown)).await;
        }
        let (need, kind) = self.first_need(host);
        // A load that is lost has shown nothing.
        let _ = self.tags.load(need.clone()).await;
        self.tags.forget_if_empty(&need).await;
        let refusal = self.refusal_of(&need, kind);
        let seen = asked.iter().map(|registry| registry.health()).max_by_key(|health| health.state);
        let seen = seen.unwrap_or_else(|| Health::of(SourceState::Unknown));
        if seen.state.is_failing() {
            return seen;
        }
        match refusal {
            Some(error) if error.failure == Failure::Protocol => {
                Health::failing(SourceState::Unreachable, error.reason())
            }
            Some(error) if error.failure == Failure::Denied && kind == LookQuestion::Repository => {
                Health::failing(SourceState::Denied, error)
            }
            Some(error) if error.failure == Failure::Denied => {
                greeted(asked, Greeting::LogIn, seen).await
            }
            _ if asked.iter().any(|registry| registry.refused_login()) => {
                greeted(asked, Greeting::LogIn, seen).await
            }
            _ if seen.state == SourceState::Unknown && self.tags.slot(&need).is_unlisted() => {
                greeted(asked, Greeting::LogIn, seen).await
            }
            _ if seen.state == SourceState::Unknown => greeted(asked, Greeting::Reach, seen).await,
            _ => seen,
        }
    }

    /// Why `need` was not to be had. What is kept is an answer alone, and none that what is
    /// published next would belie.
    fn refusal_of(&self, need: &Need, kind: LookQuestion) -> Option<Refusal> {
        let refusal = self.tags.refusal(need)?;
        if refusal.failure != Failure::Absent || kind == LookQuestion::Repository {
            self.tags.forget_refusal(need);
        }
        Some(refusal)
    }

    /// What is likely to be asked first of `host`.
    fn first_need(&self, host: &Host) -> (Need, LookQuestion) {
        if let Some(repo) = self.providers.declared_repo(host) {
            return (Need::Tags(repo), LookQuestion::Repository);
        }
        let prefixes =
            self.registries.get(host).map(|joined| joined.prefixes.clone()).unwrap_or_default();
        match prefixes.into_iter().next().flatten() {
            Some(name) if !self.providers.are_listed_by(host) => {
                (Need::Tags(Repo { host: host.clone(), name }), LookQuestion::Prefix)
            }
            _ => (Need::Catalog(host.clone()), LookQuestion::Catalog),
        }
    }
}

/// What is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LookQuestion {
    /// A repository that was declared as one.
    Repository,
    /// What may be a repository, or a prefix of others.
    Prefix,
    /// The registry's list of repositories.
    Catalog,
}

async fn greeted(asked: &[Arc<WatchedSource>], greeting: Greeting, seen: Health) -> Health {
    let Some(registry) = asked.first() else { return seen };
    match registry.greet(greeting).await {
        Err(error) if error.failure == Failure::Denied => {
            Health::failing(SourceState::Denied, error.reason())
        }
        _ => registry.health(),
    }
}

/// Greets a registry that has not answered for most of `limit`.
async fn greeted_late(asked: &[Arc<WatchedSource>], limit: Duration) -> Health {
    let unknown = Health::of(SourceState::Unknown);
    let greeting = greeted(asked, Greeting::Reach, unknown);
    tokio::time::timeout(limit / LEFT_TO_GREET, greeting).await.unwrap_or_else(|_| {
        let reason = format!("it has not answered within {:.1} s", limit.as_secs_f64());
        Health::failing(SourceState::Unreachable, reason)
    })
}
