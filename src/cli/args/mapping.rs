//! The flags that spell the rules of a mapping, and a mapping as flags again.

use std::fmt;
use std::str::FromStr;

use clap::{ArgMatches, Args, FromArgMatches};
use serde::{Deserialize, Serialize};

use crate::mapping::{Mapping, MappingError, MappingRule, ProviderPattern};

/// The flags, as the help shows them.
#[derive(Args, Debug)]
#[command(next_help_heading = "Providers")]
struct Flags {
    /// Where the releases of providers are: an OpenTofu repository_template, as in
    /// ghcr.io/acme/${namespace}/${type}; may be given several times [default: what a bundle says
    /// of itself, the oci_mirror blocks of the CLI configuration; for a mount behind them what
    /// `tofufs pull` was given]
    #[arg(long, value_name = "TEMPLATE")]
    oci_mirror: Vec<String>,

    /// The providers that the --oci-mirror before it is for, [HOST/]NAMESPACE/TYPE with * from the
    /// right; may be given several times [default: all; those of registry.opentofu.org if the
    /// template does not refer to ${hostname}]
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,

    /// The providers that the --oci-mirror before it is not for; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// A whole rule, as settings hand it over.
    #[arg(long, hide = true)]
    oci_mirror_rule: Vec<RuleArgs>,
}

/// The rules that the flags spell: `--include` and `--exclude` belong to the `--oci-mirror` before
/// them.
#[derive(Clone, Default, Debug)]
pub struct MappingArgs {
    rules: Vec<RuleArgs>,
    /// A flag that stands before the first `--oci-mirror`.
    unattached: Option<&'static str>,
}

/// One rule as it was typed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleArgs {
    /// Where releases are.
    pub template: String,
    /// Which providers it is for.
    pub include: Vec<String>,
    /// Which it is not for.
    pub exclude: Vec<String>,
}

impl RuleArgs {
    /// A template for all providers that it can be for.
    pub fn of(template: String) -> RuleArgs {
        RuleArgs { template, include: Vec::new(), exclude: Vec::new() }
    }
}

impl fmt::Display for RuleArgs {
    /// As JSON, which [`FromStr`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for RuleArgs {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<RuleArgs, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Args for MappingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for MappingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = MappingArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        const NAMES: [&str; 3] = ["oci_mirror", "include", "exclude"];
        let placed = |name: &'static str| {
            let indices = matches.indices_of(name).into_iter().flatten();
            indices
                .zip(matches.get_many::<String>(name).into_iter().flatten())
                .map(move |(at, text)| (at, name, text))
        };
        let mut flags: Vec<_> = NAMES.into_iter().flat_map(placed).collect();
        flags.sort();
        self.rules
            .extend(matches.get_many::<RuleArgs>("oci_mirror_rule").into_iter().flatten().cloned());
        for (_, name, text) in flags {
            match (name, self.rules.last_mut()) {
                ("oci_mirror", _) => {
                    self.rules.push(RuleArgs::of(text.clone()));
                }
                ("include", Some(rule)) => rule.include.push(text.clone()),
                (_, Some(rule)) => rule.exclude.push(text.clone()),
                (name, None) => self.unattached = self.unattached.or(Some(name)),
            }
        }
        Ok(())
    }
}

impl MappingArgs {
    /// The mapping that the flags spell; `None` if there is no flag.
    ///
    /// # Errors
    /// A rule is wrong, or a flag belongs to none.
    pub fn mapping(&self) -> Result<Option<Mapping>, MappingError> {
        if let Some(name) = self.unattached {
            return Err(MappingError {
                subject: format!("--{name}"),
                rule: "it belongs to the --oci-mirror before it, and there is none".to_owned(),
            });
        }
        let rules: Vec<MappingRule> = self
            .rules
            .iter()
            .map(|rule| MappingRule::typed(&rule.template, &rule.include, &rule.exclude))
            .collect::<Result<_, _>>()?;
        Ok((!rules.is_empty()).then(|| Mapping::new(rules)))
    }
}

