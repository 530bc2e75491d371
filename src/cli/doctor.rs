//! `tofufs doctor`: what this host and a registry can and cannot do, each with what to change.
//!
//! INVARIANT: nothing is changed or made, and no finding holds a secret. A finding says what was
//! seen; what cannot be seen is said to be unknown.

mod host;
mod registry;
#[cfg(test)]
mod tests;
mod trusted;

use std::fmt;

use serde::Serialize;
use serde_json::json;

use super::access::{self, RegistryAccess};
use super::args::DoctorArgs;
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::output::{self, CommandError};
use super::policy::PolicyFiles;
use super::typed::Typed;
use crate::moment::Moment;
use crate::name::{AddressError, Host, RepoName, Selector};
use crate::registry::Asker;
use crate::registry::connections::Connections;

/// How a finding is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or something is worth knowing.
    Note,
    /// Something does not work.
    Problem,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Problem => "PROBLEM",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct DoctorFinding {
    mark: Mark,
    subject: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl DoctorFinding {
    fn new(mark: Mark, subject: impl fmt::Display, found: impl fmt::Display) -> DoctorFinding {
        DoctorFinding { mark, subject: subject.to_string(), found: found.to_string(), remedy: None }
    }

    fn ok(subject: impl fmt::Display, found: impl fmt::Display) -> DoctorFinding {
        DoctorFinding::new(Mark::Ok, subject, found)
    }

    fn note(subject: impl fmt::Display, found: impl fmt::Display) -> DoctorFinding {
        DoctorFinding::new(Mark::Note, subject, found)
    }

    fn problem(subject: impl fmt::Display, found: impl fmt::Display) -> DoctorFinding {
        DoctorFinding::new(Mark::Problem, subject, found)
    }

    fn remedy(mut self, remedy: impl fmt::Display) -> DoctorFinding {
        self.remedy = Some(remedy.to_string());
        self
    }
}

/// The findings of one part.
#[derive(Debug, Serialize)]
struct DoctorSection {
    name: String,
    findings: Vec<DoctorFinding>,
}

/// What is to be looked at beside this host.
#[derive(Clone, PartialEq, Eq, Debug)]
struct RegistryPart {
    host: Host,
    repo: Option<(RepoName, Option<Selector>)>,
}

impl RegistryPart {
    fn parse(text: &str) -> Result<RegistryPart, CommandError> {
        const WANTED: &str =
            "this is neither HOST[:PORT][/NAME] nor HOST/NAME:TAG nor HOST/NAME@DIGEST";
        let address = match Typed::parse(text.as_ref(), "/".as_ref()) {
            Ok(Typed::Address(address)) => address.subject(),
            Ok(_) => Err(AddressError::new(text, WANTED, None)
                .wanted("tofufs bundle verify looks at stores")),
            Err(e) => Err(e.wanted(WANTED)),
        };
        let (host, name, selector) = address.map_err(CommandError::usage)?;
        Ok(RegistryPart { host, repo: name.map(|name| (name, selector)) })
    }
}

impl fmt::Display for RegistryPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repo {
            None => write!(f, "{}", self.host),
            Some((name, None)) => write!(f, "{}/{name}", self.host),
            Some((name, Some(Selector::Tag(tag)))) => write!(f, "{}/{name}:{tag}", self.host),
            Some((name, Some(Selector::Digest(digest)))) => {
                write!(f, "{}/{name}@{digest}", self.host)
            }
        }
    }
}

/// Looks, prints what was found, and fails if there is a problem.
pub fn run(args: &DoctorArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network = Network::reaching(&args.reach, &environment.base).map_err(CommandError::usage)?;
    let access = RegistryAccess::new(&network, Asker::Person);
    let subject = args.reference.as_deref().map(RegistryPart::parse).transpose()?;
    let surroundings = host::Surroundings::of_process(&args.storage, &environment, &access)?;
    let mut parts =
        vec![DoctorSection { name: "this host".to_owned(), findings: surroundings.findings() }];
    if let (None, Err(error)) = (&subject, access::check(&network)) {
        parts[0].findings.push(DoctorFinding::problem("set-up", error));
    }
    let policies = PolicyFiles::new(&args.policy, &environment.base).load();
    parts[0].findings.extend(trusted::findings(policies, Moment::now()));
    if let Some(subject) = subject {
        let findings = match access.connections() {
            Ok(connections) => examined(connections, &subject)?,
            Err(error) => vec![DoctorFinding::problem("set-up", error)],
        };
        parts.push(DoctorSection { name: subject.to_string(), findings });
    }
    print(&parts, args.json)?;
    match parts
        .iter()
        .flat_map(|part| &part.findings)
        .filter(|finding| finding.mark == Mark::Problem)
        .count()
    {
        0 => Ok(()),
        1 => Err(CommandError::Failed("there is 1 problem".to_owned())),
        several => Err(CommandError::Failed(format!("there are {several} problems"))),
    }
}

fn examined(
    connections: &Connections,
    subject: &RegistryPart,
) -> Result<Vec<DoctorFinding>, CommandError> {
    let remote = connections.registry(&subject.host).map_err(CommandError::failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CommandError::Failed(format!("no threads can be started: {e}")))?;
    let mirrors = connections.mirrors(&subject.host).map_err(CommandError::failed)?;
    Ok(runtime.block_on(async {
        let mut findings = registry::findings(&remote, subject).await;
        let (used, repo) =
            (remote.observed().credential, subject.repo.as_ref().map(|(name, _)| name));
        let unused = connections.unused_credentials(&subject.host, repo, used.as_deref());
        findings
            .extend(unused.into_iter().map(|reason| DoctorFinding::note("credentials", reason)));
        for (address, mirror) in &mirrors {
            findings.push(registry::mirror(address, mirror, subject).await);
        }
        findings
    }))
}

fn print(parts: &[DoctorSection], as_json: bool) -> Result<(), CommandError> {
    if as_json {
        return output::json(&json!({ "parts": parts }));
    }
    let width = parts
        .iter()
        .flat_map(|part| &part.findings)
        .map(|f| f.subject.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (at, part) in parts.iter().enumerate() {
        text += if at == 0 { "" } else { "\n" };
        text += &format!("{}\n", part.name);
        for DoctorFinding { mark, subject, found, remedy } in &part.findings {
            text += &format!("  {mark:7}  {subject:width$}  {}\n", output::printable(found));
            if let Some(remedy) = remedy {
                text += &format!("  {:7}  {:width$}  -> {}\n", "", "", output::printable(remedy));
            }
        }
    }
    output::text(text)
}
