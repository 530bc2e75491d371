//! Users and groups as people name them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use crate::input;

/// The largest database of users that is read, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// A user or group, by number or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Account {
    /// The number itself.
    Number(u32),
    /// A name, whose number the system knows.
    Name(String),
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Account, String> {
        let inner = |c: char| c.is_alphanumeric() || "_.-@$\\".contains(c);
        match text.parse() {
            // What chown(2) takes for "as it is".
            Ok(u32::MAX) => Err(format!("{text} is no number of a user or group")),
            Ok(number) => Ok(Account::Number(number)),
            Err(_) if !text.is_empty() && !text.starts_with('-') && text.chars().all(inner) => {
                Ok(Account::Name(text.to_owned()))
            }
            Err(_) => Err(format!("{text:?} is neither a number nor a name")),
        }
    }
}

impl Account {
    /// The number of the user that is meant, if there is one.
    pub fn user(&self) -> Option<u32> {
        self.number("passwd")
    }

    /// The number of the group that is meant, if there is one.
    pub fn group(&self) -> Option<u32> {
        self.number("group")
    }

    fn number(&self, database: &str) -> Option<u32> {
        let name = match self {
            Account::Number(number) => return Some(*number),
            Account::Name(name) => name,
        };
        let file = input::text(&Path::new("/etc").join(database), FILE_MAX).unwrap_or_default();
        number_in(&file, name).or_else(|| number_in(&asked(database, name), name))
    }
}

/// The home directory of the user of this number, as the database of this machine has it.
pub fn home_of(uid: u32) -> Option<PathBuf> {
    let file = input::text(Path::new("/etc/passwd"), FILE_MAX).ok()?;
    let uid = uid.to_string();
    let entry = file
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|entry| entry.get(2) == Some(&&*uid));
    entry?.get(5).map(PathBuf::from)
}

/// passwd(5), group(5): `NAME:PASSWORD:NUMBER:…`
fn number_in(database: &str, name: &str) -> Option<u32> {
    let entries = database.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    entries.filter_map(|rest| rest.split(':').nth(1)?.parse().ok()).next()
}

/// The entry of a name that is kept elsewhere, as in a directory service.
fn asked(database: &str, name: &str) -> String {
    let answer = Command::new("getent").args([database, "--", name]).stdin(Stdio::null()).output();
    answer.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number_and_name() {
        let user = |text: &str| text.parse::<Account>().unwrap().user();
        assert_eq!((user("root"), user("0"), user("1234")), (Some(0), Some(0), Some(1234)));
        assert_eq!("root".parse::<Account>().unwrap().group(), Some(0));
        assert_eq!(user("no-such-user-here"), None);
        for bad in ["", "-1", "a b", "4294967295", "a:b"] {
            assert!(bad.parse::<Account>().is_err(), "{bad}");
        }
        assert_eq!(number_in("ab:x:1:\na:x:2:2:\n", "a"), Some(2));
        assert!(home_of(0).is_some_and(|home| home.is_absolute()));
    }
}
