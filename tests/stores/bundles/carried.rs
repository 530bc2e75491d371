//! What a bundle says of where its providers are.

use super::*;

/// What a store says of its providers.
#[test]
fn a_bundle_says_where_its_providers_are_wherever_it_is_copied() {
    let bed = Bed::new();
    bed.write("lock.hcl", &lock_file(&PLATFORMS));
    let words = [&["--lock-file", "lock.hcl", "-o", "oci-archive:b.tar"], &MIRROR[..]].concat();
    bed.bundle(&words);
    let whole = fs::read(bed.path("b.tar")).unwrap();
    bed.bundle(&words);
    bed.bundle(
        &[&["--lock-file", "lock.hcl", "-o", "oci-archive:again.tar"], &MIRROR[..]].concat(),
    );
    assert!(
        fs::read(bed.path("b.tar")).unwrap() == whole
            && fs::read(bed.path("again.tar")).unwrap() == whole
    );
    let copy = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
        command
            .current_dir(bed.dir.path())
            .env_clear()
            .env("HOME", bed.path("home"))
            .arg("copy")
            .args(words);
        finish(&mut command)
    };
    copy(&["oci-archive:b.tar", "oci:store"]);
    copy(&["oci:store", "oci-archive:c.tar"]);
    assert!(fs::read(bed.path("c.tar")).unwrap() == whole);
    for source in ["oci-archive:b.tar", "oci:store", "oci-archive:c.tar"] {
        let (code, found) = bed.verify(&[source, "--lock-file", "lock.hcl"]);
        assert!(code == Some(0) && found["lacking"] == Value::Array(vec![]), "{source}: {found}");
        let Some(mount) = bed.mount(source) else { return };
        let hello = mount.join("plugins/registry.opentofu.org/acme/hello/0.1.0/linux_amd64");
        assert!(hello.join("terraform-provider-hello_v0.1.0").is_file(), "{source}");
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command.current_dir(bed.dir.path()).env_clear().env("HOME", bed.path("home"));
    command.args([
        "bundle",
        "--offline",
        "--lock-file",
        "lock.hcl",
        "--from",
        &from,
        "-o",
        "oci-archive:d.tar",
    ]);
    finish(&mut command);
    assert!(fs::read(bed.path("d.tar")).unwrap() == whole);
    // Into a cache, and out of it when the bundle is gone: what it said is remembered.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tofufs"));
    command.current_dir(bed.dir.path()).env_clear().env("HOME", bed.path("home"));
    command.args([
        "pull",
        "--offline",
        "--lock-file",
        "lock.hcl",
        "--platform",
        "linux_amd64",
        "--from",
        &from,
    ]);
    finish(command.args(["--cache-dir", "pulled"]));
    let options =
        Options::new().args(["--offline", "--platform", "linux_amd64"]).cache(bed.path("pulled"));
    let Some(mount) = Mount::start(&[HOST], options) else { return };
    let hello = mount.join("plugins/registry.opentofu.org/acme/hello/0.1.0/linux_amd64");
    assert!(hello.join("terraform-provider-hello_v0.1.0").is_file());
    // A registry has releases alone, and modules have no providers.
    if let Some(registry) = DockerRegistry::start(Access::Anybody, false) {
        copy(&["--plain-http", &registry.host(), "oci:store", &registry.host()]);
        let storage = tree(registry.dir());
        assert!(!storage.iter().any(|(path, bytes)| {
            path.to_str().unwrap().contains("providers.json")
                || bytes.windows(19).any(|part| part == b"repository_template")
        }));
    }
    bed.bundle(&[&[&format!("{HOST}/acme/net:1.0.0"), "-o", "oci:modules"], &MIRROR[..]].concat());
    assert!(!bed.path("modules").join(SAYS).exists());
    // A flipped bit in it is found, and what is no such document is refused.
    let at = whole.windows(8).position(|w| w == b"\"rules\":").unwrap();
    let mut damaged = whole.clone();
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
