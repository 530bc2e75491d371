//! Policies as files: which of them count, that nobody else can write to them, and how they are read.

pub mod check;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::trusting::PolicyArgs;
use super::directories::absolute;
use super::output::CommandError;
use crate::input;
use crate::moment::Moment;
use crate::trust::{Policies, Policy};

/// The policy of the machine.
const SYSTEM: &str = "/etc/tofufs/policy.hcl";
/// The largest policy, and the largest key.
const FILE_MAX: u64 = 1 << 20;

/// The files of policies that count.
#[derive(Clone, Debug)]
pub struct PolicyFiles {
    own: Option<PathBuf>,
    system: PathBuf,
}

impl PolicyFiles {
    /// The one that was named, and that of the machine. Reads nothing yet.
    pub fn new(args: &PolicyArgs, base: &Path) -> PolicyFiles {
        let own = args.policy.as_ref().map(|path| absolute(path, base));
        PolicyFiles { own, system: SYSTEM.into() }
    }

    /// The one that was named.
    pub fn named(&self) -> Option<&Path> {
        self.own.as_deref()
    }

    /// Those that were named, and the keys that they name. What cannot be read names nothing.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut named = Vec::new();
        if let Some(own) = &self.own {
            let mut read = |path: &Path| {
                named.push(path.to_owned());
                trusted_text(path)
            };
            let _ = parsed(own, &mut read);
        }
        named
    }

    /// The policies as they are now.
    ///
    /// # Errors
    /// One that cannot be read or used, or that others can write.
    pub fn load(&self) -> Result<Arc<Policies>, CommandError> {
        let mut all = Vec::new();
        if self.system.exists() {
            all.push(Arc::new(parsed(&self.system, &mut trusted_text)?));
        }
        if let Some(own) = &self.own {
            all.push(Arc::new(parsed(own, &mut trusted_text)?));
        }
        Ok(Arc::new(Policies(all)))
    }
}

/// One policy, and the keys that it names, which `read` reads.
fn parsed(
    path: &Path,
    read: &mut impl FnMut(&Path) -> Result<String, String>,
) -> Result<Policy, CommandError> {
    let failed = |rule: &dyn std::fmt::Display| {
        CommandError::Failed(format!("the policy {}: {rule}", path.display()))
    };
    let text = read(path).map_err(|rule| failed(&rule))?;
    let base = path.parent().unwrap_or(Path::new("/"));
    let mut read_key = |file: &str| read(&base.join(file));
    Policy::parse(&path.display().to_string(), &text, Moment::now(), &mut read_key)
        .map_err(|e| failed(&e))
}

/// The text of a file that only root and this user can have written.
pub fn trusted_text(path: &Path) -> Result<String, String> {
    let file = input::open(path).map_err(|e| e.to_string())?;
    check(&file.metadata().map_err(|e| e.to_string())?)?;
    let mut bytes = Vec::new();
    input::append_from(file, FILE_MAX, &mut bytes).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())
}

fn check(file: &Metadata) -> Result<(), String> {
    let (mode, own) = (file.mode(), rustix::process::geteuid().as_raw());
    if file.uid() != 0 && file.uid() != own {
        return Err(format!("it belongs to user {}, who could change it", file.uid()));
    }
    if mode & 0o002 != 0 {
        return Err("everybody can write to it; take that away (chmod o-w)".to_owned());
    }
    if mode & 0o020 != 0 && file.gid() != 0 {
        return Err("its group can write to it; take that away (chmod g-w)".to_owned());
    }
    Ok(())
}
