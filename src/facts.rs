//! Facts: what is known of the registries, and how to come to know more.
//!
//! Two kinds. *Edges* move (tag → digest, lists of tags and repositories; [`Tags`]): they are kept
//! with the time at which the registry confirmed them, are asked for again after `--tag-ttl`, and
//! the last answer serves while the registry is away. *Nodes* do not move ([`Manifests`], and the
//! packages, blobs and members of [`Content`], all named by digest): once they are in the store, no
//! registry is asked for them again. Every load is a single flight: however many callers wait, one
//! request.
//!
//! [`Facts`] composes the services and does nothing else; [`FactsView`] is what one operation sees
//! of them.
//!
//! INVARIANT: nothing leaves this layer that was not verified against the digest it was asked by.

mod admit;
mod blocking;
mod budget;
mod content;
mod error;
mod extract;
mod fetch;
mod health;
mod look;
mod manifests;
mod names;
mod offers;
mod package;
mod prefetch;
mod providers;
mod recent_failures;
mod referrers;
mod registries;
mod remembered;
mod running;
mod tags;
mod unpack;
mod view;
mod walk;
mod watched_source;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use admit::admitted::Admitted;
pub use admit::{Gate, GivenVerdict, HiddenTags, WantedTargets, signed_sums};
pub use blocking::blocking;
pub use budget::RequestingUser;
pub use content::Content;
pub use extract::PackageTarget;
pub use health::{FailingSource, Health, SourceState};
pub use manifests::{Manifests, TargetPackage};
pub use names::KnownNames;
pub use package::{MemberContent, VerifiedPackage};
pub use prefetch::Unpacking;
pub use providers::{ProviderOptions, Providers};
pub use referrers::ReferrerFacts;
pub use registries::{MountSource, RegistryKind};
pub use remembered::{remember, remembered_in};
pub use running::{Download, on_behalf_of};
pub use tags::Tags;
pub use view::FactsView;
pub use walk::{Awaited, Left};

use crate::archive;
use crate::artifact::SignaturePolicy;
use crate::name::Host;
use crate::store::Store;
use crate::tree::Need;
use crate::trust::Policies;
use budget::Budgets;
use fetch::Fetcher;
use look::SourceLook;
use registries::JoinedRegistries;
use tags::TagSources;

/// How facts are kept.
pub struct FactsOptions {
    /// Sources in the user's order: of several that hold a name the first wins.
    pub sources: Vec<MountSource>,
    /// Whether stores take the place of the registries that they hold: what they say is then kept
    /// for later mounts as what those registries said.
    pub stores_stand_in: bool,
    /// The cache.
    pub store: Arc<Store>,
    /// How long an edge counts without being confirmed.
    pub tag_ttl: Duration,
    /// How long a load goes on without a waiter.
    pub deadline: Duration,
    /// Limits of archives.
    pub limits: archive::Limits,
    /// Which releases may be opened.
    pub policies: Arc<Policies>,
    /// Whether only what they admit is listed.
    pub list_signed: bool,
    /// What of providers was asked for.
    pub providers: ProviderOptions,
    /// What is asked of the signatures of provider registries.
    pub signatures: SignaturePolicy,
}

/// See the module. Each of its parts answers for one kind of fact.
pub struct Facts {
    store: Arc<Store>,
    deadline: Duration,
    registries: Arc<JoinedRegistries>,
    names: Arc<KnownNames>,
    providers: Arc<Providers>,
    manifests: Arc<Manifests>,
    content: Arc<Content>,
    tags: Arc<Tags>,
    referrers: Arc<ReferrerFacts>,
    gate: Arc<Gate>,
}

