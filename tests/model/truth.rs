//! What is true of the registry, and was: every expectation is derived from here.

use std::collections::{BTreeMap, BTreeSet};

use tofufs::digest::Digest;

use crate::pack::{self, Artifact};

pub const HOST: &str = "r.test";
/// `a/b` can be reached as a repository, and be hidden by the tag `b` of `a`.
pub const REPOS: [&str; 3] = ["a", "a/b", "p"];
pub const TAGS: [&str; 3] = ["1", "b", "2.X"];

/// The files of a package: path → content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// An artifact and what a mount has to make of it.
pub struct Known {
    pub artifact: Artifact,
    pub shape: Shape,
}

pub enum Shape {
    Module(Files),
    /// Platform → zip and files.
    Provider(BTreeMap<String, (Vec<u8>, Files)>),
    /// It is no package: entering gives EBADMSG.
    Refused,
}

fn files(list: &[(&str, &[u8])]) -> Files {
    list.iter()
        .map(|(name, bytes)| (name.trim_end_matches('!').to_owned(), bytes.to_vec()))
        .collect()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// Two modules of the same names, one with a member that is unpacked into the store, a provider,
/// and no package.
pub fn artifacts() -> Vec<Known> {
    let module = |list: &[(&str, &[u8])]| Known {
        artifact: pack::module(list),
        shape: Shape::Module(files(list)),
    };
    let (middle, big) = (noise(100_000, 1), noise(600_000, 2));
    let packages: Vec<(&str, Vec<u8>)> = ["darwin_arm64", "linux_amd64"]
        .map(|p| (p, pack::provider_zip("x", "1", p.as_bytes())))
        .into();
    let platforms = packages.iter().map(|(p, zip)| {
        let list =
            files(&[("terraform-provider-x_v1!", p.as_bytes()), ("README.md", b"a provider\n")]);
        ((*p).to_owned(), (zip.clone(), list))
    });
    vec![
        module(&[("f", b"one"), ("d/g", b"one more"), ("d/e/h", b"")]),
        module(&[("f", b"two"), ("d/g", b"two more"), ("m", &middle)]),
        module(&[("f", b"three"), ("big", &big), ("big2", &big[1..])]),
        Known {
            artifact: pack::provider_of(&packages),
            shape: Shape::Provider(platforms.collect()),
        },
        Known { artifact: pack::module_of(b"no zip".to_vec()), shape: Shape::Refused },
    ]
}

/// Steps of a test are its clock.
pub type Moment = usize;

/// When a tag began to stand for what.
type Changes = Vec<(Moment, Option<Digest>)>;

/// For what each tag stood, from the beginning on.
#[derive(Default)]
pub struct History(BTreeMap<(String, String), Changes>);

impl History {
    pub fn set(&mut self, repo: &str, tag: &str, now: Moment, digest: Option<Digest>) {
        self.0
            .entry((repo.to_owned(), tag.to_owned()))
            .or_insert_with(|| vec![(0, None)])
            .push((now, digest));
    }

    /// For what a tag stood at some moment from `since` on.
    pub fn stood(&self, repo: &str, tag: &str, since: Moment) -> BTreeSet<Option<Digest>> {
        let Some(changes) = self.0.get(&(repo.to_owned(), tag.to_owned())) else {
            return BTreeSet::from([None]);
        };
        let before = changes.iter().rposition(|(at, _)| *at <= since).unwrap_or(0);
        changes[before..].iter().map(|(_, digest)| *digest).collect()
    }
}

/// The names directly below `dir` (empty: the top) in a package, and whether each is a directory.
pub fn children(files: &Files, dir: &str) -> BTreeMap<String, bool> {
    let below = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    let rest = files.keys().filter_map(|path| path.strip_prefix(&below));
    rest.map(|rest| match rest.split_once('/') {
        Some((dir, _)) => (dir.to_owned(), true),
        None => (rest.to_owned(), false),
    })
    .collect()
}

/// The names directly below a space among the repositories.
pub fn nested(space: Option<&str>) -> BTreeSet<String> {
    let below = space.map(|s| format!("{s}/")).unwrap_or_default();
    REPOS
        .iter()
        .filter_map(|r| r.strip_prefix(&below))
        .map(|rest| rest.split('/').next().unwrap().to_owned())
        .collect()
}
