//! What can be typed for saying something about a release.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{LikeArgs, ReachArgs};

/// The examples of `attach`.
pub const ATTACH_EXAMPLES: &str = "\
Examples:
  tofufs attach ghcr.io/acme/network:1.3.0 network.spdx.json scan.sarif
  tofufs attach --type text/markdown ghcr.io/acme/network:1.3.0 review.md";

/// Arguments of `attach`.
#[derive(Args, Debug)]
pub struct AttachArgs {
    /// The release: HOST/NAME:TAG, HOST/NAME@DIGEST or OpenTofu's oci://HOST/NAME?tag=TAG
    #[arg(value_name = "REFERENCE")]
    pub reference: OsString,

    /// What speaks about it
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Vec<PathBuf>,

    /// What the files are [default: by their names, as in x.spdx.json, x.cdx.json, x.sarif,
    /// x.intoto.json, x.sigstore.json]
    #[arg(long = "type", value_name = "MEDIA_TYPE")]
    pub kind: Option<String>,

    /// Annotate it; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The mount that it takes after.
    #[command(flatten)]
    pub like: LikeArgs,

    /// Talking to the registry.
    #[command(flatten)]
    pub reach: ReachArgs,
}
