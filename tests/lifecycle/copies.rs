//! Copies of releases, and copies that become releases: they belong to who makes them. All of it
//! holds for root and for an ordinary user, whom no mode lets do what only its owner may.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Place, done, skip, world};

const RELEASE: &str = "registry.example/acme/network/1.1.0";

impl Place {
    /// A mount of the demonstration store, with these options.
    fn with_releases(options: &[&str]) -> Option<Place> {
        let place = Place::new()?;
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo-store"))
            .arg(place.path("store"))
            .status();
        assert!(made.unwrap().success());
        done(&place.mount(options));
        Some(place)
    }

    fn release(&self) -> PathBuf {
        self.point().join(RELEASE)
    }

    fn staged(&self, version: &str) -> PathBuf {
        let dir = self.point().join("staging/registry.example/acme/network");
        fs::create_dir_all(&dir).unwrap();
        dir.join(version)
    }

    /// Runs a script that must say nothing but `said`; `$MNT` is the mount, and it begins in a
    /// directory of its own.
    fn shell(&self, script: &str, said: &str) {
        let dir = self.path("work");
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(dir).env("MNT", self.point()).env("LC_ALL", "C");
        command.env("HOME", self.path("home")).env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat())
            .into_owned();
        assert!(output.status.success() && text == said, "{script}: {}\n{text}", output.status);
    }
}

fn has(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Every call that would change something of a release.
fn every_change(release: &Path) -> Vec<(&'static str, rustix::io::Result<()>)> {
    let (file, dir) = (release.join("main.tf"), release.join("modules"));
    let raw = |outcome: std::io::Result<()>| outcome.map_err(|e| Errno::from_io_error(&e).unwrap());
    let open = |options: &mut fs::OpenOptions| raw(options.open(&file).map(drop));
    let (uid, gid) = (
        Uid::from_raw(file.metadata().unwrap().uid()),
        Gid::from_raw(file.metadata().unwrap().gid()),
    );
    vec![
        ("open to write", open(fs::OpenOptions::new().write(true))),
        ("open to read and write", open(fs::OpenOptions::new().read(true).write(true))),
        ("open to append", open(fs::OpenOptions::new().append(true))),
        ("open and cut", open(fs::OpenOptions::new().write(true).truncate(true))),
        (
            "truncate",
            rustix::fs::open(
                &file,
                rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC,
                Mode::empty(),
            )
            .map(drop),
        ),
        ("chmod", raw(fs::set_permissions(&file, Permissions::from_mode(0o600)))),
        ("chmod of a directory", raw(fs::set_permissions(&dir, Permissions::from_mode(0o700)))),
        ("chown", rustix::fs::chownat(CWD, &file, Some(uid), Some(gid), AtFlags::empty())),
        ("utimens", raw(File::open(&file).and_then(|f| f.set_modified(SystemTime::now())))),
        ("create", raw(File::create(release.join("new")).map(drop))),
        ("mkdir", raw(fs::create_dir(release.join("new")))),
        ("symlink", raw(symlink("main.tf", release.join("new")))),
        ("link", raw(fs::hard_link(&file, release.join("new")))),
        (
            "mknod",
            rustix::fs::mknodat(
                CWD,
                release.join("new"),
                rustix::fs::FileType::Fifo,
                Mode::RUSR,
                0,
            ),
        ),
        ("unlink", raw(fs::remove_file(&file))),
        ("rmdir", raw(fs::remove_dir(&dir))),
        ("rename", raw(fs::rename(&file, release.join("new")))),
        ("rename out of it", raw(fs::rename(&file, release.parent().unwrap().join("new")))),
        ("rename of the release", raw(fs::rename(release, release.with_file_name("9.9.9")))),
        ("setxattr", rustix::fs::setxattr(&file, "user.note", b"x", XattrFlags::empty())),
        ("removexattr", rustix::fs::removexattr(&file, "user.note")),
        ("create beside releases", raw(File::create(release.with_file_name("new")).map(drop))),
        ("mkdir beside releases", raw(fs::create_dir(release.with_file_name("new")))),
        ("access of a file", rustix::fs::access(&file, Access::WRITE_OK)),
        ("access of a directory", rustix::fs::access(&dir, Access::WRITE_OK)),
        ("access of the release", rustix::fs::access(release, Access::WRITE_OK)),
        (
            "access of what is above it",
            rustix::fs::access(release.parent().unwrap(), Access::WRITE_OK),
        ),
    ]
}

#[test]
fn a_release_has_the_modes_of_an_unpacked_one_and_takes_no_change() {
    for options in
        [&[][..], &["--no-passthrough"], &["--read-only"], &["--read-only", "--no-passthrough"]]
    {
        let Some(place) = Place::with_releases(options) else { return };
        let release = place.release();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode(&release), mode(&release.join("modules")), mode(&release.join("main.tf"))),
            (0o755, 0o755, 0o644)
        );
        for (change, outcome) in every_change(&release) {
            assert_eq!(outcome, Err(Errno::ROFS), "{change}");
        }
        rustix::fs::access(release.join("main.tf"), Access::READ_OK).unwrap();
        rustix::fs::access(&release, Access::READ_OK | Access::EXEC_OK).unwrap();
        assert_eq!(
            rustix::fs::access(release.join("main.tf"), Access::EXEC_OK),
            Err(Errno::ACCESS)
        );
        done(&place.run(&["umount", "mnt"]));
    }
}

