//! What can be typed, and the help that explains it. Holds texts and checked values only;
//! [`super::settings`] makes ready parts of them.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "the comments are help texts, in which brackets mark what may be left out and \
              addresses are examples"
)]

pub mod attach;
pub mod carry;
pub mod commit;
pub mod config;
pub mod copy;
pub mod examples;
pub mod export;
pub mod mapping;
pub mod metrics;
pub mod mirror;
pub mod mount;
pub mod policy;
pub mod providers;
pub mod push;
pub mod sign;
pub mod tofurc;
pub mod trusting;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use self::config::ConfigArgs;
use self::examples::{CACHE_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, MOUNT_EXAMPLES, TEMPLATE};
use self::mount::MountArgs;
use self::tofurc::TofurcArgs;
use self::trusting::PolicyArgs;
use super::quantity::{Size, Span};
use crate::archive::Limits;
use crate::name::Host;

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "tofufs",
    version,
    about = "Mounts OCI registries as a file system, for OpenTofu and Terraform.",
    help_template = TEMPLATE,
    after_help = EXAMPLES,
    max_term_width = 110
)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Mount registries and stores as a directory tree
    ///
    /// Returns when the mount is ready. A path below MOUNTPOINT is an OCI reference:
    /// MOUNTPOINT/ghcr.io/acme/network/1.2.0 or MOUNTPOINT/ghcr.io/acme/network:1.2.0 is the tree
    /// of that module release, fetched when first opened, verified against its digest, kept in the
    /// cache.
    #[command(
        after_help = MOUNT_EXAMPLES,
        override_usage = "tofufs mount [OPTIONS] SOURCE... MOUNTPOINT\n       \
            tofufs mount [OPTIONS] NAME"
    )]
    Mount(Box<MountArgs>),
    /// Unmount, and wait until the mount's process has ended
    ///
    /// Works on a mount whose process is dead too.
    #[command(after_help = "Example:\n  tofufs umount /mnt/tofu")]
    Umount(UmountArgs),
    /// Have another process serve a mount, in the version of this program, while it is in use
    ///
    /// For after this program was replaced, or its configuration. The program that mounted is
    /// started anew, from where it lay then, with the same words and environment; what is in
    /// configuration files by now counts. Commits that are under way end first. Then the new process mounts in the place of
    /// the old one, which serves what is open in it until that is closed. Where the new one does
    /// not come up, the old one goes on, and the exit code is 1.
    ///
    /// There is no moment without the mount (before Linux 6.5 the old one stays below, with its
    /// process, until both are unmounted). It is for mounts of root: an ordinary user cannot mount
    /// in the place of a mount that is in use, is told so, and unmounts and mounts again.
    ///
    /// MOUNTPOINT may be the NAME of a mount in a configuration file.
    #[command(after_help = "Examples:\n  tofufs upgrade /mnt/tofu\n  systemctl reload tofufs@work")]
    Upgrade(UpgradeArgs),
    /// Forget what is remembered below a path, now
    ///
    /// Tags, lists and refusals are asked for again at the next look; verified content is kept.
    #[command(after_help = "Example:\n  tofufs refresh /mnt/tofu/ghcr.io/acme/network")]
    Refresh(RefreshArgs),
    /// Show the mounts: sources, requests, cache, errors
    #[command(after_help = "Examples:\n  tofufs status\n  tofufs status --json /mnt/tofu")]
    Status(StatusArgs),
    /// Tell what this host and a registry can and cannot do, and what to change
    ///
    /// Changes nothing. Each line says ok, note (it works, but not as well as it could) or problem;
    /// the exit code is 1 if there is a problem.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Publish what is staged in a mount
    ///
    /// PATH is a staged artifact (MOUNTPOINT/staging/HOST/NAME/TAG), something in it, or a
    /// directory above several: all of them are published. The mount's process does it, with its
    /// credentials. What the registry has is not sent again, and the tag is written last; then what
    /// was staged is removed. A tag that holds something else is kept: exit code 1, with both
    /// digests. A commit that is done already says so again. Prints HOST/NAME:TAG@DIGEST for each
    /// release.
    #[command(after_help = commit::COMMIT_EXAMPLES)]
    Commit(commit::CommitArgs),
    /// Publish a directory, a zip, or a provider's zips
    ///
    /// Needs no mount. The same content has the same digest on every day and machine; what the
    /// registry has is not sent again, so a push that was cut off goes on where it was. The tag is
    /// written last, after all of it was read back. A tag that holds something else is kept: exit
    /// code 1, with both digests. Zips of a provider are pushed byte for byte and added to the
    /// release that is there. Prints HOST/NAME:TAG@DIGEST for each tag.
    #[command(
        after_help = push::PUSH_EXAMPLES,
        override_usage = "tofufs push [OPTIONS] PATH... REFERENCE"
    )]
    Push(Box<push::PushArgs>),
    /// Mirror providers from a provider registry, with their signatures
    ///
    /// Publishes the versions that match as `push` does, byte for byte, from where their vendors
    /// publish them: each zip is checked against SHA256SUMS, and those against the vendor's
    /// signature, by a key that the provider registry names. SHA256SUMS, signature, key and
    /// _manifest.json are kept as layers of each platform. What is there is neither fetched nor
    /// sent again, so the same command goes on where it was cut off. Prints HOST/NAME:TAG@DIGEST
    /// for each release. Tokens are taken from where the clients take them (TF_TOKEN_*,
    /// credentials blocks, credentials helpers). An expired key is a warning, unless
    /// OPENTOFU_ENFORCE_GPG_EXPIRATION is true.
    #[command(after_help = mirror::MIRROR_EXAMPLES)]
    Mirror(Box<mirror::MirrorArgs>),
    /// Copy releases between registries, stores and archives
    ///
    /// Copies any OCI image or index as it is: digests stay the same, and everything that passes is
    /// checked against its own. What is there is not sent again, so a copy that was cut off goes on
    /// where it was; tags are written last. A tag that holds something else is kept: exit code 1,
    /// with both digests. Prints HOST/NAME:TAG@DIGEST for each.
    #[command(after_help = copy::COPY_EXAMPLES)]
    Copy(Box<copy::CopyArgs>),
    /// Put documents that speak about a release beside it
    ///
    /// Bills of materials, scan reports, reviews: each FILE becomes a manifest in the same
    /// repository that names the release as its subject (OCI 1.1), and comes into the list of its
    /// referrers. In registries that make no such lists it is kept under the tag that the
    /// specification provides for, where several writers lose nothing of each other's. The release
    /// keeps its digest. Prints HOST/NAME@DIGEST for each.
    #[command(after_help = attach::ATTACH_EXAMPLES)]
    Attach(Box<attach::AttachArgs>),
    /// Sign releases
    ///
    /// The signature is a Sigstore bundle beside the release, as cosign makes and checks it. It
    /// says the digest, the repository and the tag. What the same key has signed already is not
    /// signed again. Prints HOST/NAME@DIGEST for each.
    #[command(after_help = sign::SIGN_EXAMPLES)]
    Sign(Box<sign::SignArgs>),
    /// Tell whether releases are signed as a policy wants it
    ///
    /// One line for each: by whom it is signed, or why it is not admitted. Of a store every tag is
    /// checked. The exit code is 1 if one is refused, or if it cannot be found out.
    #[command(after_help = policy::VERIFY_EXAMPLES)]
    Verify(Box<policy::VerifyReleaseArgs>),
    /// Check a policy, or make one of containers' policy.json
    #[command(after_help = policy::POLICY_EXAMPLES)]
    Policy(policy::PolicyCommandArgs),
    /// Write the hashes of all platforms into .terraform.lock.hcl
    ///
    /// Reads which providers the working directory requires and locks them: in the version that is
    /// locked already if it is still allowed, else in the newest one that is. The hashes come from
    /// the manifests of the releases: zh: always, h1: where the publisher annotated it; for what is
    /// not annotated the package is fetched and hashed, which is said. Comments, other providers
    /// and hashes that are there already stay. What no rule maps is left as it is.
    #[command(after_help = carry::LOCK_EXAMPLES)]
    Lock(Box<carry::LockArgs>),
    /// Lay out what a working directory needs in a plain directory
    ///
    /// For hosts that cannot mount, as most containers of CI. DIR gets the paths that a mount there
    /// would show: DIR/HOST/NAME:TAG and DIR/HOST/NAME/TAG for each release, and for providers
    /// DIR/plugins/HOST/NAMESPACE/TYPE/VERSION/OS_ARCH. All of it is verified, and a package
    /// appears whole or not at all. What is there and was not touched is not even read again; what
    /// somebody changed is put right. `tofufs tofurc --for DIR` prints the CLI configuration.
    #[command(after_help = export::EXPORT_EXAMPLES)]
    Export(Box<export::ExportArgs>),
    /// Carry releases into a store or one file, and check such a bundle
    ///
    /// What lock files, root modules and references need is read from the registries and added to a
    /// store of image layouts or to one tar of such a store, which can be mounted on the other side
    /// of an air gap. With --platform the packages for other platforms stay behind; the releases
    /// keep their digests. Where providers are goes along: a mount of the bundle and its check need
    /// not be told.
    #[command(
        after_help = carry::BUNDLE_EXAMPLES,
        override_usage = "tofufs bundle [OPTIONS] [REFERENCE]... -o DESTINATION\n       \
            tofufs bundle verify [OPTIONS] SOURCE"
    )]
    Bundle(Box<carry::BundleArgs>),
    /// Fetch what a working directory needs into the cache
    ///
    /// Afterwards an offline mount of the same registries that shares the cache shows all of it,
    /// without being told which providers there are or where (--oci-mirror is remembered). It is
    /// there when the command succeeds: what the cache's disk or --cache-size has no room for is an
    /// error. Of providers the packages for this host's platform are fetched, or for those that are
    /// given. What is there already is not fetched again; a command that was stopped goes on where
    /// it was.
    #[command(after_help = carry::PULL_EXAMPLES)]
    Pull(Box<carry::PullArgs>),
    /// Look into the cache, check it, shrink it, pin what stays
    ///
    /// Works beside mounts that use the cache.
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),
    /// Print the CLI configuration that points OpenTofu and Terraform at a mount or an export
    ///
    /// For each use of a mount, with a word on when to choose which; without --use, the first is in
    /// effect and the others are comments. OpenTofu reads ~/.tofurc, or ~/.terraformrc where there
    /// is that alone; Terraform reads ~/.terraformrc.
    #[command(after_help = "\
