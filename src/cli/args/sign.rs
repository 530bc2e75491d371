//! What can be typed for signing.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{LikeArgs, ReachArgs};

/// The examples of `sign`.
pub const SIGN_EXAMPLES: &str = "\
Examples:
  tofufs sign --key acme.key ghcr.io/acme/network:1.3.0
        a key as openssl genpkey -algorithm ed25519 makes it
  tofufs sign --command 'cosign sign --yes --key k8s://acme/key %r' \\
        ghcr.io/acme/network:1.3.0";

/// Who signs what is published.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trust")]
pub struct SigningArgs {
    /// Sign what is published with this private key, before its tag is written: PKCS#8 PEM of a key
    /// over P-256 or an Ed25519 key, readable by its owner alone
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with = "sign_command"
    )]
    pub sign_key: Option<PathBuf>,

    /// Sign it by this program, which runs once for each tag without a shell: %r is
    /// HOST/NAME@DIGEST, %t the tag
    #[arg(long, value_name = "COMMAND")]
    pub sign_command: Option<String>,
}

/// Arguments of `sign`.
#[derive(Args, Debug)]
pub struct SignArgs {
    /// Releases: HOST/NAME:TAG, HOST/NAME@DIGEST or OpenTofu's oci://HOST/NAME?tag=TAG
    #[arg(required = true, value_name = "REFERENCE")]
    pub reference: Vec<OsString>,

    /// Sign with this private key: PKCS#8 PEM of a key over P-256 or an Ed25519 key, readable by
    /// its owner alone
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    pub key: Option<PathBuf>,

    /// Sign by this program, without a shell: %r is HOST/NAME@DIGEST, %t the tag
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,

    /// The mount that it takes after.
    #[command(flatten)]
    pub like: LikeArgs,

    /// Talking to the registry.
    #[command(flatten)]
    pub reach: ReachArgs,
}
