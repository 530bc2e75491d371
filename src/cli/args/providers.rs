//! The flags that say which providers a mount shows.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::mapping::DEFAULT_REGISTRY;
use crate::name::{NameError, Platform, ProviderAddr};

/// What of providers is shown in `mirror/` and `plugins/`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Providers")]
pub struct ProviderArgs {
    /// Show this provider; may be given several times [HOST: registry.opentofu.org]. A mapping rule
    /// that is for one of them lists no others but those that were looked up before, and so asks no
    /// registry for its repositories
    #[arg(long, value_name = "[HOST/]NAMESPACE/TYPE", value_parser = provider)]
    pub provider: Vec<ProviderAddr>,

    /// Show the providers of this dependency lock file, as --provider does; may be given several
    /// times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lock_file: Vec<PathBuf>,

    /// Show the providers that this root module requires, as --provider does: those that its files
    /// and its lock file name, and those of modules that it calls by a path; may be given several
    /// times
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Vec<PathBuf>,

    /// Refuse releases of provider registries without a signature, also where OpenTofu takes them
    #[arg(long)]
    pub require_signature: bool,

    /// Show packages for this platform; may be given several times [default: this machine's]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// Ask each release once for its platforms, instead of taking them to be there until it is
    /// entered
    #[arg(long)]
    pub verify_platforms: bool,
}

/// A provider, of the default registry where none is named.
pub fn provider(text: &str) -> Result<ProviderAddr, NameError> {
    ProviderAddr::parse(text, &DEFAULT_REGISTRY.parse()?)
}
