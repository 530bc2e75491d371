//! What is remembered between runs: one file for each repository, in the state directory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::output::{self, CommandError};
use crate::cli::replace::replace;
use crate::cli::state::private_dir;
use crate::copy::mirror::MirrorMemory;
use crate::digest::Digest;
use crate::input;

/// The most bytes of such a file.
const FILE_MAX: u64 = 64 << 20;

/// The file of one repository.
pub struct MemoryFile {
    path: PathBuf,
    before: MirrorMemory,
}

impl MemoryFile {
    /// Reads what is remembered of the repository `name`. What cannot be read is forgotten.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state: &Path, name: &str) -> Result<MemoryFile, CommandError> {
        let dir = state.join("mirror");
        private_dir(state)
            .and_then(|()| private_dir(&dir))
            .map_err(|e| CommandError::Failed(format!("{} cannot be made: {e}", dir.display())))?;
        let path = dir.join(format!("{}.json", Digest::of(name.as_bytes()).hex()));
        let before = match input::text(&path, FILE_MAX) {
            Ok(text) => MirrorMemory::parse(text.as_bytes()),
            Err(_) => MirrorMemory::default(),
        };
        Ok(MemoryFile { path, before })
    }

    /// What is remembered.
    pub fn memory(&self) -> MirrorMemory {
        self.before.clone()
    }

    /// Remembers `memory` from now on. That it cannot be written fails nothing.
    pub fn keep(&self, memory: &MirrorMemory) {
        if *memory == self.before {
            return;
        }
        let kept = if *memory == MirrorMemory::default() {
            fs::remove_file(&self.path).or_else(|e| match e.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            })
        } else {
            replace(&self.path, &memory.document(), 0o600)
        };
        if let Err(e) = kept {
            output::note(&format!("{} cannot be written: {e}", self.path.display()));
        }
    }
}
