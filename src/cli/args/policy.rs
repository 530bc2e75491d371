//! What can be typed about who has to have signed what is opened.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::carry::CommandReadingArgs;
use super::trusting::PolicyArgs;

/// The examples of `policy`.
pub const POLICY_EXAMPLES: &str = "\
Examples:
  tofufs policy check --policy policy.hcl
  tofufs policy check --policy policy.hcl ghcr.io/acme/network:1.3.0
        which scope decides
  tofufs policy import /etc/containers/policy.json > policy.hcl";

/// The examples of `verify`.
pub const VERIFY_EXAMPLES: &str = "\
Examples:
  tofufs verify --policy policy.hcl ghcr.io/acme/network:1.3.0
  tofufs verify --key acme.pub ghcr.io/acme/network:1.3.0
  tofufs verify --trusted-root root.json --issuer https://gitlab.com \\
        --identity 'https://gitlab.com/acme/**' ghcr.io/acme/network:1.3.0
  tofufs verify --offline --policy policy.hcl oci-archive:bundle.tar";

/// Arguments of `policy`.
#[derive(Args, Debug)]
pub struct PolicyCommandArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What can be done with policies.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Tell whether a policy can be used, and what decides about a release
    ///
    /// Makes no connection. The exit code is 1 if it cannot be used.
    Check {
        /// The release: HOST/NAME:TAG or HOST/NAME@DIGEST
        #[arg(value_name = "REFERENCE")]
        reference: Option<OsString>,

        /// The policy.
        #[command(flatten)]
        policy: PolicyArgs,
    },
    /// Print as a policy what a policy.json of podman, skopeo or CRI-O says
    ///
    /// What has no counterpart is told on standard error, and becomes a scope that refuses.
    Import {
        /// The policy.json
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub struct VerifyReleaseArgs {
    /// Releases (HOST/NAME:TAG, HOST/NAME@DIGEST), or all of a store: oci:DIR, oci-archive:FILE
    #[arg(required = true, value_name = "REFERENCE")]
    pub reference: Vec<OsString>,

    /// Ask for a signature by this key (PEM), whatever policies say
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "policy")]
    pub key: Option<PathBuf>,

    /// Ask for a signature by the certificate of this signer: a URI or an e-mail address, in which
    /// * stands for anything but /, and ** for anything
    #[arg(
        long,
        value_name = "PATTERN",
        requires_all = ["issuer", "trusted_root"],
        conflicts_with_all = ["policy", "key"]
    )]
    pub identity: Option<String>,

    /// Who has to have vouched for the identity: the address of an OpenID Connect issuer
    #[arg(long, value_name = "URL", requires = "identity")]
    pub issuer: Option<String>,

    /// The authorities, logs and timestamps that count (trusted_root.json, or .jsonl)
    ///
    /// It is never fetched: `cosign trusted-root create` and `gh attestation trusted-root` make one.
    /// With --key the signature has to be in one of its logs.
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with = "policy"
    )]
    pub trusted_root: Option<PathBuf>,

    /// Print JSON, one object for each release
    #[arg(long)]
    pub json: bool,

    /// How registries are read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}
