//! Being called as mount(8) calls a mount helper: `mount.fuse.tofufs SOURCE MOUNTPOINT [-sfnvrw]
//! [-o OPTIONS] [-t TYPE]`.
//!
//! The words are translated into those of `tofufs mount`, so that both have the same options with
//! the same meaning. An option of mount(8) itself that does not concern a file system is passed
//! over; an unknown one is refused, unless `-s`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::CommandFactory;

use super::args::CommandLine;

/// What separates several sources in the one field that fstab(5) has for them. A comma or a space
/// can be a part of `oci:DIR` or `oci-archive:FILE`, and a colon is one of `HOST:PORT`.
const SEPARATOR: u8 = b';';

/// A mount helper's arguments that make no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelperError {
    /// Not exactly one source and one mount point.
    #[error("a mount helper takes SOURCE MOUNTPOINT -o OPTIONS; {0} names were given")]
    Names(usize),
    /// A flag without meaning, or without its value.
    #[error("the flag {0:?} is not one that mount(8) passes, or its value is missing")]
    Flag(OsString),
    /// An unknown `-o` option.
    #[error("-o {0}: there is no such option; `tofufs help mount` lists them (write _ for -)")]
    Option(String),
    #[error("-o remount: a mount of tofufs cannot be changed; unmount it and mount it again")]
    Remount,
}

/// What a mount helper is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Translation {
    /// The words of a `tofufs` command line, the program's name first.
    CommandLine(Vec<OsString>),
    /// `-f`: everything but mounting, of which nothing is left.
    Nothing,
}

/// Translates if this is a mount helper's call: by name, or because /sbin/mount.fuse3 runs `tofufs
/// SOURCE MOUNTPOINT -o …`. `None` if it is an ordinary one.
pub fn translate(words: &[OsString]) -> Option<Result<Translation, HelperError>> {
    let (program, rest) = words.split_first()?;
    let name = Path::new(program).file_name().unwrap_or_default();
    let by_name = [OsStr::new("mount.fuse.tofufs"), OsStr::new("mount.tofufs")].contains(&name);
    (by_name || is_bare_mount(rest)).then(|| translated(program, rest))
}

fn is_bare_mount(words: &[OsString]) -> bool {
    let Some(first) = words.first() else { return false };
    let command = CommandLine::command();
    let is_command = first == "help" || command.get_subcommands().any(|c| first == c.get_name());
    !is_command
        && !first.as_bytes().starts_with(b"-")
        && words.iter().skip(2).any(|word| word == "-o")
}

fn translated(program: &OsStr, words: &[OsString]) -> Result<Translation, HelperError> {
    let mut names = Vec::new();
    let mut options = Vec::new();
    let (mut sloppy, mut fake) = (false, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flags) = word.as_bytes().strip_prefix(b"-").filter(|flags| !flags.is_empty())
        else {
            names.push(word);
            continue;
        };
        for (at, flag) in flags.iter().enumerate() {
            match flag {
                b's' => sloppy = true,
                b'f' => fake = true,
                b'n' | b'v' | b'w' => {}
                b'r' => options.push("ro".to_owned()),
                b'o' | b't' if at + 1 == flags.len() => {
                    let value = words.next().ok_or_else(|| HelperError::Flag(word.clone()))?;
                    if *flag == b'o' {
                        options.extend(value.to_string_lossy().split(',').map(str::to_owned));
                    }
                }
                _ => return Err(HelperError::Flag(word.clone())),
            }
        }
    }
    let [source, point] = names[..] else { return Err(HelperError::Names(names.len())) };

    let mut line = vec![program.to_owned(), "mount".into()];
    for option in options.iter().filter(|option| !option.is_empty()) {
        match argument(option) {
            Ok(arguments) => line.extend(arguments.into_iter().map(OsString::from)),
            Err(HelperError::Option(_)) if sloppy => {}
            Err(e) => return Err(e),
        }
    }
    line.push("--".into());
    let sources = source.as_bytes().split(|&b| b == SEPARATOR).filter(|s| !s.is_empty());
    line.extend(sources.map(|s| OsString::from_vec(s.to_owned())));
    line.push(point.clone());
    Ok(if fake { Translation::Nothing } else { Translation::CommandLine(line) })
}

/// Options of mount(8) and fstab(5) that say when, by whom or how to mount, or that ask for what
/// always holds (`nosuid`, `nodev`) or can never hold (`suid`, `dev`: there are no such files).
const PASSED_OVER: &[&str] = &[
    "rw",
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "exec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "nosymfollow",
];

