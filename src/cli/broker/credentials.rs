//! Credentials and signatures by way of the broker. It reads the files of credentials and runs the
//! programs: a credential helper, the program that signs.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::{Broker, Request};
use crate::name::{Host, RepoName};
use crate::registry::auth::CredentialSource;
use crate::registry::credentials::{
    Credential, CredentialError, FoundCredential, HostToken, PROGRAM_LIMIT, Secret, TokenAsking,
};

/// The longest answer, in bytes: two secrets, each as long as a credential helper may answer, and
/// what was logged meanwhile.
const ANSWER_MAX: usize = 512 << 10;
/// How much longer than a program itself its answer may take.
const GRACE: Duration = Duration::from_secs(10);
/// What sentences call the broker where a credential was wanted.
const SOURCE: &str = "the mount's broker";

/// What there is for a registry.
#[derive(Serialize, Deserialize)]
pub(super) struct CredentialAnswer {
    pub found: Result<Option<FoundText>, FailedText>,
    pub passed_over: Option<String>,
    /// What was logged at it.
    pub warnings: Vec<String>,
}

/// A source that could not be used, and why.
#[derive(Serialize, Deserialize)]
pub(super) struct FailedText {
    source: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FoundText {
    credential: CredentialText,
    source: String,
}

#[derive(Serialize, Deserialize)]
enum CredentialText {
    Basic { username: String, password: String },
    Tokens { access: Option<String>, refresh: Option<String> },
}

/// A token for a host.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenText {
    secret: String,
    source: String,
}

impl From<CredentialError> for FailedText {
    fn from(error: CredentialError) -> FailedText {
        FailedText { source: error.source_name, reason: error.reason }
    }
}

impl FailedText {
    pub(super) fn new(source: &str, reason: impl ToString) -> FailedText {
        FailedText { source: source.to_owned(), reason: reason.to_string() }
    }

    fn about(self, host: &Host) -> CredentialError {
        CredentialError { host: host.clone(), source_name: self.source, reason: self.reason }
    }
}

impl From<FoundCredential> for FoundText {
    fn from(found: FoundCredential) -> FoundText {
        let text = |secret: Secret| secret.expose().to_owned();
        let credential = match found.credential {
            Credential::Basic { username, password } => {
                CredentialText::Basic { username, password: text(password) }
            }
            Credential::Tokens { access, refresh } => {
                CredentialText::Tokens { access: access.map(text), refresh: refresh.map(text) }
            }
        };
        FoundText { credential, source: found.source }
    }
}

impl From<FoundText> for FoundCredential {
    fn from(found: FoundText) -> FoundCredential {
        let credential = match found.credential {
            CredentialText::Basic { username, password } => {
                Credential::Basic { username, password: Secret::new(password) }
            }
            CredentialText::Tokens { access, refresh } => Credential::Tokens {
                access: access.map(Secret::new),
                refresh: refresh.map(Secret::new),
            },
        };
        FoundCredential { credential, source: found.source }
    }
}

impl From<HostToken> for TokenText {
    fn from(token: HostToken) -> TokenText {
        TokenText { secret: token.secret.expose().to_owned(), source: token.source }
    }
}

/// What the broker finds.
pub(super) struct BrokeredCredentials {
    broker: Arc<Broker>,
    passed_over: Mutex<Option<String>>,
}

impl BrokeredCredentials {
    pub(super) fn new(broker: Arc<Broker>) -> BrokeredCredentials {
        BrokeredCredentials { broker, passed_over: Mutex::default() }
    }
}

#[async_trait]
impl CredentialSource for BrokeredCredentials {
    async fn find(
        &self,
        host: &Host,
        repo: Option<&RepoName>,
        again: bool,
    ) -> Result<Option<FoundCredential>, CredentialError> {
        let request = Request::Credential {
            host: host.to_string(),
            repo: repo.map(ToString::to_string),
            again,
        };
        let answer: CredentialAnswer = self
            .broker
            .ask_long(&request, PROGRAM_LIMIT + GRACE)
            .await
            .map_err(|reason| no_answer(host, reason))?;
        answer.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        *self.passed_over.lock() = answer.passed_over;
        match answer.found {
            Ok(found) => Ok(found.map(FoundCredential::from)),
            Err(failed) => Err(failed.about(host)),
        }
    }

    fn passed_over(&self) -> Option<String> {
        self.passed_over.lock().clone()
    }

    fn forget(&self) {
        if let Err(e) = self.broker.send(&Request::ForgetCredentials) {
            tracing::warn!("{SOURCE} does not forget what credential helpers said: {e}");
        }
    }
}

#[async_trait]
impl TokenAsking for Broker {
    async fn token(&self, host: &Host) -> Result<Option<HostToken>, CredentialError> {
        let request = Request::Token { host: host.to_string() };
        let answer: Result<Option<TokenText>, FailedText> = self
            .ask_long(&request, PROGRAM_LIMIT + GRACE)
            .await
            .map_err(|reason| no_answer(host, reason))?;
        let token = |token: TokenText| HostToken {
            secret: Secret::new(token.secret),
            source: token.source,
        };
        answer.map(|found| found.map(token)).map_err(|failed| failed.about(host))
    }
}

fn no_answer(host: &Host, reason: String) -> CredentialError {
    CredentialError { host: host.clone(), source_name: SOURCE.to_owned(), reason }
}

impl Broker {
    /// Has the program that signs sign what is at `reference`.
    pub async fn sign(
        &self,
        reference: String,
        tag: Option<String>,
        limit: Duration,
    ) -> Result<(), String> {
        self.ask_long(&Request::Sign { reference, tag }, limit.saturating_add(GRACE)).await?
    }

    /// Asks, and waits for the answer without a thread. Dropping this ends what was asked for.
    async fn ask_long<T: DeserializeOwned>(
        &self,
        request: &Request,
        limit: Duration,
    ) -> Result<T, String> {
        let asking = async {
            let answer = heard(self.send(request)?).await?;
            serde_json::from_slice(&answer).map_err(io::Error::from)
        };
        match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer.map_err(|e| self.no_answer(&e)),
            Err(_) => Err(format!("it did not answer within {} s", limit.as_secs())),
        }
    }
}

/// An answer may hold secrets: it comes into a buffer that is never moved.
async fn heard(stream: UnixStream) -> io::Result<Zeroizing<Vec<u8>>> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    while answer.len() < ANSWER_MAX && stream.read_buf(&mut *answer).await? > 0 {}
    Ok(answer)
}

/// The text of an answer, in a buffer that is never moved.
pub(super) fn secret_text(answer: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    // Writing to a vector fails only where a value is no JSON, and all of these are.
    let _ = serde_json::to_writer(&mut *text, answer);
    text
}
