//! What `plugins/` and `mirror/` show.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};
use tofufs::artifact::H1_ANNOTATION;
use tofufs::digest::Digest;

use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack};
use crate::{ORIGIN, declared, here, mapped, mirror_flags, names, registry};

const OTHER: &str = "plan9_mips";

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

#[test]
fn a_package_is_a_relative_link_into_the_registry_tree() {
    let Some(registry) = registry() else { return };
    let push = registry.push("mirror/acme/one");
    let release = pack::provider("one", "1.0.0", &[&here(), OTHER]);
    push.artifact("1.0.0", &release);
    push.artifact("1.0.0-rc1_b2", &release);
    for no_version in ["latest", "v1.0.0", "1.1", "01.2.0"] {
        push.artifact(no_version, &release);
    }
    let Some(mount) = Mount::start(&[registry.host()], mapped(&registry)) else { return };
    assert_eq!(
        names(&mount.join("")),
        [registry.host().as_str(), "mirror", "plugin-cache", "plugins", "staging"]
    );
    for view in ["plugins", "mirror"] {
        assert_eq!(names(&mount.join(view)), [ORIGIN], "found in the catalog");
        assert_eq!(names(&mount.join(view).join(ORIGIN)), ["acme"]);
        assert_eq!(names(&mount.join(view).join(ORIGIN).join("acme")), ["one"]);
    }

    let one = mount.join("plugins").join(ORIGIN).join("acme/one");
    assert_eq!(names(&one), ["1.0.0", "1.0.0-rc1+b2"]);
    assert_eq!(names(&one.join("1.0.0-rc1+b2")), [here()]);
    let link = one.join("1.0.0-rc1+b2").join(here());
    let target =
        format!("../../../../../{}/mirror/acme/one/1.0.0-rc1_b2/{}", registry.host(), here());
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&target));
    assert_eq!(fs::symlink_metadata(&link).unwrap().len(), target.len() as u64);
    let program = fs::read_to_string(link.join("terraform-provider-one_v1.0.0")).unwrap();
    assert!(program.ends_with(&format!("echo one 1.0.0 {}\n", here())), "{program}");
    // Not listed, but there; and what is not there is not.
    assert!(one.join("1.0.0").join(OTHER).join("README.md").is_file());
    for absent in [
        "1.0.0/solaris_amd64",
        "1.0.0/x",
        "9.9.9",
        "v1.0.0",
        "latest",
        "1.0.0-rc1_b2",
        "index.json",
    ] {
        assert_eq!(
            fs::symlink_metadata(one.join(absent)).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{absent}"
        );
    }
    for absent in
        ["plugins/x", "plugins/Registry.Example.com", "plugins/.git", "plugins/other.example.com"]
    {
        assert_eq!(
            fs::symlink_metadata(mount.join(absent)).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{absent}"
        );
    }
    assert_eq!(fs::write(one.join("x"), "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(fs::remove_file(&link).is_err());
}

#[test]
fn a_packed_mirror_has_zips_of_true_size_and_documents_with_their_hashes() {
    let Some(registry) = registry() else { return };
    let zips = [here(), OTHER.to_owned()]
        .map(|p| (p.clone(), pack::provider_zip("one", "1.0.0", p.as_bytes())));
    let packages: Vec<_> = zips.iter().map(|(p, zip)| (p.as_str(), zip.clone())).collect();
    let mut release = pack::provider_of(&packages);
    // As this program publishes: the hash of the tree beside the entry of the release.
    let root = release.manifests.last_mut().unwrap();
    let mut index: Value = serde_json::from_slice(&root.bytes).unwrap();
    index["manifests"][0]["annotations"] = json!({ H1_ANNOTATION: "h1:the-hash" });
    root.bytes = index.to_string().into_bytes();
    let push = registry.push("mirror/acme/one");
    push.artifact("1.0.0", &release);
    push.artifact("1.1.0_b1", &pack::provider("one", "1.1.0", &[&here()]));
    let options = mapped(&registry).args(declared(&["acme/one"])).args([
        "--platform",
        &here(),
        "--platform",
        OTHER,
    ]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };

    let one = mount.join("mirror").join(ORIGIN).join("acme/one");
    let name =
        |version: &str, platform: &str| format!("terraform-provider-one_{version}_{platform}.zip");
    let mut expected = vec![
        "index.json".to_owned(),
        name("1.0.0", &here()),
        name("1.0.0", OTHER),
        name("1.1.0+b1", &here()),
    ];
    // Taken to be there, as long as nobody has looked.
    expected.push(name("1.1.0+b1", OTHER));
    expected.sort();
    assert_eq!(names(&one), expected);
    for (platform, zip) in &zips {
        let path = one.join(name("1.0.0", platform));
        let target =
            format!("../../../../{}/mirror/acme/one/1.0.0/{platform}.zip", registry.host());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(&target));
        assert_eq!(fs::metadata(&path).unwrap().len(), zip.len() as u64);
        assert!(fs::read(&path).unwrap() == *zip);
    }
    assert_eq!(
        fs::metadata(one.join(name("1.1.0+b1", OTHER))).unwrap_err().kind(),
        ErrorKind::NotFound
    );

    assert_eq!(
        read_json(&one.join("index.json")),
        json!({"versions": {"1.0.0": {}, "1.1.0+b1": {}}})
    );
    let document = one.join("1.0.0.json");
    let zh = |zip: &[u8]| format!("zh:{}", Digest::of(zip).hex());
    assert_eq!(
        read_json(&document),
        json!({"archives": {
            here(): {"hashes": ["h1:the-hash", zh(&zips[0].1)], "url": name("1.0.0", &here())},
            OTHER: {"hashes": [zh(&zips[1].1)], "url": name("1.0.0", OTHER)},
        }})
    );
    assert_eq!(fs::metadata(&document).unwrap().len(), fs::read(&document).unwrap().len() as u64);
    assert_eq!(mount.requests().1, 2, "the two zips that were read");
    let archives = read_json(&one.join("1.1.0+b1.json"));
    assert_eq!(archives["archives"].as_object().unwrap().keys().collect::<Vec<_>>(), [&here()]);
    // Now that they were rendered they are listed; and a release that was looked into shows what it
    // has.
    expected.retain(|n| *n != name("1.1.0+b1", OTHER));
    expected.extend(["1.0.0.json".to_owned(), "1.1.0+b1.json".to_owned()]);
    expected.sort();
    assert_eq!(names(&one), expected);
    for absent in
        ["9.9.9.json", "1.0.json", "terraform-provider-two_1.0.0_linux_amd64.zip", "x.zip", "1.0.0"]
    {
        assert_eq!(
            fs::symlink_metadata(one.join(absent)).unwrap_err().kind(),
            ErrorKind::NotFound,
            "{absent}"
        );
    }
}

