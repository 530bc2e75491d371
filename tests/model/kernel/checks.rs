//! What may be true at a moment, and whether an answer is.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use tofufs::digest::Digest;
use tofufs::fs::{Errno, FsError};
use tofufs::name::is_passage;

use super::{Kernel, Package, Thing, is_repo, join};
use crate::truth::{Files, HOST, Moment, Shape, TAGS, children, nested};

impl Kernel {
    /// The earliest moment from which an answer may be.
    pub(super) fn since(&self) -> Moment {
        if self.tag_ttl.is_zero() && !self.trouble { self.now } else { self.oldest }
    }

    pub(super) fn stood(&self, repo: &str, tag: &str, since: Moment) -> BTreeSet<Option<Digest>> {
        self.history.stood(repo, tag, since)
    }

    pub(super) fn shape(&self, digest: Digest) -> &Shape {
        &self
            .known
            .iter()
            .find(|k| k.artifact.digest() == digest)
            .expect("a manifest of the registry")
            .shape
    }

    pub(super) fn files(&self, (digest, platform): &Package) -> &Files {
        match (self.shape(*digest), platform) {
            (Shape::Module(files), None) => files,
            (Shape::Provider(platforms), Some(platform)) => &platforms[platform].1,
            _ => panic!("no package"),
        }
    }

    /// Whether the archive is in the cache for sure, with no failure remembered.
    pub(super) fn is_fetched(&self, package: &Package) -> bool {
        self.fetched.get(package).is_some_and(|at| *at > self.disturbed)
    }

    /// A failure that is no absence has to have a reason.
    #[track_caller]
    pub(super) fn excuse(&self, what: &str, error: &FsError) {
        assert!(self.trouble, "{what}: {error:?}, though the registry answers");
        let allowed = [Errno::EHOSTUNREACH, Errno::EACCES];
        assert!(allowed.contains(&error.errno), "{what}: {error:?} for a registry that is away");
    }

    /// An answer about a name in a space.
    pub(super) fn check_named(
        &mut self,
        space: Option<&str>,
        name: &str,
        path: &str,
        found: Result<Option<u64>, &FsError>,
    ) {
        let since = self.since();
        let (stood, is_real, may_pass) = match name.split_once(['@', ':']) {
            Some((repo, selector)) if selector.contains(':') => {
                let mut stood = BTreeSet::from([selector.parse::<Digest>().ok()]);
                // A digest is the name of the bytes: what is cached is not asked for in another
                // repository.
                stood.extend((!is_repo(&join(space, repo))).then_some(None));
                (stood, false, false)
            }
            Some((repo, _)) if !is_repo(&join(space, repo)) => {
                (BTreeSet::from([None]), false, false)
            }
            Some((repo, tag)) => (self.stood(&join(space, repo), tag, since), false, false),
            None => {
                let stood = match space.filter(|s| is_repo(s)) {
                    Some(repo) => self.stood(repo, name, since),
                    None => BTreeSet::from([None]),
                };
                let passes = is_passage(name)
                    && !space.is_some_and(is_repo)
                    && !self.fake.state().has_catalog;
                (stood, nested(space).contains(name), passes)
            }
        };
        let may_be_release = stood.iter().any(Option::is_some);
        let must_be_there = is_real || !stood.contains(&None) || may_pass;
        let required = self.is_required(space, name, path);
        match found {
            Ok(Some(ino)) if self.reference(ino).is_some() => {
                assert!(may_be_release, "{path}: a release, but there was no such tag");
                if let Some(digest) = self.digest(ino) {
                    assert!(
                        stood.contains(&Some(digest)),
                        "{path}: bound to {digest}, for which it did not stand"
                    );
                }
                if !self.trouble {
                    self.seen.insert(path.to_owned(), self.now);
                    // Its repository was asked about, so it is known from now on.
                    if let (Some(space), false) = (path.rsplit_once('/'), name.contains('@')) {
                        self.seen.insert(space.0.to_owned(), self.now);
                    }
                }
            }
            Ok(Some(_)) => {
                let passes = may_pass || self.denied && is_passage(name);
                assert!(is_real || passes, "{path}: a directory, but there is no such repository");
                // A passage too: what a name is does not change with an outage.
                if !self.trouble {
                    self.seen.insert(path.to_owned(), self.now);
                }
            }
            Ok(None) => {
                assert!(!must_be_there, "{path}: absent, though the registry never said so");
                assert!(!required, "{path}: absent, though it was seen before the outage");
            }
            Err(e) => {
                self.excuse(path, e);
                assert!(!required, "{path}: {e:?}, though it was seen before the outage");
            }
        }
    }

