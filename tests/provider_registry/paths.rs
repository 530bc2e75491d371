//! What a path is: versions as the registry spells them, packages as in every release of a provider.

use std::fs;
use std::io::ErrorKind;

use tofufs::digest::Digest;

use crate::support::hostile::Reply;
use crate::support::mount::{Mount, Options};
use crate::{Bed, names, package_of, program_of};

#[test]
fn versions_are_listed_and_each_opens_by_its_platforms() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    bed.origin.publish("one", "1.1.0+b1");
    bed.origin.publish("two", "3.0.0");
    let Some(mount) = bed.mount("", bed.options()) else { return };
    let one = mount.join(bed.address("one"));
    assert_eq!(names(&one), ["1.0.0", "1.1.0+b1"]);
    let of_release = [
        "darwin_arm64",
        "darwin_arm64.zip",
        "linux_amd64",
        "linux_amd64.zip",
        "linux_arm64",
        "linux_arm64.zip",
    ];
    assert_eq!(names(&one.join("1.0.0")), of_release);
    assert_eq!(names(&one.join("1.1.0+b1")), of_release);
    for (platform, zip) in &release.zips {
        let at = one.join("1.0.0").join(platform);
        assert_eq!(names(&at), package_of(&release));
        let program = fs::read(at.join(program_of(&release))).unwrap();
        assert_eq!(program, format!("one 1.0.0 for {platform}").into_bytes());
        let packed = one.join(format!("1.0.0/{platform}.zip"));
        assert_eq!(fs::metadata(&packed).unwrap().len(), zip.len() as u64);
        assert_eq!(&fs::read(&packed).unwrap(), zip);
        let digest = Digest::of(zip);
        assert_eq!(mount.xattr(&packed, "user.oci.digest").unwrap(), digest.to_string());
        assert_eq!(mount.xattr(&packed, "user.tofu.zh").unwrap(), format!("zh:{}", digest.hex()));
    }
    let id = &bed.origin.key[bed.origin.key.len() - 16..];
    let at = one.join("1.0.0");
    assert_eq!(mount.xattr(&at, "user.tofu.signature").unwrap(), format!("signed, key ID {id}"));
    let sums = Digest::of(release.sums.as_bytes()).to_string();
    assert_eq!(mount.xattr(&at, "user.oci.digest").unwrap(), sums);
    // By its digest it is found as soon as it is known.
    let by_digest = mount.join(format!("{}@{sums}/linux_amd64", bed.address("one")));
    assert_eq!(names(&by_digest), package_of(&release));

    let link = fs::read_link(one.join("~>1.0")).unwrap();
    assert_eq!(link.to_str(), Some("1.1.0+b1"));
    for missing in ["one/9.9.9", "one/readme", "nothing", "one/1.0.0/plan9_mips"] {
        let error = fs::metadata(mount.join(bed.address(missing))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{missing}");
    }
    assert!(fs::write(one.join("1.0.0/linux_amd64/x"), "").is_err());
    let host = mount.join(&bed.origin.host);
    assert_eq!(names(&host), ["acme"], "what was looked up is listed");
    assert_eq!(names(&host.join("acme")), ["one"]);
}

#[test]
fn the_views_show_what_a_source_a_flag_a_lock_file_or_a_root_module_names() {
    let Some(mut bed) = Bed::new() else { return };
    for kind in ["one", "two", "three", "four", "five"] {
        bed.origin.publish(kind, "1.0.0");
    }
    let lock = bed.path("lock.hcl");
    let block = format!("provider \"{}\" {{\n  version = \"1.0.0\"\n}}\n", bed.address("three"));
    fs::write(&lock, block).unwrap();
    let root = bed.path("root");
    fs::create_dir(&root).unwrap();
    let source = bed.address("four");
    fs::write(
        root.join("main.tf"),
        format!("terraform {{\n  required_providers {{\n    four = {{ source = \"{source}\" }}\n  }}\n}}\n"),
    )
    .unwrap();
    let options = bed.options().args(["--provider", &bed.address("two"), "--lock-file"]).args([
        lock.display().to_string(),
        "--root".to_owned(),
        root.display().to_string(),
    ]);
    let sources = [bed.source("/acme/one"), bed.source("")];
    let Some(mount) = Mount::start(&sources, options) else { return };
    let below = |view: &str| names(&mount.join(format!("{view}/{}/acme", bed.origin.host)));
    assert_eq!(below("plugins"), ["four", "one", "three", "two"]);
    assert_eq!(below("mirror"), ["four", "one", "three", "two"]);
    // What was looked up is shown from then on, and a plugin cache beside a lock file needs no more.
    let found = mount.join(format!("plugin-cache/{}/1.0.0/linux_amd64", bed.address("five")));
    assert_eq!(names(&found), ["README.md", "terraform-provider-five_v1.0.0"]);
    assert_eq!(below("plugins"), ["five", "four", "one", "three", "two"]);
    let packed = mount.join(format!("mirror/{}", bed.address("two")));
    assert_eq!(names(&packed), ["index.json", "terraform-provider-two_1.0.0_linux_amd64.zip"]);
    let document = fs::read_to_string(packed.join("1.0.0.json")).unwrap();
    assert!(document.contains("\"zh:") && !document.contains("h1:"), "{document}");
}

