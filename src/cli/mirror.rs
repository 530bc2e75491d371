//! `tofufs mirror`: releases of providers from the registries where they are published into one's
//! own.

mod checkout;
mod destination;
mod git;
mod memory;
mod modules;
mod report;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::access::{self, RegistryAccess};
use super::args::mirror::MirrorArgs;
use super::daemon;
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::origins;
use super::output::{self, CommandError};
use super::push::workshop;
use crate::copy::mirror::{MirrorMemory, ProviderMirror, SelectedRelease, SelectedReleases};
use crate::copy::origin::ProviderOrigin;
use crate::facts;
use crate::mapping::Mapping;
use crate::name::{Host, ProviderAddr, Repo, Selector};
use crate::provider_registry::{ProviderRegistry, SignatureOutcome, SignaturePolicy};
use crate::registry::layout::{LayoutDirectory, RegistryLayout};
use crate::registry::{Asker, Upload};
use crate::stage::Workshop;

use destination::MirrorDestination;
use memory::MemoryFile;
use modules::ModulesRun;
use report::{MirrorShown, ReleaseReport, Shortfall};
use wanted::{WantedVersions, wanted};

/// Mirrors, or shows what would be mirrored or is missing.
pub fn run(args: &MirrorArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network =
        Network::reaching(&args.sending.reach, &environment.base).map_err(CommandError::usage)?;
    let wanted = if args.modules { Vec::new() } else { wanted(args, &environment)? };
    let destination = MirrorDestination::parse(&args.to, &environment.base)?;
    let repos = destination.repos(&wanted)?;
    access::check(&network)?;
    daemon::keep_memory_private()?;
    origins::note_terms(wanted.iter().map(|one| &one.provider.host));
    let state = environment.state_dir(args.sending.state_dir.as_deref());
    let state = state.map_err(CommandError::usage)?;
    let run = MirrorRun {
        args,
        destination,
        network: network.clone(),
        state,
        access: RegistryAccess::new(&network, Asker::Person),
        workshop: Arc::new(workshop(&args.sending, &environment)?),
        policy: origins::signature_policy(args.require_signature),
        shown: MirrorShown::new()?,
    };
    daemon::runtime()?.block_on(async {
        tokio::select! {
            done = run.modules_or_providers(&wanted, &repos) => done,
            () = run.shown.line.stopped() => Err(run.shown.line.ended(CommandError::failed(
                "stopped; what was mirrored is kept, and the same command goes on from there"
            ))),
        }
    })
}

/// One run of the command.
struct MirrorRun<'a> {
    args: &'a MirrorArgs,
    destination: MirrorDestination,
    network: Network,
    state: PathBuf,
    access: RegistryAccess,
    workshop: Arc<Workshop>,
    policy: SignaturePolicy,
    shown: MirrorShown,
}

