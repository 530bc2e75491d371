//! Archives by case of the catalogue of hostile inputs (Z01 to Z60), all made by a writer that can
//! lie, and archives of the tools that people use. `tests/inputs` compares them with what
//! OpenTofu's own extractor makes.

mod build;
mod content;
mod flips;
mod names;
mod stream;
mod structure;
mod tools;
mod write;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use super::{ArchiveError, Class, Limits, extract, index, inflate};
use crate::members::{Child, DirNo, MemberFile, Members, TOP};

/// A tree by path: `None` for directories.
type Tree = BTreeMap<Vec<u8>, Option<MemberFile>>;

fn walk(members: &Members, dir: DirNo, above: &[u8], tree: &mut Tree) {
    for (name, child) in members.children(dir) {
        let path = [above, name.as_bytes()].concat();
        match child {
            Child::File(no) => drop(tree.insert(path, Some(*members.file(no)))),
            Child::Dir(no) => {
                walk(members, no, &[&path[..], b"/"].concat(), tree);
                tree.insert(path, None);
            }
        }
    }
}

fn tree(zip: &[u8]) -> Result<Tree, ArchiveError> {
    tree_within(zip, &Limits::default())
}

fn tree_within(zip: &[u8], limits: &Limits) -> Result<Tree, ArchiveError> {
    let members = index(&zip, limits)?;
    let mut tree = Tree::new();
    walk(&members, TOP, b"", &mut tree);
    Ok(tree)
}

/// The content of a member, by both ways, which must agree.
fn content(zip: &[u8], file: &MemberFile) -> Result<Vec<u8>, ArchiveError> {
    let mut streamed = Vec::new();
    let extracted = extract(&zip, file, &mut streamed);
    match (extracted, inflate(&zip, file)) {
        (Ok(()), Ok(whole)) => {
            assert_eq!(streamed, whole);
            Ok(whole)
        }
        (Err(error), Err(other)) => {
            assert_eq!(class(&error), class(&other));
            Err(error)
        }
        (a, b) => panic!("the two ways disagree: {a:?} and {b:?}"),
    }
}

/// Paths with their content; directories end with a slash.
type Contents = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

/// Every path with its content and executable bit. What streams out of the same bytes must be no
/// other content.
fn contents(zip: &[u8]) -> Result<Contents, ArchiveError> {
    stream::agrees(zip);
    tree(zip)?
        .into_iter()
        .map(|(mut path, file)| match file {
            Some(file) => Ok((path, (content(zip, &file)?, file.executable))),
            None => {
                path.push(b'/');
                Ok((path, (Vec::new(), true)))
            }
        })
        .collect()
}

/// The paths of an archive that is accepted, directories with a slash.
#[track_caller]
fn paths(zip: &[u8]) -> Vec<String> {
    let paths = contents(zip).unwrap_or_else(|error| panic!("{error}")).into_keys();
    paths.map(|path| String::from_utf8_lossy(&path).into_owned()).collect()
}

fn class(error: &ArchiveError) -> &'static str {
    match error.class() {
        Class::Structure => "structure",
        Class::TooLarge => "too large",
        Class::Unsupported => "unsupported",
        Class::Integrity => "integrity",
        Class::Read(_) => "read",
        Class::Write(_) => "write",
    }
}

/// The refusal of an archive, which must be of the class `expected`.
#[track_caller]
fn refused(zip: &[u8], expected: &str) -> String {
    let error = tree(zip).map(|tree| tree.len()).expect_err("refused");
    assert_eq!(class(&error), expected, "{error}");
    error.to_string()
}

/// The refusal must mention `rule`, so that a case is not refused for another reason than its own.
#[track_caller]
fn refused_for(zip: &[u8], rule: &str) {
    let text = refused(zip, "structure");
    assert!(text.contains(rule), "{text}");
}

#[track_caller]
fn unsupported_for(zip: &[u8], rule: &str) {
    let text = refused(zip, "unsupported");
    assert!(text.contains(rule), "{text}");
}
