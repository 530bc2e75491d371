//! The ways in which a mount gets the place of another where the kernel does not put it beneath:
//! kernels before Linux 6.5, ordinary users, and what is left to them.

use std::sync::Arc;

use super::upgrade::{filled, is_root, module, stacked, upgraded_in_use};
use super::*;

/// A kernel that does not know `MOVE_MOUNT_BENEATH` (before 6.5) refuses its first use.
const NOT_BENEATH: &str = "move_mount:error=EINVAL:when=1";
/// One before 5.2 has none of these calls.
const NO_MOUNT_CALLS: &str = "fsopen:error=ENOSYS";
/// One that can give no mount the place of another.
const NOT_AT_ALL: &str = "move_mount:error=EINVAL";

/// A filled place where root mounts, on a kernel that fails like that: whatever the mount's processes
/// ask for is seen by strace. `None` where that cannot be had.
fn on_kernel(fault: &str) -> Option<Arc<Place>> {
    let strace = support::program("strace").filter(|_| is_root())?;
    let place = Place::new()?;
    filled(&place)?;
    let mut traced = place.command_of(strace);
    traced.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o"]).arg(place.path("trace"));
    traced.args(["-e", "trace=fsopen,move_mount", "-e", &format!("inject={fault}")]);
    traced.arg(world::program()).arg("mount").arg(place.source()).arg(place.point());
    // strace stays, and keeps its standard streams.
    let said = fs::File::create(place.path("said")).unwrap();
    let status = traced.stdout(Stdio::null()).stderr(said).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(place.path("said")).unwrap());
    Some(Arc::new(place))
}

#[test]
fn before_linux_6_5_the_new_mount_lies_over_the_old_one_and_nobody_notices() {
    let Some(place) = on_kernel(NOT_BENEATH) else { return };
    upgraded_in_use(&place, 3, &[], 1);
    let trace = fs::read_to_string(place.path("trace")).unwrap();
    let refused = trace.lines().filter(|line| line.contains("(INJECTED)")).count();
    assert_eq!(refused, 3, "{trace}");
}

#[test]
fn before_linux_5_2_too() {
    let Some(place) = on_kernel(NO_MOUNT_CALLS) else { return };
    upgraded_in_use(&place, 3, &[], 1);
}

#[test]
fn where_no_mount_can_get_the_place_of_another_the_old_process_goes_on() {
    let Some(place) = on_kernel(NOT_AT_ALL) else { return };
    let first = place.pid();
    let said = failed(&place.run(&["upgrade", "mnt"]));
    assert!(said.contains("cannot be put in the place") && said.contains("goes on"), "{said}");
    assert_eq!((place.pid(), stacked(&place)), (first, 1));
    assert_eq!(fs::read(module(&place).join("main.tf")).unwrap(), b"# a module\n");
    done(&place.run(&["umount", "mnt"]));
    eventually("no process is left", || gone(first));
}

/// A filled place of an ordinary user who mounts with these options.
fn of_user(options: &[&str]) -> Option<Arc<Place>> {
    let place = Place::new()?;
    filled(&place)?;
    done(&place.mount(options));
    Some(Arc::new(place))
}

#[test]
fn an_ordinary_user_is_told_what_it_takes_and_may_allow_a_gap() {
    if is_root() {
        return;
    }
    for options in [&[][..], &["--read-only"]] {
        let Some(place) = of_user(options) else { return };
        let first = place.pid();
        let said = failed(&place.run(&["upgrade", "mnt"]));
        for part in ["may not look into a mount", "--allow-gap", "--allow-other", "goes on"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!((place.pid(), stacked(&place)), (first, 1));
        assert_eq!(fs::read(module(&place).join("main.tf")).unwrap(), b"# a module\n");
        upgraded_in_use(&place, 3, &["--allow-gap"], 0);
    }
}

#[test]
fn an_ordinary_user_who_lets_others_in_mounts_over_the_mount() {
    let name = "ways::an_ordinary_user_who_lets_others_in_mounts_over_the_mount";
    if !world::is_ordinary(name, &[(world::ALLOW_OTHER, Path::new("yes"))]) {
        return;
    }
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !conf.lines().any(|line| line.trim() == "user_allow_other") {
        if std::env::var_os(world::ALLOW_OTHER).is_some() || world::inside().is_none() {
            skip("/etc/fuse.conf does not let users let others in");
        }
        return;
    }
    let Some(place) = of_user(&["--allow-other"]) else { return };
    upgraded_in_use(&place, 3, &[], 1);
}

/// `$1`: the program, `$2`: the source. Says how many mounts lie there after an upgrade.
const IN_A_NAMESPACE: &str = r#"
"$1" mount "$2" mnt
file=mnt/registry.example/acme/net/1.0.0/main.tf
exec 8<$file
"$1" upgrade mnt
cat $file - <&8
grep -c " $(pwd -P)/mnt fuse.tofufs " /proc/self/mounts
"$1" umount mnt
"#;

#[test]
fn in_a_mount_namespace_of_his_own_an_ordinary_user_mounts_as_root_does() {
    if is_root() {
        return;
    }
    let Some(place) = Place::new() else { return };
    let Some(()) = filled(&place) else { return };
    let within = |script: &str| {
        let mut command = place.command_of("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]);
        command.arg(world::program()).arg(place.source()).output()
    };
    if !within("true").is_ok_and(|output| output.status.success()) {
        return skip("users make no namespaces here");
    }
    let output = within(IN_A_NAMESPACE).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "# a module\n# a module\n1\n");
    assert!(!place.is_mounted());
}
