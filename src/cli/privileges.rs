//! Which privileges the process of a mount keeps, and which of them are gone.

use serde::{Deserialize, Serialize};

use super::broker::Broker;
use super::output::CommandError;
use super::reach;
use super::settings::MountSettings;
use crate::sandbox::{Capabilities, ReachInForce, Sandbox, in_force};

/// Has this process give up what a mount with these settings does not need; whether it is kept
/// within the files that it needs. It must have one thread.
pub fn give_up(settings: &MountSettings) -> Result<ReachInForce, CommandError> {
    if !settings.sandboxed {
        tracing::warn!("this process keeps all its privileges, as --no-sandbox asks");
        return Ok(ReachInForce::None);
    }
    sandbox(settings)?.enter().map_err(|e| {
        CommandError::Failed(format!(
            "the mount's process cannot give up its privileges ({e}); with --no-sandbox it keeps \
             them"
        ))
    })
}

fn sandbox(settings: &MountSettings) -> Result<Sandbox, CommandError> {
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
    Ok(Sandbox { capabilities, reach: reach::of(settings)? })
}

/// What the process of a mount cannot do any more, as the kernel says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// What it keeps of the privileges of root.
    pub capabilities: Vec<String>,
    /// Whether no program that it runs could have more.
    pub no_new_privs: bool,
    /// Whether a filter says which system calls it may make.
    #[serde(default)]
    pub seccomp: SeccompStatus,
    /// Whether it reaches no other files than those that it needs.
    #[serde(default)]
    pub landlock: LandlockStatus,
    /// Whether what does for it what it has given up has ended before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broker_gone: bool,
}

/// Which files a process reaches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LandlockStatus {
    /// All that its user can use.
    #[default]
    None,
    /// Those that a mount needs.
    Files,
}

impl LandlockStatus {
    fn word(self) -> &'static str {
        match self {
            LandlockStatus::None => "none",
            LandlockStatus::Files => "files",
        }
    }
}

impl From<ReachInForce> for LandlockStatus {
    fn from(reach: ReachInForce) -> LandlockStatus {
        match reach {
            ReachInForce::None => LandlockStatus::None,
            ReachInForce::Files => LandlockStatus::Files,
        }
    }
}

/// Which system calls a process may make.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompStatus {
    /// All of them.
    #[default]
    None,
    /// Those that a filter allows.
    Filter,
}

impl SeccompStatus {
    fn word(self) -> &'static str {
        match self {
            SeccompStatus::None => "none",
            SeccompStatus::Filter => "filter",
        }
    }
}

impl SandboxStatus {
    /// That of this process, which alone knows its reach and its broker; `None` where `/proc` does
    /// not tell.
    pub fn of_process(reach: ReachInForce, broker: &Broker) -> Option<SandboxStatus> {
        let found = in_force::of_process().inspect_err(|e| tracing::debug!("/proc/self: {e}"));
        let in_force = found.ok()?;
        Some(SandboxStatus {
            capabilities: in_force.capabilities.names(),
            no_new_privs: in_force.no_new_privs,
            seccomp: if in_force.seccomp { SeccompStatus::Filter } else { SeccompStatus::None },
            landlock: reach.into(),
            broker_gone: broker.is_gone(),
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
        let kept = if self.is_missing() {
            format!("none: {capabilities}, and programs can have more")
        } else {
            let (seccomp, landlock) = (self.seccomp.word(), self.landlock.word());
            format!("{capabilities}, no_new_privs, seccomp: {seccomp}, landlock: {landlock}")
        };
        let without =
            "its broker is gone, without which it reads no credentials and cannot unmount";
        if self.broker_gone { format!("{kept}; {without}") } else { kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_is_kept_and_what_is_gone() {
        let none = SandboxStatus {
            capabilities: vec![],
            no_new_privs: true,
            seccomp: SeccompStatus::Filter,
            landlock: LandlockStatus::None,
            broker_gone: false,
        };
        let of_calls = "no_new_privs, seccomp: filter, landlock: none";
        assert_eq!(none.described(), format!("no capabilities, {of_calls}"));
        let kept = SandboxStatus { capabilities: vec!["CAP_SYS_ADMIN".into()], ..none.clone() };
        assert_eq!(kept.described(), format!("CAP_SYS_ADMIN, {of_calls}"));
        let within = SandboxStatus { landlock: LandlockStatus::Files, ..none.clone() };
        assert!(within.described().ends_with("landlock: files"));
        let alone = SandboxStatus { broker_gone: true, ..within };
        assert!(alone.described().contains("files; its broker is gone"));
        let free = SandboxStatus { no_new_privs: false, ..none };
        assert!(free.is_missing() && free.described().starts_with("none: "));
    }
}
