//! What is told of a run.

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;

use crate::cli::args::mirror::MirrorArgs;
use crate::cli::output::{self, CommandError, count};
use crate::cli::progress::SharedProgress;
use crate::copy::mirror::SelectedRelease;
use crate::failure::Refusal;
use crate::name::{ProviderAddr, Repo, Selector};
use crate::stage::push::{Observer, PushStep};

/// How many releases did not come out well.
#[derive(Default)]
pub struct Shortfall {
    /// Providers and releases.
    pub failed: usize,
    /// Releases, or platforms of them.
    pub missing: usize,
    /// Packages that are not what the vendor signed.
    pub differing: usize,
}

impl Shortfall {
    /// The end of a run.
    ///
    /// # Errors
    /// Something fell short.
    pub fn outcome(&self, is_check: bool) -> Result<(), CommandError> {
        let Shortfall { failed, missing, differing } = *self;
        let mut words = Vec::new();
        if failed > 0 {
            words.push(format!(
                "{} failed; each reason stands above",
                count(failed, "provider or release")
            ));
        }
        if differing > 0 {
            words.push(format!(
                "{} not what the vendor signed",
                output::count_with(differing, "package", ["is", "are"])
            ));
        }
        if is_check && missing > 0 {
            words.push(format!(
                "{} missing or incomplete; mirror without --check",
                output::count_with(missing, "release", ["is", "are"])
            ));
        }
        if words.is_empty() { Ok(()) } else { Err(CommandError::Failed(words.join("; "))) }
    }
}

/// What is told of one release.
pub struct ReleaseReport {
    provider: String,
    version: String,
    reference: String,
    /// The digest of what is there.
    pub digest: Option<String>,
    platforms: Vec<String>,
    missing: Vec<String>,
    /// What was found of its signature.
    pub signature: Option<String>,
    /// What was sent for it.
    pub uploaded_bytes: u64,
}

impl ReleaseReport {
    /// Of a release as it was found.
    pub fn new(provider: &ProviderAddr, repo: &Repo, release: &SelectedRelease) -> ReleaseReport {
        ReleaseReport {
            provider: provider.to_string(),
            version: release.version.to_string(),
            reference: repo.at(Selector::Tag(release.tag.clone())).to_string(),
            digest: release.there.as_ref().map(|there| there.digest.to_string()),
            platforms: release.platforms.iter().map(ToString::to_string).collect(),
            missing: release.missing().iter().map(ToString::to_string).collect(),
            signature: None,
            uploaded_bytes: 0,
        }
    }

    /// Prints it.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn print(&self, args: &MirrorArgs) -> Result<(), CommandError> {
        if args.json {
            return output::json(&json!({
                "provider": self.provider, "version": self.version, "reference": self.reference,
                "digest": self.digest, "platforms": self.platforms, "missing": self.missing,
                "signature": self.signature, "uploaded_bytes": self.uploaded_bytes,
            }));
        }
        let (reference, missing) = (&self.reference, self.missing.join(", "));
        match (&self.digest, missing.as_str()) {
            (_, missing) if args.check => output::text(format!("{reference} lacks {missing}\n")),
            (_, missing) if args.dry_run && !missing.is_empty() => {
                output::text(format!("{reference} would get {missing}\n"))
            }
            (Some(digest), _) => output::text(format!("{reference}@{digest}\n")),
            (None, _) => Ok(()),
        }
    }
}

/// Shows how far it is: what was sent of all releases so far.
pub struct MirrorShown {
    /// The line on the terminal.
    pub line: SharedProgress,
    /// Bytes of releases before the present one, and of that one.
    sent: Mutex<(u64, u64)>,
}

impl MirrorShown {
    /// Nothing was sent yet.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub fn new() -> Result<MirrorShown, CommandError> {
        let line = SharedProgress::new("mirrored").map_err(CommandError::failed)?;
        Ok(MirrorShown { line, sent: Mutex::default() })
    }

    /// Another release follows.
    pub fn next(&self) {
        let mut sent = self.sent.lock();
        *sent = (sent.0 + sent.1, 0);
    }
}

#[async_trait]
impl Observer for MirrorShown {
    async fn reached(&self, _: PushStep) -> Result<(), Refusal> {
        Ok(())
    }

    fn progress(&self, done: u64, total: u64) {
        let before = {
            let mut sent = self.sent.lock();
            sent.1 = done;
            sent.0
        };
        self.line.step(before + done, before + total);
    }

    fn waits(&self, what: &str) {
        output::note(what);
    }
}
