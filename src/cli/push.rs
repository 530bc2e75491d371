//! `tofufs push`: a directory, a zip, or a provider's zips, published without a mount.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::access::{self, RegistryAccess};
use super::args::push::{PushArgs, SendingArgs};
use super::daemon;
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::output::{self, CommandError};
use super::policy::PolicyFiles;
use super::policy::check::PolicyCheck;
use super::progress::SharedProgress;
use super::quantity::Size;
use super::signing::SigningSetting;
use super::typed::Typed;
use super::workshop::workshop_in;
use crate::failure::Refusal;
use crate::input;
use crate::name::path;
use crate::name::{Address, AddressError, Repo, Tag, ZipName};
use crate::registry::layout::RegistryLayout;
use crate::registry::{Asker, Upload};
use crate::stage::Workshop;
use crate::stage::directory;
use crate::stage::plan::{self, Destined, PlannedArtifact, ReleasePlan};
use crate::stage::provider::{ProviderContents, Zip, is_beside, version_in};
use crate::stage::push::{self, Observer, PushStep, Pushed, ReleaseCheck};

/// Pushes, or with `--dry-run` shows what would be pushed.
pub fn run(args: &PushArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network =
        Network::reaching(&args.sending.reach, &environment.base).map_err(CommandError::usage)?;
    let (reference, paths) = match args.paths_and_reference.split_last() {
        Some((reference, paths)) if !paths.is_empty() => (reference, paths),
        _ => {
            return Err(CommandError::usage(
                "a PATH and a REFERENCE are wanted; see `tofufs help push`",
            ));
        }
    };
    let target = PushTarget::parse(reference, &environment.base)?;
    let annotations = annotations(&args.annotation)?;
    access::check(&network)?;
    daemon::keep_memory_private()?;
    let workshop = workshop(&args.sending, &environment)?;
    let paths: Vec<PathBuf> = paths.iter().map(|path| environment.base.join(path)).collect();
    let plan = planned(&paths, &target, &args.tag, annotations, &workshop)?;
    for warning in &plan.warnings {
        // Nobody listening is no reason to stop.
        let _ = writeln!(io::stderr(), "tofufs: warning: {warning}");
    }
    if args.dry_run {
        return show(&plan, args.json);
    }
    let signer =
        SigningSetting::new(&args.signing, &environment.base).signer(network.deadline, None)?;
    let policies = PolicyFiles::new(&args.policy, &environment.base).load()?;
    let runtime = daemon::runtime()?;
    let shown = PushShown(SharedProgress::new("uploaded").map_err(CommandError::failed)?);
    let pushed = runtime.block_on(async {
        // Connections belong to the runtime.
        let upload = target.upload(&network)?;
        let host = &plan.repo.host;
        let check = PolicyCheck::of_command(policies, host, &upload, &network, &environment)?;
        let options = push::PushOptions {
            allow_overwrite: args.allow_overwrite,
            signer: signer.as_deref(),
            check: check.as_ref().map(|check| check as &dyn ReleaseCheck),
        };
        let pushing = push::push(&plan, upload.as_ref(), options, &shown);
        tokio::select! {
            pushed = pushing => pushed.map_err(CommandError::failed),
            () = shown.0.stopped() => Err(shown.0.ended(CommandError::failed(format_args!(
                "{}: stopped; what was uploaded is kept, and the same command goes on from \
                 there", plan.subject()
            )))),
        }
    });
    drop(shown);
    report(&pushed?, args.json)
}

/// Prints the releases that were published.
pub(super) fn report(pushed: &[Pushed], as_json: bool) -> Result<(), CommandError> {
    for one in pushed {
        if as_json {
            output::json(one)?;
        } else {
            output::text(format!("{}@{}\n", one.reference, one.digest))?;
        }
    }
    Ok(())
}

/// Where to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PushTarget {
    /// The store, where it is one.
    store: Option<PathBuf>,
    repo: Repo,
    tag: Option<Tag>,
}

impl PushTarget {
    fn parse(text: &OsStr, base: &Path) -> Result<PushTarget, CommandError> {
        const WANTED: &str = "REFERENCE is HOST[:PORT]/NAME[:TAG] or oci:DIR/HOST/NAME[:TAG]";
        let refuse = |rule: &dyn std::fmt::Display| {
            CommandError::usage(format_args!(
                "{}: {rule}; {WANTED}",
                text.to_string_lossy().escape_debug()
            ))
        };
        let usage = |e: AddressError| CommandError::usage(e.wanted(WANTED));
        match Typed::parse(text, base).map_err(usage)? {
            Typed::Address(address) => {
                let (repo, tag) = address.target().map_err(usage)?;
                Ok(PushTarget { store: None, repo, tag })
            }
            Typed::Layouts(path) => {
                let (store, rest) = path::split_store(&path)
                    .ok_or_else(|| refuse(&"no component of the path is a HOST"))?;
                let (repo, tag) =
                    rest.parse::<Address>().and_then(|address| address.target()).map_err(|e| {
                        // What is to be written instead stands behind the directory of the store.
                        usage(e.below(&format!("oci:{}/", store.display())))
                    })?;
                Ok(PushTarget { store: Some(store), repo, tag })
            }
            Typed::Archive(_) => {
                Err(refuse(&"nothing can be pushed into an archive, but copied: see tofufs copy"))
            }
        }
    }

