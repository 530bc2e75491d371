//! `tofufs copy`: artifacts between registries, stores and archives, as they are.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::args::copy::CopyArgs;
use super::daemon;
use super::directories::{DirectoryEnvironment, absolute};
use super::output::{self, CommandError};
use super::progress::SharedProgress;
use super::reading::Registries;
use super::source::SourceSetting;
use super::typed::Typed;
use crate::copy::RegistryFacts;
use crate::copy::bundle::BundlePlan;
use crate::copy::carry::{
    self, Blobs, CarriedArtifact, Copied, Copy, CopyError, Meter, SourceArtifact,
};
use crate::facts::{self, Facts};
use crate::failure::{Failure, Refusal};
use crate::mapping::Carried;
use crate::name::{Address, AddressError, Host, Reference, Repo, RepoName, Selector, Tag};
use crate::registry::layout::{LayoutArchive, LayoutDirectory, RegistryLayout, Stored};
use crate::registry::{HostStore, Registry, Upload};

/// Copies, and prints each artifact when it is there.
pub fn run(mut args: CopyArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let source = CopyEnd::source(&args.source, &environment.base)?;
    let destination = CopyEnd::destination(&args.destination, &environment.base)?;
    check(&source, &destination)?;
    if matches!(source, CopyEnd::All(SourceSetting::Layouts(_) | SourceSetting::Archive(_))) {
        args.reading.reading.from.push(args.source.clone());
    }
    let registries = Registries::for_command(&args.reading, &environment)?;
    let shown = SharedProgress::new("copied").map_err(CommandError::failed)?;
    daemon::runtime()?.block_on(async {
        tokio::select! {
            copied = copy(&args, &source, &destination, &registries, &shown) => copied,
            () = shown.stopped() => Err(shown.ended(CommandError::failed(format_args!(
                "{source}: stopped; what was copied is kept, and the same command goes on from \
                 there"
            )))),
        }
    })
}

/// One end of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
enum CopyEnd {
    /// One artifact of a registry.
    One(Reference),
    /// One tag of one image layout.
    Layout(PathBuf, Tag),
    /// All of a registry's part, of a store or of an archive.
    All(SourceSetting),
}

impl CopyEnd {
    /// What is copied.
    fn source(text: &OsStr, base: &Path) -> Result<CopyEnd, CommandError> {
        CopyEnd::parse(text, base, Address::release)
    }

    /// Where to. OpenTofu's spelling without a tag means the tag `latest` to OpenTofu; people mean
    /// a part of a registry as well, so neither is guessed.
    fn destination(text: &OsStr, base: &Path) -> Result<CopyEnd, CommandError> {
        CopyEnd::parse(text, base, |address| match address.target() {
            Ok((repo, None)) => {
                let instead = format!("{repo}:latest for one artifact, or {repo} for all below it");
                Err(AddressError::new(&text.to_string_lossy(), "it names no tag", Some(instead)))
            }
            Ok((repo, Some(tag))) => Ok(repo.at(Selector::Tag(tag))),
            Err(_) => address.release(),
        })
    }

    fn parse(
        text: &OsStr,
        base: &Path,
        one: impl Fn(&Address) -> Result<Reference, AddressError>,
    ) -> Result<CopyEnd, CommandError> {
        match Typed::parse(text, base) {
            Ok(Typed::Layouts(path)) => {
                Ok(match text.as_bytes().strip_prefix(b"oci:").and_then(split_tag) {
                    Some((path, tag)) => CopyEnd::Layout(absolute(path, base), tag),
                    None => CopyEnd::All(SourceSetting::Layouts(path)),
                })
            }
            Ok(Typed::Address(address)) if address.is_release() => {
                one(&address).map(CopyEnd::One).map_err(CommandError::usage)
            }
            _ => SourceSetting::parse(text, base).map(CopyEnd::All).map_err(CommandError::usage),
        }
    }
}

impl std::fmt::Display for CopyEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CopyEnd::One(reference) => write!(f, "{reference}"),
            CopyEnd::Layout(path, tag) => write!(f, "oci:{}:{tag}", path.display()),
            CopyEnd::All(source) => write!(f, "{source}"),
        }
    }
}

