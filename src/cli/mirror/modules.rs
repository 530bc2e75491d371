//! Modules of module registries, packed and put into one's own registry, with the modules of
//! registries that they call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use url::Url;

use super::MirrorRun;
use super::checkout::ModuleDirectory;
use super::git;
use crate::cli::origins;
use crate::cli::output::{self, CommandError};
use crate::copy::needs::{NestedCall, nested};
use crate::copy::origin::{PackageDraft, SOURCE};
use crate::facts::blocking;
use crate::failure::Refusal;
use crate::mapping::DEFAULT_REGISTRY;
use crate::module_registry::{ArchiveKind, ModulePlace, ModuleRegistry, without_query};
use crate::name::{Constraints, Host, ModuleAddr, Repo, Selector, Version};
use crate::registry::{Asker, BlobError};
use crate::stage::plan::{Destined, ReleasePlan, module_directory};
use crate::stage::push::{self, PushOptions};
use crate::stage::unpack::{ArchiveFormat, unpack};

/// Annotation of a release: the commit that it is of.
const REVISION: &str = "org.opencontainers.image.revision";
/// Annotation of a release: the directory in it that is the module, as its registry says.
const SUBDIRECTORY: &str = "org.opentofu.module.subdirectory";
/// A directory that stands for the only one.
const ONLY: &str = "*";

/// One run.
pub struct ModulesRun<'a> {
    run: &'a MirrorRun<'a>,
    default: Host,
    registries: BTreeMap<Host, Arc<ModuleRegistry>>,
    versions: BTreeMap<ModuleAddr, Arc<BTreeSet<Version>>>,
    done: BTreeSet<(ModuleAddr, Version)>,
    missing: usize,
}

/// A module as it was fetched.
struct FetchedModule {
    dir: ModuleDirectory,
    source: String,
    commit: Option<String>,
    subdirectory: String,
}

/// A nested call, and what can be written in its place, where it was mirrored.
struct CarriedCall {
    call: NestedCall,
    path: Option<String>,
}

