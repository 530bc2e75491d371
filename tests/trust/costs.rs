//! What a policy costs in requests, and what of a private key is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::mount::Options;
use crate::*;

const ORIGIN: &str = "registry.opentofu.org/acme/hello";

fn registry() -> Hostile {
    let server = Hostile::start();
    server.list_referrers();
    server
}

fn plain(host: &str) -> Options {
    Options::new().args(["--plain-http", host])
}

fn with_policy(host: &str, policy: &Path) -> Options {
    plain(host).args(["--policy", policy.to_str().unwrap()])
}

/// How many requests come while `work` goes on.
fn asked(server: &Hostile, work: impl FnOnce()) -> usize {
    let before = server.requests().len();
    work();
    server.requests().len() - before
}

/// Cold two more requests for signatures of ours (the list, and a manifest that carries the bundle),
/// three for those of cosign; none afterwards, nor after a remount. And one list, however many open.
#[test]
fn a_signature_costs_a_list_and_itself_and_later_nothing() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    fs::create_dir(trust.path("net")).unwrap();
    fs::write(trust.path("net/main.tf"), "# ours\n").unwrap();
    let ours = format!("{host}/a/ours:1.0.0");
    trust.ran(&host, &["push", "--sign-key", "acme.key", "net", &ours]);
    let theirs = server.publish("a/theirs", "1.0.0", &module("# theirs"));
    sign(&server, &trust, "a/theirs", theirs, None);
    let policy = trust.policy(&host, "");
    for (name, extra) in [("ours", 2), ("theirs", 3)] {
        let at = format!("{host}/a/{name}/1.0.0");
        let Some(mount) = Mount::start(&[&host], plain(&host)) else { return };
        let without = asked(&server, || drop(main_tf(&mount, &at).unwrap()));
        drop(mount);
        let Some(mut mount) = Mount::start(&[&host], with_policy(&host, &policy)) else { return };
        let lists = || server.requests_to(&format!("/v2/a/{name}/referrers/")).len();
        let before = lists();
        let with = asked(&server, || {
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| main_tf(&mount, &at).unwrap());
                }
            });
        });
        assert_eq!(lists() - before, 1, "64 openers, one list");
        assert_eq!(with, without + extra, "{name}");
        assert_eq!(asked(&server, || drop(main_tf(&mount, &at).unwrap())), 0, "warm");
        mount.umount();
        assert!(mount.again().status.success());
        let again = asked(&server, || drop(main_tf(&mount, &at).unwrap()));
        mount.umount();
        // A mount without a policy looks at the tag again, too.
        assert!(mount.again_with(&[&host], plain(&host)).status.success());
        let plainly = asked(&server, || drop(main_tf(&mount, &at).unwrap()));
        assert_eq!(again, plainly, "remounted");
    }
}

/// Walking costs the same, whatever a policy says.
#[test]
fn a_walk_sends_the_same_requests_with_a_policy() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    for version in ["1.0.0", "1.1.0"] {
        server.publish("acme/net", version, &module("# net"));
        server.publish("acme/hello", version, &pack::provider("hello", version, &["linux_amd64"]));
    }
    let policy = trust.policy(&host, "");
    let walk = |options: Options| {
        let mapping = format!("{host}/acme/${{type}}");
        let include = "registry.opentofu.org/acme/*";
        let options = options.args(["--oci-mirror", &mapping, "--include", include]);
        let options = options.args(["--provider", ORIGIN, "--platform", "linux_amd64"]);
        let mount = Mount::start(&[&host], options)?;
        // The tags of what nobody listed yet are not known.
        let before = server.requests().len();
        for words in
            [vec![".", "-maxdepth", "4"], vec!["plugins"], vec!["-L", "plugins", "-maxdepth", "5"]]
        {
            let mut command = Command::new("find");
            command.args(words).current_dir(mount.path());
            let output = support::mount::finish(command);
            assert!(!output.stdout.is_empty(), "{output:?}");
        }
        let seen = server.requests().split_off(before);
        let mut asked: Vec<String> =
            seen.into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
        asked.sort();
        Some(asked)
    };
    let Some(without) = walk(plain(&host)) else { return };
    let with = walk(with_policy(&host, &policy)).unwrap();
    assert!(!without.is_empty());
    assert_eq!(with, without);
}