    fn upload(&self, network: &Network) -> Result<Arc<dyn Upload>, CommandError> {
        let Repo { host, .. } = &self.repo;
        match &self.store {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|e| {
                    CommandError::Failed(format!("the store {} cannot be made: {e}", dir.display()))
                })?;
                let layout = RegistryLayout::open(dir, host).map_err(CommandError::failed)?;
                Ok(Arc::new(layout.with_deadline(network.deadline)))
            }
            None => {
                let access = RegistryAccess::new(network, Asker::Person);
                Ok(Arc::new(access.connections()?.writer(host).map_err(CommandError::failed)?))
            }
        }
    }
}

pub(super) fn annotations(words: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let split = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CommandError::usage(format_args!("--annotation {word}: write KEY=VALUE"))),
    };
    words.iter().map(split).collect()
}

pub(super) fn workshop(
    args: &SendingArgs,
    environment: &DirectoryEnvironment,
) -> Result<Workshop, CommandError> {
    let state = environment.state_dir(args.state_dir.as_deref()).map_err(CommandError::usage)?;
    workshop_in(&state, args.archives.limits())
}

fn planned(
    paths: &[PathBuf],
    target: &PushTarget,
    tags: &[Tag],
    annotations: BTreeMap<String, String>,
    workshop: &Workshop,
) -> Result<ReleasePlan, CommandError> {
    let mut all: Vec<Tag> = Vec::new();
    for tag in target.tag.iter().chain(tags) {
        if !all.contains(tag) {
            all.push(tag.clone());
        }
    }
    let mut destined = Destined { repo: target.repo.clone(), tags: all, annotations };
    let missing = || {
        CommandError::usage(format_args!(
            "{}: a tag is missing; write {0}:TAG, or give --tag",
            target.repo
        ))
    };
    let directory = |path: &Path| -> Result<OwnedFd, CommandError> {
        let file = File::open(path)
            .map_err(|e| CommandError::Failed(format!("{}: {e}", path.display())))?;
        Ok(file.into())
    };
    let failed = |e: Refusal| CommandError::failed(e);
    if let [path] = paths {
        let name = path.display().to_string();
        if path.is_dir() {
            let dir = directory(path)?;
            if destined.tags.is_empty() {
                let version = version_in(dir.as_fd(), &name).map_err(failed)?;
                destined.tags.push(version.and_then(|version| version.tag()).ok_or_else(missing)?);
            }
            return directory::plan(dir, &name, destined, workshop).map_err(failed);
        }
        if provider_zip(path).is_none() {
            if destined.tags.is_empty() {
                return Err(missing());
            }
            return plan::module_zip(opened(path)?, &name, destined, workshop.limits())
                .map_err(failed);
        }
    }
    let contents = provider_contents(paths, &target.repo)?;
    if destined.tags.is_empty() {
        let version = contents.zips.first().and_then(|zip| zip.says.version.tag());
        destined.tags.push(version.ok_or_else(missing)?);
    }
    contents.plan(destined, workshop).map_err(failed)
}

/// The files of a provider's release.
fn provider_contents(paths: &[PathBuf], repo: &Repo) -> Result<ProviderContents, CommandError> {
    let mut contents = ProviderContents::new(&repo.to_string());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match provider_zip(path) {
            Some(says) => {
                let shown = path.display().to_string();
                contents.zips.push(Zip { path: shown, name, says, file: opened(path)? });
            }
            None if is_beside(&name) => {
                let file = opened(path)?;
                contents
                    .add_beside(&name, file, &path.display().to_string())
                    .map_err(CommandError::failed)?;
            }
            // What a shell's pattern brings along.
            None if name.starts_with("terraform-provider-") && !name.ends_with(".zip") => {
                contents.leave(&name)
            }
            None => {
                return Err(CommandError::usage(format_args!(
                    "{}: of several paths each has to be a provider's zip \
                     (terraform-provider-TYPE_VERSION_OS_ARCH.zip), its SHA256SUMS, a signature of \
                     them, or its _manifest.json",
                    path.display()
                )));
            }
        }
    }
    Ok(contents)
}

fn opened(path: &Path) -> Result<OwnedFd, CommandError> {
    let file =
        input::open(path).map_err(|e| CommandError::Failed(format!("{}: {e}", path.display())))?;
    Ok(file.into())
}

fn provider_zip(path: &Path) -> Option<ZipName> {
    path.file_name()?.to_str()?.parse().ok()
}

