//! What a registry does, seen by asking it what a mount would ask: the catalog, a list of tags, a
//! release's manifests, and one byte of a package.

use async_trait::async_trait;
use bytes::Bytes;

use super::{DoctorFinding, RegistryPart};
use crate::artifact::{Release, Target, target_package};
use crate::cli::output::count;
use crate::cli::quantity::Size;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::name::{RepoName, Selector, Tag, no_such_tag};
use crate::oci::{Descriptor, Manifest};
use crate::registry::auth::how_to_log_in;
use crate::registry::mirror::MirrorAddress;
use crate::registry::observed::LoginScheme;
use crate::registry::remote::Remote;
use crate::registry::{BlobError, BlobSink, Greeting, Registry, SinkError};

/// A clock that is off by more than this, in seconds, makes certificates and tokens fail.
const CLOCK_OFF_MAX: u64 = 5 * 60;

/// Asks, and says what came.
pub(super) async fn findings(remote: &Remote, subject: &RegistryPart) -> Vec<DoctorFinding> {
    let catalog = remote.catalog().await;
    let reached = match &catalog {
        Err(error) if is_out_of_reach(error) => {
            let mut findings = vec![problem("connection", error)];
            findings.extend(clock(remote));
            return findings;
        }
        _ => DoctorFinding::ok("connection", format!("{} answers", remote.origin())),
    };
    let mut asked = vec![match &catalog {
        Ok(repos) => {
            DoctorFinding::ok("catalog", format!("it lists its repositories: {}", repos.len()))
        }
        Err(error) if error.failure == Failure::Absent => {
            refusal(DoctorFinding::note, "catalog", error)
        }
        Err(error) => problem("catalog", error),
    }];
    let listed = catalog.as_deref().ok();
    match &subject.repo {
        Some((repo, Some(selector))) => {
            let tags = remote.tags(repo).await;
            asked.push(tags_of(remote, &tags));
            asked.extend(release(remote, repo, selector, &tags).await);
        }
        Some((name, None)) => asked.extend(named(remote, name, listed).await),
        None => {}
    }
    let mut findings = vec![reached, login(remote)];
    findings.extend(clock(remote));
    findings.extend(asked);
    findings
}

/// What a mirror says to the question that a mount would ask of it. Without it everything works,
/// but from the registry.
pub(super) async fn mirror(
    address: &MirrorAddress,
    mirror: &Remote,
    subject: &RegistryPart,
) -> DoctorFinding {
    let asked = match &subject.repo {
        None => mirror.catalog().await.map(drop),
        Some((repo, selector)) => match (address.name_of(repo), selector) {
            (None, _) => {
                return DoctorFinding::note(
                    "mirror",
                    format!("{address}: the repository's name is too long there"),
                );
            }
            (Some(name), Some(selector)) => mirror.manifest(&name, selector).await.map(drop),
            (Some(name), None) => mirror.tags(&name).await.map(drop),
        },
    };
    match asked {
        Ok(()) => DoctorFinding::ok("mirror", format!("{address} answers")),
        // whatever it may hold, it is there
        Err(error) if error.failure == Failure::Absent && subject.repo.is_none() => {
            DoctorFinding::ok("mirror", format!("{address} answers"))
        }
        Err(error) => {
            DoctorFinding::note("mirror", format!("{address} is of no help: {}", error.rule))
                .remedy(error.remedy.unwrap_or_else(|| {
                    "see whether it mirrors this registry at that address".to_owned()
                }))
        }
    }
}

fn is_out_of_reach(error: &Refusal) -> bool {
    use Failure::{Offline, Protocol, TimedOut, Unreachable, Untrusted};
    matches!(error.failure, Unreachable | Untrusted | TimedOut | Protocol | Offline)
}

