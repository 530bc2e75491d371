//! Laws of the command line as a whole.

use super::*;
use clap::{CommandFactory, Parser};

fn run_words(words: &str) -> Result<(), CommandError> {
    run(words.split(' ').map(OsString::from).collect())
}

#[test]
fn the_definition_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_grouped_help_names_every_command() {
    let help = CommandLine::command().render_help().to_string();
    let line = CommandLine::command();
    for command in line.get_subcommands().filter(|command| !command.is_hide_set()) {
        let line = format!("\n  {} ", command.get_name());
        assert!(help.contains(&line), "{}: {help}", command.get_name());
    }
}

/// Every command, those of commands too, with its words.
fn commands() -> Vec<(String, clap::Command)> {
    fn below(words: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for inner in command.get_subcommands() {
            let words = format!("{words} {}", inner.get_name());
            found.push((words.clone(), inner.clone()));
            below(&words, inner, found);
        }
    }
    let mut found = Vec::new();
    below("tofufs", &CommandLine::command(), &mut found);
    found
}

#[test]
fn every_option_explains_itself_and_says_if_it_may_be_repeated() {
    for (words, command) in commands() {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{words} {}", argument.get_id());
            let repeats =
                matches!(argument.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
            let says_so = help.contains("may be given several times");
            assert!(
                repeats == says_so || argument.is_positional(),
                "{words} {}",
                argument.get_id()
            );
        }
    }
}

#[test]
fn examples_are_not_broken_on_a_terminal_of_80_columns() {
    let line = CommandLine::command();
    for (words, command) in [("tofufs".to_owned(), line)].into_iter().chain(commands()) {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in examples.lines() {
            assert!(line.chars().count() <= 80, "{words}: {line}");
        }
    }
}

/// The words of a command line, as a shell takes them: what stands in quotes is one.
fn shell_words(line: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    for (at, part) in line.split('\'').enumerate() {
        // Every other part stood in quotes.
        let mut pieces = part.split(' ');
        let joined = if at % 2 == 1 { part } else { pieces.next().unwrap_or_default() };
        words.last_mut().expect("a word").push_str(joined);
        if at % 2 == 0 {
            words.extend(pieces.map(str::to_owned));
        }
    }
    words.into_iter().filter(|word| !word.is_empty())
}

/// The command lines among the examples, with what each is an example of.
fn example_lines() -> Vec<(String, Vec<String>)> {
    let line = CommandLine::command();
    let mut found = Vec::new();
    for (words, command) in [("tofufs".to_owned(), line)].into_iter().chain(commands()) {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let joined = examples.replace("\\\n        ", "");
        for example in joined.lines().filter_map(|line| line.strip_prefix("  tofufs ")) {
            // Behind two spaces stands what it is for; behind > where its output goes.
            let typed = example
                .split("   ")
                .next()
                .unwrap_or_default()
                .split(" > ")
                .next()
                .unwrap_or_default();
            let typed = shell_words(typed);
            found.push((words.clone(), ["tofufs".to_owned()].into_iter().chain(typed).collect()));
        }
    }
    found
}

#[test]
fn examples_are_understood() {
    let lines = example_lines();
    assert!(lines.len() > 30, "{}", lines.len());
    for (of, words) in lines {
        let parsed =
            CommandLine::try_parse_from(&words).unwrap_or_else(|e| panic!("{of}: {words:?}: {e}"));
        let mapping = match &parsed.command {
            Command::Mount(args) => args.mapping.mapping(),
            Command::Lock(args) => args.mapping.mapping(),
            _ => Ok(None),
        };
        assert!(mapping.is_ok(), "{of}: {words:?}: {mapping:?}");
    }
}

#[test]
fn json_is_an_option_of_the_command_and_not_of_a_group() {
    let with_json: Vec<_> = commands()
        .into_iter()
        .filter_map(|(words, command)| {
            let json =
                command.get_arguments().find(|argument| argument.get_long() == Some("json"))?;
            assert_eq!(json.get_help_heading(), None, "{words}");
            Some(words)
        })
        .collect();
    // Every command that prints data has it. `cache` hands it down to its commands.
    for data in [
        "status",
        "doctor",
        "commit",
        "push",
        "mirror",
        "copy",
        "lock",
        "bundle",
        "bundle verify",
        "pull",
        "export",
        "tofurc",
        "cache",
    ] {
        assert!(with_json.contains(&format!("tofufs {data}")), "{data}");
    }
}

