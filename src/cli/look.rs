//! The look at each source when a mount begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::access::RegistryAccess;
use super::output::CommandError;
use super::settings::MountSettings;
use crate::facts::FailingSource;
use crate::fs::Fs;

/// How long a mount waits for its sources to be looked at.
const LIMIT: Duration = Duration::from_secs(5);

/// What is looked at, and for how long.
pub struct Look {
    fs: Arc<Fs>,
    access: Arc<RegistryAccess>,
    limit: Duration,
    offline: bool,
}

impl Look {
    /// The look at the sources of `fs`.
    pub fn new(settings: &MountSettings, fs: &Arc<Fs>, access: &Arc<RegistryAccess>) -> Look {
        Look {
            fs: Arc::clone(fs),
            access: Arc::clone(access),
            limit: LIMIT.min(settings.network.deadline),
            offline: settings.network.offline,
        }
    }

    /// The sources that fail. Who is to use no network fails at none, and what failed now is not
    /// held against the first use.
    pub fn at_sources(&self, runtime: &Runtime) -> Vec<FailingSource> {
        if self.offline {
            return Vec::new();
        }
        let ailing = runtime.block_on(self.fs.facts().look(self.limit));
        if let (false, Some(connections)) = (ailing.is_empty(), self.access.opened()) {
            connections.transport().trust_again();
        }
        ailing
    }

    /// Fails if a source does.
    pub fn insist(&self, runtime: &Runtime) -> Result<(), CommandError> {
        let ailing = self.at_sources(runtime);
        if ailing.is_empty() {
            return Ok(());
        }
        let sentences: Vec<String> = ailing.iter().map(ToString::to_string).collect();
        Err(CommandError::Failed(format!(
            "{} (with --strict nothing is mounted then)",
            sentences.join(" · ")
        )))
    }
}
