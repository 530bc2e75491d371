//! Trees, as they are compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tofufs::archive::{ArchiveError, Limits, extract, index, inflate};
use tofufs::digest::{Algorithm, Hasher};
use tofufs::members::{Child, DirNo, MemberFile, Members, TOP};

/// What a path is: whether a file's owner may execute it, its size and digest. What tofufs shows
/// differently on purpose is no part of it: other permissions, set-id bits, owner and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    Dir,
    File {
        executable: bool,
        size: u64,
        sha256: String,
    },
    /// What no archive may make.
    Other(String),
}

/// Nodes by path, which is written in hexadecimal digits.
pub type Tree = BTreeMap<String, Node>;

/// Reads a line of what `unzip/main.go` writes.
pub fn parse(line: &str) -> (String, Node) {
    let parts: Vec<&str> = line.split(' ').collect();
    let [kind, mode, size, sum, name] = parts[..] else { panic!("no line of a tree: {line}") };
    let executable = u32::from_str_radix(mode, 8).expect("a mode") & 0o100 != 0;
    let node = match kind {
        "dir" => Node::Dir,
        "file" => {
            Node::File { executable, size: size.parse().expect("a size"), sha256: sum.into() }
        }
        _ => Node::Other(line.into()),
    };
    (name.into(), node)
}

/// The tree that tofufs shows, if every file of it can be read.
pub fn shown(zip: &[u8]) -> Result<Tree, ArchiveError> {
    shown_within(zip, &Limits::default())
}

/// The same of an archive that has to keep to these limits.
pub fn shown_within(zip: &[u8], limits: &Limits) -> Result<Tree, ArchiveError> {
    let members = index(&zip, limits)?;
    let mut tree = Tree::new();
    let mut pending = vec![(TOP, Vec::new())];
    while let Some((dir, path)) = pending.pop() {
        pending.extend(directory(zip, &members, dir, &path, &mut tree)?);
    }
    Ok(tree)
}

type Below = Vec<(DirNo, Vec<u8>)>;

fn directory(
    zip: &[u8],
    members: &Members,
    dir: DirNo,
    above: &[u8],
    tree: &mut Tree,
) -> Result<Below, ArchiveError> {
    let mut below = Vec::new();
    for (name, child) in members.children(dir) {
        let path = [above, name.as_bytes()].concat();
        let node = match child {
            Child::Dir(no) => {
                below.push((no, [&path[..], b"/"].concat()));
                Node::Dir
            }
            Child::File(no) => {
                let file = members.file(no);
                Node::File {
                    executable: file.executable,
                    size: file.size,
                    sha256: sha256(&content(zip, file)?),
                }
            }
        };
        tree.insert(hex(&path), node);
    }
    Ok(below)
}

/// What a reader of the file gets, by both ways to read it.
fn content(zip: &[u8], file: &MemberFile) -> Result<Vec<u8>, ArchiveError> {
    // The kernel asks for no bytes of a file whose size is 0.
    if file.size == 0 {
        return Ok(Vec::new());
    }
    let (mut streamed, whole) = (Vec::new(), inflate(&zip, file));
    let extracted = extract(&zip, file, &mut streamed);
    assert_eq!(extracted.is_ok(), whole.is_ok(), "the two ways to read differ: {extracted:?}");
    extracted?;
    assert!(whole? == streamed, "the two ways to read give different bytes");
    Ok(streamed)
}

/// What `dir` holds, or why it cannot be read.
pub fn on_disk(dir: &Path) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let mut pending = vec![(dir.to_owned(), Vec::new())];
    while let Some((dir, above)) = pending.pop() {
        let tell = |error| format!("{}: {error}", dir.display());
        for found in fs::read_dir(&dir).map_err(tell)? {
            let found = found.map_err(tell)?;
            let path = [&above[..], found.file_name().as_bytes()].concat();
            let meta = found.metadata().map_err(tell)?;
            let node = if meta.is_dir() {
                pending.push((found.path(), [&path[..], b"/"].concat()));
                Node::Dir
            } else {
                let content = fs::read(found.path()).map_err(tell)?;
                let executable = meta.permissions().mode() & 0o100 != 0;
                Node::File { executable, size: meta.len(), sha256: sha256(&content) }
            };
            tree.insert(hex(&path), node);
        }
    }
    Ok(tree)
}

pub fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    let digest = hasher.finish().to_string();
    digest.trim_start_matches("sha256:").to_owned()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
