//! `tofufs tofurc --install`: what points the clients at a mount, put into the CLI configuration
//! that is there. All else in it stays, credentials above all; the methods of installation that
//! stood there become comments.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use super::{ClientEnvironment, FILE_MAX, Tofurc, decode, main_file, syntax};
use crate::cli::output::{self, CommandError};
use crate::cli::replace::replace;
use crate::input::{self, InputError};

const BEGIN: &str =
    "# Written by `tofufs tofurc --install`, which replaces it up to the line that says so:";
const END: &str = "# Up to here.";
/// What is written, and replaced where it stands already.
const KEYS: [&str; 3] =
    ["provider_installation", "plugin_cache_dir", "plugin_cache_may_break_dependency_lock_file"];
/// How many backups are kept.
const BACKUPS_MAX: usize = 100;

/// A file that a client reads.
pub struct Place {
    /// Which one.
    pub file: PathBuf,
    /// Whether it was named by a variable, so that the client reads no other.
    named: bool,
}

impl Place {
    /// Where OpenTofu reads its configuration; with `terraform`, where Terraform does.
    pub fn of(environment: &ClientEnvironment, terraform: bool) -> Place {
        let named =
            environment.path("TF_CLI_CONFIG_FILE").or_else(|| environment.path("TERRAFORM_CONFIG"));
        let usual = || {
            if terraform { environment.home().join(".terraformrc") } else { main_file(environment) }
        };
        Place { named: named.is_some(), file: named.unwrap_or_else(usual) }
    }
}

/// Merges what is to be written into a file: `hcl` into one of HCL, `json` into one of JSON. Says
/// what was done.
///
/// # Errors
/// The file cannot be read as a configuration, or written; or another file holds what only one may.
pub fn install(
    place: &Place,
    hcl: &str,
    json: &Value,
    environment: &ClientEnvironment,
) -> Result<(), CommandError> {
    let file = &place.file;
    let failed =
        |rule: &dyn std::fmt::Display| CommandError::Failed(format!("{}: {rule}", file.display()));
    if !place.named {
        alone(file, environment)?;
    }
    let before = match input::read(file, FILE_MAX) {
        Ok(bytes) => Some(Zeroizing::new(bytes)),
        Err(e) if e.is_absence() => None,
        Err(e) => return Err(failed(&e)),
    };
    let text = std::str::from_utf8(before.as_deref().map_or(&[][..], Vec::as_slice));
    let text = text.map_err(|_| failed(&InputError::NotText))?;
    let after = merged(text, hcl, json)
        .map_err(|e| failed(&format_args!("line {}: {}", e.line, e.rule)))?;
    // What cannot be read again must not take the place of what can.
    let read = syntax::parse(&after)
        .and_then(|document| decode::add(&mut Tofurc::default(), file, document));
    read.map_err(|e| {
        failed(&format_args!(
            "it would be broken at line {}: {}; nothing is written",
            e.line, e.rule
        ))
    })?;
    if text == after.as_str() {
        return output::text(format!("{} is as it should be\n", file.display()));
    }
    let mut said = String::new();
    if before.is_some() {
        let backup = keep(file, text.as_bytes())
            .map_err(|e| failed(&format_args!("no backup can be made: {e}")))?;
        said = format!("; what it was is {}", backup.display());
    }
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(&e))?;
    }
    replace(file, after.as_bytes(), 0o600)
        .map_err(|e| failed(&format_args!("it cannot be written: {e}")))?;
    output::text(format!("{} is written{said}\n", file.display()))
}

/// Refuses where another file holds methods of installation, of which the clients allow one block
/// over all files.
fn alone(file: &Path, environment: &ClientEnvironment) -> Result<(), CommandError> {
    let Ok(tofurc) = Tofurc::load(environment) else { return Ok(()) };
    let own = format!("{}:", file.display());
    match tofurc.installation.iter().flatten().find(|method| !method.origin.starts_with(&own)) {
        Some(other) if tofurc.files.iter().any(|read| read == file) => {
            Err(CommandError::Failed(format!(
                "{}: a provider_installation block stands there already, and only one may be in \
                 all files; remove it, or give what `tofufs tofurc` prints its place",
                other.origin
            )))
        }
        _ => Ok(()),
    }
}

/// Writes a copy beside a file, under a name that is free.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    let names = (1..BACKUPS_MAX).map(|number| {
        let mut numbered = name.clone();
        if number > 1 {
            numbered.push(number.to_string());
        }
        file.with_file_name(numbered)
    });
    let Some(backup) = names.into_iter().find(|backup| backup.symlink_metadata().is_err()) else {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there are too many; remove some",
        ));
    };
    replace(&backup, bytes, 0o600)?;
    Ok(backup)
}

fn merged(
    text: &str,
    hcl: &str,
    json: &Value,
) -> Result<Zeroizing<String>, syntax::HclSyntaxError> {
    let document = syntax::parse(text)?;
    if document.json {
        return merged_json(text, json);
    }
    // What was written before goes as a whole; else each item becomes a comment where it stands.
    let (text, at) = without_ours(text);
    let mut after = Zeroizing::new(String::new());
    let mut copied = 0;
    for item in syntax::parse(&text)?.items {
        let is_replaced = item.keys.first().is_some_and(|key| {
            KEYS.contains(&key.as_str())
                && (key == KEYS[0] || hcl.lines().any(|line| line.starts_with(key.as_str())))
        });
        if is_replaced {
            after.push_str(&text[copied..item.place.start]);
            after.push_str("# ");
            after.push_str(&text[item.place.clone()].replace('\n', "\n# "));
            copied = item.place.end;
        }
    }
    let at = at.filter(|at| *at >= copied);
    let end = at.unwrap_or(text.len());
    after.push_str(&text[copied..end]);
    if !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    after.push_str(&format!("{BEGIN}\n{hcl}{END}\n"));
    after.push_str(&text[end..]);
    Ok(after)
}

