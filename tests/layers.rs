//! Holds the layers against the source: what each module may use, which module is the home of each
//! outside crate, and which calls have a home; and the outside crates against the Rust that is
//! asked for. Tests inside of modules are exempt. ARCHITECTURE.md draws this table.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module, and what of this crate it may use beside itself. A module stands below those that
/// name it.
const LAYERS: &[(&str, &[&str])] = &[
    ("bounded", &[]),
    ("descriptor", &[]),
    ("digest", &[]),
    ("disk", &[]),
    ("flight", &[]),
    ("input", &[]),
    ("metrics", &[]),
    ("name", &["digest"]),
    ("failure", &["digest", "name"]),
    ("oci", &["failure", "digest", "name"]),
    ("openpgp", &[]),
    ("sandbox", &[]),
    ("artifact", &["failure", "digest", "name", "oci", "openpgp"]),
    ("members", &["digest", "name"]),
    ("mapping", &["digest", "name"]),
    ("lockfile", &["digest", "name"]),
    ("moment", &[]),
    ("trust", &["digest", "name", "oci", "openpgp", "artifact", "moment"]),
    ("tree", VALUES),
    (
        "registry",
        &[
            "disk", "bounded", "flight", "input", "metrics", "failure", "digest", "name", "oci",
            "artifact", "members", "mapping", "moment",
        ],
    ),
    (
        "provider_registry",
        &[
            "bounded", "failure", "digest", "name", "oci", "artifact", "mapping", "moment",
            "openpgp", "registry",
        ],
    ),
    ("module_registry", &["failure", "name", "registry"]),
    ("store", &["bounded", "disk", "metrics", "failure", "digest", "name", "members"]),
    ("archive", VALUES),
    ("local", &["disk", "name"]),
    (
        "facts",
        &[
            "bounded", "flight", "failure", "digest", "name", "oci", "artifact", "members",
            "mapping", "moment", "tree", "registry", "store", "archive", "trust",
        ],
    ),
    (
        "stage",
        &[
            "disk", "flight", "failure", "digest", "name", "oci", "artifact", "members", "mapping",
            "tree", "registry", "archive", "local", "trust",
        ],
    ),
    (
        "copy",
        &[
            "input",
            "failure",
            "digest",
            "name",
            "oci",
            "artifact",
            "members",
            "mapping",
            "lockfile",
            "moment",
            "registry",
            "provider_registry",
            "store",
            "facts",
            "stage",
            "trust",
        ],
    ),
    (
        "fs",
        &[
            "bounded", "metrics", "failure", "digest", "name", "oci", "artifact", "members",
            "mapping", "moment", "tree", "registry", "store", "archive", "local", "facts", "stage",
            "trust",
        ],
    ),
    (
        "fuse",
        &[
            "descriptor",
            "metrics",
            "digest",
            "name",
            "oci",
            "artifact",
            "members",
            "local",
            "facts",
            "fs",
        ],
    ),
    (
        "cli",
        &[
            "descriptor",
            "disk",
            "sandbox",
            "input",
            "metrics",
            "failure",
            "digest",
            "name",
            "oci",
            "artifact",
            "members",
            "mapping",
            "lockfile",
            "moment",
            "tree",
            "registry",
            "provider_registry",
            "module_registry",
            "store",
            "archive",
            "local",
            "facts",
            "stage",
            "copy",
            "fs",
            "fuse",
            "trust",
        ],
    ),
    ("main", &["cli"]),
];

const VALUES: &[&str] =
    &["failure", "digest", "name", "oci", "openpgp", "artifact", "members", "mapping", "moment"];

