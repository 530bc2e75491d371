//! The examples of docs/signing.md, run in their order against a registry of our own.

use crate::support::gnupg::GnuPg;
use crate::*;

/// A part of the document that can be run.
enum Example {
    /// A file, by the name in its first line.
    File(String),
    Command(String),
}

/// The policies, and the commands that stand indented by themselves.
fn examples(document: &str) -> Vec<Example> {
    let (mut found, mut file, mut command) = (Vec::new(), None::<String>, None::<String>);
    for line in document.lines() {
        match (line, &mut file) {
            ("```hcl", _) => file = Some(String::new()),
            ("```", Some(text)) => {
                found.push(Example::File(std::mem::take(text)));
                file = None;
            }
            (_, Some(text)) => *text += &format!("{line}\n"),
            _ => {
                let Some(words) = line.strip_prefix("    ") else { continue };
                let begun = command.take().unwrap_or_default();
                match words.trim().strip_suffix('\\') {
                    Some(more) => command = Some(format!("{begun}{more}")),
                    None => found.push(Example::Command(format!("{begun}{}", words.trim()))),
                }
            }
        }
    }
    found
}

/// What needs a key service, a mount, or a file that the document does not make.
const ELSEWHERE: [&str; 6] = ["awskms", " mount ", "policy.json", "sigstore-root", "…", "@sha256:"];

#[test]
fn the_examples_of_the_tour_do_what_they_say() {
    let Some(gpg) = GnuPg::new() else { return };
    let key = gpg.key("hashicorp", "rsa2048", "never");
    let server = Hostile::start();
    server.list_referrers();
    let (host, trust) = (server.host(), Trust::by_new_key());
    for file in ["acme.key", "acme.pub"] {
        fs::remove_file(trust.path(file)).unwrap();
    }
    fs::create_dir(trust.path("network")).unwrap();
    fs::write(trust.path("network/main.tf"), "# signed\n").unwrap();
    fs::write(trust.path("network.spdx.json"), "{\"spdxVersion\": \"SPDX-2.3\"}").unwrap();
    fs::write(trust.path("hashicorp.asc"), gpg.export(&key)).unwrap();
    let document = include_str!("../../docs/signing.md").replace("ghcr.io", &host);
    let programs = support::world::program();
    let path = format!(
        "{}:{}",
        programs.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(trust.dir.path()).env_clear();
        shell.env("PATH", &path).env("HOME", trust.path("home")).stdin(Stdio::null());
        shell.env("TOFUFS_PLAIN_HTTP", &host);
        support::mount::finish(shell)
    };
    let (mut ran, mut policies) = (0, 0);
    for example in examples(&document) {
        let command = match example {
            Example::File(text) => {
                if ELSEWHERE.iter().any(|word| text.contains(word)) {
                    continue;
                }
                let name = text.lines().next().unwrap().trim_start_matches("# ").to_owned();
                fs::write(trust.path(&name), &text).unwrap();
                policies += 1;
                format!("tofufs policy check --policy {name}")
            }
            Example::Command(command) => command,
        };
        let program = command.split_whitespace().next().unwrap_or_default();
        if !["tofufs", "openssl", "chmod"].contains(&program)
            || ELSEWHERE.iter().any(|word| command.contains(word))
        {
            continue;
        }
        let output = run(&command);
        assert!(output.status.success(), "{command}: {output:?}");
        ran += 1;
    }
    assert!(ran >= 10 && policies >= 2, "{ran} commands and {policies} policies were found");
}