/// A mapping whose rules cannot be read backwards: what it shows was looked up, now or by an
/// earlier mount.
#[test]
fn a_provider_that_was_looked_up_is_listed_from_then_on() {
    let store = tempfile::tempdir().unwrap();
    layouts::add(
        store.path(),
        "r.example",
        "p-one",
        "1.0.0",
        &pack::provider("one", "1.0.0", &[&here()]),
    );
    layouts::add(store.path(), "r.example", "module", "1.0.0", &pack::module(&[("main.tf", b"")]));
    let template = r#"r.example/${type == "x" ? "y" : "p-${type}"}"#;
    let flags = ["--oci-mirror", template, "--include", "registry.example.com/acme/*"];
    let sources = [format!("oci:{}", store.path().display())];
    let Some(mut mount) = Mount::start(&sources, Options::new().args(flags)) else { return };
    let acme = mount.join("plugins").join(ORIGIN).join("acme");
    assert!(names(&mount.join("plugins")).is_empty());
    assert!(names(&acme).is_empty(), "a directory on the way to providers");
    assert_eq!(fs::metadata(acme.join("two")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(names(&acme).is_empty());
    assert!(acme.join("one/1.0.0").is_dir());
    assert_eq!(names(&mount.join("plugins")), [ORIGIN]);
    assert_eq!(names(&acme), ["one"]);
    assert!(acme.join("one/1.0.0").join(here()).join("README.md").is_file());

    assert!(mount.umount().status.success());
    assert!(mount.again().status.success());
    assert_eq!(names(&acme), ["one"]);
    assert_eq!(names(&mount.join("mirror").join(ORIGIN).join("acme")), ["one"]);
}

/// The mapping takes the repository for a provider's, but its releases are modules.
#[test]
fn a_module_in_a_mapped_repository_is_the_tree_that_it_is() {
    let Some(registry) = registry() else { return };
    let inside = format!("{}/main.tf", here());
    registry
        .push("mirror/acme/one")
        .artifact("1.0.0", &pack::module(&[("main.tf", b"top"), (&inside, b"inside")]));
    let Some(mount) = Mount::start(&[registry.host()], mapped(&registry)) else { return };
    // What a client's walk looks at.
    assert_eq!(crate::walk(&mount.join("plugins")).len(), 1);
    let release = mount.join(registry.host()).join("mirror/acme/one/1.0.0");
    assert_eq!(fs::read(release.join(&inside)).unwrap(), b"inside");
    assert_eq!(names(&release.join(here())), ["main.tf"]);
    assert_eq!(names(&release), [here(), "main.tf".to_owned()]);
}

/// Without an open of its own, too.
#[test]
fn documents_are_read_on_a_read_only_mount() {
    let Some(registry) = registry() else { return };
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here()]));
    let options = mapped(&registry).args(["--read-only", "--no-passthrough"]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };
    let one = mount.join("mirror").join(ORIGIN).join("acme/one");
    for _ in 0..2 {
        assert_eq!(read_json(&one.join("index.json")), json!({"versions": {"1.0.0": {}}}));
        assert!(
            read_json(&one.join("1.0.0.json"))["archives"][here()]["hashes"][0]
                .as_str()
                .unwrap()
                .starts_with("zh:")
        );
    }
}

