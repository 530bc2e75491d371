//! The stage against a registry in memory that can fail and lie.

mod commits;
mod inputs;
mod providers;
mod races;
mod turns;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use zip::write::SimpleFileOptions;

use super::*;
use crate::mapping::MappingRule;
use crate::memory::MemoryRegistry;

const HOST: &str = "registry.example";

/// A path below the staging directory.
fn staged(path: &str) -> RelPath {
    staged_path(Path::new(path)).unwrap()
}

struct ToMemory(Arc<dyn Upload>);

impl OpenUpload for ToMemory {
    fn open(&self, _: &Host) -> Result<Arc<dyn Upload>, Refusal> {
        Ok(self.0.clone())
    }
}

/// A stage whose releases go to a registry in memory.
struct Bed {
    dir: tempfile::TempDir,
    registry: Arc<MemoryRegistry>,
    stage: Arc<Stage>,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let registry = Arc::new(MemoryRegistry::default());
        let stage = Bed::stage(dir.path(), &registry);
        Bed { dir, registry, stage }
    }

    fn stage(dir: &Path, registry: &Arc<MemoryRegistry>) -> Arc<Stage> {
        let upload: Arc<dyn Upload> = registry.clone();
        let destination = PublishDestination {
            host: Some(HOST.parse().unwrap()),
            prefix: None,
            open: Arc::new(ToMemory(upload)),
        };
        let template = format!("{HOST}/mirror/${{type}}");
        let include = ["registry.opentofu.org/hashicorp/*".to_owned()];
        let mapping = Mapping::new(vec![MappingRule::typed(&template, &include, &[]).unwrap()]);
        let (destinations, limits) = (vec![destination], Limits::default());
        Stage::open(StageOptions {
            dir: dir.to_owned(),
            destinations,
            mapping,
            allow_overwrite: false,
            limits,
            signer: None,
            check: None,
        })
        .unwrap_or_else(|e| panic!("{e}"))
    }

    /// As after a crash: another process opens the same directory.
    fn again(&mut self) {
        self.stage = Bed::stage(self.dir.path(), &self.registry);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(STAGING).join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A small module at `HOST/path`.
    fn module(&self, path: &str) {
        self.write(&format!("{HOST}/{path}/main.tf"), "resource \"x\" \"y\" {}\n");
        self.write(&format!("{HOST}/{path}/modules/a/run.sh"), "#!/bin/sh\n");
    }

    async fn commit(&self, path: &str) -> Result<Vec<Pushed>, Refusal> {
        self.stage.commit(&staged(path), CommitRequest::default()).await
    }

    /// The one release that a commit must make.
    async fn committed(&self, path: &str) -> Pushed {
        let mut committed = self.commit(path).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(committed.len(), 1);
        committed.remove(0)
    }

    /// The failure that a commit must have, after which everything is staged as it was.
    async fn refused(&self, path: &str) -> Refusal {
        let before = self.staged_bytes();
        let error = self.commit(path).await.map(|c| format!("{c:?}")).expect_err("refused");
        assert_eq!(self.staged_bytes(), before, "{error}");
        error
    }

    /// Everything that lies in the staging directory.
    fn staged_bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.dir.path().join(STAGING)];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.symlink_metadata().unwrap().file_type() {
                    kind if kind.is_dir() => pending.push(path),
                    kind if kind.is_file() => found.push((path.clone(), fs::read(path).unwrap())),
                    _ => found.push((path, vec![])),
                }
            }
        }
        found.sort();
        found
    }

    /// The one thing that is staged.
    fn look(&self) -> StagedRelease {
        let mut staged = self.stage.staged().unwrap();
        assert_eq!(staged.len(), 1, "{staged:?}");
        staged.remove(0)
    }
}

/// A zip of files; names that end in a slash are directories.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for (name, content) in files {
        match name.strip_suffix('/') {
            Some(name) => writer.add_directory(name, options).unwrap(),
            None => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}
