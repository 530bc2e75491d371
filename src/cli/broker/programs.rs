//! What the broker finds and runs: credentials, tokens, the program that signs.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use super::credentials::{CredentialAnswer, FailedText, TokenText, secret_text};
use crate::cli::access::ClientConfiguration;
use crate::cli::settings::MountSettings;
use crate::cli::signing::SignCommand;
use crate::name::{Host, NameError, RepoName};
use crate::registry::credentials::{Credentials, HostTokens};

/// The sources of credentials, and the program that signs.
pub(super) struct Programs {
    configuration: ClientConfiguration,
    credentials: OnceCell<Credentials>,
    tokens: OnceCell<HostTokens>,
    signing: Result<Option<SignCommand>, String>,
}

impl Programs {
    pub(super) fn new(settings: &MountSettings) -> Programs {
        let signing = settings.signing.command(settings.network.deadline);
        Programs {
            configuration: ClientConfiguration::new(settings.network.tofurc.clone()),
            credentials: OnceCell::new(),
            tokens: OnceCell::new(),
            signing: signing.map_err(|e| e.to_string()),
        }
    }

    /// The credential for a repository, as JSON.
    pub(super) async fn credential(
        &self,
        host: &str,
        repo: Option<&str>,
        again: bool,
    ) -> Zeroizing<Vec<u8>> {
        let finding = async {
            let credentials = self
                .credentials
                .get_or_try_init(|| async { self.configuration.credentials() })
                .await
                .map_err(|e| FailedText::new("the CLI configuration", e))?;
            let (host, repo) = named(host, repo).map_err(|e| FailedText::new(host, e))?;
            let found = credentials.find(&host, repo.as_ref(), again).await;
            Ok(found?.map(Into::into))
        };
        let (found, warnings) = logged(finding).await;
        let passed_over = self.credentials.get().and_then(Credentials::passed_over);
        secret_text(&CredentialAnswer { found, passed_over, warnings })
    }

    /// The token for a host, as JSON.
    pub(super) async fn token(&self, host: &str) -> Zeroizing<Vec<u8>> {
        let finding = async {
            let tokens = self
                .tokens
                .get_or_try_init(|| async { self.configuration.host_tokens() })
                .await
                .map_err(|e| FailedText::new("the CLI configuration", e))?;
            let (host, _) = named(host, None).map_err(|e| FailedText::new(host, e))?;
            Ok(tokens.find(&host).await?.map(TokenText::from))
        };
        let found: Result<Option<TokenText>, FailedText> = finding.await;
        secret_text(&found)
    }

    /// Has the next who asks run helpers again.
    pub(super) fn forget(&self) {
        self.credentials.get().inspect(|credentials| credentials.forget());
    }

    /// Runs the program that signs; whether it did, as JSON.
    pub(super) async fn sign(&self, reference: &str, tag: Option<&str>) -> Zeroizing<Vec<u8>> {
        let signed = match &self.signing {
            Ok(Some(command)) => command.run(reference, tag).await,
            Ok(None) => Err("no program was named that signs".to_owned()),
            Err(e) => Err(e.clone()),
        };
        secret_text(&signed)
    }
}

/// What a request names.
fn named(host: &str, repo: Option<&str>) -> Result<(Host, Option<RepoName>), String> {
    let host = host.parse().map_err(|e: NameError| e.to_string())?;
    let repo = repo.map(str::parse).transpose().map_err(|e: NameError| e.to_string())?;
    Ok((host, repo))
}

/// Sends an answer when it is there. Nothing is done any more for who does not listen.
pub(super) async fn answer_with(
    connection: UnixStream,
    answer: impl Future<Output = Zeroizing<Vec<u8>>>,
) -> io::Result<()> {
    connection.set_nonblocking(true)?;
    let mut connection = tokio::net::UnixStream::from_std(connection)?;
    let answer = tokio::select! {
        answer = answer => answer,
        // Who asks sends nothing more: the connection can be read when it was closed.
        gone = connection.readable() => return gone,
    };
    connection.write_all(&answer).await
}

/// What a work gives, and the sentences that it logs from warnings on: this process has no log.
async fn logged<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_ansi(false)
        .with_target(false)
        .with_level(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let done = work.with_subscriber(subscriber).await;
    let text = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    (done, text.lines().map(|line| line.trim().to_owned()).collect())
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_logged_at_a_work_comes_with_its_result() {
        let (done, lines) = logged(async {
            tracing::warn!("auth.json: others can read it");
            tracing::info!("not this");
            7
        })
        .await;
        assert_eq!((done, lines), (7, vec!["auth.json: others can read it".to_owned()]));
    }

    #[tokio::test]
    async fn nothing_is_done_for_who_has_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        answer_with(ours, std::future::pending()).await.unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        answer_with(ours, async { Zeroizing::new(b"here".to_vec()) }).await.unwrap();
        assert_eq!(io::read_to_string(theirs).unwrap(), "here");
    }
}
