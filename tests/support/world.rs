//! A world of its own for tests that concern users: a mount namespace with a /dev/fuse and an
//! /etc/fuse.conf that tests may change, in which this test program runs again as another user.
//! Nothing outside of it changes.
//!
//! Only root can make one, and not everywhere: where it cannot be made, the reason is printed.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::skip;

/// Who runs nearly nothing on any system; `fusermount3` wants users that have names.
pub const NOBODY: u32 = 65534;
/// Another such user.
pub const DAEMON: u32 = 1;

/// A variable by which users of a world may let others into their mounts.
pub const ALLOW_OTHER: &str = "TOFUFS_TEST_ALLOW_OTHER";

/// The variable that tells this program that it runs in such a world, and where that keeps its
/// files.
const WORLD: &str = "TOFUFS_TEST_WORLD";
/// How long everything in a world may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The exit code by which a world says that it cannot be made.
const IMPOSSIBLE: i32 = 77;

/// `$1`: where the world keeps its files; `$2`: where the programs are; `$3`: the user; then the
/// words to run.
const MAKE: &str = r#"
impossible() { echo "$1" >&2; exit 77; }
world=$1 programs=$2 user=$3
shift 3
# The copies of other tests' mounts would keep their daemons alive.
umount -i -l -a -t fuse.tofufs 2>/dev/null
mount --bind "$programs" "$world/programs" || impossible "there are no bind mounts here"
if mknod "$world/fuse" c 10 229 && chmod 0666 "$world/fuse"; then
    mount --bind "$world/fuse" /dev/fuse
fi 2>/dev/null
[ -z "${TOFUFS_TEST_ALLOW_OTHER:-}" ] || echo user_allow_other >"$world/fuse.conf"
[ ! -e /etc/fuse.conf ] || mount --bind "$world/fuse.conf" /etc/fuse.conf
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
as_nobody sh -c ': <>/dev/fuse' 2>/dev/null || impossible "users cannot open /dev/fuse here"
as_nobody test -x "$world/programs/tofufs" || impossible "users cannot reach what cargo built"
[ -u "$(command -v fusermount3)" ] || impossible "there is no fusermount3 that is set-uid root"
! grep -q 'NoNewPrivs:.*1' /proc/self/status || impossible "set-uid programs gain no rights here"
[ "$user" != 0 ] || exec "$@"
exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
"#;

/// The program under test.
pub fn program() -> PathBuf {
    match inside() {
        Some(world) => world.join("programs/tofufs"),
        None => env!("CARGO_BIN_EXE_tofufs").into(),
    }
}

/// Where the world keeps its files, if this program runs in one.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(WORLD).map(PathBuf::from)
}

/// Runs this test program again in a new world as `user`, with these arguments; panics if it fails
/// there.
pub fn enter(user: u32, arguments: &[&str]) {
    enter_with(user, arguments, &[]);
}

/// Whether this is an ordinary user. If not, the test `name` runs as one, in a world with these
/// variables.
pub fn is_ordinary(name: &str, environment: &[(&str, &Path)]) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        enter_with(NOBODY, &["--exact", name], environment);
    }
    !is_root
}

/// Runs the tests that these words name as an ordinary user too, if this is root.
pub fn again_as_ordinary(names: &[&str]) {
    if rustix::process::geteuid().is_root() {
        enter(NOBODY, &[names, &["--test-threads=2"]].concat());
    }
}

/// [`enter`] with these variables.
pub fn enter_with(user: u32, arguments: &[&str], environment: &[(&str, &Path)]) {
    let skipped = |reason: &str| skip(&format!("no world for other users: {reason}"));
    if !rustix::process::geteuid().is_root() {
        return skipped("only root makes one");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let world = dir.path().canonicalize().expect("a directory");
    fs::set_permissions(&world, Permissions::from_mode(0o755)).expect("our own directory");
    for (name, mode) in [("programs", 0o755), ("tmp", 0o1777)] {
        fs::create_dir(world.join(name)).expect("a writable directory");
        fs::set_permissions(world.join(name), Permissions::from_mode(mode))
            .expect("our own directory");
    }
    fs::write(world.join("fuse.conf"), "").expect("a writable directory");
    let built = Path::new(env!("CARGO_BIN_EXE_tofufs")).parent().expect("a directory");
    let this = std::env::current_exe().expect("a program");
    let Ok(this) = this.strip_prefix(built) else {
        return skipped("the test lies elsewhere than the program");
    };
    let output = world.join("output");
    let file = fs::File::create(&output).expect("a writable directory");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", MAKE, "sh"])
        .arg(&world)
        .arg(built);
    command.arg(user.to_string()).arg(world.join("programs").join(this)).args(arguments);
    command
        .env_clear()
        .env("PATH", path())
        .env("TMPDIR", world.join("tmp"))
        .env("HOME", world.join("tmp"));
    command
        .envs(environment.iter().copied())
        .env(WORLD, &world)
        .current_dir("/")
        .stdin(Stdio::null());
    let errors = file.try_clone().expect("a descriptor");
    let Ok(mut child) = command.stdout(file).stderr(errors).spawn() else {
        return skipped("unshare cannot be run");
    };
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => break status,
            None if start.elapsed() > LIMIT => {
                child.kill().and_then(|()| child.wait().map(drop)).expect("a child of ours");
                panic!(
                    "it takes longer than {LIMIT:?}: {}",
                    fs::read_to_string(&output).unwrap_or_default()
                );
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = fs::read_to_string(&output).unwrap_or_default();
    // unshare(1) itself fails with 1 and says so.
    if status.code() == Some(IMPOSSIBLE) || said.starts_with("unshare: ") {
        return skipped(said.trim_end());
    }
    assert!(status.success(), "as the user {user}: {status}\n{said}");
    let ran =
        said.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
    assert!(ran > 0, "no test ran as the user {user}:\n{said}");
}

fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}