impl MirrorRun<'_> {
    async fn modules_or_providers(
        &self,
        wanted: &[WantedVersions],
        repos: &BTreeMap<ProviderAddr, Repo>,
    ) -> Result<(), CommandError> {
        match (&self.args.address, self.args.modules) {
            (Some(address), true) => {
                let constraints = self.args.constraint.clone().unwrap_or_default();
                ModulesRun::new(self)?.all(address, &constraints).await
            }
            _ => self.all(wanted, repos).await,
        }
    }

    async fn all(
        &self,
        wanted: &[WantedVersions],
        repos: &BTreeMap<ProviderAddr, Repo>,
    ) -> Result<(), CommandError> {
        let mut registries: BTreeMap<&Host, ProviderRegistry> = BTreeMap::new();
        let mut short = Shortfall::default();
        for one in wanted {
            let host = &one.provider.host;
            if !registries.contains_key(host) {
                registries.insert(host, origins::registry(&self.access, host)?);
            }
            let (Some(registry), Some(repo)) = (registries.get(host), repos.get(&one.provider))
            else {
                continue;
            };
            let failed = match self.provider(one, registry, repo, &mut short).await {
                Ok(()) => continue,
                Err(failed @ CommandError::Failed(_)) => failed,
                Err(other) => return Err(other),
            };
            if wanted.len() == 1 {
                return Err(failed);
            }
            // One that is sick fails alone.
            output::note(&failed.to_string());
            short.failed += 1;
        }
        short.outcome(self.args.check)
    }

    fn upload(&self, repo: &Repo) -> Result<Arc<dyn Upload>, CommandError> {
        match self.store()? {
            Some(store) => {
                let layout = RegistryLayout::of(store, &repo.host);
                Ok(Arc::new(layout.with_deadline(self.network.deadline)))
            }
            None => {
                let writer = self.access.connections()?.writer(&repo.host);
                Ok(Arc::new(writer.map_err(CommandError::failed)?))
            }
        }
    }

    /// The store that is written to; made if it is missing, unless nothing is to be changed.
    fn store(&self) -> Result<Option<Arc<LayoutDirectory>>, CommandError> {
        let MirrorDestination::Store(dir) = &self.destination else { return Ok(None) };
        let changes = !self.args.check && !self.args.dry_run;
        if changes {
            std::fs::create_dir_all(dir).map_err(|e| {
                CommandError::Failed(format!("the store {} cannot be made: {e}", dir.display()))
            })?;
        }
        LayoutDirectory::open(dir).map(Arc::new).map(Some).map_err(CommandError::failed)
    }

    async fn provider(
        &self,
        wanted: &WantedVersions,
        registry: &ProviderRegistry,
        repo: &Repo,
        short: &mut Shortfall,
    ) -> Result<(), CommandError> {
        let upload = self.upload(repo)?;
        let mirror = ProviderMirror {
            origin: ProviderOrigin {
                provider: wanted.provider.clone(),
                registry,
                policy: self.policy,
                workshop: Arc::clone(&self.workshop),
                cache: None,
            },
            repo: repo.clone(),
            upload: upload.as_ref(),
        };
        let file = MemoryFile::open(&self.state, &self.place(repo))?;
        let mut memory = file.memory();
        if self.args.check || self.args.verify || self.is_store() {
            memory.forget_releases();
        }
        let selected = mirror.select(&wanted.selection, &mut memory).await;
        file.keep(&memory);
        let selected = selected.map_err(CommandError::failed)?;
        self.note_young(wanted, &selected);
        let several = selected.releases.len() > 1;
        let mut mirrored = 0;
        for release in &selected.releases {
            for platform in &release.not_offered {
                let WantedVersions { provider, .. } = wanted;
                output::note(&format!(
                    "{provider} {} has no package for {platform}",
                    release.version
                ));
            }
            match self.release(&mirror, wanted, release, &mut memory, short).await {
                Ok(is_there) => mirrored += usize::from(is_there),
                Err(failed @ CommandError::Failed(_)) if several => {
                    output::note(&failed.to_string());
                    short.failed += 1;
                }
                Err(e) => return Err(e),
            }
            file.keep(&memory);
        }
        self.say_what_could_go(repo, &selected)?;
        if mirrored > 0 { self.say(&wanted.provider).await } else { Ok(()) }
    }

    /// What the memory of a repository goes by.
    fn place(&self, repo: &Repo) -> String {
        match &self.destination {
            MirrorDestination::Store(dir) => format!("oci:{} {repo}", dir.display()),
            MirrorDestination::Template(_) => repo.to_string(),
        }
    }

    fn is_store(&self) -> bool {
        matches!(self.destination, MirrorDestination::Store(_))
    }

    fn note_young(&self, wanted: &WantedVersions, selected: &SelectedReleases) {
        for (version, since) in &selected.young {
            let WantedVersions { provider, .. } = wanted;
            output::note(&format!("{provider} {version} is left out: it is out since {since}"));
        }
    }

    /// Lists the tags that are not wanted any more. Nothing is removed.
    fn say_what_could_go(
        &self,
        repo: &Repo,
        selected: &SelectedReleases,
    ) -> Result<(), CommandError> {
        let Some(keep) = self.args.keep else { return Ok(()) };
        for tag in selected.could_go(keep) {
            let reference = repo.at(Selector::Tag(tag)).to_string();
            if self.args.json {
                output::json(&json!({ "could_go": reference }))?;
            } else {
                output::text(format!("{reference} could go\n"))?;
            }
        }
        Ok(())
    }

    /// Deals with one release; whether it is there afterwards.
    async fn release(
        &self,
        mirror: &ProviderMirror<'_>,
        wanted: &WantedVersions,
        release: &SelectedRelease,
        memory: &mut MirrorMemory,
        short: &mut Shortfall,
    ) -> Result<bool, CommandError> {
        if release.platforms.is_empty() {
            return Ok(false);
        }
        mirror.check_there(release, &wanted.lock).map_err(CommandError::failed)?;
        if self.args.verify {
            for difference in mirror.verify(release).await.map_err(CommandError::failed)? {
                output::note(&difference);
                short.differing += 1;
            }
        }
        let mut told = ReleaseReport::new(&wanted.provider, &mirror.repo, release);
        let is_missing = !release.missing().is_empty();
        if self.args.check || self.args.dry_run {
            short.missing += usize::from(is_missing);
            if is_missing || self.args.dry_run {
                told.print(self.args)?;
            }
            return Ok(false);
        }
        let done = mirror.release(release, &wanted.lock, memory, &self.shown).await;
        self.shown.next();
        if let Some(done) = done.map_err(CommandError::failed)? {
            if let SignatureOutcome::SignedByExpiredKey(_) = done.outcome {
                output::note(&format!(
                    "warning: {} {}: {}",
                    wanted.provider, release.version, done.outcome
                ));
            }
            told.digest = Some(done.pushed.digest.to_string());
            told.signature = Some(done.outcome.to_string());
            told.uploaded_bytes = done.pushed.uploaded_bytes;
        }
        told.print(self.args)?;
        Ok(true)
    }

    /// Has a store say whose releases it holds, so that a mount of it needs no rules.
    async fn say(&self, provider: &ProviderAddr) -> Result<(), CommandError> {
        let Some(store) = self.store()? else { return Ok(()) };
        let rules = Mapping::new(vec![self.destination.rule(&provider.host)?]);
        let says = rules.carried_with(&BTreeSet::from([provider.clone()]));
        let deadline = self.network.deadline;
        let said = facts::blocking(move || store.carry(&says, deadline)).await;
        said.map_err(CommandError::failed)?.map_err(CommandError::failed)
    }
}
