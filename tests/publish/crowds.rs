//! Processes that publish into one release at the same time, in whatever order the machine gives
//! them, at registries that are 0, 5 and 20 ms away: nothing is lost, and whoever loses is told.

use serde_json::Value;

use super::providers::{package, zip_name};
use super::*;
use crate::support::delay::Delay;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::{Mount, finish};
use tofufs::digest::Digest;

const PLATFORMS: [&str; 6] =
    ["linux_amd64", "darwin_arm64", "windows_amd64", "linux_arm64", "freebsd_386", "openbsd_amd64"];
const AWAY: [u64; 3] = [0, 5, 20];

/// A registry, and the same one farther away.
struct Far {
    registry: DockerRegistry,
    delay: Delay,
}

impl Far {
    fn start(milliseconds: u64) -> Option<Far> {
        let registry = DockerRegistry::start(Access::Anybody, false)?;
        let delay = Delay::start(&registry.host(), Duration::from_millis(milliseconds));
        Some(Far { registry, delay })
    }

    fn host(&self) -> String {
        self.delay.host()
    }

    fn release(&self, repo: &str, tag: &str) -> Value {
        serde_json::from_slice(&self.registry.push(repo).get(&format!("manifests/{tag}"))).unwrap()
    }

    /// The platforms that a release holds.
    fn platforms(&self, repo: &str, tag: &str) -> Vec<String> {
        let release = self.release(repo, tag);
        let text = |entry: &Value, key: &str| entry["platform"][key].as_str().unwrap().to_owned();
        let entries = release["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| format!("{}_{}", text(entry, "os"), text(entry, "architecture")))
            .collect()
    }

    /// The release holds all of these, and no writer has left anything behind.
    #[track_caller]
    fn holds(&self, repo: &str, tag: &str, platforms: &[&str]) {
        let mut wanted: Vec<&str> = platforms.to_vec();
        wanted.sort_unstable();
        let mut held = self.platforms(repo, tag);
        held.sort_unstable();
        assert_eq!(held, wanted, "{repo}");
        self.is_clean(repo, tag);
    }

    #[track_caller]
    fn is_clean(&self, repo: &str, tag: &str) {
        let list: Value =
            serde_json::from_slice(&self.registry.push(repo).get("tags/list")).unwrap();
        assert_eq!(list["tags"], serde_json::json!([tag]), "{repo}");
    }
}

fn start(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs all of them at once.
fn together(commands: impl IntoIterator<Item = Command>) -> Vec<Output> {
    let children: Vec<_> = commands.into_iter().map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// The outputs of commands of which one alone may succeed; the digest that it printed.
#[track_caller]
fn one_winner(outputs: &[Output]) -> String {
    let winners: Vec<&Output> = outputs.iter().filter(|output| output.status.success()).collect();
    assert_eq!(winners.len(), 1, "{outputs:?}");
    for loser in outputs.iter().filter(|output| !output.status.success()) {
        let text = String::from_utf8_lossy(&loser.stderr);
        assert_eq!(loser.status.code(), Some(1), "{text}");
        assert_eq!(text.matches("sha256:").count(), 2, "{text}");
    }
    digest_of(&String::from_utf8_lossy(&winners[0].stdout))
}

/// Runs `round` for each distance at the same time.
fn at_each_distance(round: fn(u64)) {
    std::thread::scope(|scope| {
        for away in AWAY {
            scope.spawn(move || round(away));
        }
    });
}

#[test]
fn platforms_that_are_pushed_at_once_are_all_in_the_release() {
    at_each_distance(|away| {
        let Some(far) = Far::start(away) else { return };
        let (bed, host) = (Bed::new(), far.host());
        for platform in PLATFORMS {
            bed.write(&zip_name(platform), package(platform));
        }
        for (writers, rounds) in [(2, 18), (4, 11), (6, 8)] {
            for round in 0..rounds {
                let repo = format!("acme/hello{writers}-{round}");
                let push = |platform| {
                    let words =
                        ["--plain-http", &host, &zip_name(platform), &format!("{host}/{repo}")];
                    bed.command(&words)
                };
                let outputs = together(PLATFORMS[..writers].iter().map(|platform| push(platform)));
                assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
                far.holds(&repo, "0.1.0", &PLATFORMS[..writers]);
            }
        }
    });
}

#[test]
fn of_modules_that_are_pushed_at_once_one_wins() {
    at_each_distance(|away| {
        let Some(far) = Far::start(away) else { return };
        let (bed, host) = (Bed::new(), far.host());
        let modules = ["a", "b", "c", "d", "e", "f"];
        for module in modules {
            bed.write(&format!("{module}/main.tf"), module);
        }
        for (writers, rounds) in [(2, 6), (4, 4), (6, 3)] {
            for round in 0..rounds {
                let repo = format!("acme/network{writers}-{round}");
                let reference = format!("{host}/{repo}:1.0.0");
                let push = |module| bed.command(&["--plain-http", &host, module, &reference]);
                let winner =
                    one_winner(&together(modules[..writers].iter().map(|module| push(module))));
                let there = Digest::of(&far.registry.push(&repo).get("manifests/1.0.0"));
                assert_eq!(there.to_string(), winner, "{repo}");
                far.is_clean(&repo, "1.0.0");
            }
        }
    });
}

/// Mounts of one registry, each with a stage of its own.
fn mounts(far: &Far, count: usize) -> Option<Vec<Mount>> {
    let host = far.host();
    let template = format!("{host}/mirror/${{namespace}}/${{type}}");
    let options = || {
        let mapping = ["--oci-mirror", &template, "--include", "registry.opentofu.org/*/*"];
        plain(&host).args(mapping).args(["--tag-ttl", "0s"])
    };
    (0..count).map(|_| Mount::start(&[&host], options())).collect()
}

fn commit(mount: &Mount, path: &Path) -> Command {
    let mut command = mount.command("commit");
    command.arg(path);
    command
}

fn stage(mount: &Mount, path: &str, content: &[u8]) {
    let path = mount.join("staging").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What is left of a stage: nothing where it was published, all of it where it was not.
#[track_caller]
fn is_staged(mount: &Mount, path: &str, staged: bool) {
    assert_eq!(mount.join("staging").join(path).exists(), staged, "{path}");
}

#[test]
fn platforms_that_are_committed_at_once_through_mounts_are_all_in_the_release() {
    at_each_distance(|away| {
        let Some(far) = Far::start(away) else { return };
        let (host, Some(mounts)) = (far.host(), mounts(&far, 3)) else { return };
        for round in 0..6 {
            let dir = format!("{host}/acme/committed{round}/0.1.0");
            for (mount, platform) in mounts.iter().zip(PLATFORMS) {
                stage(mount, &format!("{dir}/{}", zip_name(platform)), &package(platform));
            }
            let outputs = together(
                mounts.iter().map(|mount| commit(mount, &mount.join("staging").join(&dir))),
            );
            assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
            far.holds(&format!("acme/committed{round}"), "0.1.0", &PLATFORMS[..3]);
            mounts.iter().for_each(|mount| is_staged(mount, &dir, false));
        }
        // What `providers mirror` writes.
        for round in 0..5 {
            let dir = format!("mirror/registry.opentofu.org/acme{round}/hello");
            for (mount, platform) in mounts.iter().zip(PLATFORMS) {
                stage(mount, &format!("{dir}/{}", zip_name(platform)), &package(platform));
            }
            let outputs =
                together(mounts.iter().map(|mount| commit(mount, &mount.join("staging/mirror"))));
            assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
            far.holds(&format!("mirror/acme{round}/hello"), "0.1.0", &PLATFORMS[..3]);
            mounts.iter().for_each(|mount| is_staged(mount, &dir, false));
        }
    });
}

#[test]
fn of_modules_that_are_moved_or_committed_at_once_one_is_published_and_the_others_stay_staged() {
    at_each_distance(|away| {
        let Some(far) = Far::start(away) else { return };
        let (host, Some(mounts)) = (far.host(), mounts(&far, 2)) else { return };
        for round in 0..6 {
            let dir = format!("{host}/acme/moved{round}/1.0.0");
            for (at, mount) in mounts.iter().enumerate() {
                stage(mount, &format!("{dir}/main.tf"), format!("# {at}\n").as_bytes());
            }
            let mv = |mount: &Mount| {
                let mut command = Command::new("mv");
                command
                    .arg("-T")
                    .arg(mount.join("staging").join(&dir))
                    .arg(mount.join(&dir))
                    .env("LC_ALL", "C");
                command
            };
            let by_mv = round % 2 == 0;
            let outputs = together(mounts.iter().map(|mount| {
                if by_mv { mv(mount) } else { commit(mount, &mount.join("staging").join(&dir)) }
            }));
            if !by_mv {
                one_winner(&outputs);
            }
            let winners = outputs.iter().filter(|output| output.status.success()).count();
            assert_eq!(winners, 1, "{outputs:?}");
            let there = Digest::of(
                &far.registry.push(&format!("acme/moved{round}")).get("manifests/1.0.0"),
            );
            for (mount, output) in mounts.iter().zip(&outputs) {
                is_staged(mount, &dir, !output.status.success());
                if by_mv && !output.status.success() {
                    let again = finish(commit(mount, &mount.join("staging").join(&dir)));
                    let told = String::from_utf8_lossy(&again.stderr);
                    assert!(
                        told.contains(&there.to_string()) && told.matches("sha256:").count() == 2,
                        "{told}"
                    );
                }
            }
            far.is_clean(&format!("acme/moved{round}"), "1.0.0");
        }
    });
}
