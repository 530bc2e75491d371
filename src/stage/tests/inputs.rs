//! Trees that make no release, each with its sentence, and nothing lost.

use std::os::unix::fs::symlink;

use super::*;
use crate::failure::Failure;
use crate::skip::skip;

const ROOT: &str = "registry.example/acme/network/1";

async fn refusal(bed: &Bed, path: &str, failure: Failure, part: &str) {
    let error = bed.refused(path).await;
    assert_eq!(error.failure, failure, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(bed.registry.log().is_empty(), "nothing was sent: {error}");
}

#[tokio::test]
async fn names_that_cannot_be_tags_or_repositories_are_refused() {
    for (path, part) in [
        ("registry.example/acme/Network/1", "not a repository name"),
        ("registry.example/acme/network/.hidden", "not a tag"),
        ("registry.example/1.0", "no repository"),
        ("registry.example/acme/x@sha256:0", "cannot be chosen"),
    ] {
        let bed = Bed::new();
        bed.write(&format!("{path}/main.tf"), "x");
        refusal(&bed, path, Failure::Invalid, part).await;
    }
}

#[tokio::test]
async fn an_empty_stage_is_refused() {
    let bed = Bed::new();
    fs::create_dir_all(bed.path(&format!("{ROOT}/sub"))).unwrap();
    refusal(&bed, &format!("{ROOT}/sub"), Failure::Invalid, "holds no file").await;
    bed.write(&format!("{ROOT}/.terraformignore"), "*\n");
    bed.write(&format!("{ROOT}/.terraform/x"), "x");
    refusal(&bed, "registry.example", Failure::Invalid, "holds no file").await;
}

#[tokio::test]
async fn another_registry_is_no_destination() {
    let bed = Bed::new();
    bed.write("other.example/acme/network/1/main.tf", "x");
    refusal(&bed, "other.example", Failure::ReadOnly, "no source of this mount").await;
}

/// L07: links are read through the descriptor of the tree.
#[tokio::test]
async fn links_inside_are_followed_and_links_out_are_refused() {
    let bed = Bed::new();
    bed.write(&format!("{ROOT}/real/main.tf"), "x");
    symlink("real/main.tf", bed.path(&format!("{ROOT}/file.tf"))).unwrap();
    symlink("real", bed.path(&format!("{ROOT}/dir"))).unwrap();
    symlink("../dir/main.tf", bed.path(&format!("{ROOT}/real/again.tf"))).unwrap();
    for (target, part) in [
        ("/etc/hostname", "leads out of the tree"),
        ("../../../../../etc", "leads out of the tree"),
        ("nowhere", "link to nothing"),
        ("bad", "back to itself"),
        (".", "has no end"),
        ("/proc/self/root", "leads out of the tree"),
    ] {
        let bad = bed.path(&format!("{ROOT}/bad"));
        symlink(target, &bad).unwrap();
        refusal(&bed, ROOT, Failure::Invalid, part).await;
        fs::remove_file(bad).unwrap();
    }
    let done = bed.committed(ROOT).await;
    let manifest = bed.registry.document("acme/network", done.digest);
    let Ok(crate::artifact::Release::Module(layer)) = crate::artifact::Release::read(&manifest)
    else {
        panic!()
    };
    let zip = bed.registry.stored("acme/network", layer.digest);
    let members = crate::archive::index(&zip, &crate::archive::Limits::default()).unwrap();
    // file.tf, and main.tf and again.tf in both real and dir.
    assert_eq!(members.file_count(), 5);
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let bed = Bed::new();
    bed.write(&format!("{ROOT}/main.tf"), "x");
    let pipe = bed.path(&format!("{ROOT}/pipe"));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    refusal(&bed, ROOT, Failure::Invalid, "neither a file nor a directory").await;
    bed.write(&format!("{ROOT}/.terraformignore"), "pipe\n");
    bed.committed(ROOT).await;
}

/// L08
#[tokio::test]
async fn a_hard_link_to_the_file_of_somebody_else_is_refused() {
    let bed = Bed::new();
    bed.write(&format!("{ROOT}/main.tf"), "x");
    let file = bed.path(&format!("{ROOT}/main.tf"));
    fs::hard_link(&file, bed.dir.path().join("elsewhere")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        refusal(&bed, ROOT, Failure::Denied, "belongs to another user").await;
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    } else {
        skip("only root can make a file of somebody else");
    }
    bed.committed(ROOT).await;
}

#[tokio::test]
async fn a_name_that_no_lock_file_can_hash_is_refused() {
    let bed = Bed::new();
    bed.write(&format!("{ROOT}/a\nb"), "x");
    refusal(&bed, ROOT, Failure::Structure, "a\\nb").await;
}

#[tokio::test]
async fn annotations_come_from_the_request_or_from_a_file() {
    let bed = Bed::new();
    bed.write(&format!("{ROOT}/main.tf"), "x");
    bed.write(&format!("{ROOT}/.oci-annotations.json"), "{\"a\": 1}");
    refusal(&bed, ROOT, Failure::Invalid, "no JSON object of texts").await;
    bed.write(&format!("{ROOT}/.oci-annotations.json"), "{\"a\": \"file\", \"b\": \"file\"}");
    let annotations = BTreeMap::from([("b".to_owned(), "asked".to_owned())]);
    let done = bed
        .stage
        .commit(&staged(ROOT), CommitRequest { annotations, ..CommitRequest::default() })
        .await
        .unwrap();
    let manifest = bed.registry.document("acme/network", done[0].digest);
    let told: Vec<_> = manifest.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(told, ["a=file", "b=asked"]);
}

#[test]
fn a_tree_that_changes_while_it_is_read_is_noticed() {
    use crate::archive::{EntryContents, Limits};
    use tree::{DIRECTORY, StagedTree};

    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write("a", "1");
    write("b", "2");
    let read = || {
        let root = rustix::fs::open(dir.path(), DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        StagedTree::read(root, "x", &Limits::default()).unwrap()
    };
    let changes: [(&str, &dyn Fn()); 5] = [
        ("x/b", &|| write("b", "other")),
        ("x/c", &|| write("c", "new")),
        ("x/a", &|| fs::remove_file(dir.path().join("a")).unwrap()),
        ("x/b", &|| {
            fs::set_permissions(
                dir.path().join("b"),
                std::os::unix::fs::PermissionsExt::from_mode(0o700),
            )
            .unwrap()
        }),
        ("x/b", &|| {
            fs::rename(dir.path().join("c"), dir.path().join("b")).unwrap();
        }),
    ];
    for (name, change) in changes {
        let tree = read();
        tree.check_unchanged().unwrap();
        change();
        let error = tree.check_unchanged().unwrap_err();
        assert_eq!(error.failure, Failure::Busy);
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let tree = read();
    let mut open = tree.open(0).unwrap();
    write("b", "again");
    let error = std::io::read_to_string(&mut open).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn a_crash_leaves_no_temporary_record_and_no_half_of_one() {
    let bed = Bed::new();
    let journal = bed.dir.path().join(JOURNAL);
    fs::write(journal.join("0123.tmp"), "{").unwrap();
    fs::write(journal.join("junk.json"), "{").unwrap();
    let stage = Bed::stage(bed.dir.path(), &bed.registry);
    assert!(stage.staged().unwrap().is_empty() && !journal.join("0123.tmp").exists());
}
