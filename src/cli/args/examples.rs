//! Examples that stand behind the help of commands.

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
