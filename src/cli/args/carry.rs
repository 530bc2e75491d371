//! What can be typed for commands that read registries without a mount: for a working directory, or
//! to carry releases.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::mapping::MappingArgs;
use super::trusting::PolicyArgs;
use super::{ArchiveArgs, LikeArgs, ReachArgs, Size};
use crate::copy::graph::CarriedReferrers;
use crate::copy::needs::ReferencePattern;
use crate::lockfile::Client;
use crate::name::Platform;

/// The examples of `lock`.
pub const LOCK_EXAMPLES: &str = "\
Examples:
  tofufs lock
        this directory, all platforms of each release
  tofufs lock --platform linux_amd64 --platform darwin_arm64 infra/prod
  tofufs lock --check
        for CI: exit code 1 and what is missing
  tofufs lock --oci-mirror 'ghcr.io/acme/${namespace}/${type}' \\
        --include 'registry.opentofu.org/*/*'
  tofufs lock --from providers:registry.opentofu.org --platform linux_amd64
        from the vendors' registry, as `tofu providers lock` does";

/// The examples of `bundle`.
pub const BUNDLE_EXAMPLES: &str = "\
Examples:
  tofufs bundle --root . --platform linux_amd64 -o oci-archive:bundle.tar
  tofufs bundle 'ghcr.io/acme/network:1.*' -o oci:/srv/store
  tofufs bundle --lock-file .terraform.lock.hcl --platform linux_amd64 \\
        --from providers:registry.opentofu.org -o oci-archive:bundle.tar
        from the vendors' registry into one file
  tofufs bundle --root . --dry-run -o oci:/srv/store
        what would be added, and how much it is
  tofufs bundle verify oci-archive:bundle.tar --lock-file .terraform.lock.hcl
  tofufs mount --read-only --offline oci-archive:bundle.tar /mnt/tofu";

/// How registries are read, and where what was read is kept.
#[derive(Args, Debug)]
#[command(next_help_heading = "Registries")]
pub struct ReadingArgs {
    /// Make no connection at all: what is wanted has to be in the cache or in a store
    #[arg(long)]
    pub offline: bool,

    /// Read the registries that this store holds from it (oci:DIR, oci-archive:FILE), or a
    /// provider registry's providers from that itself (providers:HOST); may be given several times
    #[arg(long, value_name = "SOURCE")]
    pub from: Vec<OsString>,

    /// Refuse a release of providers:HOST without a signature wherever it comes from
    #[arg(long)]
    pub require_signature: bool,

    /// How registries are reached.
    #[command(flatten)]
    pub reach: ReachArgs,

    /// Which releases may be opened.
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// How large packages may be.
    #[command(flatten)]
    pub archives: ArchiveArgs,

    /// How much the cache may hold; the least recently used content goes first
    #[arg(long, value_name = "SIZE", default_value = "20GiB", help_heading = "Storage")]
    pub cache_size: Size,
}

/// What is taken along of that which speaks about releases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ReferrersArg {
    /// Everything: signatures, bills of materials, scan reports.
    #[default]
    All,
    /// Signatures and attestations (Sigstore bundles).
    Signatures,
    /// Nothing.
    None,
}

impl From<ReferrersArg> for CarriedReferrers {
    fn from(arg: ReferrersArg) -> CarriedReferrers {
        match arg {
            ReferrersArg::All => CarriedReferrers::All,
            ReferrersArg::Signatures => CarriedReferrers::Signatures,
            ReferrersArg::None => CarriedReferrers::None,
        }
    }
}

/// How a command of its own reads registries: where it takes what from, and where it keeps it.
#[derive(Args, Debug)]
pub struct CommandReadingArgs {
    /// The mount that it takes after.
    #[command(flatten)]
    pub like: LikeArgs,

    /// How registries are read.
    #[command(flatten)]
    pub reading: ReadingArgs,

    /// Where verified content is kept [default: ${XDG_CACHE_HOME:-~/.cache}/tofufs;
    /// of root /var/cache/tofufs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Storage")]
    pub cache_dir: Option<PathBuf>,
}

/// The client whose defaults count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ClientArg {
    /// OpenTofu.
    Tofu,
    /// Terraform.
    Terraform,
}

