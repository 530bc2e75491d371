//! One look at each source when a mount begins, so that one that cannot work is told before its
//! first use.
//!
//! A registry is asked what its first use would ask anyway, and the answer counts as any other. A
//! failure is not kept: the first use asks by itself. Where nothing had to be asked, or the answer
//! tells a closed repository from a closed registry by nothing, the registry is greeted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Facts;
use super::health::{FailingSource, Health, SourceState};
use super::watched_source::WatchedSource;
use crate::failure::{Failure, Refusal};
use crate::name::{Host, Repo};
use crate::registry::{Greeting, Registry};
use crate::tree::Need;

/// The part of a look's time that is left for the greeting of a registry that has not answered by
/// then: a long list may take longer, and is no outage.
const LEFT_TO_GREET: u32 = 5;

impl Facts {
    /// Looks at every source, at all of them at once and for at most `limit`; those that fail.
    pub async fn look(self: &Arc<Self>, limit: Duration) -> Vec<FailingSource> {
        let facts = self.clone();
        let stores = tokio::task::spawn_blocking(move || facts.origins.ailing_stores());
        let hosts: Vec<Host> = self.origins.registries().into_iter().collect();
        let registries = join_all(hosts.iter().map(|host| self.look_at(host, limit))).await;
        stores
            .await
            .unwrap_or_default()
            .into_iter()
            .chain(registries.into_iter().flatten())
            .collect()
    }

    async fn look_at(self: &Arc<Self>, host: &Host, limit: Duration) -> Option<FailingSource> {
        let asked = self.origins.get(host)?.asked.clone();
        let health =
            match tokio::time::timeout(limit - limit / LEFT_TO_GREET, self.asked(host, &asked))
                .await
            {
                Ok(health) => health,
                Err(_) => greeted_late(&asked, limit).await,
            };
        asked.iter().for_each(|registry| registry.mark(health.clone()));
        health.state.is_failing().then(|| FailingSource { name: host.to_string(), health })
    }

    /// Asks what the first use of `host` would ask.
    async fn asked(self: &Arc<Self>, host: &Host, asked: &[Arc<WatchedSource>]) -> Health {
        let (need, kind) = self.first_need(host);
        // A load that is lost has shown nothing.
        let _ = self.load(need.clone()).await;
        self.forget_if_empty(&need).await;
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
            _ if seen.state == SourceState::Unknown && self.edges.is_unlisted(&need) => {
                greeted(asked, Greeting::LogIn, seen).await
            }
            _ if seen.state == SourceState::Unknown => greeted(asked, Greeting::Reach, seen).await,
            _ => seen,
        }
    }

    /// Why `need` was not to be had. What is kept is an answer alone, and none that what is
    /// published next would belie.
    fn refusal_of(&self, need: &Need, kind: LookQuestion) -> Option<Refusal> {
        match (self.edges.refusal(need)?, kind) {
            (error, LookQuestion::Prefix) if error.failure == Failure::Absent => Some(error),
            (error, LookQuestion::Catalog) if error.failure == Failure::Absent => Some(error),
            _ => self.edges.take_refusal(need),
        }
    }

    /// What is likely to be asked first of `host`.
    fn first_need(&self, host: &Host) -> (Need, LookQuestion) {
        if let Some(repo) = self.declared_repo(host) {
            return (Need::Tags(repo), LookQuestion::Repository);
        }
        let prefixes =
            self.origins.get(host).map(|origin| origin.prefixes.clone()).unwrap_or_default();
        match prefixes.into_iter().next().flatten() {
            Some(name) if !self.lists_providers_of(host) => {
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