/// What would be pushed.
fn show(plan: &ReleasePlan, as_json: bool) -> Result<(), CommandError> {
    let release = plan.release().map_err(CommandError::failed)?;
    let mut manifests = plan.manifests();
    if matches!(plan.artifact, PlannedArtifact::Provider { .. }) {
        manifests.push(&release);
    }
    let references: Vec<String> = plan
        .tags
        .iter()
        .map(|tag| format!("{}@{}", plan.repo.tagged(tag), release.digest))
        .collect();
    if as_json {
        let documents = manifests.iter().map(|manifest| {
            let document: Value = serde_json::from_slice(&manifest.raw).unwrap_or_default();
            json!({"digest": manifest.digest.to_string(), "document": document})
        });
        let blobs = plan.blobs.iter().map(|blob| {
            let blob = &blob.descriptor;
            let digest = blob.digest.to_string();
            json!({"digest": digest, "size": blob.size, "media_type": blob.media_type})
        });
        return output::json(&json!({
            "references": references, "blobs": blobs.collect::<Value>(),
            "manifests": documents.collect::<Value>(), "warnings": plan.warnings
        }));
    }
    let mut text = String::new();
    for reference in references {
        let _ = writeln!(text, "{reference}");
    }
    for blob in &plan.blobs {
        let blob = &blob.descriptor;
        let _ = writeln!(text, "blob      {} {} {}", blob.digest, Size(blob.size), blob.media_type);
    }
    for manifest in manifests {
        let _ = writeln!(
            text,
            "manifest  {} {}",
            manifest.digest,
            String::from_utf8_lossy(&manifest.raw)
        );
    }
    output::text(text)
}

/// Shows how far a push is.
struct PushShown(SharedProgress);

#[async_trait]
impl Observer for PushShown {
    async fn reached(&self, _: PushStep) -> Result<(), Refusal> {
        Ok(())
    }

    fn progress(&self, done: u64, total: u64) {
        self.0.step(done, total);
    }

    fn waits(&self, what: &str) {
        // Nobody listening is no reason to stop.
        let _ = writeln!(io::stderr(), "tofufs: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<PushTarget, CommandError> {
        PushTarget::parse(OsStr::new(text), Path::new("/base"))
    }

    #[test]
    fn a_reference_is_one_of_a_registry_or_of_a_store() {
        for (text, store, repo, tag) in [
            ("ghcr.io/acme/network:1.3.0", None, "ghcr.io/acme/network", Some("1.3.0")),
            ("localhost:5000/n", None, "localhost:5000/n", None),
            ("localhost:5000/n:1", None, "localhost:5000/n", Some("1")),
            (
                "oci:/srv/my.store/ghcr.io/acme/n:1",
                Some("/srv/my.store"),
                "ghcr.io/acme/n",
                Some("1"),
            ),
            ("oci:store/localhost:5000/n", Some("/base/store"), "localhost:5000/n", None),
            ("oci://ghcr.io/acme/n?tag=1", None, "ghcr.io/acme/n", Some("1")),
            ("oci://ghcr.io/acme/n", None, "ghcr.io/acme/n", None),
        ] {
            let target = target(text).unwrap();
            assert_eq!(target.store.as_deref(), store.map(Path::new), "{text}");
            assert_eq!(target.repo.to_string(), repo);
            assert_eq!(target.tag.map(|tag| tag.to_string()).as_deref(), tag);
        }
        for bad in [
            "ghcr.io",
            "acme/network:1",
            "ghcr.io/Acme/x:1",
            "ghcr.io/a:",
            "ghcr.io/a@sha256:0",
            "oci:/srv/x:1",
            "oci:",
        ] {
            assert!(matches!(target(bad), Err(CommandError::Usage(_))), "{bad}");
        }
        for (bad, instead) in [
            ("oci://ghcr.io/acme/network:1", "ghcr.io/acme/network:1"),
            ("docker://ghcr.io/acme/network:1", "ghcr.io/acme/network:1"),
            ("https://ghcr.io/acme/network", "ghcr.io/acme/network"),
            ("./store/ghcr.io/n:1", "oci:./store/ghcr.io/n:1"),
            ("ghcr.io/n:1.0.0+x", "ghcr.io/n:1.0.0_x"),
            ("oci:store/ghcr.io/n:1.0.0+x", "oci:/base/store/ghcr.io/n:1.0.0_x"),
        ] {
            let said = target(bad).unwrap_err().to_string();
            assert!(said.ends_with(&format!("; write {instead}")), "{bad}: {said}");
        }
    }

    #[test]
    fn annotations_have_a_key() {
        let words = ["a=b=c".to_owned(), "d=".to_owned()];
        let read: Vec<_> = annotations(&words).unwrap().into_iter().collect();
        assert_eq!(read, [("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())]);
        assert!(
            annotations(&["x".to_owned()]).is_err() && annotations(&["=x".to_owned()]).is_err()
        );
    }
}
