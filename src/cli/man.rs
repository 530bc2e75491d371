//! `tofufs man`: the manual pages, made of what the help says.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::options;
use super::output::CommandError;

/// What ends a command, and with which code.
const CODES: &[(&str, &str)] = &[
    ("0", "It was done. Also where the reader of the output closed it early."),
    (
        "1",
        "It was tried and failed, or what was checked is not right. One line on standard error \
         says why.",
    ),
    ("2", "The command line, a variable or a configuration file makes no sense."),
    ("128+N", "Signal N stopped it before it was done."),
];

/// Variables that are no options: an option of the commands that go by them, the variables, and
/// what they say.
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        "ca-file",
        "TF_CLI_CONFIG_FILE",
        "The CLI configuration of OpenTofu, in which logins and oci_mirror blocks are looked for.",
    ),
    (
        "ca-file",
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG",
        "The file, or the directory of the file, in which container tools keep logins.",
    ),
    (
        "ca-file",
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "The proxy, and the hosts that are reached without it.",
    ),
    (
        "ca-file",
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Certificate authorities, in the place of the system's.",
    ),
    ("cache-dir", "XDG_CACHE_HOME", "The directory that holds the cache, tofufs, of this user."),
    ("state-dir", "XDG_STATE_HOME, XDG_RUNTIME_DIR", "Where logs, stages and control sockets are."),
    (
        "foreground",
        "NOTIFY_SOCKET",
        "The socket of a service manager, which is told when the mount can be used.",
    ),
];

/// Files that are read or written.
const FILES: &[(&str, &str)] = &[
    ("/etc/tofufs/config.toml", "What options are set to on this machine, and named mounts."),
    ("~/.config/tofufs/config.toml", "The same for this user; it comes first."),
    ("/var/cache/tofufs, ~/.cache/tofufs", "The cache of root, and of other users."),
];

/// Writes one page for the program and one for each command.
pub fn run(dir: &Path) -> Result<(), CommandError> {
    let failed = |path: &Path, e: &io::Error| {
        CommandError::Failed(format!("{} cannot be written: {e}", path.display()))
    };
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    for (name, page) in pages().map_err(CommandError::failed)? {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|e| failed(&path, &e))?;
    }
    Ok(())
}

/// The pages, by the names of their files.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = without_help(options::described());
    program.build();
    let mut pages = Vec::new();
    add(&program, &[], &mut pages)?;
    Ok(pages)
}

/// `tofufs help` shows what the pages hold.
fn without_help(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.into_iter().fold(command.disable_help_subcommand(true), |command, name| {
        command.mut_subcommand(name, without_help)
    })
}

/// Adds the page of a command, and of those below it. `above` is what stands behind the help of
/// the command above.
fn add(command: &Command, above: &[String], pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let examples = examples(command, above);
    pages.push((format!("{}.1", name(command)), page(command, &examples)?));
    let mut shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.try_for_each(|inner| add(inner, &examples, pages))
}

/// The lines behind the help of a command; of one that has none those of the command above that
/// are about it.
fn examples(command: &Command, above: &[String]) -> Vec<String> {
    let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if own.is_empty() {
        let words = name(command).replace('-', " ");
        return above.iter().filter(|line| line.contains(&words)).cloned().collect();
    }
    own.lines().skip_while(|line| line.starts_with("Example")).map(str::to_owned).collect()
}

/// As in `tofufs-bundle-verify`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, examples: &[String]) -> io::Result<Vec<u8>> {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let man = Man::new(command.clone().override_usage(usage))
        .source(concat!("tofufs ", env!("CARGO_PKG_VERSION")))
        .manual("tofufs");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    rest.control("SH", ["EXAMPLES"]);
    rest.control("nf", []);
    for line in examples {
        rest.text([roman(line.as_str())]);
    }
    rest.control("fi", []);
    listed(&mut rest, "EXIT STATUS", CODES.iter().copied());
    environment(command, &mut rest);
    listed(&mut rest, "FILES", FILES.iter().copied());
    see_also(command, &mut rest);
    rest.to_writer(&mut page)?;
    Ok(page)
}

fn environment(command: &Command, page: &mut Roff) {
    let options = command.get_arguments().filter_map(|argument| {
        let variable = options::variable(&options::key(argument)?);
        let option = argument.get_long()?;
        Some((variable, format!("What --{option} says, where that is not typed.")))
    });
    let options: Vec<(String, String)> = options.collect();
    let has =
        |option: &str| command.get_arguments().any(|arg: &Arg| arg.get_long() == Some(option));
    let others = VARIABLES.iter().filter(|(option, ..)| has(option));
    let rows = options
        .iter()
        .map(|(name, says)| (name.as_str(), says.as_str()))
        .chain(others.map(|(_, name, says)| (*name, *says)));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        page.control("SH", ["ENVIRONMENT"]);
        page.text([roman("No variable changes what this command does.")]);
    } else {
        listed(page, "ENVIRONMENT", rows);
    }
}

fn see_also(command: &Command, page: &mut Roff) {
    let config = if name(command) == "tofufs-config" { "tofufs" } else { "tofufs-config" };
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("tofufs"), roman("(1), "), bold(config), roman("(1)")]);
}

fn listed<'a>(page: &mut Roff, heading: &str, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    page.control("SH", [heading]);
    for (name, says) in rows {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text([roman(says)]);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use super::*;

    fn text(name: &str) -> String {
        let pages = pages().unwrap();
        let page = pages.into_iter().find(|(found, _)| found == name).expect("a page").1;
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn every_command_has_a_page_with_examples_codes_and_variables() {
        let names: Vec<String> = pages().unwrap().into_iter().map(|(name, _)| name).collect();
        let mut expected = vec!["tofufs.1".to_owned()];
        let mut pending = vec![("tofufs".to_owned(), options::described())];
        while let Some((of, command)) = pending.pop() {
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                let name = format!("{of}-{}", inner.get_name());
                expected.push(format!("{name}.1"));
                pending.push((name, inner.clone()));
            }
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(names.clone()), sorted(expected));
        for name in names {
            let page = text(&name);
            let sections = ["SYNOPSIS", "EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES"];
            for section in sections {
                assert!(
                    page.contains(&format!(".SH {section}\n"))
                        || page.contains(&format!(".SH \"{section}\"\n")),
                    "{name}: {section}"
                );
            }
            let examples = page.split(".nf").nth(1).and_then(|rest| rest.split(".fi").next());
            assert!(examples.is_some_and(|lines| lines.contains("tofufs")), "{name}");
        }
    }

    #[test]
    fn a_page_names_the_variable_of_each_option() {
        let page = text("tofufs-pull.1").replace("\\-", "-");
        for part in ["TOFUFS_CACHE_DIR", "What --cache-dir says", "HTTPS_PROXY", "XDG_CACHE_HOME"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(
            !page.contains("NOTIFY_SOCKET") && text("tofufs-mount.1").contains("NOTIFY_SOCKET")
        );
    }

    #[test]
    fn pages_are_shown_without_a_warning() {
        let groff = ["-man", "-Tutf8", "-ww", "-z"];
        for (name, page) in pages().unwrap() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(&name);
            fs::write(&path, page).unwrap();
            let shown = Process::new("groff").args(groff).arg(&path).stdin(Stdio::null()).output();
            let Ok(shown) = shown else {
                return crate::skip::skip("groff is not installed");
            };
            let said = String::from_utf8_lossy(&shown.stderr);
            assert!(shown.status.success() && said.is_empty(), "{name}: {said}");
        }
    }
}
