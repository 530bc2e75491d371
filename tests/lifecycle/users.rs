//! Users other than root, several of them, and root among them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::skip;
use super::world::{self, DAEMON, NOBODY};
use super::{done, eventually, failed, gone};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ROOT: u32 = 0;

/// All the laws of this program once more.
#[test]
fn what_holds_for_root_holds_for_an_ordinary_user() {
    if world::inside().is_none() {
        world::enter(NOBODY, &["--test-threads=2", "--skip", "users::"]);
    }
}

/// Several users of one world, each with a home of its own, and a store that all of them can read.
struct Users {
    world: PathBuf,
}

impl Users {
    /// The body of the test `name` runs in a world of its own, as root; elsewhere this is `None`.
    fn meet(name: &str) -> Option<Users> {
        let Some(world) = world::inside() else {
            world::enter(ROOT, &["--exact", &format!("users::{name}")]);
            return None;
        };
        let users = Users { world };
        for user in [NOBODY, DAEMON, ROOT] {
            for dir in [users.home(user), users.point(user)] {
                fs::create_dir(&dir).unwrap();
                fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
                std::os::unix::fs::chown(&dir, Some(user), Some(user)).unwrap();
            }
        }
        let store = users.world.join("store");
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo-store"))
            .arg(&store)
            .status();
        assert!(made.unwrap().success());
        Some(users)
    }

    fn home(&self, user: u32) -> PathBuf {
        self.world.join(format!("tmp/home-{user}"))
    }

    /// The directory on which a user mounts.
    fn point(&self, user: u32) -> PathBuf {
        self.world.join(format!("tmp/mnt-{user}"))
    }

    fn source(&self) -> String {
        format!("oci:{}", self.world.join("store").display())
    }

