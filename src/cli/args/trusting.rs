//! Which policy counts, as it can be typed of every command that opens releases.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// The policy that counts.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Trust")]
pub struct PolicyArgs {
    /// Open only what this policy admits: who has to have signed what
    ///
    /// /etc/tofufs/policy.hcl counts as well, where it is there: both have to admit.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
}
