//! What can be typed to mount.

use std::ffi::OsString;

use clap::{Args, ValueEnum, ValueHint};

use super::mapping::MappingArgs;
use super::metrics::MetricsAddress;
use super::providers::ProviderArgs;
use super::sign::SigningArgs;
use super::trusting::PolicyArgs;
use super::{ArchiveArgs, LogArgs, NetworkArgs, StorageArgs};
use crate::cli::account::Account;

/// Arguments of `mount`.
#[derive(Args, Debug)]
pub struct MountArgs {
    /// What to mount, and last where: an empty directory. Of several sources the first that holds a
    /// name wins
    ///
    /// HOST[:PORT][/PREFIX]  a registry, or the part of it below PREFIX
    /// oci:DIR               a store on disk: DIR/HOST/REPO... are OCI image layouts
    /// oci-archive:FILE      such a store in one tar, read where it lies
    /// providers:HOST[:PORT][/NAMESPACE[/TYPE]]
    ///                       a provider registry, such as registry.opentofu.org; its providers stand
    ///                       in plugins/, mirror/ and plugin-cache/ under their own addresses
    ///
    /// OpenTofu's oci://HOST/NAME is read as HOST/NAME.
    /// A NAME alone is that of a mount in a configuration file: `tofufs help config` has more.
    // One list, since options may stand between its words.
    #[arg(
        num_args = 1..,
        value_name = "SOURCE... MOUNTPOINT",
        value_hint = ValueHint::DirPath,
        verbatim_doc_comment
    )]
    pub sources_and_mountpoint: Vec<OsString>,

    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    pub foreground: bool,

    /// Mount nothing if a source cannot be reached, is not trusted or denies access
    ///
    /// Every source is looked at once when a mount begins, for at most 5 s or --deadline. One that
    /// fails is told in one line, by `tofufs status` and in the log; without this option it is
    /// mounted all the same, since what the cache holds can be read and the source may come back.
    #[arg(long)]
    pub strict: bool,

    /// Tell what the mount does to Prometheus, at http://ADDRESS/metrics: unix:PATH, or
    /// 127.0.0.1:PORT
    ///
    /// Requests, bytes, the cache, failures and times; docs/metrics.md has the names. Metrics name
    /// the registries, so only loopback addresses are taken, and a socket is its owner's alone.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<MetricsAddress>,

    /// Let the process of the mount keep all privileges and ways to the system: to find out whether
    /// their lack is why something fails
    ///
    /// Without this it keeps what reading, staging and passthrough need, and gives up the rest before
    /// it hears from a registry: capabilities, system calls, and files that it has no use for.
    /// `tofufs status` shows what it keeps.
    #[arg(long)]
    pub no_sandbox: bool,

    /// Access to the mount.
    #[command(flatten)]
    pub access: AccessArgs,

    /// Talking to registries.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// Which releases may be opened.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// List only what the policies admit, so that a client that takes the newest version takes the
    /// newest one that is signed
    ///
    /// Each version is looked at once, when its provider or module is listed first; what cannot be
    /// found out is listed.
    #[arg(long, help_heading = "Trust")]
    pub list_signed: bool,

    /// Who signs what is committed.
    #[command(flatten)]
    pub signing: SigningArgs,

    /// Where the releases of providers are.
    #[command(flatten)]
    pub mapping: MappingArgs,

    /// Which providers are shown.
    #[command(flatten)]
    pub providers: ProviderArgs,

    /// How large packages may be.
    #[command(flatten)]
    pub archives: ArchiveArgs,

    /// Where things are kept.
    #[command(flatten)]
    pub storage: StorageArgs,

    /// The log.
    #[command(flatten)]
    pub log: LogArgs,

    /// This is the background process; it tells on its standard output when the mount is ready.
    #[arg(long, hide = true)]
    pub background: bool,

    /// The process that serves the mount started this one, and hands it over.
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// Who may do what.
#[derive(Args, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// No staging: nothing can be written below the mount but lock files in plugin-cache/
    #[arg(long)]
    pub read_only: bool,

    /// Let a commit overwrite a tag that holds another digest
    #[arg(long)]
    pub allow_overwrite: bool,

    /// Let other users use the mount (not root: needs user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    pub allow_other: bool,

    /// Owner of everything in the mount, by number or name [default: who mounts]
    #[arg(long, value_name = "USER")]
    pub uid: Option<Account>,

    /// Group of everything in the mount, by number or name [default: that of who mounts]
    #[arg(long, value_name = "GROUP")]
    pub gid: Option<Account>,

    /// Read every file through tofufs, also where the kernel could read the cache by itself (root,
    /// Linux 6.9)
    #[arg(long)]
    pub no_passthrough: bool,

    /// A flag for the kernel, from the mount helper's -o.
    #[arg(long, hide = true, value_name = "FLAG")]
    pub kernel_flag: Vec<KernelFlag>,
}

/// Mount flags that the kernel itself enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum KernelFlag {
    /// Nothing is written.
    Ro,
    /// Nothing is run.
    Noexec,
}