#[test]
fn an_oci_rule_goes_first_and_sources_stand_beside_each_other() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let release = bed.origin.publish("two", "1.0.0");
    let store = bed.path("store");
    let packages = [("linux_amd64", crate::support::pack::provider_zip("one", "7.0.0", b"own"))];
    let artifact = crate::support::pack::provider_of(&packages);
    crate::support::layouts::add(&store, "own.example", "mirror/one", "7.0.0", &artifact);
    let options = bed.options().args([
        "--oci-mirror",
        "own.example/mirror/${type}",
        "--include",
        &bed.address("one"),
    ]);
    let sources = [format!("oci:{}", store.display()), bed.source("")];
    let Some(mount) = Mount::start(&sources, options) else { return };
    let plugins = |kind: &str| mount.join(format!("plugins/{}", bed.address(kind)));
    assert_eq!(names(&plugins("one")), ["7.0.0"]);
    assert_eq!(names(&plugins("two")), ["1.0.0"]);
    assert_eq!(names(&plugins("two").join("1.0.0/linux_amd64")), package_of(&release));
    assert_eq!(names(&mount.join(bed.address("one"))), ["1.0.0"], "its own path is another");
}

#[test]
fn a_bundle_of_the_same_registry_stands_before_it() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    let release = bed.origin.publish("one", "2.0.0");
    let store = bed.path("store");
    let packages = [("linux_amd64", crate::support::pack::provider_zip("one", "1.0.0", b"kept"))];
    let artifact = crate::support::pack::provider_of(&packages);
    crate::support::layouts::add(&store, &bed.origin.host, "acme/one", "1.0.0", &artifact);
    let sources = [format!("oci:{}", store.display()), bed.source("")];
    let Some(mount) = Mount::start(&sources, bed.options()) else { return };
    let one = mount.join(bed.address("one"));
    assert_eq!(names(&one), ["1.0.0", "2.0.0"]);
    let kept = fs::read(one.join("1.0.0/linux_amd64/terraform-provider-one_v1.0.0")).unwrap();
    assert_eq!(kept, b"kept");
    assert_eq!(names(&one.join("2.0.0/linux_amd64")), package_of(&release));
}

#[test]
fn only_the_part_that_is_a_source_is_there() {
    let Some(mut bed) = Bed::new() else { return };
    bed.origin.publish("one", "1.0.0");
    bed.origin.publish("two", "1.0.0");
    let Some(mount) = bed.mount("/acme/one", bed.options()) else { return };
    assert_eq!(names(&mount.join(bed.address("one"))), ["1.0.0"]);
    for outside in [bed.address("two"), format!("{}/other/one", bed.origin.host)] {
        let error = fs::metadata(mount.join(&outside)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{outside}");
    }
    let asked = bed.origin.server.requests();
    assert!(asked.iter().all(|seen| !seen.path.contains("two")), "{asked:?}");
}

#[test]
fn a_source_that_is_wrong_is_refused_before_anything_is_mounted() {
    let Some(bed) = Bed::new() else { return };
    let Some(mut mount) = bed.mount("", bed.options()) else { return };
    assert!(mount.umount().status.success());
    for (source, wanted) in [
        ("providers:a.b/c/d/e", "a provider registry is providers:HOST[:PORT][/NAMESPACE[/TYPE]]"),
        ("providers:", "providers:"),
    ] {
        let output = mount.again_with(&[source], Options::new());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_host_block_says_where_the_registry_is() {
    let Some(mut bed) = Bed::new() else { return };
    let release = bed.origin.publish("one", "1.0.0");
    bed.origin.answer("/.well-known/terraform.json", Reply::new(500, "text/plain", "broken"));
    let host = &bed.origin.host;
    let rc = bed.path("rc");
    let block = format!(
        "host \"{host}\" {{\n  services = {{ \"providers.v1\" = \"https://{host}/v1/providers/\" }}\n}}\n"
    );
    fs::write(&rc, block).unwrap();
    let Some(mount) = bed.mount("", bed.options().env("TF_CLI_CONFIG_FILE", rc.display())) else {
        return;
    };
    assert_eq!(
        names(&mount.join(bed.address("one")).join("1.0.0/linux_amd64")),
        package_of(&release)
    );
    let asked = bed.origin.server.requests_to("/.well-known/");
    assert_eq!(asked.len(), 0, "the host is not asked for its services");
}
