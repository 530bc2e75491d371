//! `tofufs mirror`: releases of providers from the registries where they are published into one's
//! own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;

use super::access::{self, RegistryAccess};
use super::args::mirror::MirrorArgs;
use super::daemon;
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::output::{self, CommandError, count};
use super::progress::SharedProgress;
use super::push::workshop;
use super::signatures;
use super::source::SourceSetting;
use crate::copy::mirror::{ProviderMirror, SelectedRelease, VersionSelection};
use crate::facts;
use crate::failure::Refusal;
use crate::input;
use crate::lockfile::{self, LockFile, PackageHash};
use crate::mapping::{DEFAULT_REGISTRY, Mapping, MappingRule};
use crate::name::{Host, Platform, ProviderAddr, Repo, Selector};
use crate::provider_registry::{ProviderRegistry, SignatureOutcome, SignaturePolicy};
use crate::registry::layout::{LayoutDirectory, RegistryLayout};
use crate::registry::{Asker, Upload};
use crate::stage::Workshop;
use crate::stage::push::{Observer, PushStep};

/// The most bytes of a list of providers.
const LIST_MAX: u64 = 16 << 20;
/// A registry whose terms of service restrict what may be done with what it serves.
const RESTRICTED: &str = "registry.terraform.io";
const TERMS: &str = "the terms of registry.terraform.io allow its content solely for use with, or \
                     in support of, HashiCorp Terraform (https://registry.terraform.io/terms)";

/// Mirrors, or shows what would be mirrored or is missing.
pub fn run(args: &MirrorArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network =
        Network::reaching(&args.sending.reach, &environment.base).map_err(CommandError::usage)?;
    let wanted = wanted(args, &environment.base)?;
    let destination = MirrorDestination::parse(&args.to, &environment.base)?;
    let repos = destination.repos(&wanted)?;
    access::check(&network)?;
    daemon::keep_memory_private()?;
    if wanted.iter().any(|one| one.provider.host.as_str() == RESTRICTED) {
        output::note(TERMS);
    }
    let run = MirrorRun {
        args,
        destination,
        network: network.clone(),
        access: RegistryAccess::new(&network, Asker::Person),
        workshop: Arc::new(workshop(&args.sending, &environment)?),
        policy: signatures::policy(args.require_signature),
        shown: MirrorShown::new()?,
    };
    daemon::runtime()?.block_on(async {
        tokio::select! {
            done = run.all(&wanted, &repos) => done,
            () = run.shown.line.stopped() => Err(run.shown.line.ended(CommandError::failed(
                "stopped; what was mirrored is kept, and the same command goes on from there"
            ))),
        }
    })
}

/// Versions of one provider that are wanted.
#[derive(Clone, Debug)]
struct WantedVersions {
    provider: ProviderAddr,
    selection: VersionSelection,
    /// What the lock file holds of them; nothing where there is none.
    lock: BTreeSet<PackageHash>,
}

fn wanted(args: &MirrorArgs, base: &Path) -> Result<Vec<WantedVersions>, CommandError> {
    let default: Host = DEFAULT_REGISTRY.parse().map_err(CommandError::usage)?;
    let platforms: BTreeSet<Platform> = args.platform.iter().cloned().collect();
    let selection = |constraints| VersionSelection {
        constraints,
        newest: args.newest,
        platforms: platforms.clone(),
    };
    let mut all = Vec::new();
    if let Some(address) = &args.address {
        let provider = ProviderAddr::parse(address, &default).map_err(CommandError::usage)?;
        let selection = selection(args.constraint.clone().unwrap_or_default());
        all.push(WantedVersions { provider, selection, lock: BTreeSet::new() });
    }
    for file in &args.lock_file {
        let refuse = |e: &dyn std::fmt::Display| {
            CommandError::Failed(format!("{}: {e}", base.join(file).display()))
        };
        let text = input::text(&base.join(file), lockfile::FILE_MAX).map_err(|e| refuse(&e))?;
        let read = LockFile::parse(&text).map_err(|e| refuse(&e))?;
        for (provider, lock) in read.locks() {
            let exactly = lock.version.to_string().parse().map_err(|e| refuse(&e))?;
            all.push(WantedVersions {
                provider: provider.clone(),
                selection: selection(exactly),
                lock: lock.hashes.clone(),
            });
        }
    }
    for file in &args.list {
        let path = base.join(file);
        let text = input::text(&path, LIST_MAX)
            .map_err(|e| CommandError::Failed(format!("{}: {e}", path.display())))?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |e: &dyn std::fmt::Display| {
                CommandError::Failed(format!("{}: line {}: {e}", path.display(), at + 1))
            };
            let (address, constraints) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if constraints.is_empty() && args.newest.is_none() {
                return Err(refuse(
                    &"a constraint is missing; write ADDRESS CONSTRAINT, or give --newest",
                ));
            }
            let provider = ProviderAddr::parse(address, &default).map_err(|e| refuse(&e))?;
            let selection = selection(constraints.parse().map_err(|e| refuse(&e))?);
            all.push(WantedVersions { provider, selection, lock: BTreeSet::new() });
        }
    }
    if all.is_empty() {
        Err(CommandError::failed("no provider is named, so nothing can be mirrored"))
    } else {
        Ok(all)
    }
}

