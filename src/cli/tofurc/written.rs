//! `tofufs tofurc`: the CLI configuration that points OpenTofu and Terraform at a mount.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ClientEnvironment;
use super::install::{self, Place};
use super::mount_mapping::MountMapping;
use crate::cli::args::carry::ClientArg;
use crate::cli::args::tofurc::{TofurcArgs, Use};
use crate::cli::control::ControlRequest;
use crate::cli::export as exporting;
use crate::cli::mounts;
use crate::cli::output::{self, CommandError};
use crate::copy::export;

impl Use {
    const ALL: [Use; 3] = [Use::Plugins, Use::Mirror, Use::PluginCache];

    fn name(self) -> &'static str {
        match self {
            Use::Plugins => "plugins",
            Use::Mirror => "mirror",
            Use::PluginCache => "plugin-cache",
        }
    }

    /// When to choose it.
    fn advice(self) -> &'static str {
        match self {
            Use::Plugins => {
                "Choose this unless you need one of the others: a working directory gets links \
                 into the mount and no copies,\n\
                 packages are downloaded once per machine, and `init` needs no registry for \
                 what was used before."
            }
            Use::Mirror => {
                "Choose this where packages have to be copied (a working directory that is \
                 moved to another machine), where\n\
                 lock files hold zh: hashes alone, or behind a web server as a network mirror. \
                 Every working directory gets a\n\
                 copy of each package."
            }
            Use::PluginCache => {
                "Choose this where providers come from several places and all of them are to be \
                 cached: packages of the mount\n\
                 are linked as with `plugins`, others are kept beside them. \
                 plugin_cache_may_break_dependency_lock_file lets\n\
                 the clients take a cached package that no lock file vouches for yet; without it, \
                 they get such a\n\
                 package from its source once more and compare it, or write over the cached one, \
                 which the mount compares. The price: the lock file then\n\
                 gets the hash of this platform's package alone. `tofufs lock` adds the others."
            }
        }
    }
}

/// Prints the configuration.
pub fn run(args: &TofurcArgs) -> Result<(), CommandError> {
    let (point, mapping) = match (&args.mountpoint, &args.exported) {
        (Some(mountpoint), _) => of_mount(mountpoint)?,
        (None, Some(dir)) => of_export(dir)?,
        (None, None) => return Err(CommandError::usage("name a MOUNTPOINT or --for DIR")),
    };
    // An export has one use.
    let of_export = args.exported.as_ref().map(|_| Use::Plugins);
    let purpose = args.purpose.or(of_export);
    let chosen = purpose.unwrap_or(Use::Plugins);
    if args.install {
        let environment = ClientEnvironment::of_process();
        let place = Place::of(&environment, args.client == ClientArg::Terraform);
        let hcl = block(&point, &mapping, chosen);
        let json = as_json(&point, &mapping, chosen);
        return install::install(&place, &hcl, &json, &environment);
    }
    if args.json {
        output::json(&as_json(&point, &mapping, chosen))
    } else {
        output::text(as_hcl(&point, &mapping, purpose))
    }
}

/// What a mount tells.
fn of_mount(mountpoint: &Path) -> Result<(PathBuf, MountMapping), CommandError> {
    let failed =
        |reason: String| CommandError::Failed(format!("{}: {reason}", mountpoint.display()));
    let entry = mounts::at(mountpoint)?;
    let answer = mounts::connect(&entry)
        .and_then(|connection| connection.ask(&ControlRequest::Mapping(())))
        .map_err(failed)?;
    let mapping: MountMapping = serde_json::from_value(answer).map_err(CommandError::failed)?;
    if !mapping.is_of_mount() {
        let reason = "this mount has no mapping, so it shows no providers; mount with \
                      --oci-mirror, with an oci_mirror block in the CLI configuration, or mount a \
                      provider registry (providers:HOST)";
        return Err(failed(reason.to_owned()));
    }
    Ok((entry.point, mapping))
}