impl From<ClientArg> for Client {
    fn from(arg: ClientArg) -> Client {
        match arg {
            ClientArg::Tofu => Client::OpenTofu,
            ClientArg::Terraform => Client::Terraform,
        }
    }
}

/// Arguments of `lock`.
#[derive(Args, Debug)]
pub struct LockArgs {
    /// The working directory
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// Lock this platform; may be given several times [default: all platforms of a release; of one
    /// from providers:HOST this machine's, as by the clients]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// Write nothing, and fail if something is missing
    #[arg(long)]
    pub check: bool,

    /// Whose configuration it is: decides which registry a provider without one is of, and which
    /// files are read [default: who wrote the lock file, else tofu]
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<ClientArg>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Where providers are.
    #[command(flatten)]
    pub mapping: MappingArgs,

    /// How they are read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}

/// What something is needed for.
#[derive(Args, Debug)]
pub struct NeedsArgs {
    /// Releases: HOST/NAME:TAG, HOST/NAME@DIGEST, OpenTofu's oci://HOST/NAME?tag=TAG, or
    /// HOST/NAME:1.* for all tags of that form
    #[arg(value_name = "REFERENCE")]
    pub reference: Vec<ReferencePattern>,

    /// The providers that this lock file holds; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lock_file: Vec<PathBuf>,

    /// What the root module in this directory needs: the modules that it calls (from paths below a
    /// mount and from oci:// addresses), those that they call, and the providers of all of them;
    /// may be given several times
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Vec<PathBuf>,

    /// Of providers the packages for this platform, as in linux_amd64; may be given several times
    /// [default: this machine's; of a bundle all that the release has]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// Where providers are.
    #[command(flatten)]
    pub mapping: MappingArgs,
}

/// The examples of `pull`.
pub const PULL_EXAMPLES: &str = "\
Examples:
  tofufs pull --lock-file .terraform.lock.hcl --root .
  tofufs pull ghcr.io/acme/network:1.* ghcr.io/acme/providers/aws:5.92.0";

/// Arguments of `pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// What comes along of that which speaks about the releases
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub referrers: ReferrersArg,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// What for. Without --platform: this host's.
    #[command(flatten)]
    pub needs: NeedsArgs,

    /// How it is read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}

/// Arguments of `cache pin`.
#[derive(Args, Debug)]
pub struct PinArgs {
    /// Pin no longer what the lock files and references name
    #[arg(long)]
    pub remove: bool,

    /// What comes along of that which speaks about the releases
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub referrers: ReferrersArg,

    /// What for. Without --platform: this host's.
    #[command(flatten)]
    pub needs: NeedsArgs,

    /// How it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
}

/// Arguments of `bundle`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BundleArgs {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<BundleCommand>,

    /// Where to: oci:DIR, a store, or oci-archive:FILE, one tar. What is there already stays
    #[arg(short, long, value_name = "DESTINATION", required = true)]
    pub output: Option<OsString>,

    /// Write nothing; print what would be added, and how much it is
    #[arg(long)]
    pub dry_run: bool,

    /// What comes along of that which speaks about the releases
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub referrers: ReferrersArg,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// What is carried.
    #[command(flatten)]
    pub needs: NeedsArgs,

    /// How registries are read.
    #[command(flatten)]
    pub reading: CommandReadingArgs,
}

/// What can be done with a bundle.
#[derive(Subcommand, Debug)]
pub enum BundleCommand {
    /// Check every byte of a bundle, and tell what a lock file lacks in it
    ///
    /// Makes no connection. The exit code is 1 if something is damaged, missing or lacking.
    Verify(VerifyArgs),
}

/// Arguments of `bundle verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The bundle: oci:DIR or oci-archive:FILE
    pub source: OsString,

    /// Tell what the providers of this lock file lack; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lock_file: Vec<PathBuf>,

    /// Ask for the packages for this platform; may be given several times [default: all that the
    /// lock file has hashes of]
    #[arg(long, value_name = "OS_ARCH")]
    pub platform: Vec<Platform>,

    /// OpenTofu's CLI configuration to take the mapping of providers from [default: what the bundle
    /// says of itself, then the user's own]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tofurc: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Where providers are.
    #[command(flatten)]
    pub mapping: MappingArgs,
}
