//! What can be typed for publishing without a mount.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::sign::SigningArgs;
use super::trusting::PolicyArgs;
use super::{ArchiveArgs, LikeArgs, ReachArgs};
use crate::name::Tag;

/// The examples of `push`.
pub const PUSH_EXAMPLES: &str = "\
Examples:
  tofufs push ./network ghcr.io/acme/network:1.3.0
        a module; what .terraformignore names is left out
  tofufs push terraform-provider-aws_5.92.0_* ghcr.io/acme/aws
        a provider release of zips and SHA256SUMS, tagged with its version;
        platforms that are there stay
  tofufs push --tag 1.3 --tag latest ./network ghcr.io/acme/network:1.3.0
  tofufs push ./network oci:/srv/store/ghcr.io/acme/network:1.3.0
        into a store on disk
  tofufs push --dry-run ./network ghcr.io/acme/network:1.3.0";

/// Arguments of `push`.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// What to publish, and last where
    ///
    /// PATH is a directory, the zip of a module, or zips of one provider by their names
    /// (terraform-provider-TYPE_VERSION_OS_ARCH.zip) with the SHA256SUMS and signatures beside
    /// them. REFERENCE is HOST[:PORT]/NAME[:TAG] or, for a store, oci:DIR/HOST/NAME[:TAG];
    /// OpenTofu's oci://HOST/NAME?tag=TAG is read as HOST/NAME:TAG.
    // One list, since options may stand between its words.
    #[arg(
        num_args = 1..,
        required = true,
        value_name = "PATH... REFERENCE",
        value_hint = ValueHint::AnyPath,
        verbatim_doc_comment
    )]
    pub paths_and_reference: Vec<OsString>,

    /// A tag, beside that of REFERENCE; may be given several times
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<Tag>,

    /// Annotate the release, as in org.opencontainers.image.source=https://git.example.com/network;
    /// may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,

    /// Let a tag, or a platform of a provider release, that holds another digest be overwritten
    #[arg(long)]
    pub allow_overwrite: bool,

    /// Print the plan and the manifests, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Who signs it.
    #[command(flatten)]
    pub signing: SigningArgs,

    /// What would let nobody open it.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// How it is sent.
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// How releases are sent by a command of its own.
#[derive(Args, Debug)]
pub struct SendingArgs {
    /// The mount that it takes after.
    #[command(flatten)]
    pub like: LikeArgs,

    /// Talking to registries.
    #[command(flatten)]
    pub reach: ReachArgs,

    /// How large packages may be.
    #[command(flatten)]
    pub archives: ArchiveArgs,

    /// Where packages are made before they are sent [default:
    /// ${XDG_STATE_HOME:-~/.local/state}/tofufs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Storage")]
    pub state_dir: Option<PathBuf>,
}
