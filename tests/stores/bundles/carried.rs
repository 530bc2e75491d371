//! What a bundle says of where its providers are.

use super::*;

/// What a store says of its providers.
#[test]
fn a_bundle_says_where_its_providers_are_wherever_it_is_copied() {
    let bed = Bed::new();
    let whole = bundled(&bed, "b.tar");
    assert!(bundled(&bed, "b.tar") == whole && bundled(&bed, "again.tar") == whole);
    tofufs(&bed, &["copy", "oci-archive:b.tar", "oci:store"]);
    tofufs(&bed, &["copy", "oci:store", "oci-archive:c.tar"]);
    assert!(fs::read(bed.path("c.tar")).unwrap() == whole);
    for source in ["oci-archive:b.tar", "oci:store", "oci-archive:c.tar"] {
        let (code, found) = bed.verify(&[source, "--lock-file", "lock.hcl"]);
        assert!(code == Some(0) && found["lacking"] == Value::Array(vec![]), "{source}: {found}");
        let Some(mount) = bed.mount(source) else { return };
        assert!(mount.join(HELLO).is_file(), "{source}");
        // Others that are given count alone.
        let other =
            ["--oci-mirror", "reg.example/x/${type}", "--include", "registry.opentofu.org/acme/*"];
        let (code, found) =
            bed.verify(&[&[source, "--lock-file", "lock.hcl"], &other[..]].concat());
        assert!(
            code == Some(1) && found["lacking"].to_string().contains("reg.example/x/hello"),
            "{found}"
        );
    }
    // From one bundle into another, nothing is said anew.
    let from = format!("oci-archive:{}", bed.path("b.tar").display());
    let read = ["--offline", "--lock-file", "lock.hcl", "--from", &from];
    tofufs(&bed, &[&["bundle", "-o", "oci-archive:d.tar"], &read[..]].concat());
    assert!(fs::read(bed.path("d.tar")).unwrap() == whole);
}

#[test]
fn a_cache_remembers_what_a_bundle_said_and_a_registry_is_not_told_it() {
    let bed = Bed::new();
    bundled(&bed, "b.tar");
    let from = format!("oci-archive:{}", bed.path("b.tar").display());
    let read = ["--offline", "--lock-file", "lock.hcl", "--from", &from];
    let kept = ["pull", "--platform", "linux_amd64", "--cache-dir", "pulled"];
    tofufs(&bed, &[&kept, &read[..]].concat());
    let options =
        Options::new().args(["--offline", "--platform", "linux_amd64"]).cache(bed.path("pulled"));
    let Some(mount) = Mount::start(&[HOST], options) else { return };
    assert!(mount.join(HELLO).is_file());
    // A registry has releases alone, and modules have no providers.
    if let Some(registry) = DockerRegistry::start(Access::Anybody, false) {
        let host = registry.host();
        tofufs(&bed, &["copy", "--plain-http", &host, "oci-archive:b.tar", &host]);
        let storage = tree(registry.dir());
        assert!(!storage.iter().any(|(path, bytes)| {
            path.to_str().unwrap().contains("providers.json")
                || bytes.windows(19).any(|part| part == b"repository_template")
        }));
    }
    bed.bundle(&[&[&format!("{HOST}/acme/net:1.0.0"), "-o", "oci:modules"], &MIRROR[..]].concat());
    assert!(!bed.path("modules").join(SAYS).exists());
}

#[test]
fn what_a_bundle_says_is_checked() {
    let bed = Bed::new();
    let mut damaged = bundled(&bed, "b.tar");
    tofufs(&bed, &["copy", "oci-archive:b.tar", "oci:store"]);
    let at = damaged.windows(8).position(|w| w == b"\"rules\":").unwrap();
    damaged[at + 2] ^= 1;
    fs::write(bed.path("b.tar"), damaged).unwrap();
    fs::write(bed.path("store").join(SAYS), "{\"rules\":[{}]}").unwrap();
    for source in ["oci-archive:b.tar", "oci:store"] {
        let (code, found) = bed.verify(&[source]);
        assert!(code == Some(1) && found["bad"].to_string().contains(SAYS), "{found}");
        let output = bed.mounting(source);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(SAYS), "{said}");
    }
}

/// Where a mount shows the provider of the lock file.
const HELLO: &str = "plugins/registry.opentofu.org/acme/hello/0.1.0/linux_amd64/\
                     terraform-provider-hello_v0.1.0";

/// The bytes of the bundle `name` of what a lock file holds.
fn bundled(bed: &Bed, name: &str) -> Vec<u8> {
    bed.write("lock.hcl", &lock_file(&PLATFORMS));
    let output = format!("oci-archive:{name}");
    bed.bundle(&[&["--lock-file", "lock.hcl", "-o", &output], &MIRROR[..]].concat());
    fs::read(bed.path(name)).unwrap()
}

fn tofufs(bed: &Bed, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command.current_dir(bed.dir.path()).env_clear().env("HOME", bed.path("home")).args(words);
    finish(&mut command);
}

/// By a rule that cannot be read backwards, and where two bundles become one.
#[test]
fn a_bundle_names_its_providers_and_adds_to_what_it_named() {
    let bed = Bed::new();
    bed.release("odd/hello", "0.1.0", &provider());
    bed.write("lock.hcl", &lock_file(&PLATFORMS));
    bed.write(
        "other.hcl",
        &lock_file(&PLATFORMS).replace("registry.opentofu.org/acme", "else.example/odd"),
    );
    let template = r#"reg.example/odd/${type == "x" ? "y" : type}"#;
    let odd = ["--oci-mirror", template, "--include", "else.example/odd/*"];
    for output in ["oci:store", "oci-archive:b.tar"] {
        bed.bundle(&[&["--lock-file", "other.hcl", "-o", output], &odd[..]].concat());
        bed.bundle(&[&["--lock-file", "lock.hcl", "-o", output], &MIRROR[..]].concat());
        for lock in ["lock.hcl", "other.hcl"] {
            assert_eq!(bed.verify(&[output, "--lock-file", lock]).0, Some(0));
        }
        let Some(mount) = bed.mount(output) else { return };
        for view in ["plugins", "mirror"] {
            let names: Vec<_> =
                fs::read_dir(mount.join(view)).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["else.example", "registry.opentofu.org"]);
        }
    }
}