    /// A program as a user.
    fn command(&self, user: u32, program: impl AsRef<Path>) -> Command {
        let id = |option: &str| format!("--{option}={user}");
        let mut command = Command::new("setpriv");
        command.args([&id("reuid"), &id("regid"), "--clear-groups"]).arg(program.as_ref());
        command
            .env("HOME", self.home(user))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_STATE_HOME");
        command
            .env_remove("XDG_CACHE_HOME")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn tofufs(&self, user: u32, words: &[&str]) -> Output {
        self.command(user, world::program()).args(words).output().unwrap()
    }

    /// `tofufs COMMAND` with the place where `owner` mounts.
    fn at(&self, user: u32, words: &[&str], owner: u32) -> Output {
        let point = self.point(owner);
        self.tofufs(user, &[words, &[point.to_str().unwrap()]].concat())
    }

    fn mount(&self, user: u32, options: &[&str]) -> Output {
        let source = self.source();
        self.at(user, &[&["mount"], options, &[&source]].concat(), user)
    }

    /// What a shell says as a user; `$1` is the place where `owner` mounts.
    fn shell(&self, user: u32, script: &str, owner: u32) -> String {
        let output = self
            .command(user, "sh")
            .args(["-c", script, "sh"])
            .arg(self.point(owner))
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn pid(&self, user: u32) -> Pid {
        let output = self.at(user, &["status", "--json"], user);
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        Pid::from_raw(status["mounts"][0]["pid"].as_i64().unwrap() as i32).unwrap()
    }

    fn is_mounted(&self, user: u32) -> bool {
        fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .contains(&format!(" {} ", self.point(user).display()))
    }

    /// The mount of another user is no error: it is told with the name of its owner.
    fn is_told_as_anothers(&self, user: u32, owner: u32) {
        for status in [self.at(user, &["status"], owner), self.tofufs(user, &["status"])] {
            done(&status);
            let told = String::from_utf8_lossy(&status.stdout);
            let owner = format!(" ({owner})");
            let row = told
                .lines()
                .find(|line| line.trim_start().starts_with("owner") && line.contains(&owner));
            assert!(row.is_some() && !told.contains("error"), "{told}");
        }
        let json = self.at(user, &["status", "--json"], owner);
        let status: Value =
            serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {json:?}"));
        let mount = &status["mounts"][0];
        assert_eq!(
            (&mount["pid"], mount["errors"].as_array().map(Vec::len)),
            (&Value::Null, Some(0)),
            "{status}"
        );
        assert!(
            mount["owner"].as_str().is_some_and(|shown| shown.ends_with(&format!("({owner})"))),
            "{status}"
        );
    }

    /// Every command that would look into or change the mount of `owner` says whose it is, and it
    /// stays.
    fn are_refused(&self, user: u32, owner: u32) {
        let whose = format!("the user {owner} mounted it");
        for words in
            [&["umount"][..], &["umount", "--lazy"], &["commit"], &["refresh"], &["tofurc"]]
        {
            let said = failed(&self.at(user, words, owner));
            assert!(said.contains(&whose) && said.contains("root"), "{words:?}: {said}");
        }
        self.is_told_as_anothers(user, owner);
        let source = self.source();
        let over = failed(&self.at(user, &["mount", &source], owner));
        assert!(over.contains(&format!("the user {owner} has mounted tofufs there")), "{over}");
        assert!(self.is_mounted(owner));
    }
}

// L17, O18
#[test]
fn a_mount_is_its_owners_and_roots_to_control() {
    let Some(users) = Users::meet("a_mount_is_its_owners_and_roots_to_control") else { return };
    let none = users.tofufs(NOBODY, &["status"]);
    assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    assert_eq!(users.tofufs(ROOT, &["status", "--json"]).stdout, b"{\"mounts\":[]}\n");
    done(&users.mount(NOBODY, &[]));
    done(&users.mount(DAEMON, &[]));
    assert!(
        users
            .shell(DAEMON, "cat $1/registry.example/acme/network/1.1.0/main.tf", DAEMON)
            .contains("locals")
    );
    for other in [DAEMON, ROOT] {
        assert!(users.shell(other, "ls $1", NOBODY).contains("Permission denied"));
    }
    users.are_refused(DAEMON, NOBODY);
    // A mount without --allow-other is closed to root too, who is told so and can take it away.
    users.is_told_as_anothers(ROOT, NOBODY);
    let pid = users.pid(NOBODY);
    done(&users.at(ROOT, &["umount"], NOBODY));
    eventually("the process is gone", || gone(pid));

    done(&users.mount(NOBODY, &[]));
    let pid = users.pid(NOBODY);
    kill_process(pid, Signal::KILL).unwrap();
    eventually("the process is gone", || gone(pid));
    users.are_refused(DAEMON, NOBODY);
    eventually("the mount is dead", || {
        users.shell(NOBODY, "ls $1", NOBODY).contains("not connected")
    });
    done(&users.mount(NOBODY, &[]));
    assert_eq!(users.shell(NOBODY, "ls $1", NOBODY), "registry.example\nstaging\n");
    for user in [NOBODY, DAEMON] {
        done(&users.at(user, &["umount"], user));
    }
}

#[test]
fn others_are_let_in_where_the_host_allows_it_and_write_nothing() {
    let Some(users) = Users::meet("others_are_let_in_where_the_host_allows_it_and_write_nothing")
    else {
        return;
    };
    let said = failed(&users.mount(NOBODY, &["--allow-other"]));
    assert!(said.contains("the line `user_allow_other` in /etc/fuse.conf"), "{said}");
    if !Path::new("/etc/fuse.conf").exists() {
        return skip("there is no /etc/fuse.conf");
    }
    fs::write(users.world.join("fuse.conf"), "user_allow_other\n").unwrap();
    done(&users.mount(NOBODY, &["--allow-other"]));
    assert!(
        users
            .shell(DAEMON, "cat $1/registry.example/acme/network/1.1.0/main.tf", NOBODY)
            .contains("locals")
    );
    for script in [
        "touch $1/staging/x",
        "mkdir $1/staging/registry.example/acme",
        "touch $1/registry.example/x",
    ] {
        let said = users.shell(DAEMON, script, NOBODY);
        assert!(said.contains("Permission denied"), "{script}: {said}");
    }
    users.are_refused(DAEMON, NOBODY);
    // Root publishes in it, with the owner's rights.
    let copy = "cd $1 && mkdir -p staging/registry.example/acme/network && \
                cp -r --no-preserve=mode registry.example/acme/network/1.1.0 staging/registry.example/acme/network/2.0.0";
    assert_eq!(users.shell(ROOT, copy, NOBODY), "");
    assert_eq!(
        users.at(ROOT, &["commit"], NOBODY).status.code(),
        Some(1),
        "the store is not the owner's"
    );
    let own = Command::new("chown")
        .args(["-R", &NOBODY.to_string()])
        .arg(users.world.join("store"))
        .status();
    assert!(own.unwrap().success());
    let committed = users.at(ROOT, &["commit"], NOBODY);
    done(&committed);
    assert!(
        String::from_utf8_lossy(&committed.stdout)
            .starts_with("registry.example/acme/network:2.0.0@sha256:")
    );
    assert!(
        users
            .shell(DAEMON, "cat $1/registry.example/acme/network/2.0.0/main.tf", NOBODY)
            .contains("locals")
    );
    done(&users.at(NOBODY, &["umount"], NOBODY));
}

#[test]
fn what_a_user_lacks_for_mounting_is_said() {
    let Some(users) = Users::meet("what_a_user_lacks_for_mounting_is_said") else { return };
    let source = users.source();
    let said = failed(&users.at(NOBODY, &["mount", &source], ROOT));
    assert!(
        said.contains("this user cannot write to it") && said.contains("a directory of your own"),
        "{said}"
    );

    for (option, words) in
        [("--state-dir", "the state directory"), ("--cache-dir", "the cache directory")]
    {
        let said = failed(&users.mount(NOBODY, &[option, "/root/x"]));
        assert!(said.contains(words) && said.contains("/root/x"), "{said}");
        assert!(said.contains(&format!("give another {option}")), "{said}");
    }
    let point = users.point(NOBODY);
    let homeless = |variable: &str, value: &str| {
        let mut command = users.command(NOBODY, "env");
        command
            .arg(format!("{variable}={value}"))
            .arg(world::program())
            .arg("mount")
            .arg(&source)
            .arg(&point);
        failed(&command.output().unwrap())
    };
    let said = homeless("HOME", "/nowhere");
    assert!(
        said.contains("/nowhere/.local/state/tofufs") && said.contains("give another --state-dir"),
        "{said}"
    );
    let said = homeless("XDG_CACHE_HOME", "/root/cache");
    assert!(
        said.contains("/root/cache/tofufs") && said.contains("give another --cache-dir"),
        "{said}"
    );
    let said = homeless("PATH", "/nowhere");
    assert!(said.contains("fusermount3") && said.contains("install the package fuse3"), "{said}");

    let device = users.world.join("fuse");
    if device.exists() {
        fs::set_permissions(&device, Permissions::from_mode(0o600)).unwrap();
        let said = failed(&users.mount(NOBODY, &[]));
        assert!(said.contains("this user may not open /dev/fuse"), "{said}");
        fs::set_permissions(&device, Permissions::from_mode(0o666)).unwrap();
    }
    let doctor = users.tofufs(NOBODY, &["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        found.contains("which is set-uid root")
            && found.contains("passthrough needs CAP_SYS_ADMIN"),
        "{found}"
    );
    // Reading is right without passthrough.
    done(&users.mount(NOBODY, &[]));
    let read =
        users.shell(NOBODY, "cat $1/registry.example/acme/network/1.1.0/variables.tf", NOBODY);
    assert!(read.starts_with("variable \"cidr\" {\n") && read.ends_with("}\n"), "{read}");
    assert_eq!(
        users.shell(NOBODY, "stat -c '%u %a' $1 $1/registry.example", NOBODY),
        "65534 755\n65534 755\n"
    );
    done(&users.at(NOBODY, &["umount"], NOBODY));
}
