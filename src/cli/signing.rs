//! Who signs: a key in a file, or a program.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::args::sign::SigningArgs;
use super::broker::Broker;
use super::directories::absolute;
use super::output::CommandError;
use crate::digest::Digest;
use crate::failure::{Failure, Refusal};
use crate::input;
use crate::name::{Repo, Selector, Tag};
use crate::oci::Descriptor;
use crate::registry::Upload;
use crate::stage::sign::{KeySigner, ReleaseSigner, is_about};
use crate::trust::signing::SigningKey;

/// The largest file of a key.
const KEY_MAX: u64 = 64 << 10;
/// How much of a program's complaint is told.
const COMPLAINT_MAX: usize = 1000;
/// How often it is looked whether a registry lists what a program signed.
const LISTED_PAUSE: Duration = Duration::from_millis(250);

/// Who is to sign, as it was typed.
#[derive(Clone, Default, Debug)]
pub struct SigningSetting {
    /// The file of a key.
    pub key: Option<PathBuf>,
    /// The words of a program, and what it is told.
    pub command: Option<String>,
}

impl SigningSetting {
    /// What was typed of it; a relative path is one below `base`.
    pub fn new(args: &SigningArgs, base: &Path) -> SigningSetting {
        let key = args.sign_key.as_ref().map(|key| absolute(key, base));
        SigningSetting { key, command: args.sign_command.clone() }
    }

    /// Who signs what is published, if anybody does. The broker, where there is one, runs programs.
    ///
    /// # Errors
    /// The key cannot be read or used, or others can read it; the command names no program.
    pub fn signer(
        &self,
        deadline: Duration,
        broker: Option<&Arc<Broker>>,
    ) -> Result<Option<Arc<dyn ReleaseSigner>>, CommandError> {
        if let Some(path) = &self.key {
            let failed = |rule: String| {
                CommandError::failed(format_args!("the key {}: {rule}", path.display()))
            };
            let key = read_key(path).map_err(failed)?;
            return Ok(Some(Arc::new(KeySigner { key, deadline })));
        }
        let Some(command) = self.command(deadline)? else { return Ok(None) };
        Ok(Some(Arc::new(CommandSigner { command, broker: broker.cloned() })))
    }

    /// The program that signs.
    ///
    /// # Errors
    /// The command names none.
    pub fn command(&self, deadline: Duration) -> Result<Option<SignCommand>, CommandError> {
        let Some(command) = &self.command else { return Ok(None) };
        let words = split(command).ok_or_else(|| {
            CommandError::usage(format_args!("{command:?} names no program, or a quote is open"))
        })?;
        Ok(Some(SignCommand { words, deadline }))
    }
}

fn read_key(path: &Path) -> Result<SigningKey, String> {
    let file = input::open(path).map_err(|e| e.to_string())?;
    let metadata = file.metadata().map_err(|e| e.to_string())?;
    if metadata.mode() & 0o077 != 0 {
        return Err("others can read it; let its owner alone (chmod 600)".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_MAX as usize + 1));
    input::append_from(file, KEY_MAX, &mut bytes).map_err(|e| e.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
    SigningKey::from_pem(text).map_err(|e| e.to_string())
}

/// A program that signs, as cosign does.
#[derive(Debug)]
pub struct SignCommand {
    words: Vec<String>,
    deadline: Duration,
}

impl SignCommand {
    /// Has what is at `reference` signed.
    ///
    /// # Errors
    /// The program failed, or did not end in time.
    pub async fn run(&self, reference: &str, tag: Option<&str>) -> Result<(), String> {
        let fill =
            |word: &String| word.replace("%r", reference).replace("%t", tag.unwrap_or_default());
        let words: Vec<String> = self.words.iter().map(fill).collect();
        let program = words.first().ok_or("it names no program")?;
        let mut command = tokio::process::Command::new(program);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let running = command.stderr(Stdio::piped()).output();
        let output = match tokio::time::timeout(self.deadline, running).await {
            Ok(output) => output.map_err(|e| format!("{program} cannot be run: {e}"))?,
            Err(_) => return Err(format!("{program} had not ended after {:?}", self.deadline)),
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let last: String = last.chars().take(COMPLAINT_MAX).flat_map(char::escape_debug).collect();
        Err(format!("{program} failed ({}): {last}", output.status))
    }
}

/// Signs by a program, and waits until the registry lists the signature.
struct CommandSigner {
    command: SignCommand,
    broker: Option<Arc<Broker>>,
}

impl CommandSigner {
    async fn run(&self, reference: &str, tag: Option<&str>) -> Result<(), String> {
        match &self.broker {
            Some(broker) => {
                let tag = tag.map(str::to_owned);
                broker.sign(reference.to_owned(), tag, self.command.deadline).await
            }
            None => self.command.run(reference, tag).await,
        }
    }
}

#[async_trait]
impl ReleaseSigner for CommandSigner {
    async fn sign(
        &self,
        upload: &dyn Upload,
        repo: &Repo,
        subject: &Descriptor,
        tag: Option<&Tag>,
    ) -> Result<(), Refusal> {
        let reference = repo.at(Selector::Digest(subject.digest));
        let refuse = |rule: String| {
            Refusal::new(Failure::Unsigned, &reference, rule)
                .remedy("the tag was not written; see to the command, and try again")
        };
        let SignCommand { words, deadline } = &self.command;
        if tag.is_none() && words.iter().any(|word| word.contains("%t")) {
            return Err(refuse("the command wants a tag (%t), and it was named by digest".into()));
        }
        let listed = async || upload.referrers(&repo.name, &subject.digest).await.whole();
        let mut known: HashSet<Digest> = listed().await?.iter().map(|entry| entry.digest).collect();
        self.run(&reference.to_string(), tag.map(Tag::as_str)).await.map_err(&refuse)?;
        let (begun, mut others) = (tokio::time::Instant::now(), 0);
        loop {
            for entry in listed().await? {
                if !known.insert(entry.digest) {
                    continue;
                }
                if is_about(upload, repo, &entry, subject.digest).await? {
                    return Ok(());
                }
                others += 1;
            }
            if begun.elapsed() > *deadline {
                let new = match others {
                    0 => "no new signature of it",
                    _ => "as new only what does not sign this digest",
                };
                let program = &words[0];
                return Err(refuse(format!(
                    "{program} ended well, and the registry lists {new} after {deadline:?}"
                )));
            }
            tokio::time::sleep(LISTED_PAUSE).await;
        }
    }
}

/// The words of a command: separated by blanks, which quotes keep together.
fn split(command: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_no_shell() {
        let words = |text: &str| split(text).unwrap_or_default();
        assert_eq!(words(" a  b "), ["a", "b"]);
        assert_eq!(words("a 'b c' \"d'e\" f'g h'"), ["a", "b c", "d'e", "fg h"]);
        assert_eq!(words("a '' $HOME;ls"), ["a", "", "$HOME;ls"]);
        assert!(split("").is_none() && split("a 'b").is_none());
    }
}