#[test]
fn what_is_staged_can_be_written_whatever_its_mode_and_says_so() {
    let Some(place) = Place::with_releases(&[]) else { return };
    let file = place.staged("9.0.0");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    rustix::fs::access(&file, Access::READ_OK | Access::WRITE_OK).unwrap();
    assert_eq!(rustix::fs::access(&file, Access::EXEC_OK), Err(Errno::ACCESS));
    fs::remove_file(&file).unwrap();
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_copy_of_a_release_is_copied_over_changed_and_removed() {
    let Some(place) = Place::with_releases(&[]) else { return };
    let release = format!("$MNT/{RELEASE}");
    place.shell(
        &format!(
            "cp -r {release} copy; cp -r {release}/. copy; diff -r {release} copy\n\
             echo '# more' >> copy/main.tf; touch copy/modules/new; mv copy/modules copy/moved\n\
             rm -rf copy; test ! -e copy\n\
             cp -a {release} copy; cp -a {release}/. copy; rm -r copy\n\
             install -D {release}/main.tf installed/main.tf; install -D {release}/main.tf installed/main.tf"
        ),
        "",
    );
    if has("rsync").is_some() {
        place.shell(
            &format!("for n in 1 2; do rsync -a {release}/ synced; done; diff -r {release} synced; rm -r synced"),
            "",
        );
        let later = "$MNT/registry.example/acme/network/1.0.0";
        place.shell(
            &format!(
                "rsync -a {release}/ synced; rsync -a --checksum --delete {later}/ synced; diff -r \
                 {later} synced"
            ),
            "",
        );
    }
    if has("git").is_some() {
        place.shell(
            &format!(
                "git init -q repository; cd repository; cp -r {release} module; git add .\n\
                 git -c user.name=n -c user.email=e@example.com commit -qm first; git status --porcelain\n\
                 cp -r {release}/. module; git diff --exit-code; git rm -rq module; test ! -e module"
            ),
            "",
        );
    }
    done(&place.run(&["umount", "mnt"]));
}

#[test]
fn a_copied_release_is_the_next_one() {
    let Some(place) = Place::with_releases(&[]) else { return };
    place.staged("");
    let (release, above) = (format!("$MNT/{RELEASE}"), "registry.example/acme/network");
    for (copy, version) in [("cp -r", "2.0.0"), ("cp -a", "2.1.0")] {
        place.shell(
            &format!(
                "{copy} {release} $MNT/staging/{above}/{version}; mv $MNT/staging/{above}/{version} $MNT/{above}/\n\
                 diff -r {release} $MNT/{above}/{version}; test ! -e $MNT/staging/{above}/{version}"
            ),
            "",
        );
    }
    done(&place.run(&["umount", "mnt"]));
}

/// What some programs leave (module caches, stores of packages, annexes): nothing that its owner
/// could write.
#[test]
fn a_tree_that_shows_no_right_to_write_is_filled_moved_published_and_removed() {
    for name in ["2.0.0", "2.1.0"] {
        let Some(place) = Place::with_releases(&[]) else { return };
        let staged = place.staged(name);
        place.shell(
            &format!(
                "cp -r $MNT/{RELEASE} source; chmod -R a-w source; cp -a source {}; chmod -R u+w \
                 source",
                staged.display()
            ),
            "",
        );
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        let modes =
            || (mode(&staged), mode(&staged.join("modules")), mode(&staged.join("main.tf")));
        let kept = (0o555, 0o555, 0o444);
        assert_eq!(modes(), kept);
        // Made in it, moved in it and out of it, written, cut and removed.
        let inner = staged.join("modules");
        fs::write(inner.join("new"), "new").unwrap();
        fs::create_dir(inner.join("dir")).unwrap();
        symlink("new", inner.join("link")).unwrap();
        fs::rename(inner.join("new"), staged.join("moved")).unwrap();
        fs::set_permissions(inner.join("dir"), Permissions::from_mode(0o555)).unwrap();
        fs::rename(inner.join("dir"), staged.join("dir")).unwrap();
        fs::remove_dir(staged.join("dir")).unwrap();
        fs::remove_file(inner.join("link")).unwrap();
        fs::remove_file(staged.join("moved")).unwrap();
        let file = staged.join("main.tf");
        let before = fs::read(&file).unwrap();
        fs::write(&file, "cut").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"cut");
        fs::write(&file, &before).unwrap();
        match rustix::fs::setxattr(&file, "user.note", b"x", XattrFlags::empty()) {
            Ok(()) => rustix::fs::removexattr(&file, "user.note").unwrap(),
            Err(e) => assert_eq!(e, Errno::OPNOTSUPP),
        }
        assert_eq!(modes(), kept);
        if name == "2.0.0" {
            fs::rename(&staged, place.release().with_file_name(name)).unwrap();
            place.shell(
                &format!("diff -r $MNT/{RELEASE} $MNT/registry.example/acme/network/{name}"),
                "",
            );
        } else {
            fs::remove_dir_all(&staged).unwrap();
        }
        assert!(!staged.exists());
        let left = fs::read_dir(place.path("home/.local/state/tofufs")).map(|dir| dir.count());
        assert!(left.is_ok() || place.path("home").exists());
        done(&place.run(&["umount", "mnt"]));
    }
}

