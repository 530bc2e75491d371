//! `tofufs verify`: whether releases are signed as policies, or a key, want it. And `tofufs policy`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::args::policy::{PolicyCommand, PolicyCommandArgs, VerifyReleaseArgs};
use super::daemon;
use super::directories::DirectoryEnvironment;
use super::imported::imported;
use super::output::{self, CommandError};
use super::policy::{PolicyFiles, trusted_text};
use super::reading::Registries;
use super::typed::{Typed, release};
use crate::artifact::{Release, Target};
use crate::copy::RegistryFacts as _;
use crate::copy::carry;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::input;
use crate::moment::Moment;
use crate::name::{Host, Reference, Selector};
use crate::registry::HostStore;
use crate::registry::layout::{LayoutArchive, LayoutDirectory};
use crate::trust::{Admission, Policies, Policy};

/// The largest policy.json that is read.
const IMPORTED_MAX: u64 = 1 << 20;

/// Checks each release, and prints what became of it.
pub fn run(mut args: VerifyReleaseArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let mut wanted = Vec::new();
    let mut stores: Vec<Arc<dyn HostStore>> = Vec::new();
    for word in std::mem::take(&mut args.reference) {
        let store: Arc<dyn HostStore> =
            match Typed::parse(&word, &environment.base).map_err(CommandError::usage)? {
                Typed::Address(_) => {
                    wanted.push((release(&word, &environment.base)?, None));
                    continue;
                }
                Typed::Layouts(dir) => {
                    Arc::new(LayoutDirectory::open(&dir).map_err(CommandError::failed)?)
                }
                Typed::Archive(file) => {
                    Arc::new(LayoutArchive::open(&file).map_err(CommandError::failed)?)
                }
            };
        stores.push(store);
        args.reading.reading.from.push(word);
    }
    let mut registries = Registries::for_command(&args.reading, &environment)?;
    let runtime = daemon::runtime()?;
    for store in stores {
        let all = runtime.block_on(carry::all_of_store(store)).map_err(CommandError::failed)?;
        wanted.extend(all.into_iter().flat_map(|found| {
            let tags = found.tags.into_iter().map(Selector::Tag).collect::<Vec<_>>();
            tags.into_iter().map(move |tag| (found.repo.at(tag), Some(found.digest)))
        }));
    }
    if let Some(signer) = TypedSigner::of(&args, &environment.base)? {
        let hosts = wanted.iter().map(|(reference, _)| &reference.repo.host);
        registries = registries.with_policies(signer.policies(hosts)?);
    }
    if registries.policies().is_empty() {
        return Err(CommandError::usage(
            "what is wanted? name a --policy, a --key or an --identity",
        ));
    }
    let mut refused = 0;
    for (reference, digest) in wanted {
        let outcome = runtime.block_on(verdict(&registries, &reference, digest));
        refused += usize::from(outcome.1.is_err());
        report(&registries, &reference, outcome, args.json)?;
    }
    match refused {
        0 => Ok(()),
        1 => Err(CommandError::failed("one release is not admitted")),
        count => Err(CommandError::failed(format_args!("{count} releases are not admitted"))),
    }
}

/// The digest, where it was found out, and why the release is admitted, or not.
async fn verdict(
    registries: &Registries,
    reference: &Reference,
    digest: Option<Digest>,
) -> (Option<Digest>, Result<Admission, Refusal>) {
    let facts = match registries.facts(&reference.repo.host) {
        Ok(facts) => facts,
        Err(e) => return (digest, Err(e)),
    };
    let digest = match (digest, &reference.selector) {
        (Some(digest), _) => digest,
        (None, Selector::Digest(digest)) => *digest,
        (None, Selector::Tag(_)) => match facts.tags().resolve(reference).await {
            Ok(digest) => digest,
            Err(e) => return (None, Err(e)),
        },
    };
    let targets = match facts.manifests().release_of(reference, digest).await {
        Ok((_, Release::Provider(targets))) => targets,
        Ok((_, Release::Module(_))) | Err(_) => Vec::new(),
    };
    // A bundle holds the platforms for which it was made.
    let lacking = facts.manifests().lacking(&reference.repo, &targets).await;
    let is_held = |target: &Target| !lacking.contains(&target.digest());
    let admitted = facts.gate().admit_all(reference, digest, &is_held).await;
    (Some(digest), admitted.map(|(_, admission)| admission))
}