/// Whoever looks while releases are pushed by a key never meets one that is not signed.
#[test]
fn a_polling_reader_never_sees_an_unsigned_release() {
    let pushes = std::env::var("TOFUFS_TEST_PUSHES").ok().and_then(|n| n.parse().ok());
    let pushes: usize = pushes.unwrap_or(20);
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    fs::create_dir(trust.path("net")).unwrap();
    fs::write(trust.path("net/main.tf"), "# net\n").unwrap();
    let policy = trust.policy(&host, "bind = \"tag\"");
    let options = with_policy(&host, &policy).args(["--tag-ttl", "0s"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let (ended, seen) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = mount.join(format!("{host}/acme/net"));
            let mut opened = std::collections::BTreeSet::new();
            let end = Instant::now() + Duration::from_secs(10 * pushes as u64);
            while !(ended.load(Ordering::Relaxed) && opened.len() == pushes) {
                assert!(Instant::now() < end, "the mount lists {opened:?} alone");
                for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    if opened.contains(&name) {
                        continue;
                    }
                    let read = fs::read(dir.join(&name).join("main.tf"));
                    assert!(read.is_ok(), "{name:?}: {read:?}: {}", mount.log());
                    opened.insert(name);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for n in 0..pushes {
            // Of one digest 64 signatures are looked at.
            fs::write(trust.path("net/main.tf"), format!("# {n}\n")).unwrap();
            let reference = format!("{host}/acme/net:1.0.{n}");
            trust.ran(&host, &["push", "--sign-key", "acme.key", "net", &reference]);
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(seen.load(Ordering::Relaxed), pushes);
}

/// S19: nothing of a private key is in a log, an argument, an attribute or a core.
#[test]
fn a_private_key_leaves_no_trace() {
    let (server, trust) = (registry(), Trust::by_new_key());
    let host = server.host();
    let text = fs::read_to_string(trust.path("acme.key")).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&body).unwrap();
    // The secret stands at a fixed place in a PKCS#8 key over P-256.
    let secret = &der[36..68];
    let options = plain(&host).args(["--sign-key", trust.path("acme.key").to_str().unwrap(), "-v"]);
    let Some(mount) = Mount::start(&[&host], options) else { return };
    let staged = mount.join(format!("staging/{host}/acme/net/1.0.0"));
    fs::create_dir_all(&staged).unwrap();
    fs::write(staged.join("main.tf"), "# committed\n").unwrap();
    let mut commit = mount.command("commit");
    commit.arg(&staged);
    assert!(support::mount::finish(commit).status.success(), "{}", mount.log());
    let pid = mount.pid().as_raw_nonzero();
    let holds = |bytes: &[u8]| {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [secret, &body.as_bytes()[48..90], hex.as_bytes()];
        forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == *form))
    };
    assert!(holds(text.replace('\n', "").as_bytes()) && holds(&der), "the search finds a key");
    assert!(!holds(mount.log().as_bytes()), "log");
    for file in ["cmdline", "environ"] {
        assert!(!holds(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()), "{file}");
    }
    let mut command = Command::new("getfattr");
    command.args(["-d", "-R", "-m", "-", "--absolute-names"]).arg(mount.join(&host));
    if support::program("getfattr").is_some() {
        assert!(!holds(&support::mount::finish(command).stdout), "attributes");
    }
    // No core is written of a process that holds keys: the kernel lets nobody but root look at it.
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() >= 1, "{core}");
    let mut pending = vec![mount.cache(), trust.path("home")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                assert!(!holds(&fs::read(entry.path()).unwrap_or_default()), "{entry:?}");
            }
        }
    }
}
