//! Where credentials come from: OpenTofu's sources and precedence (a host where `tofu init` can log
//! in needs no further set-up), and what tofufs adds to them.
//!
//! In order: the `oci_credentials` blocks, the credential helper of `oci_default_credentials`,
//! Docker-style files. Of all that fit a repository the most specific one is taken, of equals the
//! first; within a file `auths` stands before `credHelpers` before `credsStore`. What is taken
//! decides alone: if its helper knows nothing, the next one is not asked.
//!
//! Added to that is what OpenTofu passes over, where it would find nothing to log in with: no
//! source fits, or the helper that does has no credential, or the entry itself has no password.
//! There an `identitytoken` is a refresh token, and keys and entries count as `docker login` and
//! others leave them (`lenient`). A helper's answer with the user name `<token>`, on which OpenTofu
//! fails, is such a token too.

mod docker;
mod lenient;
mod prefix;
mod program;
#[cfg(test)]
mod tests;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::bounded::Bounded;
use crate::flight::{Flights, TO_THE_END};
use crate::name::{Host, RepoName};

pub use docker::DockerFiles;
use docker::{DockerFile, DockerStore, NamedFile};
pub use prefix::{Prefix, PrefixError, Specificity};
pub use program::{Program, ProgramError};
pub use token::{HostToken, HostTokens, TokenAsking, TokenProgram};

/// How long a credential helper may take.
pub const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
/// How many answers of helpers are remembered, one for each helper and registry.
const ANSWERS_MAX: usize = 1024;
/// How long after its end a helper that failed, or whose answer was refused twice, is not run
/// again.
const RUN_AGAIN: Duration = Duration::from_secs(60);
/// What is said of that.
const AGAIN: &str =
    "it is asked again in a minute; in a mount `tofufs refresh` has it asked at once";

/// A text that is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Secret(Zeroizing::new(text))
    }

    /// The text itself. Callers put it into a request header or body and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a registry or its token service is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// A user name and password, for Basic or for a token request by GET.
    Basic {
        /// The user's name.
        username: String,
        password: Secret,
    },
    /// OAuth2 tokens: `access` is used as it is, `refresh` is exchanged at the token service.
    Tokens {
        /// A bearer token.
        access: Option<Secret>,
        /// A refresh token (`refresh_token`, or an `identitytoken` of a Docker configuration).
        refresh: Option<Secret>,
    },
}

/// A credential and where it was found, in words for the user.
#[derive(Clone, Debug)]
pub struct FoundCredential {
    pub credential: Credential,
    /// Its source, without any secret: `auths["ghcr.io"] of /home/u/.docker/config.json`.
    pub source: String,
}

/// Why a source of credentials could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credentials of {host} cannot be read from {source_name}: {reason}")]
pub struct CredentialError {
    /// The registry.
    pub host: Host,
    /// Which source.
    pub source_name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How a source logs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Login {
    /// With this.
    Credential(Credential),
    /// With what this credential helper answers.
    Program(Program),
}

/// One `oci_credentials` block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// The repositories it is for.
    pub prefix: Prefix,
    /// What it sets.
    pub login: Login,
    /// Where it stands, for the user: `/home/u/.tofurc:12`.
    pub origin: String,
}

/// All sources, in order. The default has none.
#[derive(Clone, Default, Debug)]
pub struct CredentialsConfig {
    /// The `oci_credentials` blocks in the order of their files.
    pub blocks: Vec<Block>,
    /// `docker_credentials_helper` of `oci_default_credentials`.
    pub default_program: Option<Program>,
    /// Docker-style files.
    pub files: DockerFiles,
    /// Where credential helpers are looked for, as in `PATH`.
    pub search_path: OsString,
    /// How long a helper may take; `None`: [`PROGRAM_LIMIT`].
    pub program_limit: Option<Duration>,
}

/// All configured sources, in order.
pub struct Credentials {
    config: CredentialsConfig,
    docker: Arc<DockerStore>,
    /// What helpers answered last.
    answers: Arc<Mutex<Bounded<HelperKey, HelperAnswer>>>,
    runs: Flights<HelperKey, Option<Credential>, String>,
}