/// `PATH:TAG`, where what follows the last colon can be a tag.
fn split_tag(text: &[u8]) -> Option<(&Path, Tag)> {
    let colon = text.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0)?;
    let tag = std::str::from_utf8(&text[colon + 1..]).ok()?.parse().ok()?;
    Some((Path::new(OsStr::from_bytes(&text[..colon])), tag))
}

/// Refuses what has no meaning.
fn check(source: &CopyEnd, destination: &CopyEnd) -> Result<(), CommandError> {
    let refuse =
        |rule: &str| Err(CommandError::usage(format_args!("{source} {destination}: {rule}")));
    match (source, destination) {
        (_, CopyEnd::One(Reference { selector: Selector::Digest(_), .. })) => {
            refuse("a digest follows from the content and cannot be chosen; write HOST/NAME:TAG")
        }
        (CopyEnd::All(_), CopyEnd::One(_) | CopyEnd::Layout(..)) => refuse(
            "many artifacts cannot have one name; write HOST/PREFIX, oci:DIR or oci-archive:FILE",
        ),
        (CopyEnd::Layout(..), CopyEnd::All(_)) => refuse(
            "one image layout says nothing of a repository; write HOST/NAME:TAG as the destination",
        ),
        _ => Ok(()),
    }
}

/// An image layout by itself has no name of a registry; this one stands in sentences.
fn unnamed(path: &Path) -> Result<Repo, CommandError> {
    let name =
        path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<RepoName>().ok());
    let name = name.map_or_else(|| "layout".parse(), Ok).map_err(CommandError::failed)?;
    Ok(Repo { host: "localhost".parse().map_err(CommandError::failed)?, name })
}

async fn copy(
    args: &CopyArgs,
    source: &CopyEnd,
    destination: &CopyEnd,
    registries: &Registries,
    shown: &SharedProgress,
) -> Result<(), CommandError> {
    let failed = |e: CopyError| CommandError::failed(e);
    let from = CopyReading::open(source, registries)?;
    let found = from.found(source, registries).await?;
    let target = |repo: &Repo| target(repo, destination, args.keep_host);
    let mut artifacts =
        carry::artifacts(found, &target, from.store(), args.referrers.into(), from.origins())
            .await
            .map_err(failed)?;
    if let CopyEnd::One(Reference { selector: Selector::Tag(tag), .. }) | CopyEnd::Layout(_, tag) =
        destination
    {
        artifacts.iter_mut().for_each(|artifact| artifact.found.tags = vec![tag.clone()]);
    }
    for artifact in artifacts.iter().filter(|artifact| artifact.left_behind > 0) {
        let (count, SourceArtifact { repo, digest, .. }) = (artifact.left_behind, &artifact.found);
        // Nobody listening is no reason to stop.
        let _ = writeln!(
            io::stderr(),
            "tofufs: warning: {repo}@{digest}: {count} manifests that its index names are not in \
             {source}, and stay behind"
        );
    }
    if let CopyEnd::All(SourceSetting::Archive(file)) = destination {
        let mut plan = BundlePlan::default();
        plan.says = from.says(source).await?;
        return pack(args, file, plan, artifacts, &from, shown).await;
    }
    let tell = |done, total| shown.step(done, total);
    let meter = Meter::new(carry::size(&artifacts), &tell);
    let into = Writing::open(destination, registries)?;
    let says = match into {
        Writing::Directory(_) => from.says(source).await?,
        Writing::Registry => Carried::default(),
    };
    let copy = Copy { blobs: from.blobs(), allow_overwrite: args.allow_overwrite, meter };
    for artifact in &artifacts {
        let upload = into.upload(&artifact.to.host, registries)?;
        for copied in copy.artifact(artifact, upload.as_ref()).await.map_err(failed)? {
            report(&copied, destination, args.json)?;
        }
    }
    into.say(says, registries).await
}

