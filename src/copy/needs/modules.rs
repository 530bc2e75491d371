//! A module and all that it calls: which providers they require, and which releases they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::ModuleSource;
use super::{LeftOut, NeedsError};
use crate::artifact::Release;
use crate::copy::RegistryFacts;
use crate::digest::Digest;
use crate::facts::{Facts, Unpacking, VerifiedPackage, blocking};
use crate::failure::{Failure, Refusal};
use crate::input;
use crate::lockfile::Client;
use crate::lockfile::configuration::{Configuration, files_of};
use crate::members::{Child, DirNo, TOP};
use crate::name::path::{from_host, plain};
use crate::name::{Constraints, Host, ProviderAddr, Reference, Selector};
use crate::oci::Descriptor;

/// The largest configuration file that is read, in bytes.
pub(super) const FILE_MAX: u64 = 16 << 20;
/// The most modules of one root module.
pub(super) const MODULES_MAX: usize = 10_000;

/// How a path below a mount is taken.
#[derive(Clone, Copy, Debug)]
pub enum Mounts<'a> {
    /// As a directory, as long as there is one.
    Directories,
    /// As a release, which is wanted. Of these mount points; or of one that is not mounted now, if
    /// there is no such directory and a component of the path can be a registry's name.
    Releases(&'a [PathBuf]),
}

/// What a root module requires.
#[derive(Clone, Default, Debug)]
pub struct Requirements {
    /// The providers, with what the modules ask of their versions.
    pub providers: BTreeMap<ProviderAddr, Constraints>,
    /// The releases that are called as modules, with their zips.
    pub releases: Vec<(Reference, Digest, Descriptor)>,
    /// The modules whose own requirements are not known, since they cannot be read.
    pub left_out: BTreeSet<LeftOut>,
    /// How many files of configuration were read.
    pub files: usize,
}

/// Reads the module in `root` and all modules that it calls.
///
/// # Errors
/// A module that cannot be read, with the module that calls it, or a release that cannot be had.
pub async fn requirements(
    root: &Path,
    client: Client,
    mounts: Mounts<'_>,
    origins: &dyn RegistryFacts,
) -> Result<Requirements, NeedsError> {
    let default = client.default_registry().map_err(|e| NeedsError::file(root, e))?;
    let mut walk = ModuleWalk {
        client,
        default,
        mounts,
        origins,
        seen: BTreeSet::new(),
        found: Requirements::default(),
    };
    let mut pending = vec![ModulePlace::Directory(canonical(root.to_owned()).await?)];
    while let Some(place) = pending.pop() {
        if !walk.seen.insert(place.to_string()) {
            continue;
        }
        if walk.seen.len() > MODULES_MAX {
            return Err(NeedsError::file(
                root,
                format_args!("it uses more than {MODULES_MAX} modules"),
            ));
        }
        pending.extend(walk.read(&place).await?);
    }
    Ok(walk.found)
}

/// Where a module is.
#[derive(Clone)]
enum ModulePlace {
    Directory(PathBuf),
    Release(Arc<OpenedModule>, PathBuf),
}

struct OpenedModule {
    facts: Arc<Facts>,
    reference: Reference,
    package: Arc<VerifiedPackage>,
}

impl std::fmt::Display for ModulePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModulePlace::Directory(dir) => write!(f, "{}", dir.display()),
            ModulePlace::Release(opened, dir) if dir.as_os_str().is_empty() => {
                write!(f, "{}", opened.reference)
            }
            ModulePlace::Release(opened, dir) => {
                write!(f, "{}//{}", opened.reference, dir.display())
            }
        }
    }
}

struct ModuleWalk<'a> {
    client: Client,
    default: Host,
    mounts: Mounts<'a>,
    origins: &'a dyn RegistryFacts,
    seen: BTreeSet<String>,
    found: Requirements,
}

