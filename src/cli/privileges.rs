//! Which privileges the process of a mount keeps, and which of them are gone.

use serde::{Deserialize, Serialize};

use super::output::CommandError;
use super::settings::MountSettings;
use crate::sandbox::{Capabilities, Sandbox, in_force};

/// Has this process give up what a mount with these settings does not need. It must have one
/// thread.
pub fn give_up(settings: &MountSettings) -> Result<(), CommandError> {
    if !settings.sandboxed {
        tracing::warn!("this process keeps all its privileges, as --no-sandbox asks");
        return Ok(());
    }
    sandbox(settings).enter().map_err(|e| {
        CommandError::Failed(format!(
            "the mount's process cannot give up its privileges ({e}); with --no-sandbox it keeps \
             them"
        ))
    })
}

fn sandbox(settings: &MountSettings) -> Sandbox {
    let mut capabilities = Capabilities::NONE;
    if settings.passthrough {
        capabilities = capabilities.and(Capabilities::PASSTHROUGH);
    }
    // Root may mount what other users keep; and what is staged belongs to who staged it.
    capabilities = capabilities.and(if settings.read_only {
        Capabilities::READ_OF_OTHERS
    } else {
        Capabilities::FILES_OF_OTHERS
    });
    Sandbox { capabilities }
}

/// What the process of a mount cannot do any more, as the kernel says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// What it keeps of the privileges of root.
    pub capabilities: Vec<String>,
    /// Whether no program that it runs could have more.
    pub no_new_privs: bool,
}

impl SandboxStatus {
    /// That of this process; `None` where `/proc` does not tell.
    pub fn of_process() -> Option<SandboxStatus> {
        let found = in_force::of_process().inspect_err(|e| tracing::debug!("/proc/self: {e}"));
        let in_force = found.ok()?;
        Some(SandboxStatus {
            capabilities: in_force.capabilities.names(),
            no_new_privs: in_force.no_new_privs,
        })
    }

    /// Whether it keeps everything.
    pub fn is_missing(&self) -> bool {
        !self.no_new_privs
    }

    /// In words for people.
    pub fn described(&self) -> String {
        let capabilities = match self.capabilities.as_slice() {
            [] => "no capabilities".to_owned(),
            names => names.join(" "),
        };
        if self.is_missing() {
            format!("none: {capabilities}, and programs can have more")
        } else {
            format!("{capabilities}, no_new_privs")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_is_kept_and_what_is_gone() {
        let none = SandboxStatus { capabilities: vec![], no_new_privs: true };
        assert_eq!(none.described(), "no capabilities, no_new_privs");
        let kept = SandboxStatus { capabilities: vec!["CAP_SYS_ADMIN".into()], ..none.clone() };
        assert_eq!(kept.described(), "CAP_SYS_ADMIN, no_new_privs");
        let free = SandboxStatus { no_new_privs: false, ..none };
        assert!(free.is_missing() && free.described().starts_with("none: "));
    }
}
