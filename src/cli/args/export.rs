//! What can be typed for `export`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::carry::{CommandReadingArgs, NeedsArgs};

/// The examples of `export`.
pub const EXPORT_EXAMPLES: &str = "\
Examples:
  tofufs export /srv/tofu --lock-file .terraform.lock.hcl --root .
  tofufs tofurc --for /srv/tofu > ~/.tofurc
  tofufs export /srv/tofu ghcr.io/acme/network:1.*
  tofufs export --offline --from oci-archive:bundle.tar /srv/tofu --root .";

/// Arguments of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Where to: a directory, made if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// What is exported. Without --platform: for this host.
    #[command(flatten)]
    pub needs: NeedsArgs,

    /// How it is read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}
