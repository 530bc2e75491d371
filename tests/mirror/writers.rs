//! Several that mirror into one repository at once: nothing of anybody's is lost (A1).

use std::process::{Child, Command};

use crate::Bed;
use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::origin::PLATFORMS;

fn started(mut command: Command) -> Child {
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn two_mirrors_at_once_lose_nothing() {
    let Some(registry) = DockerRegistry::start(Access::Anybody, false) else { return };
    let Some(mut bed) = Bed::new() else { return };
    for round in 0..4 {
        bed.origin.publish("one", &format!("1.0.{round}"));
        let (host, address, version) =
            (registry.host(), bed.address("one"), format!("1.0.{round}"));
        let to = format!("{host}/mirror");
        let words = |platform: &str| {
            ["--plain-http", &host, "--to", &to, &address, &version, "--platform", platform]
                .map(str::to_owned)
        };
        let running: Vec<Child> =
            PLATFORMS.iter().map(|platform| started(bed.command(&words(platform)))).collect();
        for child in running {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        // All of the same release at once, by two: the same digest.
        let whole = ["--plain-http", &host, "--to", &to, &address, &version].map(str::to_owned);
        let both = [started(bed.command(&whole)), started(bed.command(&whole))];
        let lines = both.map(|child| child.wait_with_output().unwrap().stdout);
        assert!(lines[0] == lines[1] && !lines[0].is_empty(), "{lines:?}");
        let check = [&whole[..], &["--check".to_owned()]].concat();
        assert!(bed.lines(&check).is_empty(), "all platforms are there");
    }
}