fn argument(option: &str) -> Result<Vec<String>, HelperError> {
    let (name, value) =
        option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    match (name, value) {
        ("ro", None) => return Ok(vec!["--read-only".into(), "--kernel-flag=ro".into()]),
        ("noexec", None) => return Ok(vec!["--kernel-flag=noexec".into()]),
        ("remount", None) => return Err(HelperError::Remount),
        (name, None) if PASSED_OVER.contains(&name) => return Ok(Vec::new()),
        ("comment" | "uhelper" | "helper" | "user", Some(_)) => return Ok(Vec::new()),
        (name, _) if name.starts_with("x-") || name.starts_with("X-") => return Ok(Vec::new()),
        _ => {}
    }
    let long = name.replace('_', "-");
    let mount = CommandLine::command().find_subcommand("mount").cloned().unwrap_or_default();
    let known =
        mount.get_arguments().find(|a| a.get_long() == Some(long.as_str()) && !a.is_hide_set());
    let takes_value = known.map(|a| a.get_action().takes_values());
    match (takes_value, value) {
        (Some(true), Some(value)) | (Some(false), Some(value @ ("true" | "false"))) => {
            Ok(vec![format!("--{long}={value}")])
        }
        (Some(false), None) if name != "help" => Ok(vec![format!("--{long}")]),
        _ => Err(HelperError::Option(option.escape_debug().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> Option<Result<Translation, HelperError>> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        translate(&words)
    }

    fn becomes(words: &str, expected: &str) {
        let expected = expected.split(' ').map(OsString::from).collect();
        assert_eq!(line(words), Some(Ok(Translation::CommandLine(expected))), "{words}");
    }

    #[test]
    fn options_of_the_helper_are_the_long_options_with_underscores() {
        becomes(
            "/sbin/mount.fuse.tofufs ghcr.io/acme /mnt -o ro,allow_other",
            "/sbin/mount.fuse.tofufs mount --read-only --kernel-flag=ro --allow-other -- \
             ghcr.io/acme /mnt",
        );
        becomes(
            "mount.tofufs a.b /mnt -o tag_ttl=5m,plain_http=localhost:5000,plain_http=a.b,noexec",
            "mount.tofufs mount --tag-ttl=5m --plain-http=localhost:5000 --plain-http=a.b \
             --kernel-flag=noexec -- a.b /mnt",
        );
    }

    #[test]
    fn a_switch_can_be_taken_back() {
        becomes(
            "mount.fuse.tofufs a.b /mnt -o offline=false",
            "mount.fuse.tofufs mount --offline=false -- a.b /mnt",
        );
    }

    #[test]
    fn every_long_option_of_mount_has_its_name_in_fstab() {
        let mount = CommandLine::command().find_subcommand("mount").cloned().unwrap();
        let mut seen = 0;
        for argument in mount.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(long) = argument.get_long() else { continue };
            let name = long.replace('-', "_");
            let (given, expected) = if argument.get_action().takes_values() {
                (format!("{name}=a=b"), format!("--{long}=a=b"))
            } else {
                (name, format!("--{long}"))
            };
            becomes(
                &format!("mount.fuse.tofufs a.b /mnt -o {given}"),
                &format!("mount.fuse.tofufs mount {expected} -- a.b /mnt"),
            );
            seen += 1;
        }
        assert!(seen > 25, "{seen}");
    }

    #[test]
    fn options_of_mount_itself_are_passed_over() {
        becomes(
            "mount.fuse.tofufs a.b /mnt -sn -v -t fuse.tofufs -o \
             rw,_netdev,nofail,noauto,x-systemd.automount,dev,suid,user=me,,",
            "mount.fuse.tofufs mount -- a.b /mnt",
        );
        becomes(
            "mount.fuse.tofufs -r a.b /mnt",
            "mount.fuse.tofufs mount --read-only --kernel-flag=ro -- a.b /mnt",
        );
        assert_eq!(line("mount.fuse.tofufs -f a.b /mnt"), Some(Ok(Translation::Nothing)));
    }

    #[test]
    fn several_sources_are_joined_by_semicolons() {
        becomes(
            "mount.fuse.tofufs a.b;oci:/x,y;c.d:5/e /mnt",
            "mount.fuse.tofufs mount -- a.b oci:/x,y c.d:5/e /mnt",
        );
        becomes(
            "mount.fuse.tofufs oci-archive:/x.tar;a.b /mnt",
            "mount.fuse.tofufs mount -- oci-archive:/x.tar a.b /mnt",
        );
    }

    #[test]
    fn the_program_itself_is_a_helper_if_the_first_word_is_no_command_and_options_follow() {
        becomes("tofufs a.b /mnt -o ro", "tofufs mount --read-only --kernel-flag=ro -- a.b /mnt");
        for ordinary in [
            "tofufs",
            "tofufs mount a.b /mnt -o ro",
            "tofufs --help",
            "tofufs a.b /mnt",
            "tofufs help x -o y",
        ] {
            assert_eq!(line(ordinary), None, "{ordinary}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused_unless_sloppiness_is_asked_for() {
        let refused = |words: &str| line(words).unwrap().unwrap_err();
        for bad in
            ["nonsense", "ro=1", "allow_other=1", "tag_ttl", "kernel_flag=ro", "background", "help"]
        {
            let error = refused(&format!("mount.fuse.tofufs a.b /mnt -o {bad}"));
            assert_eq!(error, HelperError::Option(bad.into()));
        }
        assert_eq!(refused("mount.fuse.tofufs a.b /mnt -o remount,ro"), HelperError::Remount);
        assert_eq!(refused("mount.fuse.tofufs a.b -o ro"), HelperError::Names(1));
        assert_eq!(refused("mount.fuse.tofufs a.b /mnt -x"), HelperError::Flag("-x".into()));
        assert_eq!(refused("mount.fuse.tofufs a.b /mnt -o"), HelperError::Flag("-o".into()));
        becomes("mount.fuse.tofufs a.b /mnt -s -o nonsense", "mount.fuse.tofufs mount -- a.b /mnt");
    }
}