impl<'a> ModulesRun<'a> {
    /// Nothing is done yet.
    ///
    /// # Errors
    /// Never where [`DEFAULT_REGISTRY`] is a host.
    pub fn new(run: &'a MirrorRun<'a>) -> Result<ModulesRun<'a>, CommandError> {
        let default = DEFAULT_REGISTRY.parse().map_err(CommandError::usage)?;
        let (registries, versions, done) = Default::default();
        Ok(ModulesRun { run, default, registries, versions, done, missing: 0 })
    }

    /// Mirrors the versions of the module `address` that match.
    ///
    /// # Errors
    /// The address is none; what cannot be fetched or put; with `--check`, what is missing.
    pub async fn all(
        mut self,
        address: &str,
        constraints: &Constraints,
    ) -> Result<(), CommandError> {
        let module = ModuleAddr::parse(address, &self.default).map_err(CommandError::usage)?;
        self.module(module, constraints.clone(), self.run.args.newest).await?;
        match self.missing {
            0 => Ok(()),
            missing => Err(CommandError::Failed(format!(
                "{} missing; mirror without --check",
                output::count_with(missing, "module", ["is", "are"])
            ))),
        }
    }

    /// The versions that match and are there afterwards, the oldest first.
    fn module(
        &mut self,
        module: ModuleAddr,
        constraints: Constraints,
        newest: Option<usize>,
    ) -> BoxFuture<'_, Result<Vec<Version>, CommandError>> {
        async move {
            let versions = self.versions(&module).await?;
            let matching = versions.iter().rev().filter(|version| constraints.allow(version));
            let mut selected: Vec<Version> =
                matching.take(newest.unwrap_or(usize::MAX)).cloned().collect();
            selected.reverse();
            if selected.is_empty() {
                return Err(CommandError::Failed(format!(
                    "{module}: none of its {} versions matches \"{constraints}\"",
                    versions.len()
                )));
            }
            for version in &selected {
                if self.done.insert((module.clone(), version.clone())) {
                    self.version(&module, version).await?;
                }
            }
            Ok(selected)
        }
        .boxed()
    }

    fn registry(&mut self, host: &Host) -> Result<Arc<ModuleRegistry>, CommandError> {
        if let Some(known) = self.registries.get(host) {
            return Ok(Arc::clone(known));
        }
        origins::note_terms([host]);
        let access = &self.run.access;
        let transport = access.connections()?.transport();
        let tokens = Arc::new(access.configuration().host_tokens()?);
        let registry = ModuleRegistry::new(transport, host, tokens, Asker::Person);
        let registry = Arc::new(registry.map_err(CommandError::failed)?);
        self.registries.insert(host.clone(), Arc::clone(&registry));
        Ok(registry)
    }

    async fn versions(
        &mut self,
        module: &ModuleAddr,
    ) -> Result<Arc<BTreeSet<Version>>, CommandError> {
        if let Some(known) = self.versions.get(module) {
            return Ok(Arc::clone(known));
        }
        let registry = self.registry(&module.host)?;
        let all = Arc::new(registry.versions(module).await.map_err(CommandError::failed)?);
        self.versions.insert(module.clone(), Arc::clone(&all));
        Ok(all)
    }

    /// Puts one version, behind those that it calls: where its tag is, they are there, too.
    async fn version(
        &mut self,
        module: &ModuleAddr,
        version: &Version,
    ) -> Result<(), CommandError> {
        let repo = self.run.destination.module_repo(module)?;
        let tag = version.tag().ok_or_else(|| {
            CommandError::Failed(format!("{module}: the version {version} is too long for a tag"))
        })?;
        let selector = Selector::Tag(tag.clone());
        let upload = self.run.upload(&repo)?;
        let there = upload.present(&repo.name, &selector).await.map_err(CommandError::failed)?;
        let reference = repo.at(selector).to_string();
        let args = self.run.args;
        if let Some(digest) = there {
            if args.check {
                return Ok(());
            }
            return self.print(&reference, Some(&digest.to_string()), None, &[]);
        }
        if args.check || args.dry_run {
            self.missing += usize::from(args.check);
            return self.print(&reference, None, None, &[]);
        }
        let fetched = self.fetched(module, version).await?;
        let calls = self.called(&fetched).await?;
        let plan = self.plan(
            &fetched,
            &reference,
            Destined { repo: repo.clone(), tags: vec![tag], annotations: fetched.annotations() },
        );
        let plan = plan.await?;
        let pushed =
            push::push(&plan, upload.as_ref(), PushOptions::default(), &self.run.shown).await;
        self.run.shown.next();
        let pushed = pushed.map_err(CommandError::failed)?;
        let digest = pushed.first().map(|pushed| pushed.digest.to_string());
        self.print(&reference, digest.as_deref(), Some(&fetched), &calls)
    }

    async fn fetched(
        &mut self,
        module: &ModuleAddr,
        version: &Version,
    ) -> Result<FetchedModule, CommandError> {
        let registry = self.registry(&module.host)?;
        let place = registry.place(module, version).await.map_err(CommandError::failed)?;
        let below = self.run.state.join("push");
        let dir = ModuleDirectory::new(&below)
            .map_err(|e| CommandError::Failed(format!("{} takes nothing: {e}", below.display())))?;
        let (source, commit, subdirectory) = match place {
            ModulePlace::Git { place, subdirectory } => {
                let commit = git::checkout(&place, &dir.files()).await?;
                (without_user(&place.url), Some(commit), subdirectory)
            }
            ModulePlace::Archive { url, kind, subdirectory } => {
                self.unpacked(&registry, module, &url, kind, &dir.files()).await?;
                (without_query(&url), None, subdirectory)
            }
        };
        let subdirectory = match subdirectory.strip_prefix(ONLY) {
            Some(rest) => only(&dir.files())? + rest,
            None => subdirectory,
        };
        if !dir.files().join(&subdirectory).is_dir() {
            return Err(CommandError::Failed(format!(
                "{module} {version}: {source} has no directory {subdirectory:?}, where its \
                 registry says that the module is"
            )));
        }
        Ok(FetchedModule { dir, source, commit, subdirectory })
    }

    async fn unpacked(
        &self,
        registry: &ModuleRegistry,
        module: &ModuleAddr,
        url: &Url,
        kind: ArchiveKind,
        into: &Path,
    ) -> Result<(), CommandError> {
        let workshop = Arc::clone(&self.run.workshop);
        let name = workshop.name().to_owned();
        let file = workshop.draft().map_err(CommandError::failed)?;
        let mut draft = PackageDraft::new(file);
        match registry.archive(module, url, workshop.limits().archive, &mut draft).await {
            Ok(()) => {}
            Err(BlobError::Registry(e)) => return Err(CommandError::failed(e)),
            Err(BlobError::Sink(_)) => return Err(CommandError::failed(draft.failure(&name))),
        }
        let (file, _) = draft.finish(&name).await.map_err(CommandError::failed)?;
        let dir = File::open(into).map_err(|e| CommandError::failed(Refusal::io(&name, e)))?;
        let format = match kind {
            ArchiveKind::Zip => ArchiveFormat::Zip,
            ArchiveKind::TarGz => ArchiveFormat::TarGz,
        };
        let subject = without_query(url);
        let unpacked = blocking(move || {
            use std::os::fd::AsFd as _;

            unpack(file, format, &subject, dir.as_fd(), workshop.limits())
        });
        unpacked.await.map_err(CommandError::failed)?.map_err(CommandError::failed)
    }

    /// Mirrors the modules of registries that a module calls, each in the newest version that it
    /// allows.
    async fn called(&mut self, fetched: &FetchedModule) -> Result<Vec<CarriedCall>, CommandError> {
        let start = PathBuf::from(&fetched.subdirectory);
        let calls = nested(&fetched.dir.files(), &start, &self.default);
        let mut carried = Vec::new();
        for call in calls.map_err(CommandError::failed)? {
            let path = match &call.registry {
                Some(registry) => {
                    let (module, wanted) = (registry.module.clone(), registry.constraints.clone());
                    let repo = self.run.destination.module_repo(&module)?;
                    let versions = self.module(module, wanted, Some(1)).await?;
                    let tag = versions.last().and_then(Version::tag);
                    tag.map(|tag| below_mount(&repo, tag.as_str(), &registry.subdirectory))
                }
                None => None,
            };
            carried.push(CarriedCall { call, path });
        }
        Ok(carried)
    }

    async fn plan(
        &self,
        fetched: &FetchedModule,
        name: &str,
        destined: Destined,
    ) -> Result<ReleasePlan, CommandError> {
        let files = fetched.dir.files();
        let dir = File::open(&files)
            .map_err(|e| CommandError::Failed(format!("{}: {e}", files.display())))?;
        let (workshop, name) = (Arc::clone(&self.run.workshop), name.to_owned());
        let planned =
            blocking(move || module_directory(dir.into(), &name, destined, &workshop)).await;
        planned.map_err(CommandError::failed)?.map_err(CommandError::failed)
    }

    fn print(
        &self,
        reference: &str,
        digest: Option<&str>,
        fetched: Option<&FetchedModule>,
        calls: &[CarriedCall],
    ) -> Result<(), CommandError> {
        if self.run.args.json {
            let nested: Vec<Value> = calls.iter().map(CarriedCall::json).collect();
            return output::json(&json!({
                "reference": reference, "digest": digest, "nested": nested,
                "source": fetched.map(|fetched| &fetched.source),
                "commit": fetched.and_then(|fetched| fetched.commit.as_ref()),
                "subdirectory": fetched.map(|fetched| &fetched.subdirectory),
            }));
        }
        let mut text = match digest {
            Some(digest) => format!("{reference}@{digest}"),
            None if self.run.args.check => format!("{reference} is missing"),
            None => format!("{reference} would be made"),
        };
        let subdirectory = fetched.map(|fetched| fetched.subdirectory.as_str()).unwrap_or_default();
        if !subdirectory.is_empty() {
            text += &format!(" (the module is in //{subdirectory})");
        }
        text += "\n";
        calls.iter().for_each(|call| text += &call.line());
        output::text(text)
    }
}

