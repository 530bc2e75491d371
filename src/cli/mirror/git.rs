//! Repositories of git, by the program `git`: over https and ssh alone, whatever a repository's
//! own configuration or submodules ask for.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::cli::output::CommandError;
use crate::module_registry::GitPlace;

/// What every call of git is told.
const SETTINGS: [&str; 5] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.autocrlf=false",
];

/// Writes the files of `place` into the empty directory `dir`; the commit that they are of.
///
/// # Errors
/// What git says.
pub async fn checkout(place: &GitPlace, dir: &Path) -> Result<String, CommandError> {
    let GitPlace { url, reference } = place;
    git(dir, &["init", "--quiet", "."]).await?;
    git(dir, &["remote", "add", "--", "origin", url]).await?;
    let wanted = reference.as_deref().unwrap_or("HEAD");
    let alone = git(dir, &["fetch", "--quiet", "--depth", "1", "origin", wanted]).await;
    let commit = match alone {
        Ok(_) => "FETCH_HEAD".to_owned(),
        // Not every server gives a commit by its name, or a part of the history.
        Err(refused) => {
            let all = "+refs/heads/*:refs/remotes/origin/*";
            git(dir, &["fetch", "--quiet", "--tags", "origin", all]).await.map_err(|_| refused)?;
            resolved(dir, wanted, url).await?
        }
    };
    git(dir, &["checkout", "--quiet", "--detach", &commit]).await?;
    if dir.join(".gitmodules").is_file() {
        git(dir, &["submodule", "--quiet", "update", "--init", "--recursive"]).await?;
    }
    git(dir, &["rev-parse", "HEAD"]).await
}

/// The commit for which a name stands after all was fetched.
async fn resolved(dir: &Path, wanted: &str, url: &str) -> Result<String, CommandError> {
    for name in [wanted.to_owned(), format!("refs/remotes/origin/{wanted}")] {
        let commit = format!("{name}^{{commit}}");
        if let Ok(found) = git(dir, &["rev-parse", "--verify", "--quiet", &commit]).await {
            return Ok(found);
        }
    }
    Err(CommandError::Failed(format!("{url} has no branch, tag or commit {wanted:?}")))
}

/// Runs it; what it printed.
async fn git(dir: &Path, words: &[&str]) -> Result<String, CommandError> {
    let mut command = Command::new("git");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.args(words.iter().map(OsStr::new)).current_dir(dir);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| {
        CommandError::Failed(format!(
            "git cannot be run, and the module lies in a repository of it: {e}"
        ))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(CommandError::Failed(format!("git {} failed: {said}", words[0])));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
