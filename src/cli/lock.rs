//! `tofufs lock`: the hashes of all platforms of a working directory's providers, into its lock
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::args::carry::LockArgs;
use super::directories::DirectoryEnvironment;
use super::output::{self, CommandError, count, listed};
use super::reading::Registries;
use super::replace::replace;
use super::{daemon, needed};
use crate::artifact::Target;
use crate::copy::needs::{self, LeftOut, Mounts, NeedsError};
use crate::copy::select::{Selected, select};
use crate::copy::{RegistryFacts as _, hashes};
use crate::failure::{Failure, Refusal};
use crate::lockfile::{Client, FILE_NAME, LockFile, PackageHash, ProviderLock};
use crate::mapping::Mapping;
use crate::name::{Constraints, Platform, ProviderAddr, Reference, Repo, Selector};

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
    /// Those of them whose zips have entries for directories, so that clients compute another h1 of
    /// the zip.
    differing: Vec<String>,
    #[serde(skip)]
    changed: bool,
}

/// What was found out about a working directory.
struct LockOutcome {
    path: PathBuf,
    before: String,
    after: String,
    locked: Vec<Locked>,
    left_out: BTreeSet<LeftOut>,
    /// The providers that are required, that no rule maps, and that are not locked as they are
    /// required.
    unlocked: Vec<ProviderAddr>,
}

/// Locks, or with `--check` tells what is missing.
pub fn run(args: &LockArgs) -> Result<(), CommandError> {
    let here = [Platform::host()];
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let flags = args.mapping.mapping().map_err(CommandError::usage)?;
    let registries = Registries::for_command(&args.reading, &environment)?
        .of_platforms(if args.platform.is_empty() { &here } else { &args.platform });
    let mapping = registries.mapping(flags.as_ref())?;
    let dir = environment.base.join(&args.dir);
    let client = args.client.map(Client::from);
    let runtime = daemon::runtime()?;
    let outcome = runtime.block_on(outcome(&registries, &mapping, &dir, client, &args.platform));
    let outcome = outcome.map_err(CommandError::failed)?;
    registries.note_outages();
    let changed = outcome.before != outcome.after;
    if changed && !args.check {
        replace(&outcome.path, outcome.after.as_bytes(), 0o644).map_err(|e| {
            CommandError::Failed(format!("{} cannot be written: {e}", outcome.path.display()))
        })?;
    }
    report(&outcome, changed, &registries, args)?;
    if args.check && (changed || !outcome.unlocked.is_empty()) {
        return Err(CommandError::Failed(missing(&outcome)));
    }
    Ok(())
}

async fn outcome(
    registries: &Registries,
    mapping: &Mapping,
    dir: &Path,
    client: Option<Client>,
    platforms: &[Platform],
) -> Result<LockOutcome, NeedsError> {
    let own = needs::lock_file_of(dir).await?;
    let client = client.or_else(|| own.as_ref()?.client()).unwrap_or(Client::OpenTofu);
    let required = needs::requirements(dir, client, Mounts::Directories, registries).await?;
    let mut left_out = required.left_out;
    if required.files == 0 && own.is_none() {
        let rule = "there is neither a configuration nor a lock file here, so nothing can be \
             locked or checked";
        return Err(NeedsError::File { path: dir.to_owned(), rule: rule.to_owned() });
    }
    let before = own.as_ref().map(|file| file.text().to_owned()).unwrap_or_default();
    let mut file = own.unwrap_or_else(|| LockFile::new(client));
    let wanted: BTreeMap<ProviderAddr, Constraints> = if required.providers.is_empty() {
        // Without a configuration the lock file says what is wanted.
        file.locks().map(|(address, lock)| (address.clone(), lock.constraints.clone())).collect()
    } else {
        required.providers
    };
    let (mut mapped, mut unmapped, mut unlocked) = (Vec::new(), Vec::new(), Vec::new());
    for (address, constraints) in wanted {
        let repos = mapping.repos(&address)?;
        if !repos.is_empty() {
            mapped.push((address, constraints, repos));
            continue;
        }
        let why =
            "no rule maps this provider to a repository (give --oci-mirror); it is left as it is"
                .to_owned();
        left_out.insert(LeftOut { what: address.to_string(), why });
        if !file.lock(&address).is_some_and(|lock| constraints.allow(&lock.version)) {
            unlocked.push(address.clone());
        }
        unmapped.push(address.to_string());
    }
    let path = dir.join(FILE_NAME);
    if mapped.is_empty() && !left_out.is_empty() {
        return Err(NeedsError::File { path, rule: nothing_known(&unmapped, &left_out) });
    }
    let locks = mapped.iter().map(|(address, constraints, repos)| {
        lock(registries, address, constraints, repos, file.lock(address), platforms)
    });
    let (mut locked, mut new) = (Vec::new(), BTreeMap::new());
    for ((address, ..), outcome) in mapped.iter().zip(join_all(locks).await) {
        let (lock, shown) = outcome?;
        new.insert(address.clone(), lock);
        locked.push(shown);
    }
    file.set(&new).map_err(|e| NeedsError::File { path: path.clone(), rule: e.to_string() })?;
    let after = if locked.is_empty() { before.clone() } else { file.text().to_owned() };
    Ok(LockOutcome { path, before, after, locked, left_out, unlocked })
}

