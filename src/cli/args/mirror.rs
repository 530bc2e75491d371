//! What can be typed for mirroring providers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::push::SendingArgs;
use crate::name::{Constraints, Platform};

/// The examples of `mirror`.
pub const MIRROR_EXAMPLES: &str = "\
Examples:
  tofufs mirror hashicorp/aws '~> 5.0' --platform linux_amd64 \\
        --to ghcr.io/acme/providers
        becomes ghcr.io/acme/providers/hashicorp/aws:5.92.0 and so on
  tofufs mirror --lock-file .terraform.lock.hcl --to oci:./providers
  tofufs mirror hashicorp/random '>= 3.0' --newest 3 \\
        --to 'ghcr.io/acme/${namespace}-${type}'
  tofufs mirror --list providers.txt --check --to ghcr.io/acme/providers
        for CI: exit code 1 and what is missing";

/// Arguments of `mirror`.
#[derive(Args, Debug)]
pub struct MirrorArgs {
    /// The provider, [HOST/]NAMESPACE/TYPE; without a HOST it is one of registry.opentofu.org
    #[arg(required_unless_present_any = ["lock_file", "list"])]
    pub address: Option<String>,

    /// Which of its versions, as in a configuration: '~> 5.0'; pre-releases only where one is named
    #[arg(required_unless_present_any = ["lock_file", "list", "newest"])]
    pub constraint: Option<Constraints>,

    /// Where to
    ///
    /// HOST[:PORT][/PREFIX]  as HOST/PREFIX/NAMESPACE/TYPE
    /// a template            with ${namespace} and ${type}, as in repository_template of oci_mirror
    /// oci:DIR               a store; made if it is missing
    #[arg(long, value_name = "DESTINATION", verbatim_doc_comment)]
    pub to: OsString,

    /// Mirror the versions that this lock file holds, and refuse a zip that it does not hold; may
    /// be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lock_file: Vec<PathBuf>,

    /// Mirror what this file lists: ADDRESS CONSTRAINT a line; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub list: Vec<PathBuf>,

    /// Mirror this platform, as in linux_amd64; may be given several times [default: all that a
    /// release has]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// Of the versions that match the newest alone, so many
    #[arg(long, value_name = "N")]
    pub newest: Option<usize>,

    /// Refuse a release without a signature wherever it comes from
    #[arg(long)]
    pub require_signature: bool,

    /// Print what would be mirrored, and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Change nothing, and fail if something is missing
    #[arg(long, conflicts_with = "dry_run")]
    pub check: bool,

    /// Compare what is there with what the vendor signed
    #[arg(long)]
    pub verify: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// How it is sent.
    #[command(flatten)]
    pub sending: SendingArgs,
}
