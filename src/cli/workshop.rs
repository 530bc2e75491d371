//! Where packages are made before they are sent.

use std::fs::File;
use std::io;
use std::path::Path;

use super::output::CommandError;
use super::state::private_dir;
use crate::archive::Limits;
use crate::stage::Workshop;

/// The workshop of commands in a state directory.
pub fn workshop_in(state: &Path, limits: Limits) -> Result<Workshop, CommandError> {
    let dir = state.join("push");
    let name = dir.display().to_string();
    let failed = |e: io::Error| {
        CommandError::Failed(format!("{name} cannot be used for making packages: {e}"))
    };
    private_dir(state).and_then(|()| private_dir(&dir)).map_err(failed)?;
    Ok(Workshop::new(File::open(&dir).map_err(failed)?.into(), &name, limits))
}
