//! Forms of archives that packers write and that are rare: each is the tree that OpenTofu's
//! extractor makes of it, to the reader and in a mount.

use std::collections::BTreeMap;
use std::io::Write;

use crate::build::{Archive, Entry, Wide, entry};
use crate::opentofu::{OpenTofu, receive, send};
use crate::support::mount::{Mount, Options};
use crate::support::{layouts, pack};
use crate::tree::{Tree, on_disk, shown};

const HOST: &str = "reg.example";

/// The archive of a module, each file of which is written in one form.
fn module(form: impl Fn(&mut Entry)) -> Archive {
    let text = b"variable \"name\" {}\n".repeat(40);
    let mut entries = vec![
        entry(b"main.tf", &text, 8),
        entry(b"stored.tf", b"# as it is\n", 0),
        entry(b"empty.tf", b"", 0),
        entry(b"modules/run.sh", b"#!/bin/sh\n", 8),
    ];
    entries[3].attributes = 0o100_755 << 16;
    entries.iter_mut().for_each(form);
    let mut archive = Archive::of(entries);
    archive.wide = Some(Wide { marked: [false; 4], disks: 1, length: 44, ..Wide::default() });
    archive
}

/// The archives by the name of what is special about them.
fn archives() -> BTreeMap<&'static str, Vec<u8>> {
    let room = |length| module(move |entry| entry.keep_room(length)).bytes();
    BTreeMap::from([
        ("whole-field", module(Entry::always_wide).bytes()),
        ("room-16", room(16)),
        ("room-28", room(28)),
        ("marked-descriptor", module(|entry| entry.mark_descriptor(true)).bytes()),
        ("marked-unsigned-descriptor", module(|entry| entry.mark_descriptor(false)).bytes()),
    ])
}

/// What OpenTofu makes of each, or `None` where it cannot be asked.
fn unpacked(zips: &BTreeMap<&'static str, Vec<u8>>) -> Option<BTreeMap<&'static str, Tree>> {
    let (_process, mut input, mut output) = OpenTofu::start()?;
    let mut trees = BTreeMap::new();
    for (name, zip) in zips {
        send(&mut input, zip).expect("the extractor reads");
        input.flush().expect("the extractor reads");
        let tree = receive(&mut output).expect("an answer");
        trees.insert(
            *name,
            tree.unwrap_or_else(|error| panic!("{name}: OpenTofu refuses it: {error}")),
        );
    }
    Some(trees)
}

#[test]
fn rare_forms_of_packers_are_the_tree_that_opentofu_unpacks() {
    let zips = archives();
    let Some(trees) = unpacked(&zips) else { return };
    for (name, zip) in &zips {
        let ours = shown(zip).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ours.len(), 5, "{name}");
        assert_eq!(ours, trees[name], "{name}");
    }
}

#[test]
fn a_mount_shows_rare_forms_of_packers_as_opentofu_unpacks_them() {
    let zips = archives();
    let Some(trees) = unpacked(&zips) else { return };
    let store = tempfile::tempdir().expect("a temporary directory");
    for (name, zip) in &zips {
        layouts::add(store.path(), HOST, "acme/module", name, &pack::module_of(zip.clone()));
    }
    let source = format!("oci:{}", store.path().display());
    let Some(mount) = Mount::start(&[source], Options::new()) else { return };
    for name in zips.keys() {
        let seen = on_disk(&mount.join(format!("{HOST}/acme/module/{name}")));
        assert_eq!(seen.as_ref(), Ok(&trees[name]), "{name}");
    }
}