fn report(copied: &Copied, destination: &CopyEnd, as_json: bool) -> Result<(), CommandError> {
    let Copied { reference, tag, digest, uploaded_bytes, skipped_blobs } = copied;
    let reference = match destination {
        CopyEnd::Layout(..) => destination.to_string(),
        _ => reference.to_string(),
    };
    if as_json {
        return output::json(&json!({
            "reference": reference, "digest": digest.to_string(),
            "tag": tag.as_ref().map(Tag::as_str),
            "uploaded_bytes": uploaded_bytes, "skipped_blobs": skipped_blobs,
        }));
    }
    match tag {
        Some(_) => output::text(format!("{reference}@{digest}\n")),
        None => output::text(format!("{reference}\n")),
    }
}

/// What a repository of the source is called at the destination.
fn target(repo: &Repo, destination: &CopyEnd, keep_host: bool) -> Result<Repo, CopyError> {
    let (host, prefix) = match destination {
        CopyEnd::One(reference) => return Ok(reference.repo.clone()),
        CopyEnd::Layout(path, _) => {
            return unnamed(path).map_err(|e| CopyError::Refused(e.to_string()));
        }
        CopyEnd::All(SourceSetting::Registry { host, prefix }) => (host, prefix),
        CopyEnd::All(_) => return Ok(repo.clone()),
    };
    let kept = keep_host.then(|| repo.host.as_str());
    let parts = prefix.iter().map(RepoName::as_str).chain(kept).chain([repo.name.as_str()]);
    let name = parts.collect::<Vec<_>>().join("/").parse();
    let name = name.map_err(|e| {
        CopyError::Refused(format!("{repo}: this cannot be copied to {destination}: {e}"))
    })?;
    Ok(Repo { host: host.clone(), name })
}

/// Where it is read from.
struct CopyReading<'a> {
    registries: &'a Registries,
    held: HeldStore,
    /// Facts of a single layout, which no registry's name leads to.
    only: Option<Only>,
}

/// The store that the source is, if it is one.
enum HeldStore {
    Nowhere,
    Directory(Arc<LayoutDirectory>),
    Archive(Arc<LayoutArchive>),
}

struct Only(Arc<Facts>);

impl RegistryFacts for Only {
    fn facts(&self, _: &Host) -> Result<Arc<Facts>, Refusal> {
        Ok(Arc::clone(&self.0))
    }
}

impl<'a> CopyReading<'a> {
    fn open(source: &CopyEnd, registries: &'a Registries) -> Result<CopyReading<'a>, CommandError> {
        let mut only = None;
        let held = match source {
            CopyEnd::One(_)
            | CopyEnd::All(SourceSetting::Registry { .. } | SourceSetting::Providers { .. }) => {
                HeldStore::Nowhere
            }
            CopyEnd::Layout(path, _) => {
                let store = Arc::new(
                    LayoutDirectory::layout(path, unnamed(path)?).map_err(CommandError::failed)?,
                );
                let named =
                    facts::MountSource::Store { store: store.clone(), name: source.to_string() };
                only = Some(Only(registries.facts_over(named)));
                HeldStore::Directory(store)
            }
            CopyEnd::All(SourceSetting::Layouts(dir)) => HeldStore::Directory(Arc::new(
                LayoutDirectory::open(dir).map_err(CommandError::failed)?,
            )),
            CopyEnd::All(SourceSetting::Archive(file)) => HeldStore::Archive(Arc::new(
                LayoutArchive::open(file).map_err(CommandError::failed)?,
            )),
        };
        Ok(CopyReading { registries, held, only })
    }

    fn store(&self) -> Option<Arc<dyn HostStore>> {
        match &self.held {
            HeldStore::Nowhere => None,
            HeldStore::Directory(store) => Some(store.clone()),
            HeldStore::Archive(store) => Some(store.clone()),
        }
    }

    /// What a source says of the providers in it, where all of it is copied.
    async fn says(&self, source: &CopyEnd) -> Result<Carried, CommandError> {
        match (source, self.store()) {
            (CopyEnd::All(_), Some(store)) => {
                let said =
                    facts::blocking(move || store.carried()).await.map_err(CommandError::failed)?;
                said.map_err(CommandError::failed)
            }
            _ => Ok(Carried::default()),
        }
    }

    fn origins(&self) -> &dyn RegistryFacts {
        match &self.only {
            Some(only) => only,
            None => self.registries,
        }
    }

    fn blobs(&self) -> Blobs<'_> {
        match &self.held {
            HeldStore::Directory(store) => Blobs::Directory(store.clone()),
            HeldStore::Archive(store) => Blobs::Archive(store.clone()),
            HeldStore::Nowhere => Blobs::Fetched(self.origins()),
        }
    }