fn report(
    registries: &Registries,
    reference: &Reference,
    (digest, outcome): (Option<Digest>, Result<Admission, Refusal>),
    as_json: bool,
) -> Result<(), CommandError> {
    let signers: Vec<String> = match &outcome {
        Ok(Admission::Signed(by)) => by.iter().cloned().collect(),
        _ => Vec::new(),
    };
    if as_json {
        let verdict = match &outcome {
            Ok(_) => "admitted",
            Err(e) if e.failure == Failure::Unsigned => "refused",
            Err(_) => "unknown",
        };
        let scopes: Vec<String> =
            registries.policies().0.iter().map(|policy| policy.says_of(&reference.repo)).collect();
        return output::json(&json!({
            "reference": reference.to_string(), "digest": digest.map(|digest| digest.to_string()),
            "verdict": verdict, "scope": scopes.join("; "), "signer": signers.join(" "),
            "why": match &outcome {
                Ok(admission) => admission.word().to_owned(),
                Err(e) => e.reason(),
            },
        }));
    }
    let name = match digest {
        Some(digest) if !matches!(reference.selector, Selector::Digest(_)) => {
            format!("{reference}@{digest}")
        }
        _ => reference.to_string(),
    };
    output::text(match &outcome {
        Ok(Admission::Signed(_)) => format!("{name}: signed by {}\n", signers.join(", ")),
        Ok(admission) => format!("{name}: {}\n", admission.word()),
        Err(e) if e.failure == Failure::Unsigned => format!("{name}: refused: {}\n", e.reason()),
        Err(e) => format!("{name}: unknown: {}\n", e.reason()),
    })
}

/// A signer that is wanted of everything, as it was typed: the option that names it, and the
/// attributes that a policy would have.
struct TypedSigner {
    option: &'static str,
    named: String,
    attributes: String,
    base: PathBuf,
}

impl TypedSigner {
    fn of(args: &VerifyReleaseArgs, base: &Path) -> Result<Option<TypedSigner>, CommandError> {
        let mut attributes = String::new();
        let mut has = |attribute: &str, value: String| {
            attributes += &format!("  {attribute} = {value}\n");
        };
        if let Some(root) = &args.trusted_root {
            has("trusted_root", quoted(&root.display().to_string()));
        }
        let (option, named) = match (&args.key, &args.identity) {
            (Some(key), _) => {
                has("keys", format!("[{}]", quoted(&key.display().to_string())));
                ("key", key.display().to_string())
            }
            (None, Some(identity)) => {
                has("identity", quoted(identity));
                has("issuer", quoted(args.issuer.as_deref().unwrap_or_default()));
                ("identity", identity.clone())
            }
            (None, None) if args.trusted_root.is_some() => {
                let wanted = "--trusted-root needs --issuer and --identity, or a --key";
                return Err(CommandError::usage(wanted));
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(TypedSigner { option, named, attributes, base: base.to_owned() }))
    }

    /// A policy that wants its signature of everything in these registries.
    fn policies<'a>(
        &self,
        hosts: impl Iterator<Item = &'a Host>,
    ) -> Result<Arc<Policies>, CommandError> {
        let TypedSigner { option, attributes, .. } = self;
        let hosts: std::collections::BTreeSet<&Host> = hosts.collect();
        let mut text = format!("default = \"refuse\"\nsigner \"{option}\" {{\n{attributes}}}\n");
        for host in hosts {
            text += &format!("scope \"{host}\" {{\n  signed_by = [\"{option}\"]\n}}\n");
        }
        let name = format!("--{option} {}", self.named);
        let policy = Policy::parse(&name, &text, Moment::now(), &mut |file| {
            trusted_text(&self.base.join(file))
        });
        let policy =
            policy.map_err(|e| CommandError::failed(format_args!("{name}: {}", e.rule)))?;
        Ok(Arc::new(Policies(vec![Arc::new(policy)])))
    }
}

/// A text as policies write it.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace("${", "$${").replace("%{", "%%{")
}

/// Checks or imports policies.
pub fn policy(args: &PolicyCommandArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    match &args.command {
        PolicyCommand::Check { reference, policy } => {
            let policies = PolicyFiles::new(policy, &environment.base).load()?;
            if policies.is_empty() {
                return Err(CommandError::usage("there is no policy; name one by --policy"));
            }
            check(&policies, reference.as_ref(), &environment.base)
        }
        PolicyCommand::Import { file } => {
            let failed =
                |rule: String| CommandError::failed(format_args!("{}: {rule}", file.display()));
            let text = input::text(&environment.base.join(file), IMPORTED_MAX)
                .map_err(|e| failed(e.to_string()))?;
            let (policy, left_out) = imported(&text).map_err(failed)?;
            for what in left_out {
                // Nobody listening is no reason to stop.
                let _ = writeln!(io::stderr(), "tofufs: warning: {what}");
            }
            output::text(policy)
        }
    }
}

fn check(
    policies: &Policies,
    reference: Option<&OsString>,
    base: &Path,
) -> Result<(), CommandError> {
    let mut text = String::new();
    for policy in &policies.0 {
        match reference {
            Some(reference) => {
                text += &format!("{}\n", policy.says_of(&release(reference, base)?.repo));
            }
            None => {
                let (scopes, signers) = policy.counts();
                let counted = |n: usize, what| output::count(n, what);
                let name = &policy.name;
                text += &format!(
                    "{name}: {}, {}\n",
                    counted(scopes, "scope"),
                    counted(signers, "signer")
                );
            }
        }
    }
    output::text(text)
}
