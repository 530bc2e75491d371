//! A password and a signing key that must be seen nowhere; and a mount without a network that asks
//! nobody.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};

use super::support::hostile::{Hostile, Login};
use super::support::mount::{Mount, Options, xattr};
use super::support::{pack, wait_until};
use super::*;

const PASSWORD: &str = "canary-5e1a77";
/// How many places at least have to be looked at.
const PLACES: u64 = 25;

/// All files below a directory that can be read.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(below(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// What is looked at for the canaries.
struct Search {
    tries: Tries,
    canaries: Vec<String>,
}

impl Search {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        let found = self
            .canaries
            .iter()
            .find(|canary| bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
        self.tries.count(match found {
            None => Ok(()),
            Some(canary) => Err(format!("{}… is in {place}", &canary[..6])),
        });
    }

    fn command(&mut self, name: &str, command: Command) {
        let output = finish(command);
        self.look(&format!("what {name} prints"), &output.stdout);
        self.look(&format!("what {name} says"), &output.stderr);
    }
}

/// A registry that wants a password, and a user who has that and a key to sign with.
struct Secrets {
    server: Hostile,
    home: tempfile::TempDir,
    key: PathBuf,
    canaries: Vec<String>,
}

impl Secrets {
    /// `None`, with the reason printed, where no key can be made.
    fn new() -> Option<Secrets> {
        let server = Hostile::start();
        server.publish("acme/net", "1.0.0", &pack::module(&[("main.tf", b"# sound")]));
        server.login(Some(Login::Basic { user: "user", password: PASSWORD }));
        let home = tempfile::tempdir().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{PASSWORD}"));
        let auths = json!({"auths": {server.host(): {"auth": encoded}}});
        fs::create_dir(home.path().join(".docker")).unwrap();
        fs::write(home.path().join(".docker/config.json"), auths.to_string()).unwrap();
        let key = home.path().join("key.pem");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "ed25519", "-out"])
            .arg(&key)
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            support::skip("openssl makes no key");
            return None;
        }
        let pem = fs::read_to_string(&key).unwrap();
        let canaries = vec![PASSWORD.to_owned(), encoded, pem.lines().nth(1).unwrap().to_owned()];
        Some(Secrets { server, home, key, canaries })
    }

    fn docker_config(&self) -> PathBuf {
        self.home.path().join(".docker")
    }

    /// Where the mount tells metrics.
    fn metrics(&self) -> PathBuf {
        self.home.path().join("metrics")
    }

    /// A mount in which was read and published, and which was refused what it asked for.
    fn used_mount(&self) -> Option<Mount> {
        let (server, host) = (&self.server, self.server.host());
        let options = Options::new()
            .args(["-vv", "--plain-http", &host, "--metrics"])
            .args([format!("unix:{}", self.metrics().display())])
            .args(["--sign-key".to_owned(), self.key.display().to_string()])
            .env("DOCKER_CONFIG", self.docker_config().display());
        let mount = Mount::start(&[server.host()], options)?;
        right(&mount.join(format!("{host}/acme/net/1.0.0/main.tf")), b"# sound").unwrap();
        assert!(fs::read_dir(mount.join(format!("{host}/acme/net:9.9.9"))).is_err());
        let staged = mount.join(format!("staging/{host}/acme/net/2.0.0"));
        fs::create_dir_all(&staged).unwrap();
        fs::write(staged.join("main.tf"), "# staged").unwrap();
        fs::rename(&staged, mount.join(format!("{host}/acme/net/2.0.0"))).unwrap();
        server.login(Some(Login::Basic { user: "user", password: "another" }));
        assert!(fs::read_dir(mount.join(format!("{host}/acme/other:1.0.0"))).is_err());
        server.login(Some(Login::Basic { user: "user", password: PASSWORD }));
        Some(mount)
    }

    /// What commands print and say that log in and sign.
    fn in_commands(&self, search: &mut Search) {
        let (host, key) = (self.server.host(), self.key.display().to_string());
        let (reference, pushed) =
            (format!("{host}/acme/net:1.0.0"), format!("{host}/acme/net:3.0.0"));
        let module = self.home.path().join("module");
        fs::create_dir(&module).unwrap();
        fs::write(module.join("main.tf"), "# pushed").unwrap();
        let module = module.display().to_string();
        for words in [
            &["pull", "-vv", "--plain-http", &host, &reference][..],
            &["push", "-vv", "--plain-http", &host, "--sign-key", &key, &module, &pushed],
            &["sign", "-vv", "--plain-http", &host, "--key", &key, &reference],
            &["doctor", "--json", "--plain-http", &host, &host],
            &["config", "show"],
        ] {
            let mut command = tofufs(self.home.path());
            command.env("DOCKER_CONFIG", self.docker_config()).args(words);
            search.command(words[0], command);
        }
    }

    /// What a mount tells of itself: status, attributes and metrics.
    fn in_what_is_told(&self, mount: &Mount, search: &mut Search) {
        let mut status = mount.command("status");
        status.arg("--json").arg(mount.path());
        search.command("status", status);
        let release = mount.join(format!("{}/acme/net/1.0.0", self.server.host()));
        for name in ["user.tofufs.error", "user.tofufs.digest", "user.tofufs.reference"] {
            search.look(name, xattr(&release, name).unwrap_or_default().as_bytes());
        }
        let metrics = Command::new("curl")
            .arg("--unix-socket")
            .arg(self.metrics())
            .arg("http://tofufs/metrics")
            .output();
        search.look("metrics", &metrics.map(|m| m.stdout).unwrap_or_default());
    }
}