/// Where releases go.
#[derive(Clone, PartialEq, Eq, Debug)]
enum MirrorDestination {
    /// A store, with the names that the providers have.
    Store(PathBuf),
    /// Repositories by a template.
    Template(String),
}

impl MirrorDestination {
    fn parse(text: &OsStr, base: &Path) -> Result<MirrorDestination, CommandError> {
        if let Some(template) = text.to_str().filter(|text| text.contains("${")) {
            return Ok(MirrorDestination::Template(template.to_owned()));
        }
        let behind =
            |part: String| MirrorDestination::Template(format!("{part}/${{namespace}}/${{type}}"));
        match SourceSetting::parse(text, base).map_err(CommandError::usage)? {
            SourceSetting::Layouts(dir) => Ok(MirrorDestination::Store(dir)),
            registry @ SourceSetting::Registry { .. } => Ok(behind(registry.to_string())),
            origin @ SourceSetting::Providers { .. } => Err(CommandError::usage(format_args!(
                "--to {origin}: nothing can be written to a provider registry"
            ))),
            archive @ SourceSetting::Archive(_) => Err(CommandError::usage(format_args!(
                "--to {archive}: an archive is written as a whole; mirror to oci:DIR and copy that"
            ))),
        }
    }

    /// The rule by which providers of `host` find their repositories.
    fn rule(&self, host: &Host) -> Result<MappingRule, CommandError> {
        let store;
        let template = match self {
            MirrorDestination::Template(template) => template,
            MirrorDestination::Store(_) => {
                store = format!("{host}/${{namespace}}/${{type}}");
                &store
            }
        };
        MappingRule::new(template, &[format!("{host}/*/*")], &[]).map_err(CommandError::usage)
    }

    /// The repository of each provider. No two share one: a version is one release.
    fn repos(
        &self,
        wanted: &[WantedVersions],
    ) -> Result<BTreeMap<ProviderAddr, Repo>, CommandError> {
        let mut repos = BTreeMap::new();
        let mut owners: BTreeMap<Repo, &ProviderAddr> = BTreeMap::new();
        for WantedVersions { provider, .. } in wanted {
            let repo = self.rule(&provider.host)?.repo(provider).map_err(CommandError::usage)?;
            match owners.insert(repo.clone(), provider) {
                Some(other) if other != provider => {
                    return Err(CommandError::usage(format_args!(
                        "{other} and {provider} would both become {repo}; give --to a template \
                         with ${{hostname}}"
                    )));
                }
                _ => {}
            }
            repos.insert(provider.clone(), repo);
        }
        Ok(repos)
    }
}

/// One run of the command.
struct MirrorRun<'a> {
    args: &'a MirrorArgs,
    destination: MirrorDestination,
    network: Network,
    access: RegistryAccess,
    workshop: Arc<Workshop>,
    policy: SignaturePolicy,
    shown: MirrorShown,
}

/// How many releases did not come out well.
#[derive(Default)]
struct Shortfall {
    failed: usize,
    missing: usize,
    differing: usize,
}

