//! `tofufs attach`: documents that speak about a release, beside it in its registry.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::access::{self, RegistryAccess};
use super::args::attach::AttachArgs;
use super::directories::DirectoryEnvironment;
use super::network::Network;
use super::output::{self, CommandError};
use super::typed::release;
use super::{daemon, push};
use crate::input;
use crate::registry::Asker;
use crate::stage::attach::{self, Attachment};

/// The largest document that is attached.
const DOCUMENT_MAX: u64 = 256 << 20;

/// What documents are by the ends of their names.
const KINDS: [(&str, &str); 7] = [
    (".spdx.json", "application/spdx+json"),
    (".cdx.json", "application/vnd.cyclonedx+json"),
    (".sarif", "application/sarif+json"),
    (".sarif.json", "application/sarif+json"),
    (".intoto.json", "application/vnd.in-toto+json"),
    (".intoto.jsonl", "application/vnd.in-toto+json"),
    (".sigstore.json", "application/vnd.dev.sigstore.bundle.v0.3+json"),
];

/// Attaches each file, and prints the reference of what speaks about the release now.
pub fn run(args: &AttachArgs) -> Result<(), CommandError> {
    let environment = DirectoryEnvironment::of_process().map_err(CommandError::usage)?;
    let network = Network::reaching(&args.reach, &environment.base).map_err(CommandError::usage)?;
    let reference = release(&args.reference, &environment.base)?;
    let annotations = push::annotations(&args.annotation)?;
    let mut attachments = Vec::new();
    for path in &args.file {
        let kind = kind_of(path, args.kind.as_deref())?;
        let bytes = input::read(&environment.base.join(path), DOCUMENT_MAX)
            .map_err(|e| CommandError::failed(format_args!("{}: {e}", path.display())))?;
        let title = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let (bytes, annotations) = (Bytes::from(bytes), annotations.clone());
        attachments.push(Attachment { kind, title, bytes, annotations });
    }
    access::check(&network)?;
    daemon::runtime()?.block_on(async {
        let access = RegistryAccess::new(&network, Asker::Person);
        let repo = &reference.repo;
        let upload = access.connections()?.writer(&repo.host).map_err(CommandError::failed)?;
        let subject = attach::subject(&upload, repo, &reference.selector).await;
        let subject = subject.map_err(CommandError::failed)?;
        let told = |what: &str| tracing::info!("{reference}: {what}");
        for attachment in &attachments {
            let digest =
                attach::attach(&upload, repo, &subject, attachment, network.deadline, &told)
                    .await
                    .map_err(CommandError::failed)?;
            if !args.json {
                output::text(format!("{repo}@{digest}\n"))?;
                continue;
            }
            output::json(&json!({
                "reference": format!("{repo}@{digest}"), "digest": digest.to_string(),
                "subject": subject.digest.to_string(), "type": attachment.kind,
                "title": attachment.title,
            }))?;
        }
        Ok(())
    })
}

fn kind_of(path: &Path, given: Option<&str>) -> Result<String, CommandError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let known = KINDS.iter().find(|(end, _)| name.ends_with(end));
    known.map(|(_, kind)| (*kind).to_owned()).ok_or_else(|| {
        CommandError::usage(format_args!(
            "{}: its name does not tell what it is; say so by --type MEDIA_TYPE",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_a_document_is() {
        let kind = |name: &str| kind_of(Path::new(name), None).unwrap_or_default();
        assert_eq!(kind("a/network.spdx.json"), "application/spdx+json");
        assert_eq!(kind("scan.sarif"), "application/sarif+json");
        assert_eq!(kind("spdx.json"), "");
        assert_eq!(kind_of(Path::new("x"), Some("a/b")).unwrap(), "a/b");
    }
}