Examples:
  tofufs tofurc /mnt/tofu
  tofufs tofurc --for /srv/tofu
  tofufs tofurc --install /mnt/tofu
  tofufs tofurc --install --client terraform /mnt/tofu")]
    Tofurc(TofurcArgs),
    /// Show what options are set to, and where that was said
    ///
    /// An option that is not typed is what its variable says: TOFUFS_CACHE_DIR for --cache-dir,
    /// several values one a line. Else it is what ~/.config/tofufs/config.toml says, then
    /// /etc/tofufs/config.toml: cache_dir = "/srv/cache". There a mount can have a name too:
    /// `tofufs mount work` is the one of the table [mount.work]. A switch that is set there is
    /// taken back by --offline=false.
    #[command(after_help = "Examples:\n  tofufs config show\n  tofufs config show mount work")]
    Config(ConfigArgs),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  tofufs completions bash > /etc/bash_completion.d/tofufs")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true, after_help = "Example:\n  tofufs man /usr/local/share/man/man1")]
    Man {
        /// The directory, made if it is missing
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// How registries are reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Registries")]
pub struct NetworkArgs {
    /// Make no connection at all: serve what the cache and local stores hold
    #[arg(long)]
    pub offline: bool,

    /// How long a tag is believed before the registry is asked again
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub tag_ttl: Span,

    /// How each of them is reached.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// A mount that a command takes after.
#[derive(Args, Debug)]
pub struct LikeArgs {
    /// Take from this running mount, unless it is typed here: how registries are reached, where
    /// providers are, the cache and its limits, --allow-overwrite
    #[arg(long, value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub like: Option<PathBuf>,
}

/// How a registry is reached, logged in to and waited for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registries")]
pub struct ReachArgs {
    /// How long an operation waits without progress before it fails with ETIMEDOUT
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub deadline: Span,

    /// Speak HTTP without TLS to this registry; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<Host>,

    /// Trust the certificates of this PEM file too; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Vec<PathBuf>,

    /// Let this registry's credentials go to a token service at another origin, as in
    /// registry.example.com=https://auth.example.com; may be given several times
    #[arg(long, value_name = "HOST=ORIGIN")]
    pub token_realm: Vec<String>,

    /// Read this registry's content from a mirror first: a pull-through cache or peer-to-peer
    /// proxy; may be given several times, in the order in which they are asked
    ///
    /// What is named by a digest comes from the first mirror that has it, checked as always, else
    /// from the registry itself; tags and lists come from the registry, and from a mirror while the
    /// registry is out of reach. A path names the part of the mirror that stands for the registry,
    /// as in --mirror ghcr.io=https://harbor.example/ghcr; one that ends in /v2 is where the
    /// mirror's API is. The mirror gets its own credentials, never the registry's.
    #[arg(long, value_name = "HOST=URL")]
    pub mirror: Vec<String>,

    /// OpenTofu's CLI configuration to take credentials and oci_mirror blocks from [default: the
    /// user's own]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tofurc: Option<PathBuf>,

    /// Log more, and each request; may be given several times. Commands log to standard error, and
    /// nothing without it; what a mount logs is bounded only without it
    #[arg(short, long, action = ArgAction::Count, help_heading = "Log")]
    pub verbose: u8,
}

/// Directories and limits.
#[derive(Args, Debug)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// Where verified content is kept [default: ${XDG_CACHE_HOME:-~/.cache}/tofufs;
    /// of root /var/cache/tofufs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache_dir: Option<PathBuf>,

    /// How much the cache may hold; the least recently used content goes first
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    pub cache_size: Size,

    /// Where the state of mounts is kept [default: ${XDG_STATE_HOME:-~/.local/state}/tofufs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// How large archives may be.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Archives")]
pub struct ArchiveArgs {
    /// Refuse packages that are larger than this
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub archive_max_size: Size,

    /// Refuse packages that hold a file larger than this
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub entry_max_size: Size,
}

impl ArchiveArgs {
    /// The limits of archives.
    pub fn limits(&self) -> Limits {
        Limits::up_to(self.archive_max_size.0, self.entry_max_size.0)
    }
}

/// What is logged, and where.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Append the log to this file [default: standard error with -f, else a file in the state
    /// directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,

    /// Rotate the log before it gets longer than this: FILE becomes FILE.1, that FILE.2, and so on;
    /// 0KiB where only others rotate it, such as logrotate, which has the log opened again by
    /// SIGHUP
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub log_max_size: Size,

    /// How many older logs stay
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub log_keep: u32,

    /// How a line of the log looks
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The forms of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Arguments of `umount`.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// The mount point
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,

    /// Take a mount out of sight that is in use; who has something open keeps it until it is closed
    #[arg(short, long)]
    pub lazy: bool,
}

/// Arguments of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    /// Where the mount cannot be replaced otherwise, unmount it and mount it again: paths lead to
    /// nothing meanwhile, what is open stays open
    #[arg(long)]
    pub allow_gap: bool,

    /// The mount point, or the NAME of a mount in a configuration file
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
}

