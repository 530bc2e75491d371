//! What can be typed for copying between registries, stores and archives.

use std::ffi::OsString;

use clap::{Args, ValueHint};

use super::carry::{CommandReadingArgs, ReferrersArg};

/// The examples of `copy`.
pub const COPY_EXAMPLES: &str = "\
Examples:
  tofufs copy ghcr.io/acme/network:1.3.0 registry.example.com/acme/network:1.3.0
  tofufs copy ghcr.io/acme registry.example.com/ghcr
        everything below acme: ghcr.io/acme/network becomes
        registry.example.com/ghcr/acme/network
  tofufs copy oci-archive:bundle.tar registry.example.com/mirror
        a bundle into a registry inside
  tofufs copy ghcr.io/acme/network:1.3.0 oci:/srv/store
  tofufs copy oci:/tmp/layout:1.3.0 ghcr.io/acme/network:1.3.0
        one image layout, as skopeo writes it";

/// Arguments of `copy`.
#[derive(Args, Debug)]
pub struct CopyArgs {
    /// What to copy
    ///
    /// HOST/NAME:TAG, HOST/NAME@DIGEST  one release or other artifact
    /// HOST[:PORT][/PREFIX]             all tags of a registry's repositories
    /// oci:DIR, oci-archive:FILE        all of a store
    /// oci:PATH:TAG                     one tag of one image layout
    /// oci://HOST/NAME[?tag=TAG]        OpenTofu's address of a release
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath, verbatim_doc_comment)]
    pub source: OsString,

    /// Where to
    ///
    /// HOST/NAME:TAG         one artifact under this name
    /// HOST[:PORT][/PREFIX]  below PREFIX, without the HOST that it comes from
    /// oci:DIR               a store, as DIR/HOST/NAME; made if it is missing
    /// oci-archive:FILE      a store in one tar; what is there stays
    /// oci:PATH:TAG          one image layout; made if it is missing
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath, verbatim_doc_comment)]
    pub destination: OsString,

    /// Keep the source's HOST as a part of the name: HOST/PREFIX/HOST/NAME
    #[arg(long)]
    pub keep_host: bool,

    /// What comes along of that which speaks about the artifacts
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub referrers: ReferrersArg,

    /// Let a tag that holds another digest be overwritten
    #[arg(long)]
    pub allow_overwrite: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// How registries are read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}
