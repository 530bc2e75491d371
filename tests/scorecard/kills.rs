//! kill -9 at the system calls that change a disk or send something, and at random moments.
//!
//! After each kill the same command has to succeed, what it makes has to be right, the cache has to
//! be sound, and what can be read before the command is repeated is right or an error.

use std::path::PathBuf;
use std::process::ExitStatus;

use super::support::hostile::Hostile;
use super::support::pack::{self, noise};
use super::*;

/// System calls that change a disk, and those that send.
const CALLS: [&str; 20] = [
    "pwrite64",
    "write",
    "pwritev",
    "writev",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "mkdir",
    "mkdirat",
    "symlinkat",
    "fchmod",
    "sendto",
];
/// Points of all phases together: as many as there are system calls of these kinds, and the rest of
/// five hundred at random moments.
const POINTS: u64 = 200;
const MOMENTS: u64 = 300;
/// A call that comes more often than this is met at so many of its first occurrences.
const MOST_OF_A_CALL: u64 = 40;

/// What is done while it is killed.
#[derive(Clone, Copy)]
enum Phase {
    /// Into the cache.
    Fetch,
    /// Into a plain directory, by way of the cache.
    Unpack,
    /// Into one file.
    Bundle,
    /// To a registry.
    Push,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Fetch, "fetch"),
    (Phase::Unpack, "unpack"),
    (Phase::Bundle, "bundle"),
    (Phase::Push, "push"),
];

/// A registry with a release, and a home with nothing in it.
struct Scene {
    home: tempfile::TempDir,
    server: Hostile,
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Scene {
    fn new() -> Scene {
        let server = Hostile::start();
        let (small, large) = (noise(1, 3000), noise(2, 700_000));
        let release = pack::module(&[("main.tf", &small), ("large.bin", &large)]);
        server.publish("acme/net", "1.0.0", &release);
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("module")).unwrap();
        fs::write(home.path().join("module/main.tf"), &small).unwrap();
        fs::write(home.path().join("module/large.bin"), &large).unwrap();
        Scene { home, server, small, large }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/acme/net:{tag}", self.server.host())
    }

