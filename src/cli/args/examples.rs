//! Examples that stand behind the help of commands.

/// How the help of the program as a whole is laid out.
pub const TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Mounting:
  mount        Mount registries and stores as a directory tree
  umount       Unmount, and wait until the mount's process has ended
  upgrade      Have another process serve a mount, while it is in use
  refresh      Forget what is remembered below a path, now
  status       Show the mounts: sources, requests, cache, errors
  doctor       Tell what this host and a registry can and cannot do

Publishing:
  commit       Publish what is staged in a mount
  push         Publish a directory, a zip, or a provider's zips
  mirror       Mirror providers from a provider registry, with their signatures
  copy         Copy releases between registries, stores and archives
  attach       Put documents that speak about a release beside it
  sign         Sign releases

Trust:
  verify       Tell whether releases are signed as a policy wants it
  policy       Check a policy, or make one of containers' policy.json

Working directories:
  lock         Write the hashes of all platforms into .terraform.lock.hcl
  export       Lay out what a working directory needs in a plain directory

Air gap:
  bundle       Carry releases into a store or one file, and check such a bundle

Cache:
  pull         Fetch what a working directory needs into the cache
  cache        Look into the cache, check it, shrink it, pin what stays

Setting up:
  tofurc       Print the CLI configuration that points OpenTofu and Terraform at a mount
  config       Show what options are set to, and where that was said
  completions  Print the completion script of a shell
  help         Explain a command

Options:
{options}{after-help}";

/// Of the program.
pub const EXAMPLES: &str = "\
Examples:
  tofufs mount ghcr.io/acme /mnt/tofu            a part of a registry
  ls /mnt/tofu/ghcr.io/acme/network              the releases of a module
  cat /mnt/tofu/ghcr.io/acme/network:1.2.0/main.tf
  tofufs status
  tofufs umount /mnt/tofu

`tofufs help mount` has the options of a mount, with examples; `tofufs help
config` says where else than on the command line options can be set.";

/// Of `mount`.
pub const MOUNT_EXAMPLES: &str = "\
Examples:
  tofufs mount ghcr.io/acme /mnt/tofu
  tofufs mount oci:/srv/store registry.example.com:5000 /mnt/tofu
        what the store holds comes from there, all else from the registry
  tofufs mount --offline ghcr.io/acme /mnt/tofu
        from the cache alone
  tofufs mount --read-only --offline oci-archive:/media/bundle.tar /mnt/tofu
        from one file, without any network
  tofufs mount --plain-http localhost:5000 localhost:5000 /mnt/tofu
  tofufs mount --oci-mirror 'ghcr.io/acme/${namespace}/${type}' \\
        --include 'registry.opentofu.org/*/*' \\
        --provider hashicorp/aws ghcr.io/acme /mnt/tofu
        providers too: `tofufs tofurc /mnt/tofu` tells the clients

As a mount helper (link tofufs to /sbin/mount.fuse.tofufs), long options
are -o options with _ for -, and several sources are joined by ;
  mount -t fuse.tofufs ghcr.io/acme /mnt/tofu -o ro,allow_other
  in /etc/fstab:
  ghcr.io/acme;oci:/srv/store  /mnt/tofu  fuse.tofufs  ro,_netdev,tag_ttl=5m
With `user` in fstab, write `user,exec`: the kernel runs no provider otherwise.

SIZE is a whole number with KiB, MiB, GiB or TiB (or K, M, G, T, the same);
DURATION with ms, s, m, h or d (alone: seconds).";

/// Of `doctor`.
pub const DOCTOR_EXAMPLES: &str = "\
Examples:
  tofufs doctor
        this host
  tofufs doctor ghcr.io/acme/network:1.2.0
        and a release: who logs in how, where its blobs come from
  tofufs doctor --plain-http localhost:5000 localhost:5000";

/// Of `cache`.
pub const CACHE_EXAMPLES: &str = "\
Examples:
  tofufs cache info
  tofufs cache verify
  tofufs cache prune --to 5GiB
  tofufs cache pin --lock-file .terraform.lock.hcl --root .
  tofufs cache pin --remove ghcr.io/acme/network:1.2.0";