#[test]
fn a_moved_tag_is_seen_through_the_views() {
    let Some(registry) = registry() else { return };
    let push = registry.push("mirror/acme/one");
    push.artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here()]));
    let options = mapped(&registry).args(declared(&["acme/one"])).args(["--tag-ttl", "1h"]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };
    let package = mount.join("plugins").join(ORIGIN).join("acme/one/1.0.0").join(here());
    let document = mount.join("mirror").join(ORIGIN).join("acme/one/1.0.0.json");
    let program = package.join("terraform-provider-one_v1.0.0");
    let before = (fs::read(&program).unwrap(), fs::read(&document).unwrap());
    let zip = mount
        .join("mirror")
        .join(ORIGIN)
        .join("acme/one")
        .join(format!("terraform-provider-one_1.0.0_{}.zip", here()));
    let old_zip = fs::read(&zip).unwrap();
    let new_zip = pack::provider_zip("one", "1.0.0", b"another");
    push.artifact("1.0.0", &pack::provider_of(&[(&here(), new_zip.clone())]));
    push.artifact("1.1.0", &pack::provider("one", "1.1.0", &[&here()]));
    assert!((fs::read(&program).unwrap(), fs::read(&document).unwrap()) == before);
    assert!(fs::read(&zip).unwrap() == old_zip);
    let mut refresh = mount.command("refresh");
    refresh.arg(mount.join("plugins").join(ORIGIN).join("acme/one"));
    assert!(refresh.status().unwrap().success());
    assert!(fs::read(&zip).unwrap() == new_zip);
    assert_eq!(fs::metadata(&zip).unwrap().len(), new_zip.len() as u64);
    assert_eq!(fs::read(&program).unwrap(), b"another");
    assert!(fs::read(&document).unwrap() != before.1);
    assert_eq!(names(&mount.join("plugins").join(ORIGIN).join("acme/one")), ["1.0.0", "1.1.0"]);
}

#[test]
fn a_moved_tag_is_noticed_when_its_zip_is_opened() {
    let Some(registry) = registry() else { return };
    let push = registry.push("mirror/acme/one");
    let options = mapped(&registry).args(declared(&["acme/one"])).args(["--tag-ttl", "1ms"]);
    let Some(mount) = Mount::start(&[registry.host()], options) else { return };
    let one = mount.join("mirror").join(ORIGIN).join("acme/one");
    let zip = one.join(format!("terraform-provider-one_1.0.0_{}.zip", here()));
    for content in ["first", "another one", "and a third"] {
        let package = pack::provider_zip("one", "1.0.0", content.as_bytes());
        push.artifact("1.0.0", &pack::provider_of(&[(&here(), package.clone())]));
        assert!(fs::read(&zip).unwrap() == package);
        assert_eq!(fs::metadata(&zip).unwrap().len(), package.len() as u64);
    }
}