    /// Whether a name was seen before the outage, so that it has to be there.
    pub(super) fn is_required(&self, space: Option<&str>, name: &str, path: &str) -> bool {
        let Some(at) = self.seen.get(path) else { return false };
        if !self.is_away() || self.denied {
            return false;
        }
        let stood_since = |repo: &str, tag: &str| !self.stood(repo, tag, *at).contains(&None);
        match name.split_once(['@', ':']) {
            Some((_, selector)) if selector.contains(':') => self.disturbances == 0,
            Some((repo, tag)) => stood_since(&join(space, repo), tag),
            None => {
                nested(space).contains(name) || space.is_some_and(|repo| stood_since(repo, name))
            }
        }
    }

    /// The release or space that `name` spells.
    pub(super) fn named(&self, space: Option<&str>, name: &str, is_release: bool) -> Thing {
        match name.split_once(['@', ':']) {
            _ if !is_release => Thing::Space(Some(join(space, name))),
            None => Thing::Release {
                repo: space.unwrap().to_owned(),
                tag: Some(name.to_owned()),
                digest: None,
            },
            Some((repo, selector)) => {
                let digest = selector.parse().ok();
                let tag = digest.is_none().then(|| selector.to_owned());
                Thing::Release { repo: join(space, repo), tag, digest }
            }
        }
    }

