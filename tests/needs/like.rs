//! What a running mount was told need not be said again, and what is typed wins.

use std::sync::Arc;

use crate::support::hostile::Hostile;
use crate::support::mount::{Mount, Options, finish};
use crate::support::pack;
use crate::support::tls::Tls;
use crate::{Bench, packages};

const MAIN: &str = "terraform {\n  required_providers {\n    \
     kind = { source = \"example.com/acme/kind\" }\n  }\n}\n";

/// The registry with one release of a provider, which cannot be read without what a mount is told.
fn registry(tls: Option<&Tls>) -> Hostile {
    let registry = match tls {
        Some(tls) => Hostile::start_tls(Arc::new(tls.server())),
        None => Hostile::start(),
    };
    let release = pack::annotated_provider_of(&packages("kind", "1.2.0", &["linux_amd64"]));
    registry.publish("providers/kind", "1.2.0", &release);
    registry
}

/// The same with a mount of it.
fn mounted(bench: &Bench, tls: Option<&Tls>) -> Option<(Hostile, Mount)> {
    let registry = registry(tls);
    let host = registry.host();
    let template = format!("{host}/providers/${{type}}");
    let mut words = vec![
        "--oci-mirror".to_owned(),
        template,
        "--include".to_owned(),
        "example.com/acme/*".to_owned(),
    ];
    match tls {
        Some(tls) => {
            let [ca, ..] = tls.write(&bench.join("."));
            words.extend(["--ca-file".to_owned(), ca.display().to_string()]);
        }
        None => words.extend(["--plain-http".to_owned(), host.clone()]),
    }
    let mount = Mount::start(&[host], Options::new().args(words))?;
    Some((registry, mount))
}

#[test]
fn a_command_like_a_mount_reaches_what_the_mount_reaches() {
    for tls in [Some(Tls::new()), None] {
        let bench = Bench::new();
        bench.write("main.tf", MAIN);
        bench.write("network/main.tf", "locals {}\n");
        let Some((registry, mount)) = mounted(&bench, tls.as_ref()) else { return };
        let (host, point) = (registry.host(), mount.path().display().to_string());
        let pushed = format!("{host}/network:1.0.0");
        let kind = format!("{host}/providers/kind:1.2.0");
        let bundle = format!("oci:{}", bench.join("bundle").display());
        let copy = format!("oci:{}", bench.join("copy").display());
        for words in [
            &["lock"][..],
            &["pull", "--lock-file", ".terraform.lock.hcl"],
            &["push", "network", &pushed],
            &["doctor", &kind],
            &["bundle", "--lock-file", ".terraform.lock.hcl", "-o", &bundle],
            &["copy", &pushed, &copy],
        ] {
            if words[0] != "bundle" && words[0] != "pull" {
                let alone = finish(bench.command(words));
                let locked = bench.work().join(".terraform.lock.hcl").exists();
                assert!(
                    !alone.status.success() || words[0] == "lock" && !locked,
                    "{words:?}: {alone:?}"
                );
            }
            let like = finish(bench.command(words.iter().chain(&["--like", &point])));
            assert!(like.status.success(), "{words:?}: {like:?}");
            if words[0] == "doctor" {
                let said = String::from_utf8_lossy(&like.stdout).into_owned();
                assert!(said.contains("of 1 platform, "), "{said}");
            }
        }
        assert!(bench.lock_file().contains("provider \"example.com/acme/kind\""));
        // The cache is the mount's, too.
        assert!(!bench.join("home/.cache/tofufs").join("blobs").exists() && mount.cache().exists());

        // What is typed wins.
        let none = "127.0.0.1:1/none/${type}";
        let typed = [
            "lock",
            "--like",
            &point,
            "--oci-mirror",
            none,
            "--include",
            "example.com/acme/*",
            "--deadline",
            "2s",
        ];
        let output = finish(bench.command(typed));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("127.0.0.1:1"), "{output:?}");
        let mut command = bench.command(["lock"]);
        command.env("TOFUFS_LIKE", &point);
        let output = finish(command);
        assert!(output.status.success(), "{output:?}");
    }
}

/// What a mount says stands right behind the place that names the mount.
#[test]
fn a_mount_counts_where_it_was_named() {
    let bench = Bench::new();
    let Some((_registry, mount)) = mounted(&bench, None) else { return };
    let point = mount.path().display().to_string();
    let origins = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = bench.command([&["config", "show", "--json", "lock"], words].concat());
        let output = finish({
            command.envs(variables.iter().copied());
            command
        });
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        ["deadline", "plain_http", "oci_mirror", "offline"]
            .map(|key| shown["options"][key]["origin"].as_str().unwrap_or_default().to_owned())
    };
    let deadline = ("TOFUFS_DEADLINE", "9s");
    assert_eq!(origins(&[], &[deadline]), ["variable", "default", "default", "default"]);
    assert_eq!(origins(&["--like", &point], &[deadline]), ["like", "like", "like", "default"]);
    assert_eq!(
        origins(&["--like", &point, "--plain-http", "a.b"], &[]),
        ["like", "flag", "like", "default"]
    );
    let dir = bench.join("home/.config/tofufs");
    std::fs::create_dir_all(&dir).expect("a writable directory");
    let text = format!("like = \"{point}\"\noffline = true\nplain_http = [\"c.d\"]\n");
    std::fs::write(dir.join("config.toml"), text).expect("a writable directory");
    assert_eq!(origins(&[], &[deadline]), ["variable", "file", "like", "file"]);
    assert_eq!(origins(&[], &[("TOFUFS_LIKE", &point)]), ["like", "like", "like", "file"]);
}

#[test]
fn a_mount_that_is_none_is_no_pattern() {
    let bench = Bench::new();
    let output = finish(bench.command(["lock", "--like", "."]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.starts_with("tofufs: --like .: "),
        "{output:?}"
    );
    assert!(said.contains("is not a mount point of tofufs") && said.lines().count() == 1, "{said}");
}