#[test]
fn wrong_use_is_one_line_that_names_what_was_wrong() {
    for (words, part) in [
        ("tofufs", "a command is missing; `tofufs help` lists them"),
        ("tofufs nonsense", "'nonsense'; see `tofufs help`"),
        ("tofufs mount", "a SOURCE and a MOUNTPOINT are wanted"),
        ("tofufs mount a.b --offline", "a SOURCE and a MOUNTPOINT are wanted"),
        ("tofufs mount --cache-size 5GB a.b /mnt", "\"5GB\" is not a size"),
        ("tofufs mount --deadline 0s a.b /mnt", "--deadline"),
        ("tofufs mount oci-archive: /mnt", "the file of the archive is missing"),
        (
            "tofufs mount acme /mnt",
            "a source is HOST[:PORT][/PREFIX], providers:HOST, oci:DIR or oci-archive:FILE",
        ),
        ("tofufs mount --tag-ttl 5w a.b /mnt", "is not a duration"),
        (
            "tofufs mount --uid no-such-user-here a.b /mnt",
            "--uid no-such-user-here: this machine knows no such user",
        ),
        ("tofufs mount --gid a:b a.b /mnt", "neither a number nor a name"),
        (
            "tofufs moutn a.b /mnt",
            "'moutn'; similar subcommands exist: 'umount', 'mount'; see `tofufs help`",
        ),
        (
            "tofufs mount --offlin a.b /mnt",
            "'--offlin' found; a similar argument exists: '--offline'; see `tofufs help mount`",
        ),
        (
            "tofufs mount --log-format jsn a.b /mnt",
            "a similar value exists: 'json'; see `tofufs help mount`",
        ),
        ("tofufs cache", "a command is missing; `tofufs help cache` lists them"),
        ("tofufs mount -o ro a.b /mnt", "'-o' found; see `tofufs help mount`"),
        ("mount.fuse.tofufs a.b /mnt -o nonsense", "-o nonsense"),
        ("tofufs push a.b/c:1", "a PATH and a REFERENCE are wanted"),
        (
            "tofufs cache --json prune --to 5",
            "\"5\" is not a size (a number with KiB, MiB, GiB or TiB); see `tofufs help cache \
             prune`",
        ),
    ] {
        let error = run_words(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(part) && !text.contains('\n') && !text.starts_with("error"),
            "{words}: {text}"
        );
    }
}

/// Every command that takes an address: what is spelled otherwise is refused before anything is
/// done, with the argument as a whole that is meant.
#[test]
fn an_address_that_is_spelled_otherwise_is_refused_with_the_one_that_is_meant() {
    let digest = format!("sha256:{}", "0".repeat(64));
    for (words, instead) in [
        ("tofufs mount https://ghcr.io/acme /mnt", "ghcr.io/acme"),
        ("tofufs mount docker://ghcr.io/acme/n:1 /mnt", "ghcr.io/acme/n"),
        ("tofufs mount oci://ghcr.io/acme/n?tag=1 /mnt", "ghcr.io/acme/n"),
        ("tofufs mount ghcr.io/acme/n:1 /mnt", "ghcr.io/acme/n"),
        ("tofufs mount ghcr.io/acme/n@DIGEST /mnt", "ghcr.io/acme/n"),
        ("tofufs mount /srv/store /mnt", "oci:/srv/store"),
        ("tofufs mount oci:///srv/store /mnt", "oci:/srv/store"),
        ("tofufs mount oci-archive:///b.tar /mnt", "oci-archive:/b.tar"),
        ("mount.fuse.tofufs https://ghcr.io /mnt", "ghcr.io"),
        ("tofufs push . oci://ghcr.io/acme/n:1", "ghcr.io/acme/n:1"),
        ("tofufs push . oci://ghcr.io/acme/n//sub?tag=1", "ghcr.io/acme/n:1"),
        ("tofufs push . https://ghcr.io/acme/n:1", "ghcr.io/acme/n:1"),
        ("tofufs push . /srv/store/ghcr.io/n:1", "oci:/srv/store/ghcr.io/n:1"),
        ("tofufs push . ghcr.io/acme/n:1.0.0+x", "ghcr.io/acme/n:1.0.0_x"),
        ("tofufs push --tag 1.0.0+x . ghcr.io/acme/n", "1.0.0_x; see `tofufs help push`"),
        ("tofufs pull oci://ghcr.io/acme/n:1", "ghcr.io/acme/n:1; see `tofufs help pull`"),
        ("tofufs pull oci://ghcr.io/acme/n//sub?tag=1", "ghcr.io/acme/n:1; see `tofufs help pull`"),
        ("tofufs pull docker://ghcr.io/acme/n:1", "ghcr.io/acme/n:1; see `tofufs help pull`"),
        (
            "tofufs pull ghcr.io/a/n",
            "ghcr.io/a/n:TAG, or ghcr.io/a/n:* for all of its tags; see `tofufs help pull`",
        ),
        (
            "tofufs cache pin https://ghcr.io/acme/n:1",
            "ghcr.io/acme/n:1; see `tofufs help cache pin`",
        ),
        ("tofufs bundle https://ghcr.io/a/n:1 -o oci:x", "ghcr.io/a/n:1; see `tofufs help bundle`"),
        ("tofufs bundle ghcr.io/a/n:1 -o ./x.tar", "oci-archive:./x.tar"),
        ("tofufs bundle ghcr.io/a/n:1 -o x.tar", "oci-archive:x.tar"),
        ("tofufs bundle ghcr.io/a/n:1 -o oci-archive://x.tar", "oci-archive:x.tar"),
        ("tofufs bundle ghcr.io/a/n:1 -o oci:///srv/x", "oci:/srv/x"),
        ("tofufs bundle verify /srv/store", "oci:/srv/store"),
        ("tofufs bundle verify ./x.tar", "oci-archive:./x.tar"),
        ("tofufs copy https://ghcr.io/a/n:1 oci:x", "ghcr.io/a/n:1"),
        (
            "tofufs copy ghcr.io/a/n:1 oci://x.y/n",
            "x.y/n:latest for one artifact, or x.y/n for all below it",
        ),
        ("tofufs copy ghcr.io/a/n:1 /srv/store", "oci:/srv/store"),
        ("tofufs doctor https://ghcr.io/acme/n:1", "ghcr.io/acme/n:1"),
        ("tofufs doctor oci://ghcr.io/acme/n//sub?tag=1", "ghcr.io/acme/n:1"),
        (
            "tofufs doctor --plain-http http://a.b:5000 a.b:5000",
            "a.b:5000; see `tofufs help doctor`",
        ),
        ("tofufs lock --from /srv/store", "oci:/srv/store"),
        ("tofufs lock --from oci-archive://x.tar", "oci-archive:x.tar"),
        ("tofufs lock --mirror https://a.b=https://c.d", "a.b=https://c.d"),
        ("tofufs lock --token-realm https://a.b=https://c.d", "a.b=https://c.d"),
        ("tofufs lock --oci-mirror oci://a.b/${namespace}/${type}", "'a.b/${namespace}/${type}'"),
        ("tofufs lock --oci-mirror https://a.b/${type} --include n/*", "'a.b/${type}'"),
    ] {
        let words = words.replace("DIGEST", &digest);
        let error = run_words(&words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words}: {error}");
        assert!(error.to_string().ends_with(&format!("; write {instead}")), "{words}: {error}");
    }
}