impl ModuleWalk<'_> {
    /// Reads one module; the modules that it calls.
    async fn read(&mut self, place: &ModulePlace) -> Result<Vec<ModulePlace>, NeedsError> {
        let configuration = match place {
            ModulePlace::Directory(dir) => {
                let (dir, client) = (dir.clone(), self.client);
                blocking(move || read_directory(&dir, client)).await??
            }
            ModulePlace::Release(opened, dir) => opened.read(dir, self.client).await?,
        };
        self.found.files += configuration.files();
        let broken = |e| NeedsError::file(Path::new(&place.to_string()), e);
        for (address, constraints) in configuration.providers(&self.default).map_err(broken)? {
            self.found.providers.entry(address).or_default().add(constraints);
        }
        let mut called = Vec::new();
        for call in configuration.calls() {
            let by = format!("module {:?} of {place}", call.name);
            let source = match &call.source {
                Some(source) => ModuleSource::parse(source),
                None => ModuleSource::Other("its source is computed".to_owned()),
            };
            called.push(match source {
                ModuleSource::Other(why) => {
                    let what =
                        call.source.clone().unwrap_or_else(|| format!("module {:?}", call.name));
                    let why = format!("{why} (used by {by})");
                    self.found.left_out.insert(LeftOut { what, why });
                    continue;
                }
                ModuleSource::Release(reference, dir) => {
                    self.release(&[(reference, dir)], &by).await?
                }
                ModuleSource::Absolute(path) => self.path(path, &by).await?,
                ModuleSource::Relative(path) => self.beside(place, &path, &by).await?,
            });
        }
        Ok(called)
    }

    /// The module at a path from where another one is.
    async fn beside(
        &mut self,
        place: &ModulePlace,
        path: &Path,
        by: &str,
    ) -> Result<ModulePlace, NeedsError> {
        let (opened, dir) = match place {
            ModulePlace::Directory(dir) => return self.path(dir.join(path), by).await,
            ModulePlace::Release(opened, dir) => (opened, dir.join(path)),
        };
        match plain(&dir) {
            Some(inside) => {
                Ok(ModulePlace::Release(Arc::clone(opened), inside.into_iter().collect()))
            }
            // Out of the package, as a module in a mount may lead to its neighbours.
            None => self.release(&Reference::below_mount(&opened.in_mount().join(dir)), by).await,
        }
    }

    /// The module at a path outside of packages.
    async fn path(&mut self, path: PathBuf, by: &str) -> Result<ModulePlace, NeedsError> {
        let is_dir = {
            let path = path.clone();
            move || path.is_dir()
        };
        if let Mounts::Releases(points) = self.mounts {
            let lexical: PathBuf = [Path::new("/")]
                .into_iter()
                .chain(plain(&path).iter().flatten().map(Path::new))
                .collect();
            let below = |path: &Path| {
                points.iter().find_map(|point| path.strip_prefix(point).ok().map(Path::to_owned))
            };
            if let Some(rest) = below(&lexical) {
                return self.release(&Reference::below_mount(&rest), by).await;
            }
            if let Ok(real) = canonical(path.clone()).await {
                return match below(&real) {
                    Some(rest) => self.release(&Reference::below_mount(&rest), by).await,
                    None => Ok(ModulePlace::Directory(real)),
                };
            }
        }
        if blocking(is_dir).await? {
            return Ok(ModulePlace::Directory(canonical(path).await?));
        }
        match from_host(&path).map(|rest| Reference::below_mount(&rest)) {
            Some(readings) if !readings.is_empty() => self.release(&readings, by).await,
            _ => Err(NeedsError::file(
                &path,
                format_args!("there is no such directory, which {by} uses"),
            )),
        }
    }

    /// The first of these releases that exists, opened.
    async fn release(
        &mut self,
        readings: &[(Reference, PathBuf)],
        by: &str,
    ) -> Result<ModulePlace, NeedsError> {
        for (reference, dir) in readings {
            let facts = self.origins.facts(&reference.repo.host)?;
            let digest = match facts.tags().resolve(reference).await {
                Err(e) if e.failure == Failure::Absent => continue,
                answer => answer?,
            };
            let (_, release) = facts.manifests().release(&reference.repo, digest).await?;
            let Release::Module(zip) = release else {
                let rule = format!("this is a provider release, but {by} uses it as a module");
                return Err(Refusal::new(Failure::Structure, reference, rule).into());
            };
            let admitted = facts.gate().admit(reference, digest).await?;
            let (content, repo) = (facts.content(), &reference.repo);
            let package = content.package(&admitted, repo, &zip, Unpacking::WhenOpened).await?;
            let inside: PathBuf = plain(dir).unwrap_or_default().into_iter().collect();
            let wanted = (reference.clone(), digest, zip);
            if !self.found.releases.contains(&wanted) {
                self.found.releases.push(wanted);
            }
            return Ok(ModulePlace::Release(
                Arc::new(OpenedModule { facts, reference: reference.clone(), package }),
                inside,
            ));
        }
        let tried: Vec<String> =
            readings.iter().map(|(reference, _)| reference.to_string()).collect();
        let rule = if tried.is_empty() {
            "its source is a path that no release can have".to_owned()
        } else {
            format!("there is no such release, which {by} uses")
        };
        let subject = if tried.is_empty() { by.to_owned() } else { tried.join(" or ") };
        Err(Refusal::new(Failure::Absent, subject, rule).into())
    }
}