impl Facts {
    /// Facts over `options.sources`. Reads what stores hold, and the names of formerly used
    /// repositories; asks no registry.
    pub fn new(options: FactsOptions) -> Arc<Facts> {
        let FactsOptions { store, deadline, .. } = options;
        let registries = Arc::new(JoinedRegistries::new(options.sources, options.stores_stand_in));
        let providers = Arc::new(Providers::new(options.providers, store.clone()));
        let names = Arc::new(KnownNames::new(store.clone(), registries.clone(), providers.clone()));
        let fetcher = Arc::new(Fetcher {
            store: store.clone(),
            registries: registries.clone(),
            deadline,
            limits: options.limits,
            running: Arc::default(),
        });
        let budgets = Arc::new(Budgets::new());
        let manifests = Arc::new(Manifests::new(
            store.clone(),
            registries.clone(),
            fetcher.clone(),
            budgets.clone(),
            options.signatures,
            deadline,
        ));
        let sources = TagSources {
            store: store.clone(),
            registries: registries.clone(),
            names: names.clone(),
            manifests: manifests.clone(),
            budgets,
        };
        let content = Arc::new(Content::new(fetcher));
        let (ttl, policies) = (options.tag_ttl, (options.policies, options.list_signed));
        let tags = Arc::new(Tags::new(sources, ttl, deadline));
        let referrers = Arc::new(ReferrerFacts::new(
            store.clone(),
            registries.clone(),
            manifests.clone(),
            content.clone(),
            ttl,
            deadline,
        ));
        let (heard, of_tags) = (referrers.clone(), tags.clone());
        let times = (ttl, deadline);
        let gate = Gate::new(policies, manifests.clone(), heard, of_tags, store.clone(), times);
        Arc::new(Facts {
            tags,
            referrers,
            gate: Arc::new(gate),
            content,
            store,
            deadline,
            registries,
            names,
            providers,
            manifests,
        })
    }

    /// The cache below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How long who asked waits without progress.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The names that are known without asking.
    pub fn names(&self) -> &KnownNames {
        &self.names
    }

    /// What the mount shows of providers.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Manifests and releases.
    pub fn manifests(&self) -> &Arc<Manifests> {
        &self.manifests
    }

    /// Blobs, packages and members.
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// What moves: tags and lists.
    pub fn tags(&self) -> &Arc<Tags> {
        &self.tags
    }

    /// What speaks about manifests.
    pub fn referrers(&self) -> &Arc<ReferrerFacts> {
        &self.referrers
    }

    /// Who may open what.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The sources as the user named them, once for each registry of which they hold a part, and
    /// how they are. Looks into the stores.
    pub fn sources(&self) -> Vec<(String, Health)> {
        self.registries.states()
    }

    /// Whether the registry `host` itself answered when it was asked last.
    pub fn is_well(&self, host: &Host) -> bool {
        self.registries.is_well(host)
    }

    /// Looks at every source, at all of them at once and for at most `limit`; those that fail.
    pub async fn look(&self, limit: Duration) -> Vec<FailingSource> {
        let Facts { registries, providers, tags, .. } = self;
        SourceLook { registries, providers, tags, limit }.at_all().await
    }

    /// What is known to an operation that began at `since`: an answer that came later counts as
    /// fresh for it, however short the time to live.
    pub fn view(&self, since: Instant) -> FactsView<'_> {
        let Facts { registries, names, providers, manifests, tags, .. } = self;
        FactsView {
            registries,
            names,
            providers,
            manifests,
            tags,
            since,
            left: Vec::new(),
            hidden: None,
        }
    }

    /// Forgets for which documents the `wanted` tags stood, and `named`: what they stand for next is
    /// taken as it is. Blocks on the disk.
    pub fn accept(&self, wanted: impl Fn(&Need) -> bool, named: Option<Need>) {
        self.tags.accept(wanted, named);
    }

    /// Forgets the edges for which `wanted` holds, and all failures, so that they are asked for
    /// again. The last answers stay as what serves during an outage.
    pub fn forget(&self, wanted: impl Fn(&Need) -> bool) {
        self.tags.forget(wanted);
        self.referrers.forget();
        self.gate.forget();
        self.manifests.forget_failures();
        self.content.forget_failures();
    }
}
