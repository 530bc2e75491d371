//! Laws of options that are said elsewhere than on the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::*;
use crate::cli::args;

fn places(variables: &[(&str, &str)]) -> OptionPlaces {
    let variables =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    OptionPlaces { variables: variables.collect::<BTreeMap<_, _>>(), ..OptionPlaces::default() }
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn said(line: &str, places: &OptionPlaces) -> ReadCommandLine {
    read(&words(line), places).unwrap_or_else(|e| panic!("{line}: {e:?}"))
}

fn mount(line: &str, places: &OptionPlaces) -> args::mount::MountArgs {
    match said(line, places).line.command {
        args::Command::Mount(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &str, places: &OptionPlaces) -> String {
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
            let Some(long) = option.get_long() else {
                panic!("{words} {} has no long form", option.get_id())
            };
            let expected = format!("TOFUFS_{}", long.to_uppercase().replace('-', "_"));
            let typed_alone = TYPED_ALONE.contains(&long);
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
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("several times [env: TOFUFS_CA_FILE] "), "{help}");
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
    let hosts = |args: &args::mount::MountArgs| {
        args.network.reach.plain_http.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&args), ["a.b:1", "c.d:2"]);
    assert_eq!(args.network.reach.ca_file, [std::path::Path::new("/one, two.pem")]);
    assert!(args.network.offline && !args.access.read_only && !args.foreground);
    assert_eq!((args.network.reach.verbose, args.network.tag_ttl.0.as_secs()), (2, 60));

    let typed = "tofufs mount --cache-dir /typed --plain-http e.f --offline=false --read-only=true \
         a.b /mnt";
    let args = mount(typed, &places);
    assert_eq!(args.storage.cache_dir.as_deref(), Some(std::path::Path::new("/typed")));
    assert_eq!(hosts(&args), ["e.f"]);
    assert!(!args.network.offline && args.access.read_only);
}

#[test]
fn the_last_word_on_a_switch_counts() {
    for (typed, on) in [
        ("--offline --offline=false", false),
        ("--offline=false --offline", true),
        ("--offline=false --offline=true", true),
        ("--offline=true --offline=false --strict", false),
    ] {
        let line = format!("tofufs mount {typed} a.b /mnt");
        assert_eq!(
            mount(&line, &places(&[("TOFUFS_OFFLINE", "1")])).network.offline,
            on,
            "{typed}"
        );
    }
    assert!(matches!(
        read(&words("tofufs mount --offline=maybe a.b /mnt"), &places(&[])),
        Err(Unread::Typed(_))
    ));
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

/// `--include` and `--exclude` belong to an `--oci-mirror`, so the place that says one of them says
/// all.
#[test]
fn the_rules_of_the_mapping_are_one_setting() {
    let both = places(&[
        ("TOFUFS_OCI_MIRROR", "r.io/a/${namespace}/${type}"),
        ("TOFUFS_INCLUDE", "n.o/p/*\nn.o/q/*"),
        ("TOFUFS_EXCLUDE", "n.o/p/x"),
    ]);
    let flags = |line: &str, places: &OptionPlaces| {
        let mapping = mount(line, places).mapping.mapping().unwrap().unwrap();
        crate::cli::args::mapping::flags(&mapping)
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
    assert!(
        said.starts_with("TOFUFS_INCLUDE: it belongs to one oci_mirror, and there are 2"),
        "{said}"
    );
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
        assert!(
            said.starts_with(&format!("{name}: ")) && said.contains(part) && !said.contains('\n'),
            "{said}"
        );
    }
    // What a command finds out later is told with the place too.
    let read = said(
        "tofufs mount a.b /mnt",
        &places(&[("TOFUFS_MIRROR", "x"), ("TOFUFS_DEADLINE", "1s")]),
    );
    let error =
        read.origins.told(crate::cli::output::CommandError::usage("--mirror: write HOST=URL"));
    assert_eq!(error.to_string(), "--mirror: write HOST=URL (--mirror is from TOFUFS_MIRROR)");
}

/// The places of a user with these configuration files, the stronger first.
fn with_files(texts: &[&str], variables: &[(&str, &str)]) -> (tempfile::TempDir, OptionPlaces) {
    let dir = tempfile::tempdir().unwrap();
    let files = texts.iter().enumerate().map(|(at, text)| {
        let file = dir.path().join(format!("{at}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    });
    let files = files.collect();
    let home = Some("/home/u".into());
    let places = OptionPlaces { files, home, ..places(variables) };
    (dir, places)
}

fn cache_dir(line: &str, places: &OptionPlaces) -> (String, ValueOrigin) {
    let settled =
        SettledOptions::of(&words(line), places).unwrap_or_else(|e| panic!("{line}: {e:?}"));
    let origin =
        settled.said.get("cache_dir").map_or(ValueOrigin::Default, |said| said.origin.clone());
    (mount(line, places).storage.cache_dir.unwrap_or_default().display().to_string(), origin)
}

#[test]
fn a_flag_stands_before_a_variable_before_a_file_before_the_default() {
    let user = "\ncache_dir = \"/user\"\n[mount.work]\nsources = [\"a.b\"]\n\
         mountpoint = \"/mnt\"\ncache_dir = \"/work\"\n";
    let system = "cache_dir = \"/system\"\nlog_keep = 7\n";
    let variable: &[(&str, &str)] = &[("TOFUFS_CACHE_DIR", "/variable")];
    let file = |places: &OptionPlaces, at: usize, line| ValueOrigin::File {
        path: places.files[at].clone(),
        line,
    };
    for (files, variables, line, value, origin) in [
        (&[user, system][..], variable, "tofufs mount --cache-dir /flag a.b /mnt", "/flag", None),
        (&[user, system], variable, "tofufs mount --cache-dir /flag work", "/flag", None),
        (&[user, system], variable, "tofufs mount a.b /mnt", "/variable", Some(None)),
        (&[user, system], variable, "tofufs mount work", "/variable", Some(None)),
        (&[user, system], &[], "tofufs mount work", "/work", Some(Some((0, 6)))),
        (&[user, system], &[], "tofufs mount a.b /mnt", "/user", Some(Some((0, 2)))),
        (&["", system], &[], "tofufs mount a.b /mnt", "/system", Some(Some((1, 1)))),
        (&[system, user], &[], "tofufs mount work", "/work", Some(Some((1, 6)))),
        (&["", ""], &[], "tofufs mount a.b /mnt", "", None),
        (&[], &[("TOFUFS_CACHE_DIR", "")], "tofufs mount a.b /mnt", "", None),
    ] {
        let (_dir, places) = with_files(files, variables);
        let expected = match origin {
            None => ValueOrigin::Default,
            Some(None) => ValueOrigin::Variable("TOFUFS_CACHE_DIR".to_owned()),
            Some(Some((at, line))) => file(&places, at, line),
        };
        assert_eq!(cache_dir(line, &places), (value.to_owned(), expected), "{line}");
    }
    let (_dir, places) = with_files(&[user, system], &[]);
    assert_eq!(mount("tofufs mount work", &places).log.log_keep, 7);
}

#[test]
fn every_kind_of_value_stands_in_a_file() {
    let text = r#"
        plain_http = ["a.b:1", "c.d"]
        ca_file = "~/corp.pem"
        offline = true
        verbose = 2
        deadline = 90
        cache_size = "5GiB"
        from = ["oci:/srv/store", "oci-archive:~/b.tar"]
        oci_mirror = ["r.io/${hostname}/${namespace}/${type}", { template = "s.io/${type}", include = ["a.b/n/*"] }]
    "#;
    let (_dir, places) = with_files(&[text], &[]);
    let args = mount("tofufs mount a.b /mnt", &places);
    let reach = &args.network.reach;
    assert_eq!(
        reach.plain_http.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a.b:1", "c.d"]
    );
    assert_eq!(reach.ca_file, [std::path::Path::new("/home/u/corp.pem")]);
    assert!(args.network.offline);
    assert_eq!(
        (args.network.reach.verbose, reach.deadline.0.as_secs(), args.storage.cache_size.0),
        (2, 90, 5 << 30)
    );
    let rules = crate::cli::args::mapping::flags(&args.mapping.mapping().unwrap().unwrap());
    let all = "r.io/${hostname}/${namespace}/${type}";
    assert_eq!(
        rules,
        ["--oci-mirror", all, "--oci-mirror", "s.io/${type}", "--include", "a.b/n/*"]
    );
    match said("tofufs lock", &places).line.command {
        args::Command::Lock(args) => {
            assert_eq!(args.reading.reading.from, ["oci:/srv/store", "oci-archive:/home/u/b.tar"])
        }
        other => panic!("{other:?}"),
    }
    // An empty list of the user's replaces the system's.
    let (_dir, places) = with_files(&["plain_http = []\noci_mirror = []", text], &[]);
    let args = mount("tofufs mount a.b /mnt", &places);
    assert!(args.network.reach.plain_http.is_empty() && args.mapping.mapping().unwrap().is_none());
}

#[test]
fn what_a_file_cannot_say_is_refused_with_its_line() {
    for (text, line, part) in [
        ("x = 1", 1, "x: there is no such option here"),
        ("\ncache-dir = \"/x\"", 2, "keys are written with _; write cache_dir"),
        ("help = true", 1, "no such option"),
        ("foreground = true", 1, "no such option"),
        ("oci_mirror_rule = \"x\"", 1, "no such option"),
        ("offline = true\noffline = false", 2, "duplicate key"),
        ("\n\noffline = \"yes\"", 3, "offline: true or false is wanted, and this is a text"),
        ("plain_http = 5", 1, "plain_http: a list of texts is wanted, and this is a number"),
        ("plain_http = [\"a.b\",\n 5]", 2, "plain_http: a text is wanted, and this is a number"),
        ("cache_dir = [\"/x\"]", 1, "cache_dir: a text is wanted, and this is a list"),
        ("verbose = \"much\"", 1, "verbose: a number is wanted, and this is a text"),
        ("cache_dir = \"x\"", 1, "begins with / or, in the home, with ~/"),
        ("from = [\"oci:x\"]", 1, "begins with / or, in the home, with ~/"),
        ("cache_size = \"5GB\"", 1, "\"5GB\" is not a size"),
        ("\ninclude = [\"a/b\"]", 2, "it belongs to oci_mirror"),
        ("oci_mirror = [{ include = [\"a/b\"] }]", 1, "the template is missing"),
        (
            "oci_mirror = [{ template = \"x\", hosts = [] }]",
            1,
            "a rule has template, include and exclude",
        ),
        ("offline = ", 1, "1.toml"),
        ("mount = 1", 1, "mount: a table is wanted"),
        ("[mount.x]\nsources = [\"a.b\"]", 1, "the mount \"x\" has no mountpoint"),
        ("[mount.x]\nsources = []\nmountpoint = \"/mnt\"", 1, "the mount \"x\" has no sources"),
        (
            "[mount.x]\nsources = [\"a.b\"]\nmountpoint = \"/mnt\"\ncheck = true",
            4,
            "check: there is no such option here",
        ),
        ("[mount.x]\nsources = [\"a.b\"]\nmountpoint = \"mnt\"", 3, "begins with /"),
    ] {
        let (_dir, places) = with_files(&["", text], &[]);
        let said = refused("tofufs mount a.b /mnt", &places);
        let place = format!("{}:{line}: ", places.files[1].display());
        assert!(
            said.starts_with(&place) && said.contains(part) && !said.contains('\n'),
            "{text:?}: {said}"
        );
    }
    let (_dir, places) = with_files(&["", ""], &[]);
    let said = refused("tofufs mount home", &places);
    assert!(said.starts_with("mount home: neither ") && said.contains("0.toml nor "), "{said}");
}

#[test]
fn a_file_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, places) = with_files(&["offline = true"], &[]);
    let set = |mode| {
        std::fs::set_permissions(&places.files[0], std::fs::Permissions::from_mode(mode)).unwrap()
    };
    for mode in [0o664, 0o646] {
        set(mode);
        let said = refused("tofufs mount a.b /mnt", &places);
        assert!(said.contains("0.toml: others can write to it; run `chmod go-w` on it"), "{said}");
    }
    set(0o644);
    assert!(mount("tofufs mount a.b /mnt", &places).network.offline);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&places.files[0], Some(4242), None).unwrap();
        let said = refused("tofufs mount a.b /mnt", &places);
        assert!(said.contains("it belongs to the user 4242"), "{said}");
    }
}

/// A key of a file counts for all commands that have the option, so it is of one kind.
#[test]
fn an_option_is_of_one_kind_in_all_commands() {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for (words, command) in commands("tofufs", &described()) {
        for option in command.get_opts() {
            if let Some(key) = key(option) {
                let other = *kinds.entry(key.clone()).or_insert(kind(option));
                assert_eq!(other, kind(option), "{words}: {key}");
            }
        }
    }
}

/// What a mount says of itself can be taken over by each command that takes after one.
#[test]
fn a_mount_tells_options_that_other_commands_have() {
    let args = mount(
        "tofufs mount --oci-mirror r.io/${namespace}/${type} a.b /mnt",
        &OptionPlaces::default(),
    );
    let environment = crate::cli::directories::DirectoryEnvironment {
        home: Some("/h".into()),
        base: "/b".into(),
        ..Default::default()
    };
    let settings = crate::cli::settings::MountSettings::new(&args, &environment).unwrap();
    let told = like::told(&settings);
    assert_eq!(told["cache_dir"], ["/h/.cache/tofufs"]);
    assert_eq!(
        (told["deadline"].clone(), told["cache_size"].clone()),
        (vec!["60000ms".into()], vec!["20971520KiB".into()])
    );
    let known = all_options(&CommandLine::command());
    for key in told.keys() {
        assert!(known.contains_key(key), "{key}");
    }
    for command in ["lock", "bundle", "pull", "export", "push", "copy", "doctor"] {
        let command = CommandLine::command().find_subcommand(command).cloned().unwrap();
        assert!(
            command.get_opts().any(|option| option.get_long() == Some("like")),
            "{}",
            command.get_name()
        );
    }
}

/// The document names each option, and what it shows can be read.
#[test]
fn the_document_is_complete_and_its_examples_are_understood() {
    let document = include_str!("../../../docs/configuration.md");
    for key in all_options(&CommandLine::command()).keys().filter(|key| *key != RULE) {
        assert!(document.contains(&format!("`{key}`")), "{key}");
    }
    let examples: Vec<_> =
        document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let (_dir, places) = with_files(&[example], &[]);
        let settled =
            SettledOptions::of_all(&places).unwrap_or_else(|e| panic!("{example}: {e:?}"));
        let names =
            example.lines().filter_map(|line| line.strip_prefix("[mount.")?.strip_suffix(']'));
        for name in names {
            let mount = mount(&format!("tofufs mount {name}"), &places);
            assert!(
                mount.sources_and_mountpoint.len() > 1 && mount.mapping.mapping().is_ok(),
                "{example}"
            );
        }
        assert!(!settled.typed.options.is_empty());
    }
}
