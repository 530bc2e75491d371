//! What can be typed for mirroring providers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::carry::ReadingArgs;
use super::push::SendingArgs;
use super::trusting::PolicyArgs;
use super::{Size, Span};
use crate::name::{Constraints, Platform};

/// How much the cache may hold where modules are read.
const CACHE_SIZE: u64 = 20 << 30;

/// The examples of `mirror`.
pub const MIRROR_EXAMPLES: &str = "\
Examples:
  tofufs mirror hashicorp/aws '~> 5.0' --platform linux_amd64 \\
        --to ghcr.io/acme/providers
        becomes ghcr.io/acme/providers/hashicorp/aws:5.92.0 and so on
  tofufs mirror --lock-file .terraform.lock.hcl --to oci:./providers
  tofufs mirror hashicorp/random '>= 3.0' --newest 3 \\
        --to 'ghcr.io/acme/${namespace}-${type}'
  tofufs mirror --modules terraform-aws-modules/vpc/aws '~> 5.0' --newest 1 \\
        --to ghcr.io/acme/modules
  tofufs mirror --list providers.txt --check --to ghcr.io/acme/providers
        for CI: exit code 1 and what is missing
  tofufs mirror hashicorp/aws '~> 5.0' --newest 5 --min-age 7d --keep 10 \\
        --to ghcr.io/acme/providers
        what has been out for a week; what could go then is listed";

/// Arguments of `mirror`.
#[derive(Args, Debug)]
pub struct MirrorArgs {
    /// The provider, [HOST/]NAMESPACE/TYPE, or with --modules the module; without a HOST it is one
    /// of registry.opentofu.org
    #[arg(required_unless_present_any = ["lock_file", "list", "root"])]
    pub address: Option<String>,

    /// Which of its versions, as in a configuration: '~> 5.0'; pre-releases only where one is named
    #[arg(required_unless_present_any = ["lock_file", "list", "root", "newest"])]
    pub constraint: Option<Constraints>,

    /// Mirror a module instead, [HOST/]NAMESPACE/NAME/SYSTEM, with the modules of registries that
    /// it calls
    ///
    /// Its registry says where it lies: in a zip or tar.gz archive, or in a repository of git
    /// (git:: over https or ssh, by the program git). What calls modules from elsewhere is listed
    /// with file and line and the path to write instead; no file is changed.
    #[arg(long, requires = "address", conflicts_with_all = ["lock_file", "list", "root",
        "platform", "min_age", "keep", "require_signature", "verify"])]
    pub modules: bool,

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

    /// Mirror the providers that the root module in this directory requires, with the modules that
    /// it calls: in the version that it has locked, else the newest one that is allowed; may be given
    /// several times
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Vec<PathBuf>,

    /// Mirror this platform, as in linux_amd64; may be given several times [default: all that a
    /// release has]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// Of the versions that match the newest alone, so many
    #[arg(long, value_name = "N")]
    pub newest: Option<usize>,

    /// Leave out versions that have been out for less than this, as in 7d: since their SHA256SUMS
    /// changed last, else since this command saw them first
    #[arg(long, value_name = "DURATION")]
    pub min_age: Option<Span>,

    /// List the tags of versions that are neither selected nor among the N newest that are there;
    /// removes nothing
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,

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

impl MirrorArgs {
    /// How modules are read that a root module calls.
    pub fn reading(&self) -> ReadingArgs {
        ReadingArgs {
            offline: false,
            from: Vec::new(),
            require_signature: self.require_signature,
            reach: self.sending.reach.clone(),
            policy: PolicyArgs::default(),
            archives: self.sending.archives.clone(),
            cache_size: Size(CACHE_SIZE),
        }
    }
}
