//! Checking the whole cache, as `tofufs cache verify` does.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::layout::CacheLayout;
use super::object::{Object, ObjectContent, ObjectInner};
use super::{Key, Store, fill, walk};

/// What [`Store::verify`] found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StoreVerified {
    /// How many objects were read and checked.
    pub checked: u64,
    /// What was not as it has to be, with the rule that it broke. It is quarantined.
    pub bad: Vec<(Key, String)>,
    /// How many were not looked at, since the caller broke off.
    pub left: u64,
}

impl Store {
    /// Reads and checks everything: blobs against their digests, members against their checksums.
    /// `progress` is told the space of what was checked and of all, in bytes, after each object,
    /// and may break off.
    pub fn verify(
        self: &Arc<Self>,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> StoreVerified {
        let found = walk::walk(&self.layout());
        let (objects, total) = (found.len() as u64, found.iter().map(|found| found.bytes).sum());
        let (mut done, mut verified) = (0, StoreVerified::default());
        for object in found {
            verified.checked += 1;
            if let Err(rule) = self.verify_one(&object.key) {
                verified.bad.push((object.key, rule));
            }
            done += object.bytes;
            if progress(done, total).is_break() {
                break;
            }
        }
        verified.left = objects - verified.checked;
        verified
    }

    fn verify_one(self: &Arc<Self>, key: &Key) -> Result<(), String> {
        let layout = self.layout();
        let there = |layout: &CacheLayout| {
            layout.shard(key).is_ok_and(|dir| dir.stat(&key.file_name()).is_ok())
        };
        if !there(&layout) {
            return Ok(());
        }
        // Loaded anew: an object that is open already may be another file than the one on disk.
        let Some((content, _)) = self.load(key).map_err(|error| error.to_string())? else {
            return if there(&layout) {
                Ok(())
            } else {
                Err("it was damaged and is quarantined".to_owned())
            };
        };
        let wrong = match (&content, key.digest()) {
            (ObjectContent::Chunked { file, sums }, Some(digest)) => {
                fill::rehash(file, sums.len(), &digest, &layout)
                    .is_none()
                    .then_some("it does not have its digest")
            }
            (ObjectContent::Chunked { .. }, None) => {
                let object = Object(Arc::new(ObjectInner::new(self.clone(), *key, content)));
                return object.verify_whole().map_err(|error| error.rule);
            }
            _ => None,
        };
        match wrong {
            Some(rule) => {
                self.quarantine(key, rule);
                Err(rule.to_owned())
            }
            None => Ok(()),
        }
    }
}
