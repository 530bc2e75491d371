//! Trees on a real disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

fn name(text: &str) -> Name {
    Name::new(text.as_ref()).unwrap()
}

fn me() -> Maker {
    Maker { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

const BOTH: Access = Access { read: true, write: true };

#[test]
fn a_name_is_one_component() {
    for bad in ["", ".", "..", "a/b", "/", "a\0"] {
        assert_eq!(Name::new(bad.as_ref()), Err(Errno::INVAL), "{bad:?}");
    }
    for good in ["...", ".git", "-rf", "a b", "\n"] {
        assert!(Name::new(good.as_ref()).is_ok());
    }
}

// L07
#[test]
fn nothing_leads_out_of_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("top/real")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    symlink("..", dir.path().join("top/up")).unwrap();
    symlink("../secret", dir.path().join("top/file")).unwrap();
    let tree = LocalTree::open(&dir.path().join("top")).unwrap();
    let below = |path: &[&str]| tree.node_at(&path.iter().map(|n| name(n)).collect());
    assert_eq!(tree.find(&below(&["up"]), &name("secret")).unwrap_err(), Errno::LOOP);
    assert_eq!(
        tree.make_dir(&below(&["up"]), &name("made"), 0o755, me()).unwrap_err(),
        Errno::LOOP
    );
    assert_eq!(tree.open_file(&below(&["file"]), Access::READ).unwrap_err(), Errno::LOOP);
    let taken = tree.create(tree.top(), &name("file"), BOTH, 0o644, me()).unwrap_err();
    assert_eq!(taken, Errno::EXIST);
    let cut = Change { size: Some(0), mode: Some(0o777), ..Change::default() };
    assert!(tree.change(&below(&["file"]), &cut, None).is_err());
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "secret");
    assert_eq!(tree.read_link(&below(&["file"])).unwrap(), "../secret");
}

#[test]
fn the_tree_stays_when_its_own_directory_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("top")).unwrap();
    let tree = LocalTree::open(&dir.path().join("top")).unwrap();
    fs::rename(dir.path().join("top"), dir.path().join("moved")).unwrap();
    tree.make_dir(tree.top(), &name("a"), 0o755, me()).unwrap();
    assert!(dir.path().join("moved/a").is_dir());
}

#[test]
fn a_node_keeps_its_place_when_what_is_above_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let tree = LocalTree::open(dir.path()).unwrap();
    let a = TreeNode::below(tree.top(), name("a"));
    tree.make_dir(tree.top(), &name("a"), 0o755, me()).unwrap();
    let (file, _, _) = tree.create(&a, &name("file"), BOTH, 0o644, me()).unwrap();
    let known = || KnownNodes { moved: Some(a.clone()), other: None };
    tree.rename((tree.top(), &name("a")), (tree.top(), &name("b")), How::Replace, known).unwrap();
    assert_eq!(file.path().unwrap().to_os_string(), "b/file");
    assert!(tree.stat(&file).is_ok());
}

#[test]
fn an_exchange_swaps_the_places_of_both_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = LocalTree::open(dir.path()).unwrap();
    let (a, _, _) = tree.create(tree.top(), &name("a"), BOTH, 0o644, me()).unwrap();
    let (b, _, _) = tree.create(tree.top(), &name("b"), BOTH, 0o600, me()).unwrap();
    let known = || KnownNodes { moved: Some(a.clone()), other: Some(b.clone()) };
    tree.rename((tree.top(), &name("a")), (tree.top(), &name("b")), How::Exchange, known).unwrap();
    assert_eq!(
        (a.path().unwrap().to_os_string(), b.path().unwrap().to_os_string()),
        ("b".into(), "a".into())
    );
    assert_eq!(tree.stat(&a).unwrap().st_mode & 0o777, 0o644);
    let again = tree.rename(
        (tree.top(), &name("a")),
        (tree.top(), &name("b")),
        How::NoReplace,
        KnownNodes::default,
    );
    assert_eq!(again, Err(Errno::EXIST));
}

#[test]
fn what_was_removed_is_reached_through_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let tree = LocalTree::open(dir.path()).unwrap();
    let (node, file, _) = tree.create(tree.top(), &name("a"), BOTH, 0o644, me()).unwrap();
    file.write_at(b"abc", 0).unwrap();
    tree.remove(tree.top(), &name("a"), Removal::Unlink, || Some(node.clone())).unwrap();
    tree.create(tree.top(), &name("a"), BOTH, 0o644, me()).unwrap();
    let cut = Change { size: Some(1), mode: Some(0o600), ..Change::default() };
    let stat = tree.change(&node, &cut, None).unwrap();
    assert_eq!((stat.st_size, stat.st_mode & 0o777, stat.st_nlink), (1, 0o600, 0));
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o777, 0o644);
    let again = tree.open_file(&node, Access::READ).unwrap();
    let mut read = [0; 8];
    assert_eq!((again.read_at(&mut read, 0).unwrap(), read[0]), (1, b'a'));
    drop((file, again));
    assert_eq!(tree.stat(&node).unwrap_err(), Errno::NOENT);
}

#[test]
fn modes_are_those_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tree = LocalTree::open(dir.path()).unwrap();
    for mode in [0o000, 0o777, 0o1777, 0o4755] {
        let directory = name(&format!("d{mode:o}"));
        let file = name(&format!("f{mode:o}"));
        assert_eq!(
            tree.make_dir(tree.top(), &directory, mode, me()).unwrap().st_mode & 0o7777,
            mode
        );
        let (_, _, stat) = tree.create(tree.top(), &file, BOTH, mode, me()).unwrap();
        assert_eq!(stat.st_mode & 0o7777, mode);
    }
}

/// A path may be longer than the system resolves at once.
#[test]
fn a_tree_may_be_deeper_than_a_path_is_long() {
    let dir = tempfile::tempdir().unwrap();
    let tree = LocalTree::open(dir.path()).unwrap();
    let long = name(&"d".repeat(200));
    let mut at = tree.top().clone();
    for _ in 0..50 {
        tree.make_dir(&at, &long, 0o755, me()).unwrap();
        at = TreeNode::below(&at, long.clone());
    }
    let (file, _, _) = tree.create(&at, &name("file"), BOTH, 0o644, me()).unwrap();
    assert!(file.path().unwrap().to_os_string().len() > 10_000);
    assert!(tree.stat(&file).is_ok() && tree.list(&at).unwrap() == [name("file")]);
    let up = file.path().unwrap().split_last().unwrap().0;
    assert!(file.path().unwrap().is_within(&up) && !up.is_within(&file.path().unwrap()));
}
