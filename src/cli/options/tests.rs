//! Laws of options that are said elsewhere than on the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::*;
use crate::cli::args;

fn places(variables: &[(&str, &str)]) -> Places {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Places { variables: variables.collect::<BTreeMap<_, _>>() }
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn said(line: &str, places: &Places) -> Read {
    read(&words(line), places).unwrap_or_else(|e| panic!("{line}: {e:?}"))
}

fn mount(line: &str, places: &Places) -> args::MountArgs {
    match said(line, places).line.command {
        args::Command::Mount(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &str, places: &Places) -> String {
    match read(&words(line), places) {
        Err(Unread::Said(e)) => e.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

/// Every command, those of commands too, with its words.
fn commands(words: &str, command: &Command) -> Vec<(String, Command)> {
    let mut found = vec![(words.to_owned(), command.clone())];
    for inner in command.get_subcommands() {
        found.extend(commands(&format!("{words} {}", inner.get_name()), inner));
    }
    found
}

#[test]
fn every_option_has_a_variable() {
    let mut seen = 0;
    for (words, command) in commands("tofufs", &described()) {
        for option in command.get_opts().filter(|option| !option.is_hide_set()) {
            let Some(long) = option.get_long() else { panic!("{words} {} has no long form", option.get_id()) };
            let expected = format!("TOFUFS_{}", long.to_uppercase().replace('-', "_"));
            let typed_alone = ["help", "version", "foreground"].contains(&long);
            let variable = option.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, (!typed_alone).then_some(expected), "{words} --{long}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn the_help_names_the_variable_and_never_its_value() {
    let mount = described().find_subcommand("mount").cloned().unwrap();
    let help = mount.clone().render_long_help().to_string();
    assert!(help.contains("[env: TOFUFS_CA_FILE]"), "{help}");
    assert!(mount.get_opts().filter(|o| o.get_env().is_some()).all(Arg::is_hide_env_values_set));
}

#[test]
fn a_variable_says_what_was_not_typed_and_the_option_replaces_it() {
    let places = places(&[
        ("TOFUFS_CACHE_DIR", "/variable"),
        ("TOFUFS_PLAIN_HTTP", "a.b:1\nc.d:2\n"),
        ("TOFUFS_CA_FILE", "/one, two.pem"),
        ("TOFUFS_OFFLINE", "true"),
        ("TOFUFS_READ_ONLY", "0"),
        ("TOFUFS_VERBOSE", "2"),
        ("TOFUFS_TAG_TTL", ""),
        ("TOFUFS_FOREGROUND", "true"),
    ]);
    let args = mount("tofufs mount a.b /mnt", &places);
    assert_eq!(args.storage.cache_dir.as_deref(), Some(std::path::Path::new("/variable")));
    let hosts =
        |args: &args::MountArgs| args.network.reach.plain_http.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(hosts(&args), ["a.b:1", "c.d:2"]);
    assert_eq!(args.network.reach.ca_file, [std::path::Path::new("/one, two.pem")]);
    assert!(args.network.offline && !args.access.read_only && !args.foreground);
    assert_eq!((args.log.verbose, args.network.tag_ttl.0.as_secs()), (2, 60));

    let typed = "tofufs mount --cache-dir /typed --plain-http e.f --offline=false --read-only=true a.b /mnt";
    let args = mount(typed, &places);
    assert_eq!(args.storage.cache_dir.as_deref(), Some(std::path::Path::new("/typed")));
    assert_eq!(hosts(&args), ["e.f"]);
    assert!(!args.network.offline && args.access.read_only);
}

#[test]
fn what_stands_behind_two_dashes_is_no_option() {
    let args = mount("tofufs mount -- a.b --offline=false", &places(&[("TOFUFS_OFFLINE", "1")]));
    assert!(args.network.offline);
    assert_eq!(args.sources_and_mountpoint, ["a.b", "--offline=false"]);
}

#[test]
fn options_of_commands_above_and_below_have_their_variables() {
    let places = places(&[
        ("TOFUFS_CACHE_DIR", "/c"),
        ("TOFUFS_JSON", "yes"),
        ("TOFUFS_OUTPUT", "oci:/x"),
        ("TOFUFS_TO", "1KiB"),
    ]);
    for line in ["tofufs cache info", "tofufs cache prune"] {
        match said(line, &places).line.command {
            args::Command::Cache(args) => {
                assert_eq!((args.cache_dir, args.json), (Some("/c".into()), true), "{line}");
                let to = match args.command {
                    args::CacheCommand::Prune { to } => to.0,
                    _ => 1024,
                };
                assert_eq!(to, 1024);
            }
            other => panic!("{other:?}"),
        }
    }
    match said("tofufs cache --cache-dir prune prune", &places).line.command {
        args::Command::Cache(args) => assert_eq!(args.cache_dir, Some("prune".into())),
        other => panic!("{other:?}"),
    }
    match said("tofufs bundle a.b/c:1", &places).line.command {
        args::Command::Bundle(args) => assert_eq!(args.output, Some("oci:/x".into())),
        other => panic!("{other:?}"),
    }
    match said("tofufs bundle verify oci:/y", &places).line.command {
        args::Command::Bundle(args) => {
            assert!(matches!(args.command, Some(args::carry::BundleCommand::Verify(v)) if v.json))
        }
        other => panic!("{other:?}"),
    }
}

/// `--include` and `--exclude` belong to an `--oci-mirror`, so the place that says one of them says all.
#[test]
fn the_rules_of_the_mapping_are_one_setting() {
    let both = places(&[
        ("TOFUFS_OCI_MIRROR", "r.io/a/${namespace}/${type}"),
        ("TOFUFS_INCLUDE", "n.o/p/*\nn.o/q/*"),
        ("TOFUFS_EXCLUDE", "n.o/p/x"),
    ]);
    let flags = |line: &str, places: &Places| {
        let mapping = mount(line, places).mapping.mapping().unwrap().unwrap();
        crate::cli::mapping::flags(&mapping)
    };
    assert_eq!(
        flags("tofufs mount a.b /mnt", &both),
        [
            "--oci-mirror",
            "r.io/a/${namespace}/${type}",
            "--include",
            "n.o/p/*",
            "--include",
            "n.o/q/*",
            "--exclude",
            "n.o/p/x"
        ]
    );
    let typed = "tofufs mount --oci-mirror s.io/${hostname}/${namespace}/${type} a.b /mnt";
    assert_eq!(flags(typed, &both), ["--oci-mirror", "s.io/${hostname}/${namespace}/${type}"]);
    let two = [("TOFUFS_OCI_MIRROR", "r.io/${type}\ns.io/${type}"), ("TOFUFS_INCLUDE", "a/b")];
    let said = refused("tofufs mount a.b /mnt", &places(&two));
    assert!(said.starts_with("TOFUFS_INCLUDE: it belongs to one oci_mirror, and there are 2"), "{said}");
    let said = refused("tofufs mount a.b /mnt", &places(&two[1..]));
    assert!(said.starts_with("TOFUFS_INCLUDE: it belongs to oci_mirror"), "{said}");
}

#[test]
fn a_value_that_is_refused_is_told_with_its_place() {
    for (name, value, part) in [
        ("TOFUFS_CACHE_SIZE", "5GB", "\"5GB\" is not a size"),
        ("TOFUFS_OFFLINE", "maybe", "\"maybe\" is neither true nor false"),
        ("TOFUFS_LOG_FORMAT", "xml", "[possible values: text, json]"),
        ("TOFUFS_VERBOSE", "much", "invalid digit"),
        ("TOFUFS_PLAIN_HTTP", "a.b\nUPPER", "UPPER"),
    ] {
        let said = refused("tofufs mount a.b /mnt", &places(&[(name, value)]));
        assert!(said.starts_with(&format!("{name}: ")) && said.contains(part) && !said.contains('\n'), "{said}");
    }
    // What a command finds out later is told with the place too.
    let read = said("tofufs mount a.b /mnt", &places(&[("TOFUFS_MIRROR", "x"), ("TOFUFS_DEADLINE", "1s")]));
    let error = read.origins.told(crate::cli::output::CommandError::usage("--mirror: write HOST=URL"));
    assert_eq!(error.to_string(), "--mirror: write HOST=URL (--mirror is from TOFUFS_MIRROR)");
}