impl FetchedModule {
    fn annotations(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([(SOURCE.to_owned(), self.source.clone())]);
        all.extend(self.commit.clone().map(|commit| (REVISION.to_owned(), commit)));
        if !self.subdirectory.is_empty() {
            all.insert(SUBDIRECTORY.to_owned(), self.subdirectory.clone());
        }
        all
    }
}

impl CarriedCall {
    fn line(&self) -> String {
        let NestedCall { file, line, source, .. } = &self.call;
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        match &self.path {
            Some(path) => {
                format!("  {}{line}: {source} -> {path} below a mount\n", file.display())
            }
            None => format!("  {}{line}: {source} is fetched from there\n", file.display()),
        }
    }

    fn json(&self) -> Value {
        let NestedCall { file, line, source, .. } = &self.call;
        json!({ "file": file, "line": line, "source": source, "path": self.path })
    }
}

/// A release as a source can name it below a mount.
fn below_mount(repo: &Repo, tag: &str, subdirectory: &str) -> String {
    match subdirectory {
        "" => format!("{repo}/{tag}"),
        inside => format!("{repo}/{tag}//{inside}"),
    }
}

/// An address without the name and the password of a user.
fn without_user(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else { return address.to_owned() };
    let _ = url.set_password(None);
    if url.scheme() == "https" {
        let _ = url.set_username("");
    }
    url.to_string()
}

/// The one directory that is there.
fn only(dir: &Path) -> Result<String, CommandError> {
    let entries = std::fs::read_dir(dir)
        .map_err(|e| CommandError::Failed(format!("{}: {e}", dir.display())))?;
    let names: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        names => Err(CommandError::Failed(format!(
            "the archive has {} directories at its top, where its registry says that the module is \
             in the only one",
            names.len()
        ))),
    }
}