    async fn found(
        &self,
        source: &CopyEnd,
        registries: &Registries,
    ) -> Result<Vec<SourceArtifact>, CommandError> {
        let one = match source {
            CopyEnd::One(reference) => reference.clone(),
            CopyEnd::Layout(path, tag) => unnamed(path)?.at(Selector::Tag(tag.clone())),
            CopyEnd::All(SourceSetting::Registry { host, prefix }) => {
                let registry =
                    registries.connections()?.reader(host).map_err(CommandError::failed)?;
                let all = carry::all_of_registry(
                    registry.as_ref(),
                    host,
                    prefix.as_ref(),
                    self.origins(),
                )
                .await;
                return all.map_err(CommandError::failed);
            }
            CopyEnd::All(_) => {
                let Some(store) = self.store() else { return Ok(Vec::new()) };
                return carry::all_of_store(store).await.map_err(CommandError::failed);
            }
        };
        let facts = self.origins().facts(&one.repo.host).map_err(CommandError::failed)?;
        let digest = facts.tags().resolve(&one).await.map_err(CommandError::failed)?;
        let tags = match one.selector {
            Selector::Tag(tag) => vec![tag],
            Selector::Digest(_) => Vec::new(),
        };
        Ok(vec![SourceArtifact { repo: one.repo, digest, tags }])
    }
}

/// Where it is written to.
enum Writing {
    Registry,
    Directory(Arc<LayoutDirectory>),
}

impl Writing {
    /// Opens the destination; a missing directory is made.
    fn open(destination: &CopyEnd, registries: &Registries) -> Result<Writing, CommandError> {
        let made = |dir: &Path| {
            std::fs::create_dir_all(dir)
                .map_err(|e| CommandError::Failed(format!("{} cannot be made: {e}", dir.display())))
        };
        match destination {
            CopyEnd::Layout(path, _) => {
                made(path)?;
                let layout =
                    LayoutDirectory::layout(path, unnamed(path)?).map_err(CommandError::failed)?;
                Ok(Writing::Directory(Arc::new(layout)))
            }
            CopyEnd::All(SourceSetting::Layouts(dir)) => {
                made(dir)?;
                Ok(Writing::Directory(Arc::new(
                    LayoutDirectory::open(dir).map_err(CommandError::failed)?,
                )))
            }
            _ => registries.connections().map(|_| Writing::Registry),
        }
    }

    /// Has a store say of its providers what the source says. A registry says nothing.
    async fn say(&self, says: Carried, registries: &Registries) -> Result<(), CommandError> {
        let Writing::Directory(store) = self else { return Ok(()) };
        let (store, deadline) = (store.clone(), registries.network().deadline);
        let said = facts::blocking(move || store.carry(&says, deadline))
            .await
            .map_err(CommandError::failed)?;
        said.map_err(CommandError::failed)
    }

    fn upload(
        &self,
        host: &Host,
        registries: &Registries,
    ) -> Result<Arc<dyn Upload>, CommandError> {
        Ok(match self {
            Writing::Registry => {
                Arc::new(registries.connections()?.writer(host).map_err(CommandError::failed)?)
            }
            Writing::Directory(store) => Arc::new(
                RegistryLayout::of(store.clone(), host)
                    .with_deadline(registries.network().deadline),
            ),
        })
    }
}

