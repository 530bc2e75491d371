//! The catalogues of hostile inputs and of registries' quirks, held against the tree: each case has
//! a test that exists or a reason for having none, and what comments cite is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The documents, and the letters of their numbers.
const DOCUMENTS: [(&str, &[char]); 2] = [
    ("docs/hostile-inputs.md", &['R', 'Z', 'L', 'O', 'P', 'S']),
    ("docs/registry-quirks.md", &['Q']),
];
/// A shorter text is no reason.
const REASON: usize = 20;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The source files of the program and of its tests, but for this one.
fn sources() -> Vec<(PathBuf, String)> {
    let mut pending = vec![root().join("src"), root().join("tests")];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.ends_with("tests/catalogue.rs")
            {
                found.push((path.clone(), read(&path)));
            }
        }
    }
    assert!(found.len() > 100, "the source was not found");
    found
}

/// The names of all tests.
fn tests(sources: &[(PathBuf, String)]) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    for (_, text) in sources {
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if let Some(name) = function(line)
                && std::mem::take(&mut is_test)
            {
                tests.insert(name);
            }
        }
    }
    tests
}

/// The name of the function that a line declares.
fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_declared = before.split_whitespace().all(|word| matches!(word, "pub" | "async"));
    is_declared.then(|| rest.split(['(', '<']).next().unwrap_or_default())
}

/// Whether a word is a number of the catalogues: the letters of the first have two digits.
fn is_number(word: &str) -> bool {
    let mut chars = word.chars();
    let letter = chars.next();
    let digits = chars.as_str();
    let lengths = match letter {
        Some('R' | 'Z' | 'L' | 'O' | 'P' | 'S') => 2..=2,
        Some('Q') => 1..=2,
        _ => return false,
    };
    lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// What a document says under each of its numbers.
fn cases() -> BTreeMap<String, String> {
    let mut cases = BTreeMap::new();
    for (document, letters) in DOCUMENTS {
        let text = read(&root().join(document));
        for item in text.split("\n* **").skip(1) {
            let item = item.split("\n\n").next().unwrap_or_default();
            let (number, said) =
                item.split_once("** ").unwrap_or_else(|| panic!("{document}: {item}"));
            assert!(
                is_number(number) && number.starts_with(letters),
                "{document}: {number} is no number of it"
            );
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                cases.insert(number.to_owned(), said).is_none(),
                "{document}: {number} stands there twice"
            );
        }
    }
    cases
}

#[test]
fn numbers_run_on_without_a_gap() {
    let cases = cases();
    for letter in DOCUMENTS.iter().flat_map(|(_, letters)| *letters) {
        let of: BTreeSet<u32> =
            cases.keys().filter_map(|n| n.strip_prefix(*letter)?.parse().ok()).collect();
        assert!(!of.is_empty() && of.iter().copied().eq(1..=of.len() as u32), "{letter}: {of:?}");
    }
}

#[test]
fn each_case_has_a_test_that_exists_or_a_reason_for_having_none() {
    let sources = sources();
    let tests = tests(&sources);
    let mut wrong = Vec::new();
    for (number, said) in cases() {
        if let Some((_, reason)) = said.split_once(" No test: ") {
            if reason.len() < REASON {
                wrong.push(format!("{number}: {reason:?} is no reason"));
            }
            continue;
        }
        let Some((_, list)) = said.split_once(" Test: ").or_else(|| said.split_once(" Tests: "))
        else {
            wrong.push(format!("{number} has neither a test nor a reason"));
            continue;
        };
        let names: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("{number} names no test"));
        }
        let missing = names.iter().filter(|name| !tests.contains(*name));
        wrong.extend(missing.map(|name| format!("{number}: there is no test {name}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_comments_cite_is_in_the_catalogues() {
    let cases = cases();
    for (path, text) in sources() {
        for (line, text) in text.lines().enumerate() {
            let Some((_, comment)) = text.split_once("//") else { continue };
            for word in comment.split(|c: char| !c.is_alphanumeric()).filter(|word| is_number(word))
            {
                assert!(
                    cases.contains_key(word),
                    "{}:{}: there is no {word}",
                    path.display(),
                    line + 1
                );
            }
        }
    }
}

#[test]
fn the_catalogues_are_readable_in_a_terminal() {
    for (document, _) in DOCUMENTS {
        for (number, line) in read(&root().join(document)).lines().enumerate() {
            assert!(
                line.chars().count() <= 100,
                "{document}:{}: longer than 100 columns",
                number + 1
            );
        }
    }
}

#[test]
fn a_number_is_told_from_other_words() {
    for word in ["R01", "Z60", "L26", "O40", "Q1", "Q25"] {
        assert!(is_number(word), "{word}");
    }
    for word in ["R1", "R001", "Z0", "A01", "Q", "Q123", "R0x", "", "É01"] {
        assert!(!is_number(word), "{word}");
    }
    assert_eq!(function("pub async fn some_name<T>(x: T) {"), Some("some_name"));
    assert_eq!((function("let x = Box<dyn Fn()>;"), function("// what fn x() does")), (None, None));
}