/// The providers that were exported to a directory: others come from their own registries.
fn of_export(dir: &Path) -> Result<(PathBuf, MountMapping), CommandError> {
    let failed = |reason: String| CommandError::Failed(format!("{}: {reason}", dir.display()));
    let dir = std::path::absolute(dir)
        .and_then(|dir| exporting::unambiguous(&dir))
        .map_err(|e| failed(e.to_string()))?;
    let plugins = dir.join("plugins");
    let providers = export::providers(&plugins)
        .map_err(|e| failed(format!("its plugins/ cannot be listed: {e}")))?;
    if providers.is_empty() {
        let reason = "no provider was exported to it; name some with `tofufs export`";
        return Err(failed(reason.to_owned()));
    }
    let include = providers.iter().map(ToString::to_string).collect();
    Ok((dir, MountMapping { include, ..MountMapping::default() }))
}

/// The methods that a use needs: the mirror, then the providers' own registries for all others.
fn methods(
    point: &Path,
    mapping: &MountMapping,
    purpose: Use,
) -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    // A cache is no mirror, and the clients refuse one directory for both.
    let view = if purpose == Use::Plugins { "plugins" } else { "mirror" };
    let mut mirror = vec![("path", json!(point.join(view)))];
    let mut methods = Vec::new();
    if !mapping.include.is_empty() {
        mirror.push(("include", json!(mapping.include)));
        methods.push(("direct", vec![("exclude", json!(mapping.include))]));
    }
    if !mapping.exclude.is_empty() {
        methods.push(("direct", vec![("include", json!(mapping.exclude))]));
    }
    methods.insert(0, ("filesystem_mirror", mirror));
    methods
}

fn settings(point: &Path, purpose: Use) -> Vec<(&'static str, Value)> {
    match purpose {
        Use::Plugins | Use::Mirror => Vec::new(),
        Use::PluginCache => vec![
            ("plugin_cache_dir", json!(point.join("plugin-cache"))),
            ("plugin_cache_may_break_dependency_lock_file", json!(true)),
        ],
    }
}

fn as_json(point: &Path, mapping: &MountMapping, purpose: Use) -> Value {
    let mut installation = serde_json::Map::new();
    for (name, arguments) in methods(point, mapping, purpose) {
        let method = Value::Object(arguments.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        match installation.entry(name).or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(method),
            other => *other = method,
        }
    }
    let mut document: serde_json::Map<_, _> = settings(point, purpose)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    document.insert("provider_installation".to_owned(), Value::Object(installation));
    Value::Object(document)
}

/// One use, or all of them, of which the first is in effect and the others are comments.
fn as_hcl(point: &Path, mapping: &MountMapping, purpose: Option<Use>) -> String {
    let mut text = match (mapping.is_of_mount(), mapping.flags.is_empty()) {
        (false, _) => format!("# For the providers that were exported to {}\n", point.display()),
        (true, true) => format!("# For the mount at {}\n", point.display()),
        (true, false) => format!("# For the mount at {}, whose mapping is\n", point.display()),
    };
    for line in lines_of_flags(&mapping.flags) {
        let _ = writeln!(text, "#   {line}");
    }
    for (at, each) in
        Use::ALL.into_iter().filter(|each| purpose.is_none_or(|wanted| wanted == *each)).enumerate()
    {
        if mapping.is_of_mount() {
            let _ = writeln!(text, "\n# --use {}", each.name());
            for line in each.advice().lines() {
                let _ = writeln!(text, "# {line}");
            }
        }
        for line in block(point, mapping, each).lines() {
            let _ = writeln!(text, "{}{line}", if at == 0 { "" } else { "# " });
        }
    }
    text
}

