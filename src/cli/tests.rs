//! Laws of the command line as a whole.

use super::*;
use clap::CommandFactory;

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
    for command in CommandLine::command().get_subcommands() {
        let line = format!("\n  {} ", command.get_name());
        assert!(help.contains(&line), "{}: {help}", command.get_name());
    }
}

#[test]
fn every_option_explains_itself_and_says_if_it_may_be_repeated() {
    let line = CommandLine::command();
    for command in line.get_subcommands() {
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{} {}", command.get_name(), argument.get_id());
            let repeats = matches!(argument.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
            let says_so = help.contains("may be given several times");
            assert!(repeats == says_so || argument.is_positional(), "{} {}", command.get_name(), argument.get_id());
        }
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
        ("tofufs mount acme /mnt", "a source is HOST[:PORT][/PREFIX], oci:DIR or oci-archive:FILE"),
        ("tofufs mount --tag-ttl 5 a.b /mnt", "is not a duration"),
        ("tofufs cache", "a command is missing; `tofufs help cache` lists them"),
        ("tofufs mount -o ro a.b /mnt", "'-o' found; see `tofufs help mount`"),
        ("mount.fuse.tofufs a.b /mnt -o nonsense", "-o nonsense"),
    ] {
        let error = run_words(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words}: {error}");
        let text = error.to_string();
        assert!(text.contains(part) && !text.contains('\n') && !text.starts_with("error"), "{words}: {text}");
    }
}

#[test]
fn a_look_at_a_cache_that_is_not_there_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["info", "verify", "prune"] {
        let error = run_words(&format!("tofufs cache {command} --cache-dir {}", dir.path().display())).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{command}");
        assert!(error.to_string().contains("there is no cache"), "{command}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_no_mount_of_tofufs_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    for words in [format!("tofufs umount {path}"), format!("tofufs status {path}"), format!("tofufs refresh {path}/x")]
    {
        let error = run_words(&words).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{words}");
        assert!(error.to_string().contains(&*dir.path().to_string_lossy()), "{error}");
    }
}

#[test]
fn a_fake_mount_does_nothing() {
    assert!(run_words("mount.fuse.tofufs -f a.b /nowhere -o ro").is_ok());
}