impl OpenedModule {
    /// The path of the release below a mount.
    fn in_mount(&self) -> PathBuf {
        let Reference { repo, selector } = &self.reference;
        match selector {
            Selector::Tag(tag) => PathBuf::from(format!("{repo}/{tag}")),
            Selector::Digest(digest) => PathBuf::from(format!("{repo}@{digest}")),
        }
    }

    async fn read(&self, dir: &Path, client: Client) -> Result<Configuration, NeedsError> {
        let at = self.package.reference();
        let refuse = |rule: String| {
            NeedsError::from(Refusal::new(
                Failure::Structure,
                format!("{} ({at})", self.reference),
                rule,
            ))
        };
        let Some(number) = self.directory(dir) else {
            return Err(refuse(format!("the package has no directory {:?}", dir.display())));
        };
        let names: Vec<&str> =
            self.package.members.children(number).filter_map(|(name, _)| name.to_str()).collect();
        let mut configuration = Configuration::default();
        for name in files_of(names, client) {
            let Some(Child::File(file)) = self.package.members.lookup(number, name.as_ref()) else {
                continue;
            };
            let size = self.package.members.file(file).size;
            if size > FILE_MAX {
                return Err(refuse(format!(
                    "{name} has {size} bytes; the limit for configuration files is {FILE_MAX}"
                )));
            }
            let bytes = self.facts.content().contents(&self.package, file).await?;
            let text = String::from_utf8(bytes)
                .map_err(|_| refuse(format!("{name} is not text in UTF-8")))?;
            configuration.add(name, &text).map_err(|e| refuse(format!("{name}: {e}")))?;
        }
        Ok(configuration)
    }

    fn directory(&self, dir: &Path) -> Option<DirNo> {
        let mut at = TOP;
        for name in plain(dir)? {
            match self.package.members.lookup(at, name.as_ref())? {
                Child::Dir(below) => at = below,
                Child::File(_) => return None,
            }
        }
        Some(at)
    }
}

async fn canonical(path: PathBuf) -> Result<PathBuf, NeedsError> {
    let at = path.clone();
    blocking(move || at.canonicalize()).await?.map_err(|e| NeedsError::file(&path, e))
}

pub(super) fn read_directory(dir: &Path, client: Client) -> Result<Configuration, NeedsError> {
    let names = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    };
    let names = names().map_err(|e| NeedsError::file(dir, e))?;
    let mut configuration = Configuration::default();
    for name in files_of(names.iter().map(String::as_str), client) {
        let path = dir.join(name);
        // What else has such a name is none of the client's files either.
        if path.is_dir() {
            continue;
        }
        let text = read_text(&path, FILE_MAX)?;
        configuration.add(name, &text).map_err(|e| NeedsError::file(&path, e))?;
    }
    Ok(configuration)
}

/// The text of a file of at most `limit` bytes. Blocks on the disk.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, NeedsError> {
    input::text(path, limit).map_err(|e| NeedsError::file(path, e))
}
