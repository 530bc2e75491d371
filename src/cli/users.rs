//! Names of users and groups, as the system's own programs tell them: they may come from a directory on the network.

use std::process::{Command, Stdio};

/// The user of a number, for sentences: `ann (1000)`, or the number where nobody has that name.
pub fn shown(uid: u32) -> String {
    match entry("passwd", &uid.to_string()).and_then(|entry| entry.split(':').next().map(str::to_owned)) {
        Some(name) => format!("{name} ({uid})"),
        None => uid.to_string(),
    }
}

/// The number of a user, given by itself or by a name.
///
/// # Errors
/// There is no such user.
pub fn user(text: &str) -> Result<u32, String> {
    number("passwd", text).ok_or_else(|| format!("there is no user {text:?}; give a number or a user's name"))
}

/// The number of a group, given by itself or by a name.
///
/// # Errors
/// There is no such group.
pub fn group(text: &str) -> Result<u32, String> {
    number("group", text).ok_or_else(|| format!("there is no group {text:?}; give a number or a group's name"))
}

fn number(database: &str, text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    entry(database, text)?.split(':').nth(2)?.parse().ok()
}

/// The entry of `key` in a database of the system, which getent(1) reads wherever it lies.
fn entry(database: &str, key: &str) -> Option<String> {
    let mut getent = Command::new("getent");
    getent.args([database, "--", key]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = getent.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned).filter(|_| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_or_group_is_a_number_or_a_name() {
        assert_eq!((user("1000"), group("0")), (Ok(1000), Ok(0)));
        assert_eq!((user("root"), group("root")), (Ok(0), Ok(0)));
        for bad in ["", "-1", "4294967296", "nobody:x", "no such user", "--help"] {
            let refused = user(bad).unwrap_err();
            assert!(refused.contains("a number or a user's name"), "{refused}");
        }
        assert!(group("no such group").unwrap_err().contains("a number or a group's name"));
    }

    #[test]
    fn a_user_is_shown_by_name_and_number() {
        assert_eq!(shown(0), "root (0)");
        assert_eq!(shown(3_999_999_999), "3999999999");
    }
}