    /// The words of the command, without the program.
    fn words(&self, phase: Phase) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let words = match phase {
            Phase::Fetch => vec!["pull".into(), self.reference("1.0.0")],
            Phase::Unpack => vec!["export".into(), path("out"), self.reference("1.0.0")],
            Phase::Bundle => {
                let to = format!("oci-archive:{}", path("bundle.tar"));
                vec!["bundle".into(), self.reference("1.0.0"), "-o".into(), to]
            }
            Phase::Push => vec!["push".into(), path("module"), self.reference("2.0.0")],
        };
        let network = ["--plain-http".to_owned(), self.server.host()];
        let cache = ["--cache-dir".to_owned(), path("cache")];
        match phase {
            Phase::Push => words.into_iter().chain(network).collect(),
            _ => words.into_iter().chain(network).chain(cache).collect(),
        }
    }

    fn command(&self, phase: Phase) -> Command {
        let mut command = tofufs(self.home.path());
        command.args(self.words(phase));
        command
    }

    /// Runs the command until its `at`th call of this name, where it is killed.
    fn killed(&self, phase: Phase, strace: &Path, call: &str, at: u64) -> ExitStatus {
        let mut command = Command::new(strace);
        in_home(&mut command, self.home.path());
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:signal=KILL:when={at}"))
            .arg(support::world::program())
            .args(self.words(phase))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().unwrap()
    }

    /// What holds after a kill.
    fn check(&self, phase: Phase) -> Result<(), String> {
        self.nothing_wrong_is_there(phase)?;
        run(self.command(phase))?;
        self.all_is_there(phase)?;
        match phase {
            Phase::Push => Ok(()),
            _ => match damaged(self.home.path(), &self.path("cache"))? {
                0 => self.little_is_left(),
                number => Err(format!("{number} files of the cache are damaged")),
            },
        }
    }

    /// Before the command is repeated: what can be seen is right.
    fn nothing_wrong_is_there(&self, phase: Phase) -> Result<(), String> {
        match phase {
            Phase::Fetch => {
                let mut command = tofufs(self.home.path());
                command.arg("export").arg(self.path("seen")).arg(self.reference("1.0.0"));
                command.args(["--offline", "--cache-dir"]).arg(self.path("cache"));
                // An error where too little had come.
                run(command).map_or(Ok(()), |_| self.laid_out("seen"))
            }
            Phase::Unpack if self.release("out").exists() => self.laid_out("out"),
            Phase::Bundle if self.path("bundle.tar").exists() => self.bundled(),
            Phase::Push => match self.server.manifest("acme/net", "2.0.0") {
                Some(_) => self.all_is_there(phase),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn all_is_there(&self, phase: Phase) -> Result<(), String> {
        match phase {
            Phase::Fetch => {
                let mut command = tofufs(self.home.path());
                command.arg("export").arg(self.path("after")).arg(self.reference("1.0.0"));
                command.args(["--offline", "--cache-dir"]).arg(self.path("cache"));
                run(command)?;
                self.laid_out("after")
            }
            Phase::Unpack => self.laid_out("out"),
            Phase::Bundle => self.bundled(),
            Phase::Push => {
                let mut command = tofufs(self.home.path());
                command.arg("export").arg(self.path("pushed")).arg(self.reference("2.0.0"));
                command.args(["--plain-http", &self.server.host(), "--cache-dir"]);
                command.arg(self.path("cache"));
                run(command)?;
                let release = self.path("pushed").join(self.server.host()).join("acme/net:2.0.0");
                right(&release.join("main.tf"), &self.small)?;
                right(&release.join("large.bin"), &self.large)
            }
        }
    }

    fn release(&self, out: &str) -> PathBuf {
        self.path(out).join(self.server.host()).join("acme/net:1.0.0")
    }

    fn laid_out(&self, out: &str) -> Result<(), String> {
        right(&self.release(out).join("main.tf"), &self.small)?;
        right(&self.release(out).join("large.bin"), &self.large)
    }

    fn bundled(&self) -> Result<(), String> {
        let mut command = tofufs(self.home.path());
        command.args(["bundle", "verify"]);
        command.arg(format!("oci-archive:{}", self.path("bundle.tar").display()));
        run(command).map(drop)
    }

    /// What was begun and not ended is taken up, not left.
    fn little_is_left(&self) -> Result<(), String> {
        let left = fs::read_dir(self.path("cache/v1/tmp")).map_or(0, Iterator::count);
        if left > 2 { Err(format!("{left} files are left in tmp")) } else { Ok(()) }
    }
}

/// O12 to O15: at each system call that changes a disk or sends.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn a_command_killed_at_any_system_call_is_repeated_as_if_nothing_had_been() {
    let Some(strace) = support::program("strace") else { return };
    let mut tries = Tries::default();
    let mut by_phase = Vec::new();
    let most = amount(MOST_OF_A_CALL, 6);
    for (phase, name) in PHASES {
        let before = tries.tried;
        for call in CALLS {
            for at in 1..=most {
                let scene = Scene::new();
                let ended = scene.killed(phase, &strace, call, at);
                if ended.success() {
                    break;
                }
                let outcome = scene.check(phase);
                tries.count(outcome.map_err(|e| format!("{name}, {call} number {at}: {e}")));
            }
        }
        by_phase.push(format!("{name} {}", tries.tried - before));
    }
    tries.score("kill points, system calls", POINTS, by_phase.join(", ")).tell();
}

/// O12, O13: at random moments.
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn a_command_killed_at_any_moment_is_repeated_as_if_nothing_had_been() {
    let mut tries = Tries::default();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let wanted = amount(MOMENTS, 40);
    let mut met = 0;
    for round in 0..wanted {
        let (phase, name) = PHASES[round as usize % PHASES.len()];
        let scene = Scene::new();
        let mut child =
            scene.command(phase).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(random.u64(..60_000)));
        met += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let outcome = scene.check(phase);
        tries.count(outcome.map_err(|e| format!("{name}, round {round}: {e}")));
    }
    let figures = format!("{met} of them met a command that still ran");
    tries.score("kill points, random moments", MOMENTS, figures).tell();
}