/// What others can see of a mount's process, and what it leaves in files.
fn in_the_process(mount: &Mount, search: &mut Search) {
    let process = PathBuf::from(format!("/proc/{}", mount.pid().as_raw_nonzero()));
    for name in ["cmdline", "environ", "comm", "status"] {
        search.look(name, &fs::read(process.join(name)).unwrap_or_default());
    }
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    search.tries.count(match core.split_whitespace().nth(4) {
        Some("0") => Ok(()),
        other => Err(format!("a core dump may have {other:?} bytes")),
    });
    for dir in [mount.cache(), mount.path().with_file_name("state")] {
        for file in below(&dir) {
            search.look(&file.display().to_string(), &fs::read(&file).unwrap_or_default());
        }
    }
    search.look("the log", mount.log().as_bytes());
}

/// L13
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn a_password_and_a_key_are_seen_nowhere() {
    let Some(secrets) = Secrets::new() else { return };
    let Some(mount) = secrets.used_mount() else { return };
    let mut search = Search { tries: Tries::default(), canaries: secrets.canaries.clone() };
    secrets.in_commands(&mut search);
    secrets.in_what_is_told(&mount, &mut search);
    in_the_process(&mount, &mut search);
    let figures = "a password and a key, in outputs, logs, files, attributes, metrics and /proc";
    search.tries.score("places without a secret", PLACES, figures.to_owned()).tell();
}

/// O40
#[test]
#[ignore = "long; scripts/scorecard runs it"]
fn an_offline_mount_asks_nobody() {
    let Some(strace) = support::program("strace") else { return };
    let server = Hostile::start();
    let home = tempfile::tempdir().unwrap();
    for number in 0..50 {
        let package = pack::module(&[("main.tf", format!("# {number}").as_bytes())]);
        server.publish("acme/net", &format!("1.0.{number}"), &package);
    }
    let bundle = format!("oci-archive:{}", home.path().join("bundle.tar").display());
    let mut command = tofufs(home.path());
    let all = format!("{}/acme/net:1.0.*", server.host());
    command.args(["bundle", "--plain-http", &server.host(), &all, "-o", &bundle]);
    run(command).unwrap();
    let asked = server.requests().len();
    let options = Options::new().args(["--offline", "--read-only"]);
    let Some(mount) = Mount::start(&[bundle], options) else { return };
    let trace = home.path().join("trace");
    let mut tracer = Command::new(strace)
        .args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o"])
        .arg(&trace)
        .args(["-p", &mount.pid().as_raw_nonzero().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", mount.pid().as_raw_nonzero());
    let traced = wait_until(Duration::from_secs(10), || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        text.lines()
            .any(|line| line.split_whitespace().eq(["TracerPid:", &tracer.id().to_string()]))
    });
    assert!(traced, "strace does not attach");
    let mut read = 0;
    for number in 0..50 {
        let file = mount.join(format!("{}/acme/net/1.0.{number}/main.tf", server.host()));
        right(&file, format!("# {number}").as_bytes()).unwrap();
        read += 1;
        for absent in ["9.9.9", "latest"] {
            assert!(
                fs::read_dir(mount.join(format!("{}/acme/net/{absent}", server.host()))).is_err()
            );
            read += 1;
        }
    }
    kill_process(Pid::from_child(&tracer), Signal::TERM).unwrap();
    tracer.wait().unwrap();
    let trace = fs::read_to_string(trace).unwrap();
    let connects: Vec<_> = trace.lines().filter(|line| line.contains("AF_INET")).collect();
    let outcome = match (connects.first(), server.requests().len() == asked) {
        (None, true) => Ok(()),
        (first, _) => Err(format!("{} connections, the first: {first:?}", connects.len())),
    };
    let mut tries = Tries::default();
    (0..read).for_each(|_| tries.count(outcome.clone()));
    let figures = format!("{} connections were begun", connects.len());
    tries.score("lookups and reads offline", 150, figures).tell();
}
