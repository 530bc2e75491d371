//! Entries of Docker-style files that OpenTofu passes over, as `docker login` and other programs
//! leave them: keys with a scheme, a trailing `/v1/` or capitals, identity tokens, a user name and
//! password of their own. They count only where OpenTofu would find nothing to log in with.

use std::path::Path;

use super::docker::{AuthEntry, NamedFile};
use super::prefix::{Prefix, Specificity};
use super::{Choice, Credential, FoundCredential, Login, auth_source, refresh};
use crate::name::{Host, RepoName};

/// The name by which Docker keeps the credential of its own registry, and the names of that
/// registry.
const DOCKER_HUB: (&str, [&str; 2]) = ("index.docker.io", ["docker.io", "registry-1.docker.io"]);

/// How well a key fits that need not be written as OpenTofu wants it; `None` if it is for something
/// else.
fn fits(key: &str, host: &Host, repo: Option<&RepoName>) -> Option<Specificity> {
    let prefix = registry_of(key)?;
    let lower: Host = host.as_str().to_ascii_lowercase().parse().ok()?;
    let names = if DOCKER_HUB.1.contains(&lower.as_str()) {
        vec![lower, DOCKER_HUB.0.parse().ok()?]
    } else {
        vec![lower]
    };
    names.iter().find_map(|name| prefix.specificity(name, repo))
}

/// The repositories that such a key means: `https://HOST`, `https://HOST/v1/` and `HOST/v2/` all of
/// `HOST`.
fn registry_of(key: &str) -> Option<Prefix> {
    let lower = key.to_ascii_lowercase();
    let bare = lower.strip_prefix("https://").or(lower.strip_prefix("http://")).unwrap_or(&lower);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or(bare.strip_suffix("/v2")).unwrap_or(bare);
    bare.parse().ok()
}

/// What an entry has to log in with, if its key has to be `literal` or not, and what to say of
/// that.
fn credential(auth: &AuthEntry, literal: bool) -> Option<(Credential, &'static str)> {
    match (&auth.identity_token, &auth.plain, &auth.basic) {
        (Some(token), ..) => Some((refresh(token), "identitytoken in ")),
        (None, _, Some(Ok(basic))) if !literal => Some((basic.clone(), "")),
        (None, Some(plain), None) => Some((plain.clone(), "username and password in ")),
        _ => None,
    }
}

fn entries(files: &[NamedFile]) -> impl Iterator<Item = (&Path, &str, &AuthEntry)> {
    files.iter().flat_map(|(path, file)| {
        let auths = file.as_ref().as_ref().map(|file| file.auths.as_slice()).unwrap_or_default();
        auths.iter().map(move |(key, auth)| (path.as_path(), key.as_str(), auth))
    })
}

/// The most specific credential that OpenTofu passes over, of equals one with a key as OpenTofu
/// wants it.
pub(super) fn find(
    host: &Host,
    repo: Option<&RepoName>,
    files: &[NamedFile],
) -> Option<FoundCredential> {
    let mut best = None;
    for literal in [true, false] {
        for (path, key, auth) in entries(files) {
            let specificity =
                if literal { super::fits(key, host, repo) } else { fits(key, host, repo) };
            if let (Some(specificity), Some((credential, what))) =
                (specificity, credential(auth, literal))
            {
                let source = format!("{what}{}", auth_source(key, path));
                let login = Ok(Login::Credential(credential));
                Choice::offer(&mut best, Choice { specificity, source, login });
            }
        }
    }
    match best {
        Some(Choice { source, login: Ok(Login::Credential(credential)), .. }) => {
            Some(FoundCredential { credential, source })
        }
        _ => None,
    }
}

/// Why entries that seem to be for `host` do not log in to it, where `used` is the source of what
/// does.
pub(super) fn unused(
    host: &Host,
    repo: Option<&RepoName>,
    files: &[NamedFile],
    used: Option<&str>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    for (path, key, auth) in entries(files) {
        let source = auth_source(key, path);
        if used.is_some_and(|used| used.contains(&source)) {
            continue;
        }
        let literal = super::fits(key, host, repo).is_some();
        let reason = match (literal || fits(key, host, repo).is_some(), used, &auth.basic) {
            (false, ..) => {
                if registry_of(key).is_some_and(|prefix| prefix.is_below(host)) {
                    "it is for another part of that registry".to_owned()
                } else {
                    continue;
                }
            }
            (true, _, Some(Err(reason))) => (*reason).to_owned(),
            (true, None, _) => {
                "it holds neither auth nor identitytoken nor username and password".to_owned()
            }
            (true, Some(used), _) if literal => {
                format!("{used} is as close or closer to what is asked for")
            }
            (true, Some(used), _) => {
                format!("OpenTofu passes over such a key, and there is {used}")
            }
        };
        reasons.push(format!("{source} is not used: {reason}"));
    }
    reasons
}