fn block(point: &Path, mapping: &MountMapping, purpose: Use) -> String {
    let mut text = String::new();
    for (name, value) in settings(point, purpose) {
        let _ = writeln!(text, "{name} = {value}");
    }
    text += "provider_installation {\n";
    for (name, arguments) in methods(point, mapping, purpose) {
        let _ = writeln!(text, "  {name} {{");
        for (name, value) in arguments {
            let _ = writeln!(text, "    {name} = {value}");
        }
        text += "  }\n";
    }
    text += "}\n";
    text
}

/// The flags as a shell takes them, one rule's part per line.
fn lines_of_flags(flags: &[String]) -> Vec<String> {
    flags
        .chunks(2)
        .map(|pair| pair.iter().map(|word| output::shell_word(word)).collect::<Vec<_>>().join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tofurc::{InstallationLocation, Tofurc};
    use crate::mapping::{Mapping, MappingRule};

    fn mapping(rules: &[(&str, &[&str], &[&str])]) -> MountMapping {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let rules = rules.iter().map(|(t, i, e)| MappingRule::new(t, &list(i), &list(e)).unwrap());
        MountMapping::of(&Mapping::new(rules.collect()))
    }

    fn read(name: &str, text: &str) -> Tofurc {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        Tofurc::load_file(&file, &ClientEnvironment::new(dir.path())).unwrap()
    }

    const POINT: &str = "/mnt/to \"fu\"";

    #[test]
    fn what_is_printed_is_a_configuration_in_both_notations() {
        let some = mapping(&[("r.io/${type}", &["a.b/n/*"], &["a.b/n/x"])]);
        for purpose in Use::ALL.into_iter().map(Some).chain([None]) {
            let hcl = read("rc", &as_hcl(Path::new(POINT), &some, purpose));
            let purpose = purpose.unwrap_or(Use::Plugins);
            let json = read("rc.json", &as_json(Path::new(POINT), &some, purpose).to_string());
            for tofurc in [hcl, json] {
                let methods = tofurc.installation.expect("methods");
                let view = if purpose == Use::Plugins { "plugins" } else { "mirror" };
                let path = Path::new(POINT).join(view);
                assert_eq!(methods[0].location, InstallationLocation::FilesystemMirror(path));
                assert_eq!(methods[0].include, ["a.b/n/*"]);
                assert_eq!(
                    (methods[1].exclude[0].as_str(), methods[2].include[0].as_str()),
                    ("a.b/n/*", "a.b/n/x")
                );
                let cache =
                    (purpose == Use::PluginCache).then(|| Path::new(POINT).join("plugin-cache"));
                assert_eq!(tofurc.plugin_cache_dir, cache);
            }
        }
    }

    #[test]
    fn providers_of_their_own_registry_need_no_rule() {
        let rule = MappingRule::itself(&"a.b".parse().unwrap(), None).unwrap();
        let own = MountMapping::of(&Mapping::new(vec![rule]));
        assert!(own.is_of_mount() && own.flags.is_empty());
        let text = as_hcl(Path::new("/mnt"), &own, Some(Use::Plugins));
        assert!(text.starts_with("# For the mount at /mnt\n"), "{text}");
        assert!(!text.contains("--oci-mirror"), "{text}");
        let methods = read("rc", &text).installation.expect("methods");
        assert_eq!(
            (&methods[0].include[..], &methods[1].exclude[..]),
            (&["a.b/*/*".to_owned()][..], &["a.b/*/*".to_owned()][..])
        );
    }

    #[test]
    fn a_mapping_of_all_providers_leaves_none_to_their_registries() {
        let all = mapping(&[
            ("r.io/${type}", &["a.b/n/*"], &[]),
            ("s.io/${hostname}/${namespace}/${type}", &[], &[]),
        ]);
        let text = as_hcl(Path::new("/mnt"), &all, Some(Use::Plugins));
        assert!(!text.contains("direct {") && !text.contains("include ="), "{text}");
        assert!(
            text.contains("#   --oci-mirror 's.io/${hostname}/${namespace}/${type}'\n"),
            "{text}"
        );
    }
}
