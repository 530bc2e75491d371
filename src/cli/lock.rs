//! `tofufs lock`: the hashes of all platforms of a working directory's providers, into its lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::args::carry::LockArgs;
use super::output::{self, CommandError};
use super::reading::Registries;
use super::settings::Environment;
use super::{daemon, mapping, needed};
use crate::copy::needs::{self, LeftOut, Mounts, NeedsError};
use crate::copy::select::{Selected, select};
use crate::copy::{Origins, hashes};
use crate::facts::FactError;
use crate::lockfile::constraints::Constraints;
use crate::lockfile::{Client, FILE_NAME, Lock, LockFile, PackageHash};
use crate::mapping::Mapping;
use crate::name::{Platform, ProviderAddr, Repo};

/// What became of one provider.
#[derive(Serialize, Debug)]
struct Locked {
    provider: String,
    version: String,
    /// The version that was locked before, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_version: Option<String>,
    reference: String,
    digest: String,
    platforms: Vec<String>,
    hashes: usize,
    /// The hashes that the lock file lacks, or lacked.
    added: Vec<String>,
    /// The platforms whose h1 is not annotated: their packages were read.
    computed: Vec<String>,
    /// Those of them whose zips have entries for directories, so that clients compute another h1 of the zip.
    differing: Vec<String>,
    #[serde(skip)]
    changed: bool,
}

/// What was found out about a working directory.
struct Outcome {
    path: PathBuf,
    before: String,
    after: String,
    locked: Vec<Locked>,
    left_out: BTreeSet<LeftOut>,
}

/// Locks, or with `--check` tells what is missing.
pub fn run(args: &LockArgs) -> Result<(), CommandError> {
    let environment = Environment::of_process().map_err(CommandError::usage)?;
    let flags = args.mapping.mapping().map_err(CommandError::usage)?;
    let registries = Registries::open(&args.reading, args.cache_dir.as_deref(), &environment)?;
    let mapping = mapping::mapping(flags.as_ref(), registries.access())?;
    let dir = environment.base.join(&args.dir);
    let client = args.client.map(Client::from);
    let runtime = daemon::runtime()?;
    let outcome = runtime.block_on(outcome(&registries, &mapping, &dir, client, &args.platform));
    let outcome = outcome.map_err(CommandError::failed)?;
    registries.note_outages();
    let changed = outcome.before != outcome.after;
    if changed && !args.check {
        replace(&outcome.path, &outcome.after)
            .map_err(|e| CommandError::Failed(format!("{} cannot be written: {e}", outcome.path.display())))?;
    }
    report(&outcome, changed, &registries, args)?;
    match changed && args.check {
        true => Err(CommandError::Failed(missing(&outcome))),
        false => Ok(()),
    }
}

async fn outcome(
    registries: &Registries,
    mapping: &Mapping,
    dir: &Path,
    client: Option<Client>,
    platforms: &[Platform],
) -> Result<Outcome, NeedsError> {
    let own = needs::lock_file_of(dir).await?;
    let client = client.or_else(|| own.as_ref()?.client()).unwrap_or(Client::OpenTofu);
    let required = needs::requirements(dir, client, Mounts::Directories, registries).await?;
    let mut left_out = required.left_out;
    let before = own.as_ref().map(|file| file.text().to_owned()).unwrap_or_default();
    let mut file = own.unwrap_or_else(|| LockFile::new(client));
    let wanted: BTreeMap<ProviderAddr, Constraints> = match required.providers.is_empty() {
        // Without a configuration the lock file says what is wanted.
        true => file.locks().map(|(address, lock)| (address.clone(), lock.constraints.clone())).collect(),
        false => required.providers,
    };
    let mut mapped = Vec::new();
    for (address, constraints) in wanted {
        let repos = mapping.repos(&address)?;
        match repos.is_empty() {
            true => {
                let why =
                    "no rule maps this provider to a repository (give --oci-mirror); it is left as it is".to_owned();
                left_out.insert(LeftOut { what: address.to_string(), why });
            }
            false => mapped.push((address, constraints, repos)),
        }
    }
    let locks = mapped.iter().map(|(address, constraints, repos)| {
        lock(registries, address, constraints, repos, file.lock(address), platforms)
    });
    let mut locked = Vec::new();
    for ((address, ..), outcome) in mapped.iter().zip(join_all(locks).await) {
        let (lock, shown) = outcome?;
        let path = dir.join(FILE_NAME);
        file.set(address, &lock).map_err(|e| NeedsError::File { path, rule: e.to_string() })?;
        locked.push(shown);
    }
    let after = if locked.is_empty() { before.clone() } else { file.text().to_owned() };
    Ok(Outcome { path: dir.join(FILE_NAME), before, after, locked, left_out })
}