/// The text without what was written into it before, and where that stood.
fn without_ours(text: &str) -> (Zeroizing<String>, Option<usize>) {
    let ours = text.find(BEGIN).and_then(|start| {
        let end = start + text[start..].find(END)? + END.len();
        Some((start, text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1)))
    });
    match ours {
        Some((start, end)) => {
            (Zeroizing::new(format!("{}{}", &text[..start], &text[end..])), Some(start))
        }
        None => (Zeroizing::new(text.to_owned()), None),
    }
}

fn merged_json(text: &str, json: &Value) -> Result<Zeroizing<String>, syntax::HclSyntaxError> {
    let refuse = |e: serde_json::Error| syntax::HclSyntaxError {
        line: e.line(),
        rule: "not valid JSON".to_owned(),
    };
    let mut document: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(refuse)?;
    if let (Some(document), Some(new)) = (document.as_object_mut(), json.as_object()) {
        document.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Ok(Zeroizing::new(serde_json::to_string_pretty(&document).map_err(refuse)? + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HCL: &str =
        "provider_installation {\n  filesystem_mirror {\n    path = \"/mnt/plugins\"\n  }\n}\n";

    fn json() -> Value {
        json!({"provider_installation": {"filesystem_mirror": [{"path": "/mnt/plugins"}]}})
    }

    fn installed(before: Option<&str>) -> (String, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let environment = ClientEnvironment::new(dir.path()).with("HOME", dir.path().join("home"));
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let place = Place::of(&environment, false);
        assert_eq!(place.file, dir.path().join("home/.tofurc"));
        if let Some(before) = before {
            std::fs::write(&place.file, before).unwrap();
        }
        for _ in 0..2 {
            // The second time nothing changes.
            install(&place, HCL, &json(), &environment).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path().join("home"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        if names.len() > 1 {
            assert_eq!(
                std::fs::read_to_string(dir.path().join("home").join(&names[1])).unwrap(),
                before.unwrap()
            );
        }
        (std::fs::read_to_string(&place.file).unwrap(), names)
    }

    #[test]
    fn what_is_there_stays_and_methods_of_installation_become_comments() {
        let (new, names) = installed(None);
        assert_eq!((new, names), (format!("{BEGIN}\n{HCL}{END}\n"), vec![".tofurc".to_owned()]));
        let before = "oci_credentials \"a.b\" {\n  username = \"u\"\n  password = \"p\"\n}\n\
             provider_installation {\n  direct {\n  }\n} # old\nplugin_cache_dir = \"/c\"";
        let (new, names) = installed(Some(before));
        let after = "oci_credentials \"a.b\" {\n  username = \"u\"\n  password = \"p\"\n}\n\
             # provider_installation {\n#   direct {\n#   }\n# } # old\n\
             plugin_cache_dir = \"/c\"\n";
        assert_eq!(new, format!("{after}{BEGIN}\n{HCL}{END}\n"));
        assert_eq!(names, [".tofurc", ".tofurc.bak"]);
    }

    #[test]
    fn what_was_written_before_is_replaced_where_it_stands() {
        let before = format!(
            "disable_checkpoint = true\n{BEGIN}\nprovider_installation {{\n}}\n{END}\n\
             host \"x\" {{\n}}\n"
        );
        let (new, _) = installed(Some(&before));
        assert_eq!(
            new,
            format!("disable_checkpoint = true\n{BEGIN}\n{HCL}{END}\nhost \"x\" {{\n}}\n")
        );
    }

    #[test]
    fn a_configuration_in_json_stays_one() {
        let before = r#"{"credentials": {"a.b": {"token": "t"}}, "provider_installation": {"direct": [{}]}}"#;
        let (new, _) = installed(Some(before));
        let new: Value = serde_json::from_str(&new).unwrap();
        assert_eq!(new["credentials"]["a.b"]["token"], "t");
        assert_eq!(new["provider_installation"], json()["provider_installation"]);
    }

    #[test]
    fn what_another_file_holds_already_and_what_cannot_be_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let environment = ClientEnvironment::new(dir.path()).with("HOME", dir.path());
        let place = Place::of(&environment, false);
        std::fs::create_dir(dir.path().join(".terraform.d")).unwrap();
        let other = dir.path().join(".terraform.d/x.tfrc");
        std::fs::write(&other, HCL).unwrap();
        std::fs::write(&place.file, "x = 1\n").unwrap();
        let error = install(&place, HCL, &json(), &environment).unwrap_err().to_string();
        assert!(
            error.contains("x.tfrc:2: a provider_installation block stands there already"),
            "{error}"
        );
        std::fs::remove_file(&other).unwrap();
        std::fs::write(&place.file, "x = {\n").unwrap();
        let error = install(&place, HCL, &json(), &environment).unwrap_err().to_string();
        assert!(error.contains("closing brace"), "{error}");
        assert_eq!(std::fs::read_to_string(&place.file).unwrap(), "x = {\n");
        assert_eq!(Place::of(&environment, true).file, dir.path().join(".terraformrc"));
    }
}
