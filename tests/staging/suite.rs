//! pjdfstest on staging, where it is installed (`scripts/pjdfstest` does that).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Bed;
use crate::support::mount::{Options, finish};
use crate::support::{program, skip};

/// On PATH, or where `scripts/pjdfstest` puts it.
fn suite() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_tofufs")).parent()?.parent()?;
    Some(target.join("pjdfstest/bin/pjdfstest"))
        .filter(|path| path.is_file())
        .or_else(|| program("pjdfstest"))
}

/// Every case passes or stands, with its reason, in the committed list; and what stands there
/// fails.
#[test]
fn posix_holds_but_for_the_listed_exceptions() {
    let Some(suite) = suite() else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("pjdfstest needs root");
    }
    let Some(bed) = Bed::start(Options::new().args(["--allow-other"])) else { return };
    // The suite asks as other users too, and the test's own directory is private.
    fs::set_permissions(bed.mount.path().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    // The suite binds sockets at long names: the way to them has to be short.
    let dir = bed.mount.join("staging/a.b");
    fs::create_dir(&dir).unwrap();
    let other = tempfile::tempdir_in("/dev/shm").ok();
    let mut command = Command::new(suite);
    command
        .arg("-c")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/staging/pjdfstest.toml"));
    if let Some(other) = &other {
        command.arg("-s").arg(other.path());
    }
    command.arg("-p").arg(dir);
    let output = finish(command);
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<_> =
        said.lines().filter(|l| l.ends_with("FAILED") || l.ends_with("UNEXPECTEDLY")).collect();
    let summary = said.lines().find(|line| line.starts_with("Summary")).unwrap_or("no summary");
    assert!(wrong.is_empty() && output.status.success(), "{summary}\n{}\n{said}", wrong.join("\n"));
    eprintln!("{summary}");
}