#[test]
fn a_look_at_a_cache_that_is_not_there_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["info", "verify", "prune"] {
        let error =
            run_words(&format!("tofufs cache {command} --cache-dir {}", dir.path().display()))
                .unwrap_err();
        assert_eq!(error.exit_code(), 1, "{command}");
        assert!(error.to_string().contains("there is no cache"), "{command}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_mount_of_tofufs_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    for words in [
        format!("tofufs umount {path}"),
        format!("tofufs status {path}"),
        format!("tofufs refresh {path}/x"),
    ] {
        let error = run_words(&words).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{words}");
        assert!(error.to_string().contains(&*dir.path().to_string_lossy()), "{error}");
    }
}

#[test]
fn a_fake_mount_does_nothing() {
    assert!(run_words("mount.fuse.tofufs -f a.b /nowhere -o ro").is_ok());
}

/// The command lines of `tofufs` in a document: in indented or fenced lines, alone or behind a
/// prompt, up to what a shell takes for something else.
fn document_lines(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut fenced = false;
    for line in joined.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && !line.starts_with("    ") {
            continue;
        }
        for part in line.trim().trim_start_matches("$ ").trim_start_matches("- ").split(" && ") {
            let Some(rest) = part.trim().strip_prefix("tofufs ") else { continue };
            let typed = rest.split([';', '|', '#', '…']).next().unwrap_or_default();
            let typed = typed.split(" > ").next().unwrap_or_default();
            let words = shell_words(typed);
            found.push(["tofufs".to_owned()].into_iter().chain(words).collect());
        }
    }
    found
}

#[test]
fn commands_in_documents_are_understood() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(root.join("docs")).unwrap();
    let documents = documents.map(|entry| entry.unwrap().path()).chain([root.join("README.md")]);
    let mut count = 0;
    for document in documents.filter(|path| path.extension().is_some_and(|e| e == "md")) {
        for words in document_lines(&std::fs::read_to_string(&document).unwrap()) {
            count += 1;
            let parsed = CommandLine::try_parse_from(&words);
            let document = document.display();
            parsed.unwrap_or_else(|e| panic!("{document}: {words:?}: {e}"));
        }
    }
    assert!(count > 50, "{count}");
}