/// What is to be locked for one provider.
async fn lock(
    origins: &dyn Origins,
    address: &ProviderAddr,
    constraints: &Constraints,
    repos: &[Repo],
    before: Option<&Lock>,
    platforms: &[Platform],
) -> Result<(Lock, Locked), FactError> {
    let Selected { version, reference, digest } =
        select(origins, repos, address, constraints, before.map(|lock| &lock.version)).await?;
    let facts = origins.facts(&reference.repo.host)?;
    let release = hashes::of_release(&facts, &reference.repo, digest, platforms).await?;
    let mut all: BTreeSet<PackageHash> = BTreeSet::new();
    let (mut computed, mut differing) = (Vec::new(), Vec::new());
    for platform in &release {
        all.insert(platform.zh.clone());
        all.insert(match &platform.h1 {
            Some(h1) => h1.clone(),
            None => {
                computed.push(platform.platform.to_string());
                let (h1, differs) = hashes::computed(&facts, &reference.repo, &platform.zip).await?;
                if differs {
                    differing.push(platform.platform.to_string());
                }
                h1
            }
        });
    }
    // Hashes of another version say nothing about this one.
    let same = before.filter(|lock| lock.version == version);
    let kept = same.map(|lock| lock.hashes.clone()).unwrap_or_default();
    let added = all.difference(&kept).map(PackageHash::to_string).collect();
    all.extend(kept);
    let lock = Lock { version: version.clone(), constraints: constraints.clone(), hashes: all };
    let previous = before.map(|lock| &lock.version).filter(|previous| **previous != version);
    let shown = Locked {
        provider: address.to_string(),
        version: version.to_string(),
        previous_version: previous.map(|previous| previous.to_string()),
        reference: reference.to_string(),
        digest: digest.to_string(),
        platforms: release.iter().map(|platform| platform.platform.to_string()).collect(),
        hashes: lock.hashes.len(),
        added,
        computed,
        differing,
        changed: before != Some(&lock),
    };
    Ok((lock, shown))
}

fn report(outcome: &Outcome, changed: bool, registries: &Registries, args: &LockArgs) -> Result<(), CommandError> {
    if args.json {
        return output::json(&json!({
            "file": outcome.path, "changed": changed, "written": changed && !args.check,
            "providers": outcome.locked,
            "left_out": needed::left_out_json(&outcome.left_out),
            "requests": registries.requests(),
        }));
    }
    let mut text = String::new();
    for locked in &outcome.locked {
        let Locked { provider, version, platforms, hashes, added, computed, differing, .. } = locked;
        text += &format!(
            "{provider} {version}: {} platforms, {hashes} hashes, {} of them new",
            platforms.len(),
            added.len()
        );
        if let Some(previous) = &locked.previous_version {
            text += &format!("; before it was {previous}");
        }
        if !computed.is_empty() {
            text += &format!("; h1 computed from the packages of {}, since it is not annotated", computed.join(", "));
        }
        if !differing.is_empty() {
            text += &format!(
                "; the zips of {} have entries for directories, so that a packed mirror matches their zh and not their h1",
                differing.join(", ")
            );
        }
        text += "\n";
    }
    for left in &outcome.left_out {
        text += &format!("{left}\n");
    }
    output::text(text)
}

fn missing(outcome: &Outcome) -> String {
    let lacking = outcome.locked.iter().filter(|locked| locked.changed).map(|locked| {
        let Locked { provider, version, added, .. } = locked;
        match (&locked.previous_version, added.len()) {
            (Some(previous), _) => format!("{provider} {version} (it has {previous}, which is not allowed)"),
            (None, 0) => format!("the constraints of {provider}"),
            (None, hashes) => format!("{hashes} hashes of {provider} {version}"),
        }
    });
    let lacking = lacking.collect::<Vec<_>>().join(", ");
    format!("{} lacks {lacking}; run `tofufs lock` and commit the file", outcome.path.display())
}

/// Puts a new file in the place of the old one, at once. Where the name is a link, in the place of what it leads to.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o644).open(&new)?;
        if let Ok(before) = std::fs::metadata(&path) {
            file.set_permissions(before.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}
