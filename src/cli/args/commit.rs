//! What can be typed for publishing what is staged.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// The examples of `commit`.
pub const COMMIT_EXAMPLES: &str = "\
Examples:
  mkdir -p /mnt/tofu/staging/ghcr.io/acme/network
  cp -r ./network /mnt/tofu/staging/ghcr.io/acme/network/1.3.0
  tofufs commit /mnt/tofu/staging/ghcr.io/acme/network/1.3.0
  cd /mnt/tofu && mv staging/ghcr.io/acme/network/1.3.0 ghcr.io/acme/network/
        does the same";

/// Arguments of `commit`.
#[derive(Args, Debug)]
pub struct CommitArgs {
    /// A path in the staging directory of a mount
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// Annotate the releases, as in
    /// org.opencontainers.image.source=https://git.example.com/network; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,

    /// Let a tag, or a platform of a provider release, that holds another digest be overwritten
    #[arg(long)]
    pub allow_overwrite: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