fn refusal(
    marked: fn(&'static str, String) -> DoctorFinding,
    subject: &'static str,
    error: &Refusal,
) -> DoctorFinding {
    let finding = marked(subject, error.rule.clone());
    DoctorFinding { remedy: error.remedy.clone(), ..finding }
}

fn problem(subject: &'static str, error: &Refusal) -> DoctorFinding {
    refusal(DoctorFinding::problem, subject, error)
}

/// How it wanted to be logged in to by what was asked before.
fn login(remote: &Remote) -> DoctorFinding {
    let seen = remote.observed();
    let Some(scheme) = seen.login else {
        return DoctorFinding::ok("login", "it asks for none");
    };
    let scheme = match scheme {
        LoginScheme::Basic => "a user name and password (Basic)".to_owned(),
        LoginScheme::Bearer(Some(realm)) => format!("a token of {realm} (Bearer)"),
        LoginScheme::Bearer(None) => "a token (Bearer)".to_owned(),
    };
    match (seen.credential, seen.refused) {
        (Some(source), None) => DoctorFinding::ok(
            "login",
            format!("it asks for {scheme}; the credential comes from {source}"),
        ),
        (Some(source), Some(rule)) => DoctorFinding::note(
            "login",
            format!("it asks for {scheme}; the credential comes from {source}, but: {rule}"),
        )
        .remedy("check what that credential may read, or log in again"),
        (None, _) => DoctorFinding::note(
            "login",
            format!("it asks for {scheme}; there is no credential for it here"),
        )
        .remedy(format!("only what is public can be read; {}", how_to_log_in(remote.host()))),
    }
}

fn clock(remote: &Remote) -> Option<DoctorFinding> {
    let ahead = remote.observed().clock_ahead?;
    let off = ahead.unsigned_abs();
    Some(if off > CLOCK_OFF_MAX {
        DoctorFinding::problem(
            "clock",
            format!(
                "this machine's is {off} s {} the registry's",
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
        )
        .remedy("set this machine's clock: certificates and tokens are refused by a wrong one")
    } else {
        DoctorFinding::ok("clock", format!("it agrees with this machine's within {} s", off.max(1)))
    })
}

/// What a name without a tag is: a repository, a prefix of others, or both. `listed` is what the
/// registry lists.
async fn named(
    remote: &Remote,
    name: &RepoName,
    listed: Option<&[RepoName]>,
) -> Vec<DoctorFinding> {
    let below = |other: &&RepoName| *other != name && other.is_within(Some(name));
    let below = listed.map(|repos| repos.iter().filter(below).count());
    let tags = remote.tags(name).await;
    let prefix = |count| match count {
        1 => DoctorFinding::ok("prefix", "1 repository lies below it"),
        several => DoctorFinding::ok("prefix", format!("{several} repositories lie below it")),
    };
    let refusal = match &tags {
        Ok(_) => {
            return [tags_of(remote, &tags)]
                .into_iter()
                .chain(below.filter(|n| *n > 0).map(prefix))
                .collect();
        }
        Err(error) => error.failure,
    };
    let nothing = "it is no repository, and none lies below it";
    let unknown = "no repository of this name can be read; whether others lie below it, the \
         registry does not tell";
    vec![match (refusal, below) {
        (Failure::Absent | Failure::Denied, Some(count)) if count > 0 => prefix(count),
        (Failure::Absent, Some(_)) => {
            DoctorFinding::problem("tags", nothing).remedy("check the spelling of its name")
        }
        (Failure::Absent, None) => {
            DoctorFinding::note("prefix", unknown).remedy("give a repository that lies below it")
        }
        // A registry refuses what is not there like that, too.
        (Failure::Denied, _) if remote.greet(Greeting::LogIn).await.is_ok() => {
            DoctorFinding::note("prefix", unknown)
                .remedy("give a repository that lies below it; if it is one, log in to read it")
        }
        _ => tags_of(remote, &tags),
    }]
}

fn tags_of(remote: &Remote, tags: &Result<Vec<Tag>, Refusal>) -> DoctorFinding {
    match tags {
        Ok(tags) => {
            let pages = match remote.observed().tag_pages {
                Some(pages) if pages > 1 => format!("in {pages} pages"),
                _ => "in one page".to_owned(),
            };
            DoctorFinding::ok("tags", format!("{} {pages}", tags.len()))
        }
        Err(error) => problem("tags", error),
    }
}

/// What the tag stands for, whether OpenTofu would take it, and how its packages come.
async fn release(
    remote: &Remote,
    repo: &RepoName,
    selector: &Selector,
    tags: &Result<Vec<Tag>, Refusal>,
) -> Vec<DoctorFinding> {
    let manifest = match (manifest(remote, repo, selector).await, selector, tags) {
        (Ok(manifest), ..) => manifest,
        (Err(_), Selector::Tag(tag), Ok(tags)) if !tags.contains(tag) => {
            return vec![DoctorFinding::problem("artifact", no_such_tag(tag, tags))];
        }
        (Err(finding), ..) => return vec![finding],
    };
    let shown = manifest.artifact_type.as_deref().unwrap_or("no artifactType");
    match Release::read(&manifest) {
        Err(refusal) => vec![
            DoctorFinding::problem(
                "artifact",
                format!("{} would be refused: {refusal}", manifest.digest),
            )
            .remedy(
                "publish it by the form that OpenTofu's documentation gives for OCI registries",
            ),
        ],
        Ok(Release::Module(package)) => {
            let mut findings = vec![
                DoctorFinding::ok(
                    "artifact",
                    format!("a module package ({shown}), {}", manifest.digest),
                ),
                DoctorFinding::ok("package", sized(&package)),
            ];
            findings.extend(transfer(remote, repo, &package).await);
            findings
        }
        Ok(Release::Provider(targets)) => {
            let mut findings = vec![DoctorFinding::ok(
                "artifact",
                format!(
                    "a provider release ({shown}) of {}, {}",
                    count(targets.len(), "platform"),
                    manifest.digest
                ),
            )];
            findings.extend(packages(remote, repo, &targets).await);
            findings
        }
    }
}

/// The packages of a provider release, of which the smallest is transferred.
async fn packages(remote: &Remote, repo: &RepoName, targets: &[Target]) -> Vec<DoctorFinding> {
    let (mut findings, mut packages) = (Vec::new(), Vec::new());
    for target in targets {
        match target_of(remote, repo, target).await {
            Ok(package) => {
                findings.push(DoctorFinding::ok(&target.platform, sized(&package)));
                packages.push(package);
            }
            Err(finding) => findings.push(finding),
        }
    }
    if let Some(package) = packages.iter().min_by_key(|package| package.size) {
        findings.extend(transfer(remote, repo, package).await);
    }
    findings
}

fn sized(package: &Descriptor) -> String {
    format!("{}, {}", Size(package.size), package.digest)
}

async fn manifest(
    remote: &Remote,
    repo: &RepoName,
    selector: &Selector,
) -> Result<Manifest, DoctorFinding> {
    let raw = remote.manifest(repo, selector).await.map_err(|error| problem("artifact", &error))?;
    let digest = match selector {
        Selector::Tag(_) => raw.claimed.unwrap_or_else(|| Digest::of(&raw.bytes)),
        Selector::Digest(digest) => *digest,
    };
    Manifest::parse(raw.bytes, digest, raw.content_type.as_deref()).map_err(|e| {
        DoctorFinding::problem(
            "artifact",
            format!("{digest} is not a document of the image specification: {e}"),
        )
    })
}

async fn target_of(
    remote: &Remote,
    repo: &RepoName,
    target: &Target,
) -> Result<Descriptor, DoctorFinding> {
    let about =
        |finding: DoctorFinding| DoctorFinding { subject: target.platform.to_string(), ..finding };
    let manifest =
        manifest(remote, repo, &Selector::Digest(target.digest())).await.map_err(about)?;
    target_package(&manifest, &target.platform)
        .map_err(|e| DoctorFinding::problem(&target.platform, e))
}

/// Fetches a blob's last byte, by a range.
async fn transfer(remote: &Remote, repo: &RepoName, package: &Descriptor) -> Vec<DoctorFinding> {
    let mut sink = LastByte { position: package.size.saturating_sub(1), restarted: false };
    let fetched = remote.blob(repo, package, &mut sink).await;
    let ranges = match fetched {
        Ok(()) => DoctorFinding::ok("ranges", "a download that broke off goes on where it was"),
        Err(BlobError::Sink(_)) if sink.restarted => DoctorFinding::note(
            "ranges",
            "it does not serve parts of a blob: a download that broke off begins anew",
        ),
        Err(error) => return vec![DoctorFinding::problem("blob", error)],
    };
    let from = match remote.observed().blobs_from {
        Some(origin) if origin != *remote.origin() => DoctorFinding::ok(
            "blobs",
            format!("they come from {origin}, to which it redirects; it gets no credential"),
        ),
        _ => DoctorFinding::ok("blobs", "they come from the registry itself"),
    };
    vec![ranges, from]
}

/// Claims to hold all of a blob but its last byte. Whoever cannot serve the rest alone asks to
/// start again, which is refused, so that nothing large is fetched.
struct LastByte {
    position: u64,
    restarted: bool,
}

#[async_trait]
impl BlobSink for LastByte {
    fn position(&self) -> u64 {
        self.position
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SinkError> {
        self.position += chunk.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.restarted = true;
        Err(SinkError)
    }
}