/// The clients that are installed; each of the programs that run one wants its own.
fn clients() -> Vec<PathBuf> {
    ["tofu", "terraform"].into_iter().filter_map(has).collect()
}

#[test]
fn a_module_is_copied_into_a_new_configuration() {
    let Some(place) = Place::with_releases(&[]) else { return };
    for (n, client) in clients().iter().enumerate() {
        let client = client.display();
        place.shell(
            &format!(
                "export CHECKPOINT_DISABLE=1; unset TF_CLI_CONFIG_FILE; mkdir {n}; cd {n}\n\
                 {client} init -input=false -no-color -from-module=\"$MNT/{RELEASE}\" > ../init 2>&1 || {{ cat ../init; exit 1; }}\n\
                 diff main.tf $MNT/{RELEASE}/main.tf; echo '# mine' >> main.tf; rm -r modules"
            ),
            "",
        );
    }
    done(&place.run(&["umount", "mnt"]));
}

/// Terragrunt copies a source with its modes, and writes into the copy when it comes again.
#[test]
fn terragrunt_applies_a_release_twice_and_then_another() {
    let Some(terragrunt) = has("terragrunt") else { return };
    let Some(place) = Place::with_releases(&[]) else { return };
    for (n, client) in clients().iter().enumerate() {
        let unit = place.path(&format!("work/unit-{n}"));
        fs::create_dir_all(&unit).unwrap();
        for version in ["1.0.0", "1.0.0", "1.1.0"] {
            let source = place.release().with_file_name(version);
            fs::write(
                unit.join("terragrunt.hcl"),
                format!(
                    "terraform {{\n  source = \"{}\"\n}}\ninputs = {{ cidr = \"10.0.0.0/16\" }}\n",
                    source.display()
                ),
            )
            .unwrap();
            let mut command = Command::new(&terragrunt);
            command.args(["run", "--non-interactive", "--tf-path"]).arg(client).args([
                "--",
                "apply",
                "-auto-approve",
            ]);
            command
                .current_dir(&unit)
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command
                .env("HOME", place.path("home"))
                .env("CHECKPOINT_DISABLE", "1")
                .stdin(Stdio::null());
            let output = command.output().unwrap();
            assert!(
                output.status.success(),
                "{version}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    done(&place.run(&["umount", "mnt"]));
}

/// Where others are let in, the kernel refuses by modes: what is staged shows that its owner may
/// write it.
#[test]
fn where_others_are_let_in_the_owner_writes_what_is_staged_all_the_same() {
    if world::inside().is_some() && !rustix::process::geteuid().is_root() {
        // The users who are let in there stand in `/etc/fuse.conf`.
        return;
    }
    let Some(place) = Place::with_releases(&["--allow-other"]) else { return };
    let dir = place.staged("3.0.0");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o555)).unwrap();
    assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o755);
    fs::write(dir.join("main.tf"), "").unwrap();
    done(&place.run(&["umount", "mnt"]));
}
