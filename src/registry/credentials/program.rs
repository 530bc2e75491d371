//! Credential helpers: programs named `docker-credential-NAME` that are asked for one registry's
//! credential.
//!
//! A program is run by its absolute path, without a shell, with three pipes for its standard
//! streams and none of this process's own descriptors (all are close-on-exec), in a process group
//! of its own that is killed when the time limit passes. Nothing that it prints gets into a
//! message.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::{Credential, Secret};
use crate::name::Host;

/// The most that a program may answer, in bytes.
pub const ANSWER_MAX: usize = 64 << 10;
/// How much of its complaints is looked at, in bytes.
const COMPLAINT_MAX: usize = 4 << 10;
/// What a program says, and exits with a failure, where it has no credential.
const NOT_FOUND: &[u8] = b"credentials not found";
/// The user name by which a program marks its secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// A credential helper by its short name: `pass` stands for the program `docker-credential-pass`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Program(String);

/// The name cannot be a part of a program's file name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the name of a credential helper must be part of a file name: not empty, without /")]
pub struct ProgramError;

impl FromStr for Program {
    type Err = ProgramError;

    fn from_str(name: &str) -> Result<Self, ProgramError> {
        if name.is_empty() || name.contains(['/', '\0']) {
            Err(ProgramError)
        } else {
            Ok(Program(name.to_owned()))
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker-credential-{}", self.0)
    }
}

#[derive(Deserialize)]
struct HelperOutput {
    #[serde(default, rename = "Username")]
    username: String,
    #[serde(default, rename = "Secret")]
    secret: String,
}

impl Program {
    /// Asks for the credential of `host`; `None` if the program has none. The error is a reason
    /// without anything that the program printed.
    ///
    /// An identity token (user name `<token>`) is an error for OpenTofu, which therefore finds
    /// nothing; here it is a refresh token.
    pub async fn get(
        self,
        search_path: OsString,
        host: Host,
        limit: Duration,
    ) -> Result<Option<Credential>, String> {
        let name = self.to_string();
        let found = tokio::task::spawn_blocking(move || find_in(&search_path, &name)).await;
        let path = found.map_err(|e| e.to_string())?.ok_or("there is no such program in PATH")?;
        let mut command = std::process::Command::new(path);
        command.arg("get");
        let (status, answer, complaint) = ask(command, &format!("https://{host}"), limit).await?;
        if !status.success() {
            let absent = says_not_found(&answer) || says_not_found(&complaint);
            return if absent {
                Ok(None)
            } else {
                Err(format!("it failed ({status}); run it by hand to see why"))
            };
        }
        interpret(&answer)
    }
}

/// The first executable file of that name. Only absolute directories count: a relative one would
/// depend on where the process happens to stand.
fn find_in(search_path: &OsString, name: &str) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| {
            file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
        })
}

/// How a program ended, what it answered, and what it complained of.
pub(super) type Conversation = (ExitStatus, Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>);

/// Runs a program for at most `limit`: writes the question to it, and hears what it says. It stands
/// in no directory of anybody's, and what it started ends with it.
pub(super) async fn ask(
    mut command: std::process::Command,
    question: &str,
    limit: Duration,
) -> Result<Conversation, String> {
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("it cannot be started: {e}"))?;
    let outcome = tokio::time::timeout(limit, converse(&mut child, question)).await;
    if !matches!(outcome, Ok(Ok(_))) {
        end_group(&child);
    }
    outcome.map_err(|_| format!("it did not answer within {} s", limit.as_secs_f32()))?
}

/// Asks, and listens until the program has ended. What it started and left behind may hold the
/// pipes for longer, but has nothing to say.
async fn converse(child: &mut Child, question: &str) -> Result<Conversation, String> {
    let stdin = child.stdin.take();
    let mut answer = Heard::new(child.stdout.take(), ANSWER_MAX + 1);
    let mut complaint = Heard::new(child.stderr.take(), COMPLAINT_MAX);
    let ask = async {
        if let Some(mut stdin) = stdin {
            // a program that does not read its question has its own way to the answer
            let _ = stdin.write_all(question.as_bytes()).await;
        }
    };
    let listening = async {
        let answering = async {
            answer.listen().await;
            answer.within_limit()
        };
        let complaining = async {
            ask.await;
            complaint.listen_and_drop_the_rest().await;
            Ok(())
        };
        tokio::try_join!(answering, complaining).map(drop)
    };
    let ended = tokio::select! {
        ended = child.wait() => ended,
        listened = listening => {
            listened?;
            child.wait().await
        }
    };
    let status = ended.map_err(|e| e.to_string())?;
    answer.take_what_is_left();
    complaint.take_what_is_left();
    answer.within_limit()?;
    Ok((status, answer.bytes, complaint.bytes))
}

/// What comes out of a pipe, up to a limit, in a buffer that is never moved.
struct Heard<P> {
    pipe: Option<P>,
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

impl<P: AsyncRead + AsFd + Unpin> Heard<P> {
    fn new(pipe: Option<P>, limit: usize) -> Self {
        Heard { pipe, bytes: Zeroizing::new(Vec::with_capacity(limit)), limit }
    }

    fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }

    fn within_limit(&self) -> Result<(), String> {
        if self.room() > 0 {
            Ok(())
        } else {
            Err(format!("it answers more than {} bytes", self.limit - 1))
        }
    }

    /// Reads to the end or the limit. A failing pipe ends like a closed one. May be dropped at any
    /// time.
    async fn listen(&mut self) {
        while self.room() > 0 {
            let room = self.room() as u64;
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.take(room).read_buf(&mut *self.bytes).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(_) => {}
            }
        }
    }

    /// The same, and lets the program go on talking.
    async fn listen_and_drop_the_rest(&mut self) {
        self.listen().await;
        if let Some(pipe) = &mut self.pipe {
            let _ = tokio::io::copy(pipe, &mut tokio::io::sink()).await;
        }
    }

    /// Reads what lies in the pipe, without waiting for more. All that the program wrote is there
    /// when it has ended.
    fn take_what_is_left(&mut self) {
        let mut piece = Zeroizing::new([0; 4096]);
        while let (Some(pipe), 1..) = (&self.pipe, self.room()) {
            let most = self.room().min(piece.len());
            match rustix::io::read(pipe, &mut piece[..most]) {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(read) => self.bytes.extend_from_slice(&piece[..read]),
            }
        }
    }
}

fn end_group(child: &Child) {
    let group =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // it may have ended by itself in the meantime; it is not reaped yet, so the id is still its
        // own
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn says_not_found(text: &[u8]) -> bool {
    text.windows(NOT_FOUND.len()).any(|w| w.eq_ignore_ascii_case(NOT_FOUND))
}

fn interpret(answer: &[u8]) -> Result<Option<Credential>, String> {
    // the first value counts, whatever follows it
    let first = serde_json::Deserializer::from_slice(answer).into_iter::<HelperOutput>().next();
    let Some(Ok(HelperOutput { username, secret })) = first else {
        return Err("its answer is not a JSON object with Username and Secret".to_owned());
    };
    let secret = Secret::new(secret);
    if username.is_empty() && secret.expose().is_empty() {
        return Ok(None);
    }
    if username == TOKEN_USER {
        return Ok(Some(Credential::Tokens { access: None, refresh: Some(secret) }));
    }
    Ok(Some(Credential::Basic { username, password: secret }))
}