/// Arguments of `refresh`.
#[derive(Args, Debug)]
pub struct RefreshArgs {
    /// Take releases as they are now that a provider registry has changed: their SHA256SUMS is
    /// another one than when they were resolved first
    #[arg(long)]
    pub accept: bool,

    /// A mount point, or a path below one
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// One mount instead of all
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// A registry, a repository or a release to look at: HOST[:PORT][/NAME[:TAG|@DIGEST]], or
    /// OpenTofu's oci:// address
    #[arg(value_name = "REFERENCE")]
    pub reference: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The mount that it takes after.
    #[command(flatten)]
    pub like: LikeArgs,

    /// Talking to the registry.
    #[command(flatten)]
    pub reach: ReachArgs,

    /// Where things are kept.
    #[command(flatten)]
    pub storage: StorageArgs,

    /// The policy that is looked at.
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Arguments of `cache`.
#[derive(Args, Debug)]
pub struct CacheArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: CacheCommand,

    /// The cache [default: ${XDG_CACHE_HOME:-~/.cache}/tofufs;
    /// of root /var/cache/tofufs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true)]
    pub cache_dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands on a cache.
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// Show where the cache is and what it holds
    Info,
    /// Check every file against its checksums; what is damaged is removed and fetched again when
    /// needed
    ///
    /// Ctrl-C stops it after the file at which it is. The exit code is 1 if something was damaged
    /// or not looked at.
    Verify,
    /// Remove the least recently used content until the cache holds at most this much
    ///
    /// What a mount has open stays readable there, and what is pinned stays. Ctrl-C stops it after
    /// the file at which it is, with exit code 1.
    Prune {
        /// How much may stay
        #[arg(long, value_name = "SIZE", default_value = "0KiB")]
        to: Size,
    },
    /// Fetch what a working directory needs, and keep it until it is unpinned; without arguments,
    /// list what is pinned
    ///
    /// Pinned content is never evicted, by no mount that shares the cache. It counts towards
    /// --cache-size: if it fills the cache, other content is read without being kept.
    Pin(Box<carry::PinArgs>),
}
