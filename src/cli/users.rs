//! Names of users, as the system's own programs tell them: they may come from a directory on the
//! network.

use std::process::{Command, Stdio};

/// The user of a number, for sentences: `ann (1000)`, or the number where nobody has that name.
pub fn shown(uid: u32) -> String {
    match entry("passwd", &uid.to_string())
        .and_then(|entry| entry.split(':').next().map(str::to_owned))
    {
        Some(name) => format!("{name} ({uid})"),
        None => uid.to_string(),
    }
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
    fn a_user_is_shown_by_name_and_number() {
        assert_eq!(shown(0), "root (0)");
        assert_eq!(shown(3_999_999_999), "3999999999");
    }
}
