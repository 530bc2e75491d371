//! Runs the examples of SEMANTICS.md in a mount of the demonstration store, and those of
//! docs/without-fuse.md beside it.

mod support;

use std::path::Path;
use std::process::Command;

use support::mount::{Mount, Options};
use support::world;

/// A command of an example and what it prints.
#[derive(Debug)]
struct Example {
    command: String,
    expected: String,
}

/// The blocks marked `console`: lines that begin with `$ ` are commands, the others what they
/// print.
fn examples(document: &str) -> Vec<Vec<Example>> {
    let mut blocks: Vec<Vec<Example>> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```console" => {
                inside = true;
                blocks.push(Vec::new());
            }
            "```" => inside = false,
            _ if !inside => {}
            _ => {
                let block = blocks.last_mut().expect("a block was begun");
                match (line.strip_prefix("$ "), block.last_mut()) {
                    (Some(command), _) => {
                        block
                            .push(Example { command: command.to_owned(), expected: String::new() });
                    }
                    (None, Some(example)) => example.expected += &format!("{line}\n"),
                    (None, None) => panic!("a block begins with a command: {line}"),
                }
            }
        }
    }
    blocks
}

/// Whether `printed` is `expected`, in which `…` stands for any text within a line.
fn is_as_expected(printed: &str, expected: &str) -> bool {
    let fits = |(printed, expected): (&str, &str)| {
        let mut parts = expected.split('…');
        let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(end)
    };
    printed.lines().count() == expected.lines().count()
        && printed.lines().zip(expected.lines()).all(fits)
}

#[test]
fn the_examples_of_the_semantics_are_true_for_an_ordinary_user() {
    world::is_ordinary("the_examples_of_the_semantics_are_true", &[]);
}

#[test]
fn the_examples_of_the_semantics_are_true() {
    let store = tempfile::tempdir().expect("a temporary directory");
    make_store(store.path());
    let source = format!("oci:{}", store.path().display());
    let mapping = [
        "--oci-mirror",
        "registry.example/${namespace}/providers/${type}",
        "--include",
        "registry.example/*/*",
    ];
    let Some(mount) = Mount::start(&[source], Options::new().args(mapping)) else { return };
    let document = include_str!("../SEMANTICS.md");
    are_true(document, mount.path(), &mount.home(), &|| mount.log());
}

#[test]
fn the_examples_of_the_export_are_true_for_an_ordinary_user() {
    world::is_ordinary("the_examples_of_the_export_are_true", &[]);
}

#[test]
fn the_examples_of_the_export_are_true() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    make_store(&dir.path().join("store"));
    let document = include_str!("../docs/without-fuse.md");
    are_true(document, dir.path(), dir.path(), &String::new);
}

/// Writes the demonstration store.
fn make_store(dir: &Path) {
    let made =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo-store")).arg(dir).status();
    assert!(made.expect("scripts/demo-store runs").success());
}

/// Runs the examples of a document in `dir`.
fn are_true(document: &str, dir: &Path, home: &Path, log: &dyn Fn() -> String) {
    let blocks = examples(document);
    assert!(blocks.len() >= 2, "the examples are found");
    let program = world::program();
    let own = program.parent().expect("a directory").display();
    let path = format!("{own}:{}", std::env::var("PATH").unwrap_or_default());
    for block in blocks {
        // One shell for a block: a variable lives to its end. A line of its own divides the
        // answers.
        let divide = "printf '\\n--divider--\\n'";
        let script: Vec<_> =
            block.iter().map(|e| format!("{{ {}; }} 2>&1; {divide}", e.command)).collect();
        let output = Command::new("bash")
            .args(["-c", &script.join("\n")])
            .current_dir(dir)
            .env("HOME", home)
            .env("PATH", &path)
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers: Vec<_> = text.split("\n--divider--\n").collect();
        for (example, answer) in block.iter().zip(answers) {
            let answer = answer.trim_end_matches('\n');
            assert!(
                is_as_expected(answer, example.expected.trim_end_matches('\n')),
                "$ {}\nprinted:\n{answer}\nexpected:\n{}\nlog:\n{}",
                example.command,
                example.expected,
                log()
            );
        }
    }
}