/// Why nothing could be locked or checked.
fn nothing_known(unmapped: &[String], left_out: &BTreeSet<LeftOut>) -> String {
    let nothing = "so nothing could be locked or checked";
    if unmapped.is_empty() {
        let modules = listed(&left_out.iter().map(LeftOut::to_string).collect::<Vec<_>>());
        return format!("the providers of modules are not known, {nothing}: {modules}");
    }
    format!("no rule maps {} to a repository, {nothing}; give --oci-mirror", listed(unmapped))
}

/// What is to be locked for one provider.
async fn lock(
    origins: &Registries,
    address: &ProviderAddr,
    constraints: &Constraints,
    repos: &[Repo],
    before: Option<&ProviderLock>,
    platforms: &[Platform],
) -> Result<(ProviderLock, Locked), Refusal> {
    let Selected { version, reference, digest } =
        select(origins, repos, address, constraints, before.map(|lock| &lock.version)).await?;
    let facts = origins.facts(&reference.repo.host)?;
    let is_locked = |target: &Target| platforms.is_empty() || platforms.contains(&target.platform);
    let (admitted, _) = facts.gate().admit_all(&reference, digest, &is_locked).await?;
    let release = hashes::of_release(&facts, &reference.repo, digest, platforms).await?;
    let mut all: BTreeSet<PackageHash> = BTreeSet::new();
    let (mut computed, mut differing) = (Vec::new(), Vec::new());
    for platform in &release {
        all.insert(platform.zh.clone());
        all.insert(match &platform.h1 {
            Some(h1) => h1.clone(),
            None => {
                computed.push(platform.platform.to_string());
                let (h1, differs) =
                    hashes::computed(&facts, &admitted, &reference.repo, &platform.zip).await?;
                if differs {
                    differing.push(platform.platform.to_string());
                }
                h1
            }
        });
    }
    all.extend(of_vendor(origins, &reference).await?);
    // Hashes of another version say nothing about this one.
    let same = before.filter(|lock| lock.version == version);
    let kept = same.map(|lock| lock.hashes.clone()).unwrap_or_default();
    let added = all.difference(&kept).map(PackageHash::to_string).collect();
    all.extend(kept);
    let lock =
        ProviderLock { version: version.clone(), constraints: constraints.clone(), hashes: all };
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

/// The hashes of all packages of a release that comes from a provider registry itself: what it
/// signed, as the clients lock it.
async fn of_vendor(
    origins: &Registries,
    reference: &Reference,
) -> Result<BTreeSet<PackageHash>, Refusal> {
    let Reference { repo, selector: Selector::Tag(tag) } = reference else {
        return Ok(BTreeSet::new());
    };
    let origin = origins.origin(&repo.host);
    match origin.map_err(|e| Refusal::new(Failure::Io, &repo.host, e))? {
        Some(origin) => origin.zip_hashes(&repo.name, tag).await,
        None => Ok(BTreeSet::new()),
    }
}

fn report(
    outcome: &LockOutcome,
    changed: bool,
    registries: &Registries,
    args: &LockArgs,
) -> Result<(), CommandError> {
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
        let Locked { provider, version, platforms, hashes, added, computed, differing, .. } =
            locked;
        text += &format!(
            "{provider} {version}: {}, {}, {} of them new",
            count(platforms.len(), "platform"),
            count(*hashes, "hash"),
            added.len()
        );
        if let Some(previous) = &locked.previous_version {
            text += &format!("; before it was {previous}");
        }
        if !computed.is_empty() {
            text += &format!(
                "; h1 computed from the packages of {}, since it is not annotated",
                computed.join(", ")
            );
        }
        if !differing.is_empty() {
            text += &format!(
                "; the zips of {} have entries for directories, so that a packed mirror matches \
                 their zh and not their h1",
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

fn missing(outcome: &LockOutcome) -> String {
    let lacking = outcome.locked.iter().filter(|locked| locked.changed).map(|locked| {
        let Locked { provider, version, added, .. } = locked;
        match (&locked.previous_version, added.len()) {
            (Some(previous), _) => {
                format!("{provider} {version} (it has {previous}, which is not allowed)")
            }
            (None, 0) => format!("the constraints of {provider}"),
            (None, hashes) => format!("{} of {provider} {version}", count(hashes, "hash")),
        }
    });
    let unlocked =
        outcome.unlocked.iter().map(|provider| format!("{provider}, which no rule maps"));
    let lacking = listed(&lacking.chain(unlocked).collect::<Vec<_>>());
    if outcome.before == outcome.after {
        return format!(
            "{} lacks {lacking}; give --oci-mirror, or let the client lock it",
            outcome.path.display()
        );
    }
    format!("{} lacks {lacking}; run `tofufs lock` and commit the file", outcome.path.display())
}
