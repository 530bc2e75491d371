//! Many readers of one cold package.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::support::docker_registry::{Access, DockerRegistry};
use crate::support::mount::Mount;
use crate::support::pack;
use crate::{logged_in, noise, status_line};
use tofufs::digest::Digest;

#[test]
fn sixty_four_processes_open_one_cold_package_and_it_is_downloaded_once() {
    let Some(registry) = DockerRegistry::start(Access::Htpasswd, true) else { return };
    let content = noise(64, 40 << 20);
    registry
        .push("acme/big")
        .artifact("1.0.0", &pack::module(&[("main.tf", b""), ("content.bin", &content)]));
    let host = registry.host();
    let Some(mount) = Mount::start(&[&host], logged_in(&registry)) else { return };
    let file = mount.join(format!("{host}/acme/big/1.0.0/content.bin"));
    let readers: Vec<Child> = (0..64)
        .map(|_| {
            Command::new("sha256sum")
                .arg(&file)
                .stdout(Stdio::piped())
                .spawn()
                .expect("sha256sum runs")
        })
        .collect();
    let wanted = Digest::of(&content).hex().to_string();
    for mut reader in readers {
        let mut printed = String::new();
        reader.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(reader.wait().unwrap().success());
        assert!(printed.starts_with(&wanted), "{printed}");
    }
    assert_eq!(mount.requests().1, 1, "one download for all");
    eprintln!(
        "64 readers of a cold package of 40 MiB: {} of the daemon",
        status_line(mount.pid(), "VmHWM")
    );
}
