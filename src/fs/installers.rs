//! Clients that install into `plugin-cache/`, and what each of them took away there.
//!
//! What comes from a registry stays, whatever a client does to it: it is gone for the process that
//! took it away, and for nobody else, until that process puts something in its place or ends.
//!
//! A client that has listed the packages of a version may write over one of them. It gets to them
//! by another way than who runs them: the kernel refuses to write a file that is being executed,
//! and to execute one that is open for writing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::caller::{CallingProcess, Thread};

/// The processes that install, each with the paths below `plugin-cache/` that it took away.
#[derive(Default)]
pub(super) struct Installers(Mutex<HashMap<CallingProcess, HashSet<PathBuf>>>);

impl Installers {
    /// Notes that the process of `thread` installs; whether that is new.
    pub(super) fn note(&self, thread: Thread) -> bool {
        let process = CallingProcess::of(thread);
        let mut installing = self.0.lock();
        if installing.contains_key(&process) {
            return false;
        }
        // Those that have ended go when another one comes.
        installing.retain(|process, _| process.is_alive());
        installing.insert(process, HashSet::new());
        true
    }

    /// Whether the process of `thread` installs.
    pub(super) fn is_one(&self, thread: Thread) -> bool {
        let installing = self.0.lock();
        !installing.is_empty() && installing.contains_key(&CallingProcess::of(thread))
    }

    /// Notes that the process of `thread` took away what is at `path`.
    pub(super) fn take_away(&self, thread: Thread, path: PathBuf) {
        self.note(thread);
        self.0.lock().entry(CallingProcess::of(thread)).or_default().insert(path);
    }

    /// Notes that the process of `thread` put back what was at `path`.
    pub(super) fn put_back(&self, thread: Thread, path: &Path) {
        if let Some(gone) = self.0.lock().get_mut(&CallingProcess::of(thread)) {
            gone.remove(path);
        }
    }

    /// Whether anything is gone for anybody.
    pub(super) fn have_taken(&self) -> bool {
        self.0.lock().values().any(|gone| !gone.is_empty())
    }

    /// Whether the process of `thread` took away what is at `path`.
    pub(super) fn is_gone(&self, thread: Thread, path: &Path) -> bool {
        let installing = self.0.lock();
        installing.values().any(|gone| gone.contains(path))
            && installing.get(&CallingProcess::of(thread)).is_some_and(|gone| gone.contains(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_took_away_is_gone_for_it_alone() {
        let (installers, here, init) =
            (Installers::default(), Thread(std::process::id()), Thread(1));
        let path = Path::new("r.example/acme/one/1.0.0/linux_amd64");
        assert!(!installers.is_one(here));
        installers.take_away(here, path.into());
        assert!(
            installers.is_one(here) && installers.is_gone(here, path) && !installers.note(here)
        );
        assert!(!installers.is_one(init) && !installers.is_gone(init, path));
        installers.put_back(here, path);
        assert!(!installers.is_gone(here, path));
    }

    #[test]
    fn processes_that_have_ended_are_forgotten() {
        let (installers, here) = (Installers::default(), Thread(std::process::id()));
        installers.take_away(Thread(0), "x".into());
        assert!(installers.note(here));
        assert!(!installers.is_gone(Thread(0), Path::new("x")) && installers.is_one(here));
    }
}