/// The rules of `mapping`, as they can be handed over.
pub fn rules(mapping: &Mapping) -> Vec<RuleArgs> {
    let texts = |patterns: &[ProviderPattern]| patterns.iter().map(ToString::to_string).collect();
    let spelled = |rule: &MappingRule| RuleArgs {
        template: rule.template().to_owned(),
        include: texts(rule.include()),
        exclude: texts(rule.exclude()),
    };
    mapping.rules().iter().filter(|rule| !rule.is_itself()).map(spelled).collect()
}

/// The flags that spell `mapping`, one word each.
pub fn flags(mapping: &Mapping) -> Vec<String> {
    let mut words = Vec::new();
    for rule in mapping.rules().iter().filter(|rule| !rule.is_itself()) {
        words.extend(["--oci-mirror".to_owned(), rule.template().to_owned()]);
        words.extend(
            rule.include().iter().flat_map(|pattern| ["--include".to_owned(), pattern.to_string()]),
        );
        words.extend(
            rule.exclude().iter().flat_map(|pattern| ["--exclude".to_owned(), pattern.to_string()]),
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mapping: MappingArgs,
    }

    fn parse(words: &[&str]) -> Result<Option<Mapping>, MappingError> {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().mapping.mapping()
    }

    #[test]
    fn include_and_exclude_belong_to_the_template_before_them() {
        let words = [
            "--oci-mirror",
            "one.io/${type}",
            "--include",
            "a.b/n/*",
            "--exclude",
            "a.b/n/x",
            "--include=a.b/n/y",
            "--oci-mirror",
            "two.io/${hostname}/${namespace}/${type}",
            "--exclude",
            "c.d/*/*",
        ];
        let mapping = parse(&words).unwrap().unwrap();
        assert_eq!(
            flags(&mapping).join(" "),
            words.join(" ").replace("--include=", "--include ").replace(
                "--include a.b/n/* --exclude a.b/n/x --include a.b/n/y",
                "--include a.b/n/* --include a.b/n/y --exclude a.b/n/x"
            )
        );
        let words = flags(&mapping);
        assert_eq!(
            parse(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(),
            Some(mapping)
        );
    }

    #[test]
    fn a_flag_that_belongs_to_no_template_is_refused() {
        assert_eq!(parse(&[]), Ok(None));
        let error = parse(&["--include", "a/b", "--oci-mirror", "r.io/${type}"]).unwrap_err();
        assert!(
            error.to_string().contains("--include: it belongs to the --oci-mirror before it"),
            "{error}"
        );
        let error = parse(&["--oci-mirror", "r.io/${type}"]).unwrap_err().to_string();
        assert!(
            error.contains("must refer to ${namespace}, or `include` has to leave one value"),
            "{error}"
        );
        assert!(error.contains("'registry.opentofu.org/hashicorp/*'"), "{error}");
    }

    /// As the help's own example has it.
    #[test]
    fn a_template_without_a_hostname_is_for_the_default_registry() {
        let mapping =
            parse(&["--oci-mirror", "ghcr.io/acme/${namespace}/${type}"]).unwrap().unwrap();
        let repo = |provider: &str| {
            let provider = crate::name::ProviderAddr::parse(
                provider,
                &crate::mapping::DEFAULT_REGISTRY.parse().unwrap(),
            );
            mapping.repo(&provider.unwrap()).unwrap().map(|repo| repo.to_string())
        };
        assert_eq!(repo("hashicorp/aws").as_deref(), Some("ghcr.io/acme/hashicorp/aws"));
        assert_eq!(repo("registry.terraform.io/hashicorp/aws"), None);
        let words = flags(&mapping);
        assert_eq!(words[2..], ["--include", "registry.opentofu.org/*/*"]);
        assert_eq!(
            parse(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap(),
            Some(mapping)
        );
    }
}
