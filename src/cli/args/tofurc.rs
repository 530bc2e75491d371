//! Arguments of `tofurc`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::carry::ClientArg;

/// Arguments of `tofurc`.
#[derive(Args, Debug)]
pub struct TofurcArgs {
    /// The mount point
    #[arg(value_hint = ValueHint::DirPath, required_unless_present = "exported")]
    pub mountpoint: Option<PathBuf>,

    /// The directory of an export, in the place of a mount point: for the providers that are in it
    #[arg(
        long = "for",
        id = "exported",
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        conflicts_with_all = ["mountpoint", "purpose"]
    )]
    pub exported: Option<PathBuf>,

    /// Print the configuration for this use alone
    #[arg(long = "use", value_name = "USE", value_enum)]
    pub purpose: Option<Use>,

    /// Print JSON, as for a file named *.tfrc.json [default use: plugins]
    #[arg(long)]
    pub json: bool,

    /// Merge it into the CLI configuration that is there instead of printing it, and keep a copy of
    /// what that was
    ///
    /// The file is the one that the client reads: that of TF_CLI_CONFIG_FILE, else ~/.tofurc, or
    /// ~/.terraformrc where there is that alone. All else in it stays; a provider_installation
    /// block that stands there becomes a comment.
    #[arg(long, conflicts_with = "json")]
    pub install: bool,

    /// With --install: the client whose file it is; Terraform reads ~/.terraformrc, and OpenTofu
    /// that too if there is no ~/.tofurc
    #[arg(long, value_name = "CLIENT", default_value = "tofu", requires = "install")]
    pub client: ClientArg,
}

/// What a client can use a mount for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Use {
    /// As an unpacked mirror: packages stay in the mount, nothing is copied
    Plugins,
    /// As a packed mirror: packages are unpacked into every working directory
    Mirror,
    /// As the plugin cache beside other sources of providers
    PluginCache,
}
