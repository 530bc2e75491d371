//! What was fetched beforehand, pinned or bundled: it is there without a network, and nobody has to
//! say again where providers are.

use super::*;

const RULE: [&str; 4] = [
    "--oci-mirror",
    "registry.example/acme/providers/${type}",
    "--include",
    "registry.opentofu.org/acme/*",
];

/// A place with a store that takes the place of the registry, and a working directory that needs a
/// provider of it.
fn place() -> Option<Place> {
    let place = Place::new()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo-store");
    assert!(Command::new(script).arg(place.path("store")).status().unwrap().success());
    fs::create_dir(place.path("home")).unwrap();
    let root = "terraform {\n  required_providers {\n    \
         hello = { source = \"registry.opentofu.org/acme/hello\" }\n  }\n}\n";
    fs::write(place.path("main.tf"), root).unwrap();
    let from = place.source();
    succeeded(&place.run(&[&["lock", ".", "--offline", "--from", &from], &RULE[..]].concat()));
    fs::remove_dir_all(place.path("home/.cache")).unwrap();
    Some(place)
}

/// The rule as the CLI configuration has it.
fn configure(place: &Place) {
    let [_, template, _, include] = RULE;
    let text = format!(
        "provider_installation {{\n  oci_mirror {{\n    repository_template = \"{template}\"\n    \
         include = [\"{include}\"]\n  }}\n}}\n"
    );
    fs::write(place.path("home/.tofurc"), text).unwrap();
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Both views show the provider, and the clients that are installed take it from them. Unmounts.
fn serves_the_provider(place: &Place) {
    for view in ["plugins", "mirror"] {
        assert_eq!(names(place.point().join(view)), ["registry.opentofu.org"]);
        assert_eq!(names(place.point().join(view).join("registry.opentofu.org/acme")), ["hello"]);
        for client in ["terraform", "tofu"] {
            initialises(place, client, view);
        }
    }
    done(&place.run(&["umount", "mnt"]));
}

fn initialises(place: &Place, client: &str, view: &str) {
    let configuration = succeeded(&place.run(&["tofurc", "mnt", "--use", view]));
    let file = place.path("client.tfrc");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(client);
    command
        .args(["init", "-input=false", "-no-color"])
        .current_dir(place.dir.path())
        .stdin(Stdio::null());
    command
        .env("TF_CLI_CONFIG_FILE", &file)
        .env("HOME", place.path("home"))
        .env("CHECKPOINT_DISABLE", "1");
    match command.output() {
        Ok(output) => drop(succeeded(&output)),
        Err(e) => return skip(&format!("{client} cannot be run: {e}")),
    }
    fs::remove_dir_all(place.path(".terraform")).unwrap();
}

/// The lines of the README, on two machines.
#[test]
fn a_bundle_says_on_the_other_side_of_a_gap_where_its_providers_are() {
    let Some(place) = place() else { return };
    configure(&place);
    let from = place.source();
    let needs = ["--lock-file", ".terraform.lock.hcl", "--root", "."];
    for bundle in ["oci-archive:bundle.tar", "oci:bundle"] {
        succeeded(
            &place.run(&[&["bundle"], &needs[..], &["-o", bundle, "--from", &from]].concat()),
        );
    }
    // What follows knows nothing of the first machine.
    fs::remove_dir_all(place.path("home")).unwrap();
    fs::rename(place.path("store"), place.path("elsewhere")).unwrap();
    for bundle in ["oci-archive:bundle.tar", "oci:bundle"] {
        let verified =
            place.run(&["bundle", "verify", bundle, "--lock-file", ".terraform.lock.hcl"]);
        assert!(!succeeded(&verified).contains("lacking"), "{verified:?}");
        fs::create_dir_all(place.path("home")).unwrap();
        done(&place.run(&["mount", "--read-only", "--offline", bundle, "mnt"]));
        serves_the_provider(&place);
    }
}

#[test]
fn what_was_pulled_or_pinned_is_shown_without_being_asked_for() {
    for (words, told) in [(&["pull"][..], &RULE[..]), (&["pull"], &[]), (&["cache", "pin"], &RULE)]
    {
        let Some(place) = place() else { return };
        if told.is_empty() {
            configure(&place);
        }
        let from = place.source();
        let needs = ["--lock-file", ".terraform.lock.hcl", "--from", &from];
        succeeded(&place.run(&[words, &needs, told].concat()));
        fs::rename(place.path("store"), place.path("elsewhere")).unwrap();
        done(&place.run(&["mount", "--offline", "registry.example", "mnt"]));
        serves_the_provider(&place);
    }
}

/// Without a rule there is nothing to carry, and no empty bundle.
#[test]
fn what_is_left_out_as_a_whole_is_no_success() {
    let Some(place) = place() else { return };
    let needs = ["--lock-file", ".terraform.lock.hcl", "--offline"];
    for words in [&["pull"][..], &["cache", "pin"], &["bundle", "-o", "oci-archive:b.tar"]] {
        let output = place.run(&[words, &needs].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && output.stdout.is_empty(),
            "{words:?}: {output:?}"
        );
        assert!(
            said.contains("no rule maps this provider") && said.contains("nothing was done"),
            "{said}"
        );
    }
    assert!(!place.path("b.tar").exists());
}

/// What a command was told counts for mounts of the same registry alone.
#[test]
fn a_mount_of_another_registry_does_not_go_by_what_a_pull_was_told() {
    let Some(place) = place() else { return };
    let from = place.source();
    succeeded(&place.run(
        &[&["pull", "--lock-file", ".terraform.lock.hcl", "--from", &from], &RULE[..]].concat(),
    ));
    done(&place.run(&["mount", "--offline", "other.example", "mnt"]));
    assert_eq!(names(place.point()), ["other.example", "staging"]);
    done(&place.run(&["umount", "mnt"]));
}

/// The disk takes no file of more than 512 bytes: content is served from memory then, and nothing
/// is kept.
#[test]
fn what_the_disk_does_not_keep_is_no_success() {
    let Some(place) = place() else { return };
    let from = place.source();
    for words in [&["pull"][..], &["cache", "pin"]] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]).arg(world::program()).args(words);
        command.args(["--lock-file", ".terraform.lock.hcl", "--from", &from]).args(RULE);
        command.current_dir(place.dir.path()).env("HOME", place.path("home")).stdin(Stdio::null());
        command.env_remove("XDG_CACHE_HOME");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("it is not kept"),
            "{words:?}: {output:?}"
        );
        assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
    }
    assert_eq!(succeeded(&place.run(&["cache", "pin"])), "", "nothing is pinned that is not there");
}

/// Nobody but root can remove what lies in a directory that is closed.
#[test]
fn what_cannot_be_removed_was_not_pruned() {
    let Some(place) = place() else { return };
    let from = place.source();
    succeeded(&place.run(
        &[&["pull", "--lock-file", ".terraform.lock.hcl", "--from", &from], &RULE[..]].concat(),
    ));
    let blobs = place.path("home/.cache/tofufs/v1/blobs");
    let shards: Vec<PathBuf> =
        names(blobs.clone()).into_iter().map(|shard| blobs.join(shard)).collect();
    let close = |mode| {
        shards
            .iter()
            .for_each(|dir| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap())
    };
    close(0o500);
    let output = place.run(&["cache", "prune"]);
    close(0o700);
    if !rustix::process::geteuid().is_root() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("could not be removed"),
            "{output:?}"
        );
        assert!(succeeded(&place.run(&["cache", "prune"])).contains("0 objects are left"));
    }
}