impl MirrorRun<'_> {
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
                registries.insert(host, self.registry(host)?);
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

    fn registry(&self, host: &Host) -> Result<ProviderRegistry, CommandError> {
        self.access.provider_registry(host)
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
            provider: wanted.provider.clone(),
            registry,
            policy: self.policy,
            repo: repo.clone(),
            upload: upload.as_ref(),
            workshop: Arc::clone(&self.workshop),
        };
        let selected = mirror.select(&wanted.selection).await.map_err(CommandError::failed)?;
        let several = selected.len() > 1;
        let mut mirrored = 0;
        for release in &selected {
            for platform in &release.not_offered {
                let WantedVersions { provider, .. } = wanted;
                output::note(&format!(
                    "{provider} {} has no package for {platform}",
                    release.version
                ));
            }
            match self.release(&mirror, wanted, release, short).await {
                Ok(is_there) => mirrored += usize::from(is_there),
                Err(failed @ CommandError::Failed(_)) if several => {
                    output::note(&failed.to_string());
                    short.failed += 1;
                }
                Err(e) => return Err(e),
            }
        }
        if mirrored > 0 { self.say(&wanted.provider).await } else { Ok(()) }
    }

    /// Deals with one release; whether it is there afterwards.
    async fn release(
        &self,
        mirror: &ProviderMirror<'_>,
        wanted: &WantedVersions,
        release: &SelectedRelease,
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
        let done = mirror.release(release, &wanted.lock, &self.shown).await;
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

impl Shortfall {
    fn outcome(&self, is_check: bool) -> Result<(), CommandError> {
        let Shortfall { failed, missing, differing } = *self;
        let mut words = Vec::new();
        if failed > 0 {
            words.push(format!(
                "{} failed; each reason stands above",
                count(failed, "provider or release")
            ));
        }
        if differing > 0 {
            words.push(format!(
                "{} not what the vendor signed",
                output::count_with(differing, "package", ["is", "are"])
            ));
        }
        if is_check && missing > 0 {
            words.push(format!(
                "{} missing or incomplete; mirror without --check",
                output::count_with(missing, "release", ["is", "are"])
            ));
        }
        if words.is_empty() { Ok(()) } else { Err(CommandError::Failed(words.join("; "))) }
    }
}

/// What is told of one release.
struct ReleaseReport {
    provider: String,
    version: String,
    reference: String,
    digest: Option<String>,
    platforms: Vec<String>,
    missing: Vec<String>,
    signature: Option<String>,
    uploaded_bytes: u64,
}

impl ReleaseReport {
    fn new(provider: &ProviderAddr, repo: &Repo, release: &SelectedRelease) -> ReleaseReport {
        ReleaseReport {
            provider: provider.to_string(),
            version: release.version.to_string(),
            reference: repo.at(Selector::Tag(release.tag.clone())).to_string(),
            digest: release.there.as_ref().map(|there| there.digest.to_string()),
            platforms: release.platforms.iter().map(ToString::to_string).collect(),
            missing: release.missing().iter().map(ToString::to_string).collect(),
            signature: None,
            uploaded_bytes: 0,
        }
    }

    fn print(&self, args: &MirrorArgs) -> Result<(), CommandError> {
        if args.json {
            return output::json(&json!({
                "provider": self.provider, "version": self.version, "reference": self.reference,
                "digest": self.digest, "platforms": self.platforms, "missing": self.missing,
                "signature": self.signature, "uploaded_bytes": self.uploaded_bytes,
            }));
        }
        let (reference, missing) = (&self.reference, self.missing.join(", "));
        match (&self.digest, missing.as_str()) {
            (_, missing) if args.check => output::text(format!("{reference} lacks {missing}\n")),
            (_, missing) if args.dry_run && !missing.is_empty() => {
                output::text(format!("{reference} would get {missing}\n"))
            }
            (Some(digest), _) => output::text(format!("{reference}@{digest}\n")),
            (None, _) => Ok(()),
        }
    }
}

/// Shows how far it is: what was sent of all releases so far.
struct MirrorShown {
    line: SharedProgress,
    /// Bytes of releases before the present one, and of that one.
    sent: Mutex<(u64, u64)>,
}

impl MirrorShown {
    fn new() -> Result<MirrorShown, CommandError> {
        let line = SharedProgress::new("mirrored").map_err(CommandError::failed)?;
        Ok(MirrorShown { line, sent: Mutex::default() })
    }

    /// Another release follows.
    fn next(&self) {
        let mut sent = self.sent.lock();
        *sent = (sent.0 + sent.1, 0);
    }
}

#[async_trait]
impl Observer for MirrorShown {
    async fn reached(&self, _: PushStep) -> Result<(), Refusal> {
        Ok(())
    }

    fn progress(&self, done: u64, total: u64) {
        let before = {
            let mut sent = self.sent.lock();
            sent.1 = done;
            sent.0
        };
        self.line.step(before + done, before + total);
    }

    fn waits(&self, what: &str) {
        output::note(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Result<MirrorDestination, CommandError> {
        MirrorDestination::parse(OsStr::new(text), Path::new("/base"))
    }

    fn wanted(provider: &str) -> WantedVersions {
        let provider = provider.parse().unwrap();
        WantedVersions { provider, selection: VersionSelection::default(), lock: BTreeSet::new() }
    }

    #[test]
    fn a_provider_has_its_own_repository() {
        let aws = "registry.opentofu.org/hashicorp/aws";
        for (to, repo) in [
            ("ghcr.io/acme/providers", "ghcr.io/acme/providers/hashicorp/aws"),
            ("localhost:5000", "localhost:5000/hashicorp/aws"),
            ("ghcr.io/acme/${namespace}-${type}", "ghcr.io/acme/hashicorp-aws"),
            (
                "ghcr.io/${hostname}/${namespace}/${type}",
                "ghcr.io/registry.opentofu.org/hashicorp/aws",
            ),
            ("oci:store", aws),
        ] {
            let repos = destination(to).unwrap().repos(&[wanted(aws)]).unwrap();
            assert_eq!(repos.values().map(Repo::to_string).collect::<Vec<_>>(), [repo], "{to}");
        }
        let both = [wanted(aws), wanted("registry.terraform.io/hashicorp/aws")];
        let refused = destination("ghcr.io/acme").unwrap().repos(&both).unwrap_err();
        assert!(refused.to_string().contains("${hostname}"), "{refused}");
        assert!(destination("oci:store").unwrap().repos(&both).is_ok());
        for bad in ["oci-archive:x.tar", "ghcr.io/acme/${type}", "./store", ""] {
            let refused = destination(bad).and_then(|to| to.repos(&[wanted(aws)]));
            assert!(matches!(refused, Err(CommandError::Usage(_))), "{bad}");
        }
    }
}