/// Where several rules match, versions are those of all, each from the first that has it; a store
/// comes before the registry.
#[test]
fn versions_are_those_of_all_rules_that_match() {
    let store = tempfile::tempdir().unwrap();
    let add = |repo: &str, version: &str, content: &str| {
        let zip = pack::provider_zip("t", version, content.as_bytes());
        layouts::add(
            store.path(),
            "r.example",
            repo,
            version,
            &pack::provider_of(&[(&here(), zip)]),
        );
    };
    add("own/t", "1.0.0", "own");
    add("all/acme/t", "1.0.0", "all");
    add("all/acme/t", "2.0.0", "all");
    let flags = [
        "--oci-mirror",
        "r.example/own/${type}",
        "--include",
        "registry.example.com/acme/*",
        "--oci-mirror",
        "r.example/all/${namespace}/${type}",
        "--include",
        "registry.example.com/*/*",
        "--exclude",
        "registry.example.com/secret/*",
    ];
    let sources = [format!("oci:{}", store.path().display())];
    let Some(mount) = Mount::start(&sources, Options::new().args(flags)) else { return };
    let origin = mount.join("plugins").join(ORIGIN);
    assert_eq!(names(&origin.join("acme/t")), ["1.0.0", "2.0.0"]);
    let content = |version: &str| {
        fs::read_to_string(
            origin
                .join("acme/t")
                .join(version)
                .join(here())
                .join(format!("terraform-provider-t_v{version}")),
        )
    };
    assert_eq!(
        (content("1.0.0").unwrap().as_str(), content("2.0.0").unwrap().as_str()),
        ("own", "all")
    );
    assert_eq!(fs::metadata(origin.join("secret")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// The registry that a mapping names is a source, and its repositories are there without a request.
#[test]
fn a_registry_that_the_mapping_names_needs_no_source_of_its_own() {
    let Some(registry) = registry() else { return };
    registry.push("mirror/acme/one").artifact("1.0.0", &pack::provider("one", "1.0.0", &[&here()]));
    let empty = tempfile::tempdir().unwrap();
    let host = registry.host();
    let tofurc = empty.path().join("tofurc");
    fs::create_dir(empty.path().join("store")).unwrap();
    let text = format!(
        "provider_installation {{\n  oci_mirror {{\n    repository_template = \"{host}/mirror/${{namespace}}/${{type}}\"\n    \
         include = [\"{ORIGIN}/*/*\"]\n  }}\n  direct {{}}\n}}\n"
    );
    fs::write(&tofurc, text).unwrap();
    let options = Options::new().args(["--plain-http", &host, "--tofurc"]).args([tofurc.display()]);
    let sources = [format!("oci:{}", empty.path().join("store").display())];
    let Some(mount) = Mount::start(&sources, options) else { return };
    assert_eq!(
        names(&mount.join("")),
        [host.as_str(), "mirror", "plugin-cache", "plugins", "staging"]
    );
    let package = mount.join("plugins").join(ORIGIN).join("acme/one/1.0.0").join(here());
    assert_eq!(names(&package).len(), 2);
    assert_eq!(mount.status()["sources"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_mapping_there_are_no_views() {
    let store = tempfile::tempdir().unwrap();
    layouts::add(store.path(), "r.example", "x", "1.0.0", &pack::module(&[("main.tf", b"")]));
    let Some(mount) = Mount::start(&[format!("oci:{}", store.path().display())], Options::new())
    else {
        return;
    };
    assert_eq!(names(&mount.join("")), ["r.example", "staging"]);
    assert_eq!(fs::metadata(mount.join("mirror")).unwrap_err().kind(), ErrorKind::NotFound);
    let mut command = mount.command("tofurc");
    command.arg(mount.path());
    let output = crate::support::mount::finish(command);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no mapping"),
        "{output:?}"
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let point = elsewhere.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let mut command = mount.command("mount");
    let [a, b, c, d] = mirror_flags("r.example");
    command
        .args([a, b, c, d])
        .args(["--provider", "other.example.com/a/b", &format!("oci:{}", store.path().display())])
        .arg("--state-dir")
        .arg(elsewhere.path().join("state"))
        .arg(&point);
    let output = crate::support::mount::finish(command);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--provider other.example.com/a/b: no mapping rule is for it"), "{said}");
}