    pub(super) fn attribute(&self, ino: u64, name: &str) -> Option<String> {
        let value = self.fs.getxattr(ino, OsStr::new(name));
        value.ok().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    pub fn reference(&self, ino: u64) -> Option<String> {
        self.attribute(ino, "user.oci.reference")
    }

    pub(super) fn digest(&self, ino: u64) -> Option<Digest> {
        self.attribute(ino, "user.oci.digest").map(|text| text.parse().unwrap())
    }

    /// The manifest to which a release's directory is bound: one for which its name stood, and
    /// never another one.
    pub(super) fn bound(&mut self, ino: u64) -> Option<Digest> {
        let now = self.digest(ino);
        let held = &self.held[&ino];
        if let Thing::Release { repo, tag, digest } = &held.thing {
            assert!(
                held.bound.is_none() || held.bound == now,
                "{}: bound to a second manifest",
                held.path
            );
            if let Some(now) = now {
                let allowed = match tag {
                    Some(tag) => self.stood(repo, tag, held.window),
                    None => BTreeSet::from([*digest]),
                };
                assert!(
                    allowed.contains(&Some(now)),
                    "{}: bound to {now} of another time",
                    held.path
                );
            }
        }
        self.held.get_mut(&ino).unwrap().bound = now;
        now
    }

    /// Whether a release's directory could not be bound, since the registry said that the tag is
    /// gone.
    pub(super) fn may_be_unbound(&mut self, ino: u64) -> bool {
        let bound = self.bound(ino);
        match &self.held[&ino].thing {
            Thing::Release { repo, tag: Some(tag), .. } => {
                bound.is_none() && self.stood(repo, tag, self.since()).contains(&None)
            }
            _ => false,
        }
    }

    /// What `name` has to be in a directory inside a release, as far as that is bound.
    pub(super) fn child(&mut self, parent: u64, name: &str) -> Option<Thing> {
        let in_package = |kernel: &Kernel, package: Package, dir: &str| {
            let is_dir = *children(kernel.files(&package), dir).get(name)?;
            let path = join(Some(dir).filter(|d| !d.is_empty()), name);
            Some(if is_dir { Thing::Dir(package, path) } else { Thing::File(package, path) })
        };
        match self.held[&parent].thing.clone() {
            Thing::Root => (name == HOST).then_some(Thing::Space(None)),
            Thing::Release { .. } => {
                let digest = self.bound(parent)?;
                match self.shape(digest) {
                    Shape::Refused => None,
                    Shape::Module(_) => in_package(self, (digest, None), ""),
                    Shape::Provider(platforms) => {
                        let platform = name.trim_end_matches(".zip");
                        platforms.get(platform)?;
                        let package = (digest, Some(platform.to_owned()));
                        Some(if name.ends_with(".zip") {
                            Thing::Zip(package)
                        } else {
                            Thing::Platform(package)
                        })
                    }
                }
            }
            Thing::Platform(package) => in_package(self, package, ""),
            Thing::Dir(package, dir) => in_package(self, package, &dir),
            Thing::Space(_) | Thing::Zip(_) | Thing::File(..) => None,
        }
    }

    /// A failure of entering a release or a platform.
    pub(super) fn check_entering(&mut self, ino: u64, thing: &Thing, path: &str, error: &FsError) {
        if matches!(thing, Thing::File(..) | Thing::Zip(_)) {
            return assert_eq!(error.errno, Errno::ENOTDIR, "{path}");
        }
        assert!(matches!(thing, Thing::Release { .. } | Thing::Platform(_)), "{path}: {error:?}");
        let bound = self.bound(ino);
        if error.errno == Errno::EBADMSG {
            let refused = bound.is_some_and(|digest| matches!(self.shape(digest), Shape::Refused));
            return assert!(refused, "{path}: {error:?}");
        }
        if error.errno == Errno::ENOENT {
            return assert!(self.may_be_unbound(ino), "{path}: {error:?}");
        }
        self.excuse(path, error);
        if let (Thing::Release { repo, tag, .. }, Some((digest, at))) =
            (thing, self.entered.get(&self.held[&ino].path))
        {
            let same = tag
                .as_ref()
                .is_none_or(|tag| self.stood(repo, tag, *at) == BTreeSet::from([Some(*digest)]));
            let required = self.is_away() && !self.denied && self.disturbances == 0 && same;
            assert!(!required, "{path}: {error:?}, though it was entered before the outage");
        }
    }

    pub(super) fn check_names(
        &mut self,
        ino: u64,
        thing: &Thing,
        path: &str,
        names: &BTreeSet<String>,
    ) {
        let of_package =
            |files: &Files, dir: &str| children(files, dir).into_keys().collect::<BTreeSet<_>>();
        let expected = match thing {
            Thing::Root => BTreeSet::from([HOST.to_owned()]),
            Thing::Space(space) => return self.check_space_names(space.as_deref(), path, names),
            Thing::Release { .. } => {
                match (self.bound(ino), self.bound(ino).map(|d| self.shape(d))) {
                    (_, Some(Shape::Module(files))) => of_package(files, ""),
                    (_, Some(Shape::Provider(platforms))) => {
                        platforms.keys().flat_map(|p| [p.clone(), format!("{p}.zip")]).collect()
                    }
                    _ => panic!("{path}: lists what is refused or unbound"),
                }
            }
            Thing::Platform(package) => of_package(self.files(package), ""),
            Thing::Dir(package, dir) => of_package(self.files(package), dir),
            Thing::Zip(_) | Thing::File(..) => panic!("{path}: a file was listed"),
        };
        assert_eq!(*names, expected, "{path}");
    }

    pub(super) fn check_space_names(
        &self,
        space: Option<&str>,
        path: &str,
        names: &BTreeSet<String>,
    ) {
        let repo = space.filter(|s| is_repo(s));
        let stood = |tag: &str| {
            repo.map_or(BTreeSet::from([None]), |repo| self.stood(repo, tag, self.since()))
        };
        for tag in TAGS.iter().filter(|_| !self.denied) {
            assert!(
                stood(tag).contains(&None) || names.contains(*tag),
                "{path}: does not list {tag}"
            );
        }
        for name in names {
            let is_tag = stood(name).iter().any(Option::is_some);
            assert!(
                is_tag || nested(space).contains(name),
                "{path}: lists {name}, which never was"
            );
        }
        if repo.is_none() && self.fake.state().has_catalog && !self.trouble {
            assert!(names.is_superset(&nested(space)), "{path}: lists {names:?} alone");
        }
    }

    pub fn check(&self) {
        assert_eq!(
            self.fs.report().inodes,
            self.held.len(),
            "inodes that the kernel does not hold, or lacks"
        );
        for (digest, downloads) in &self.fake.state().downloads {
            assert!(
                *downloads <= 1 + self.disturbances,
                "{digest} was downloaded {downloads} times"
            );
        }
    }
}