type HelperKey = (Program, Host);

/// What a helper said.
struct HelperAnswer {
    outcome: Result<Option<Credential>, String>,
    /// Whether the answer of a run before was refused.
    after_refusal: bool,
    ended: Instant,
}

impl HelperAnswer {
    /// Whether it is used: an answer until it is refused; and for a while, so that a helper that
    /// fails, hangs or answers what is refused costs its time once, a failure or what came after a
    /// refusal.
    fn counts(&self, refused: bool) -> bool {
        match self.outcome {
            Ok(_) if !refused => true,
            Ok(_) if !self.after_refusal => false,
            _ => self.ended.elapsed() < RUN_AGAIN,
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Credentials::new(CredentialsConfig::default())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The best source so far. `login` is an error where the source names no possible program.
struct Choice {
    specificity: Specificity,
    source: String,
    login: Result<Login, String>,
}

impl Choice {
    /// Puts `new` in place of `best` if it is more specific.
    fn offer(best: &mut Option<Choice>, new: Choice) {
        if best.as_ref().is_none_or(|b| new.specificity > b.specificity) {
            *best = Some(new);
        }
    }
}

impl Credentials {
    /// Credentials from these sources. Nothing is read or run before it is asked for.
    pub fn new(config: CredentialsConfig) -> Credentials {
        let docker = Arc::new(DockerStore::new(config.files.clone()));
        let answers = Arc::new(Mutex::new(Bounded::counted(ANSWERS_MAX)));
        let runs = Flights::new(TO_THE_END, |_| format!("it was given up ({AGAIN})"));
        Credentials { config, docker, answers, runs }
    }

    /// The most specific credential for a repository (`None`: for the registry as a whole). `again`
    /// is true after the registry refused what was found before, so that a helper runs once more,
    /// unless it has just done so. Files are read again whenever they changed.
    ///
    /// Must be called on a tokio runtime. Waits at most for a helper's time limit, besides the
    /// disk.
    pub async fn find(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<FoundCredential>, CredentialError> {
        let error = |source_name: String, reason: String| CredentialError {
            host: host.clone(),
            source_name,
            reason,
        };
        let docker = self.docker.clone();
        let reading = tokio::task::spawn_blocking(move || docker.read()).await;
        let reading = reading
            .map_err(|e| error("the Docker-style configuration files".to_owned(), e.to_string()))?;
        for warning in &reading.warnings {
            tracing::warn!("{warning}");
        }
        let files =
            reading.files.map_err(|(path, reason)| error(path.display().to_string(), reason))?;

        let Some(choice) = self.choose(host, repo, &files)? else {
            return Ok(lenient::find(host, repo, &files));
        };
        let login = choice.login.map_err(|reason| error(choice.source.clone(), reason))?;
        let (credential, source) = match login {
            Login::Credential(credential) => (Some(credential), choice.source),
            Login::Program(program) => {
                let source = format!("{program} ({})", choice.source);
                let answer = self.ask(program, host, again).await;
                (answer.map_err(|reason| error(source.clone(), reason))?, source)
            }
        };
        Ok(match credential {
            Some(credential) => Some(FoundCredential { credential, source }),
            None => lenient::find(host, repo, &files),
        })
    }

    /// Why entries of Docker-style files that seem to be for `host` are not what logs in to it,
    /// where `used` is the source of what does. Blocks on the disk.
    pub fn unused(&self, host: &Host, repo: Option<&RepoName>, used: Option<&str>) -> Vec<String> {
        let files = self.docker.read().files.unwrap_or_default();
        lenient::unused(host, repo, &files, used)
    }

    /// Why no Docker-style file was used when they were read last, if that was so.
    pub fn passed_over(&self) -> Option<String> {
        self.docker.dropped()
    }

    /// The source that decides. An entry that fits and cannot be read is an error even beside a
    /// better one.
    fn choose(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        files: &[NamedFile],
    ) -> Result<Option<Choice>, CredentialError> {
        let mut best = None;
        for block in &self.config.blocks {
            if let Some(specificity) = block.prefix.specificity(host, repo) {
                let source = format!("oci_credentials \"{}\" of {}", block.prefix, block.origin);
                Choice::offer(
                    &mut best,
                    Choice { specificity, source, login: Ok(block.login.clone()) },
                );
            }
        }
        if let Some(program) = &self.config.default_program {
            let source = "oci_default_credentials".to_owned();
            let login = Ok(Login::Program(program.clone()));
            Choice::offer(&mut best, Choice { specificity: Specificity::GLOBAL, source, login });
        }
        for (path, file) in files {
            let Ok(file) = file.as_ref() else { continue };
            offer_of_file(&mut best, host, repo, path, file)?;
        }
        Ok(best)
    }

    /// Forgets what helpers answered: the next who asks runs them again.
    pub fn forget(&self) {
        self.answers.lock().clear();
    }

    /// A helper's answer, from its last run where that counts. A run that is under way is shared.
    async fn ask(
        &self,
        program: Program,
        host: &Host,
        again: bool,
    ) -> Result<Option<Credential>, String> {
        let limit = self.config.program_limit.unwrap_or(PROGRAM_LIMIT);
        let (answers, path) = (self.answers.clone(), self.config.search_path.clone());
        let key = (program, host.clone());
        let (program, host) = key.clone();
        let run = move || async move {
            let key = (program, host);
            let known = answers
                .lock()
                .get(&key)
                .filter(|answer| answer.counts(again))
                .map(|answer| answer.outcome.clone());
            if let Some(outcome) = known {
                return outcome;
            }
            let (program, host) = key.clone();
            let outcome = program
                .get(path, host, limit)
                .await
                .map_err(|reason| format!("{reason} ({AGAIN})"));
            let answer = HelperAnswer {
                outcome: outcome.clone(),
                after_refusal: again,
                ended: Instant::now(),
            };
            answers.lock().put(key, answer);
            outcome
        };
        self.runs.join(key, run).await
    }
}

/// Offers what a file of the Docker form has for a host.
fn offer_of_file(
    best: &mut Option<Choice>,
    host: &Host,
    repo: Option<&RepoName>,
    path: &Path,
    file: &DockerFile,
) -> Result<(), CredentialError> {
    for (key, auth) in &file.auths {
        let Some(specificity) = fits(key, host, repo) else { continue };
        let source = auth_source(key, path);
        let credential = match &auth.basic {
            None => continue,
            Some(Ok(credential)) => credential.clone(),
            Some(Err(reason)) => {
                let reason = (*reason).to_owned();
                return Err(CredentialError { host: host.clone(), source_name: source, reason });
            }
        };
        let credential = match (&credential, &auth.identity_token) {
            (Credential::Basic { password, .. }, Some(token)) if password.expose().is_empty() => {
                refresh(token)
            }
            _ => credential,
        };
        Choice::offer(
            best,
            Choice { specificity, source, login: Ok(Login::Credential(credential)) },
        );
    }
    let programs = [
        (
            Specificity::DOMAIN,
            file.cred_helpers.get(host.as_str()),
            format!("credHelpers[\"{host}\"]"),
        ),
        (Specificity::GLOBAL, file.creds_store.as_ref(), "credsStore".to_owned()),
    ];
    for (specificity, name, place) in programs {
        let Some(name) = name else { continue };
        let source = format!("{place} of {}", path.display());
        let login = name.parse().map(Login::Program).map_err(|e: ProgramError| e.to_string());
        Choice::offer(best, Choice { specificity, source, login });
    }
    Ok(())
}

/// How well a key of `auths` fits. A key that is no prefix of repositories
/// (`https://index.docker.io/v1/`) belongs to other programs.
fn fits(key: &str, host: &Host, repo: Option<&RepoName>) -> Option<Specificity> {
    key.parse::<Prefix>().ok()?.specificity(host, repo)
}

fn auth_source(key: &str, path: &Path) -> String {
    format!("auths[\"{key}\"] of {}", path.display())
}

fn refresh(token: &Secret) -> Credential {
    Credential::Tokens { access: None, refresh: Some(token.clone()) }
}