/// The only modules that may use an outside crate. Crates that are no kind of I/O or format
/// (`bytes`, `serde`, `thiserror`, `tokio`, `tracing`, `rustix` …) have no home.
const HOMES: &[(&str, &[&str])] = &[
    ("base64", &["digest", "oci", "openpgp", "registry", "trust"]),
    ("blake3", &["store"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("flate2", &["archive"]),
    ("fuser", &["fuse"]),
    ("hcl", &["mapping", "cli"]),
    ("hcl_edit", &["lockfile", "trust", "cli"]),
    ("http_body_util", &["cli"]),
    ("httpdate", &["registry"]),
    ("hyper", &["cli"]),
    ("hyper_util", &["registry", "cli"]),
    ("indicatif", &["cli"]),
    ("landlock", &["sandbox"]),
    ("libdeflater", &["archive"]),
    ("lru", &["bounded"]),
    ("prometheus", &["metrics", "cli"]),
    ("reqwest", &["registry"]),
    ("ring", &["digest", "openpgp", "trust"]),
    ("rustls", &["registry"]),
    ("rustls_native_certs", &["registry"]),
    ("seccompiler", &["sandbox"]),
    ("semver", &["name"]),
    ("sigstore_verify", &["trust"]),
    ("tar", &["archive", "registry"]),
    ("toml", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("url", &["registry", "provider_registry", "module_registry", "cli"]),
];

/// Calls, and the files (or directories of files) in which they belong. `rustix` on a held
/// descriptor is the way to the disk everywhere else. What has no home at all is in `clippy.toml`.
const CALLS: &[(&str, &[&str])] = &[
    (
        "std::fs",
        &[
            "input",
            "sandbox",
            "store",
            "copy/needs",
            "copy/export",
            "fuse",
            "cli",
            "registry/credentials",
            "registry/transport",
            "registry/layout",
        ],
    ),
    ("std::env::var", &["cli", "registry/credentials", "registry/transport/authorities"]),
    ("use std::env;", &["cli"]),
    ("std::env::home_dir", &["cli"]),
    ("std::env::current_dir", &["cli"]),
    ("std::env::args", &["main", "cli"]),
    ("std::process::Command", &["registry/credentials", "fuse", "cli"]),
    ("tokio::process::", &["registry/credentials", "cli"]),
    (".block_on(", &["main", "cli"]),
    ("std::thread::spawn", &["archive", "store", "facts", "fs", "fuse", "cli"]),
    ("unsafe ", &["disk", "cli/allocator", "cli/broker/process", "store/lease"]),
    ("println!(", &["cli", "main"]),
    ("eprintln!(", &["cli", "main"]),
    // Locks are those of `parking_lot`, which know no poison.
    ("PoisonError", &[]),
];

/// The most lines of one file; one that is longer has two jobs.
const LINES_MAX: usize = 650;

struct Source {
    /// Without `src/` and `.rs`: `registry/layout`.
    place: String,
    text: String,
}

impl Source {
    fn module(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }

    /// Whether this file is `home` or lies in the directory of that name.
    fn is_in(&self, home: &str) -> bool {
        self.place == home
            || self.place.strip_prefix(home).is_some_and(|rest| rest.starts_with('/'))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let place =
                    path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
                if !place.split('/').any(|part| part == "tests" || part == "lib") {
                    found.push(Source { place, text: code(&fs::read_to_string(&path).unwrap()) });
                }
            }
        }
    }
    assert!(found.len() > 10, "the source was not found");
    found
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first path components that follow `prefix` (`crate::`), groups in braces included.
fn uses<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(group) => {
                let (mut depth, mut start) = (0, 0);
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            found.push(word(group[start..i].trim()));
                            start = i + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Whether the text names the outside crate `name`.
fn names_crate(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let own = !text[..at]
            .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '.');
        let rest = &text[at + name.len()..];
        own && (rest.starts_with("::")
            || (text[..at].ends_with("use ") && rest.starts_with([';', ' '])))
    })
}

#[test]
fn a_module_uses_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == source.module()) else {
            wrong.push(format!("src/{}.rs belongs to no layer", source.place));
            continue;
        };
        let prefix = if source.module() == "main" { "tofufs::" } else { "crate::" };
        for used in uses(&source.text, prefix) {
            if used != source.module() && !allowed.contains(&used) {
                wrong.push(format!("src/{}.rs uses {prefix}{used}", source.place));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_layers_has_no_cycle_and_no_stranger() {
    for (at, (name, below)) in LAYERS.iter().enumerate() {
        for used in *below {
            let stands = LAYERS.iter().position(|(n, _)| n == used);
            let sibling = VALUES.contains(name) == VALUES.contains(used);
            assert!(
                stands.is_some_and(|s| s < at) && (sibling || VALUES.contains(used)),
                "{name} uses {used}"
            );
        }
    }
    let places: Vec<_> = sources().into_iter().map(|s| s.place).collect();
    for (name, _) in LAYERS {
        assert!(places.iter().any(|place| place == name), "there is no module {name}");
    }
}

#[test]
fn outside_crates_are_used_at_home_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            if !homes.contains(&source.module()) && names_crate(&source.text, name) {
                wrong.push(format!("src/{}.rs uses {name}, whose home is {homes:?}", source.place));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Clippy holds the calls of the standard library against `rust-version`; this, the dependencies.
#[test]
fn no_dependency_needs_a_newer_rust_than_this_crate() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map(|number| number.parse().unwrap()).collect()
    };
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let newer: Vec<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| Some((&package["name"], package["rust_version"].as_str()?)))
        .filter(|(_, theirs)| numbers(theirs) > [numbers(ours), vec![0]].concat())
        .map(|(name, theirs)| format!("{name} needs Rust {theirs}, and rust-version is {ours}"))
        .collect();
    assert!(newer.is_empty(), "{}", newer.join("\n"));
}

#[test]
fn calls_stand_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (call, homes) in CALLS {
            if source.text.contains(call) && !homes.iter().any(|home| source.is_in(home)) {
                wrong.push(format!(
                    "src/{}.rs calls {call}, which belongs in {homes:?}",
                    source.place
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_has_one_job() {
    let long: Vec<_> = sources()
        .iter()
        .filter(|s| s.text.lines().count() > LINES_MAX)
        .map(|s| {
            format!(
                "src/{}.rs has {} lines; the most is {LINES_MAX}",
                s.place,
                s.text.lines().count()
            )
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
    let places = sources();
    assert!(
        !places.iter().any(|s| s.place.ends_with("/mod")),
        "a module's file stands beside its directory"
    );
}

#[test]
fn the_reader_of_uses_sees_what_is_there() {
    let text = code(
        "use crate::{a, b::{c, d}, e as f};\nlet x = crate::g::h; // crate::i\nnot_crate::j\n\
         #[cfg(test)]\nmod tests { crate::k }",
    );
    assert_eq!(uses(&text, "crate::"), ["a", "b", "e", "g"]);
    assert!(
        names_crate("use zip::Zip;", "zip")
            && names_crate("x(zip::a)", "zip")
            && names_crate("use zip;", "zip")
    );
    assert!(
        !names_crate("iter().zip(x)", "zip")
            && !names_crate("crate::zip::x", "zip")
            && !names_crate("unzip::x", "zip")
    );
    let within = |place: &str| Source { place: place.into(), text: String::new() };
    assert!(
        within("cli/mount").is_in("cli")
            && within("cli").is_in("cli")
            && !within("client").is_in("cli")
    );
}