/// Writes an archive anew, with what it held and what is copied into it.
async fn pack(
    args: &CopyArgs,
    file: &Path,
    mut plan: BundlePlan,
    artifacts: Vec<CarriedArtifact>,
    from: &CopyReading<'_>,
    shown: &SharedProgress,
) -> Result<(), CommandError> {
    let before = match std::fs::symlink_metadata(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        _ => Some(Arc::new(LayoutArchive::open(file).map_err(CommandError::failed)?)),
    };
    let mut copied = Vec::new();
    for CarriedArtifact { found, to, graph, admitted, .. } in artifacts {
        for tag in &found.tags {
            if let Some(archive) = &before
                && !args.allow_overwrite
            {
                free(archive, &to, tag, &found).await?;
            }
        }
        let tags: Vec<Option<&Tag>> =
            if found.tags.is_empty() { vec![None] } else { found.tags.iter().map(Some).collect() };
        let bytes = graph.all_blobs().map(|blob| blob.size).sum();
        for (n, tag) in tags.into_iter().enumerate() {
            let selector = tag.cloned().map_or(Selector::Digest(found.digest), Selector::Tag);
            let (reference, tag, digest) = (to.at(selector), tag.cloned(), found.digest);
            let (uploaded_bytes, skipped_blobs) =
                if n == 0 { (bytes, 0) } else { (0, graph.all_blobs().count() as u64) };
            copied.push(Copied { reference, tag, digest, uploaded_bytes, skipped_blobs });
        }
        plan.carry(to, found.digest, found.tags, graph, admitted);
    }
    let mut step = |done, total| {
        shown.step(done, total);
        ControlFlow::Continue(())
    };
    plan.into_archive(file, before, from.origins(), &mut step)
        .await
        .map_err(CommandError::failed)?;
    copied.iter().try_for_each(|copied| {
        report(copied, &CopyEnd::All(SourceSetting::Archive(file.to_owned())), args.json)
    })
}

/// Refuses a tag of an archive that stands for something else.
async fn free(
    archive: &Arc<LayoutArchive>,
    to: &Repo,
    tag: &Tag,
    found: &SourceArtifact,
) -> Result<(), CommandError> {
    match Stored::of(archive.clone(), &to.host).resolve(&to.name, tag).await {
        Ok(Some(there)) if there != found.digest => {
            let reference = to.at(Selector::Tag(tag.clone()));
            Err(CommandError::failed(CopyError::exists(&reference, &there, &found.digest)))
        }
        Err(e) if e.failure != Failure::Absent => Err(CommandError::failed(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_read_as_they_are_meant() {
        let read = |end: fn(&OsStr, &Path) -> Result<CopyEnd, CommandError>, text: &str| match end(
            OsStr::new(text),
            Path::new("/base"),
        ) {
            Ok(place) => place.to_string(),
            Err(e) => {
                assert_eq!(e.exit_code(), 2);
                format!(
                    "!{}",
                    e.to_string()
                        .split_once("; write ")
                        .map(|(_, instead)| instead)
                        .unwrap_or_default()
                )
            }
        };
        for (text, source, destination) in [
            ("a.b/c:1", "a.b/c:1", "a.b/c:1"),
            ("a.b/c", "a.b/c", "a.b/c"),
            ("oci:d", "oci:/base/d", "oci:/base/d"),
            ("oci:d:1", "oci:/base/d:1", "oci:/base/d:1"),
            ("oci-archive:d.tar", "oci-archive:/base/d.tar", "oci-archive:/base/d.tar"),
            ("oci://a.b/c?tag=1", "a.b/c:1", "a.b/c:1"),
            (
                "oci://a.b/c",
                "a.b/c:latest",
                "!a.b/c:latest for one artifact, or a.b/c for all below it",
            ),
            ("oci://a.b/c//d?tag=1", "!a.b/c:1", "!a.b/c:1"),
            ("oci://a.b/c:1", "!a.b/c:1", "!a.b/c:1"),
            ("docker://a.b/c:1", "!a.b/c:1", "!a.b/c:1"),
            ("https://a.b/c", "!a.b/c", "!a.b/c"),
            ("a.b/c:1.0.0+x", "!a.b/c:1.0.0_x", "!a.b/c:1.0.0_x"),
            ("./d", "!oci:./d", "!oci:./d"),
        ] {
            assert_eq!(read(CopyEnd::source, text), source, "{text}");
            assert_eq!(read(CopyEnd::destination, text), destination, "{text}");
        }
    }
}
