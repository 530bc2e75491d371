//! From provider addresses to repositories: `repository_template`, include and exclude, by
//! OpenTofu's rules for `oci_mirror`.
//!
//! Several rules are what several `oci_mirror` blocks are to OpenTofu: the versions of a provider
//! are those of all rules that match it, and a version comes from the first of them that has it.
//! New releases go to the first.

mod carried;
mod pattern;
mod template;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use carried::{Carried, RULES_MAX};
pub use pattern::ProviderPattern;
use template::{Template, TemplatePart, Variable};

use crate::name::{Host, ProviderAddr, Repo, RepoName};

/// The provider registry that an address or pattern without one means: OpenTofu's.
pub const DEFAULT_REGISTRY: &str = "registry.opentofu.org";

/// A rule that maps nothing, or an address that a rule cannot map.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{subject}: {rule}")]
pub struct MappingError {
    /// The template or pattern, as written, or the address.
    pub subject: String,
    /// Why it cannot be used, and what to do.
    pub rule: String,
}

fn refuse<T>(subject: impl fmt::Display, rule: impl fmt::Display) -> Result<T, MappingError> {
    Err(MappingError { subject: subject.to_string(), rule: rule.to_string() })
}

/// One rule: an `oci_mirror` block.
#[derive(Clone, PartialEq, Debug)]
pub struct MappingRule {
    template: Template,
    include: Vec<ProviderPattern>,
    exclude: Vec<ProviderPattern>,
    /// Rules that go before: what one of them matches, this one does not.
    before: Arc<[MappingRule]>,
    /// Whether nobody wrote it: see [`MappingRule::itself`].
    itself: bool,
}

impl MappingRule {
    /// Reads a rule as it is written in a block. No `include` means all providers.
    ///
    /// # Errors
    /// A pattern or the template is wrong, or the template maps different providers to one
    /// repository.
    pub fn new(
        template: &str,
        include: &[String],
        exclude: &[String],
    ) -> Result<MappingRule, MappingError> {
        let patterns =
            |list: &[String]| list.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
        let (include, exclude) = (patterns(include)?, patterns(exclude)?);
        let template_of = template.parse()?;
        let before = Arc::default();
        let rule = MappingRule { template: template_of, include, exclude, before, itself: false };
        if let Some((variable, written)) = rule.template.unreferred() {
            let reason =
                format!("`{written}` is plain text in it; did you mean `${{{variable}}}`?");
            return refuse(format!("the repository template {template:?}"), reason);
        }
        for variable in Variable::ALL {
            if !rule.template.uses(variable) && rule.fixed(variable).is_none() {
                let example = match variable {
                    Variable::Hostname => "*/*",
                    Variable::Namespace => "hashicorp/*",
                    Variable::Type => "hashicorp/aws",
                };
                let reason = format!(
                    "it must refer to ${{{variable}}}, or `include` has to leave one value for \
                     that, as '{DEFAULT_REGISTRY}/{example}' does"
                );
                return refuse(format!("the repository template {template:?}"), reason);
            }
        }
        rule.template.try_out()?;
        Ok(rule)
    }

    /// The rule by which providers of a provider registry are found there: each in the repository
    /// that has its own address. `part` is the namespace or the provider that it is for.
    ///
    /// # Errors
    /// The names make no pattern.
    pub fn itself(host: &Host, part: Option<&RepoName>) -> Result<MappingRule, MappingError> {
        let include = match part.map(|part| (part, part.components().count())) {
            None => format!("{host}/*/*"),
            Some((namespace, 1)) => format!("{host}/{namespace}/*"),
            Some((provider, _)) => format!("{host}/{provider}"),
        };
        let template = format!("{host}/${{namespace}}/${{type}}");
        Ok(MappingRule { itself: true, ..MappingRule::new(&template, &[include], &[])? })
    }

    /// Whether it is of a provider registry's own, and was not written by anybody.
    pub fn is_itself(&self) -> bool {
        self.itself
    }

    /// The same as it is typed: a template that does not refer to `${hostname}` is for the
    /// providers of [`DEFAULT_REGISTRY`] where no `include` says otherwise.
    ///
    /// # Errors
    /// As for [`MappingRule::new`].
    pub fn typed(
        template: &str,
        include: &[String],
        exclude: &[String],
    ) -> Result<MappingRule, MappingError> {
        if include.is_empty() && !template.parse::<Template>()?.uses(Variable::Hostname) {
            return MappingRule::new(template, &[format!("{DEFAULT_REGISTRY}/*/*")], exclude);
        }
        MappingRule::new(template, include, exclude)
    }

    /// The template, as written.
    pub fn template(&self) -> &str {
        self.template.text()
    }

    /// The patterns of `include`.
    pub fn include(&self) -> &[ProviderPattern] {
        &self.include
    }

    /// The patterns of `exclude`.
    pub fn exclude(&self) -> &[ProviderPattern] {
        &self.exclude
    }

    /// Whether the rule is about `provider`.
    pub fn matches(&self, provider: &ProviderAddr) -> bool {
        let any =
            |patterns: &[ProviderPattern]| patterns.iter().any(|pattern| pattern.matches(provider));
        !any(&self.exclude)
            && (self.include.is_empty() || any(&self.include))
            && !self.before.iter().any(|rule| rule.matches(provider))
    }

    /// Whether both are written alike.
    fn is_written_as(&self, other: &MappingRule) -> bool {
        self.template == other.template
            && self.include == other.include
            && self.exclude == other.exclude
    }

    /// Whether the rule can be about a provider of this host (and namespace).
    pub fn may_match(&self, host: &Host, namespace: Option<&str>) -> bool {
        let all = |patterns: &[ProviderPattern]| {
            patterns.iter().any(|pattern| pattern.covers(host, namespace))
        };
        let some = self.include.is_empty()
            || self.include.iter().any(|pattern| pattern.touches(host, namespace));
        some && !all(&self.exclude)
    }

    /// The repository of `provider` by this rule alone, whatever the rule is about.
    ///
    /// # Errors
    /// The template makes no repository's name of this address.
    pub fn repo(&self, provider: &ProviderAddr) -> Result<Repo, MappingError> {
        self.template.repo(provider)
    }

    /// The one value that `include` leaves to a variable.
    fn fixed(&self, variable: Variable) -> Option<&str> {
        let mut values: BTreeSet<&str> =
            self.include.iter().filter_map(|pattern| pattern.value(variable)).collect();
        let value = values.pop_first()?;
        values.is_empty().then_some(value)
    }

    /// The registry, and the repositories in it, to which the rule leads whatever the provider is.
    pub fn prefix(&self) -> Option<(Host, Option<RepoName>)> {
        let text = self.template.leading_text();
        let (host, rest) = text.split_once('/')?;
        let whole =
            self.template.parts().is_some_and(|parts| matches!(parts, [TemplatePart::Text(_)]));
        let path = if whole { Some(rest) } else { rest.rsplit_once('/').map(|(path, _)| path) };
        Some((host.parse().ok()?, path.and_then(|path| path.parse().ok())))
    }

    /// The providers whose repository `repo` is by this rule, as far as they can be read from its
    /// name; sorted.
    pub fn providers_of(&self, repo: &Repo) -> BTreeSet<ProviderAddr> {
        let mut readings = Vec::new();
        if let Some(parts) = self.template.parts() {
            read(parts, &repo.to_string(), Values::default(), &mut readings);
        }
        let providers = readings.into_iter().filter_map(|values| self.provider(values));
        providers.filter(|p| self.matches(p) && self.repo(p).as_ref() == Ok(repo)).collect()
    }

    /// The provider that has these parts, and where one is missing the one that `include` leaves.
    fn provider(&self, values: Values) -> Option<ProviderAddr> {
        let value =
            |variable, read: Option<String>| read.or(self.fixed(variable).map(str::to_owned));
        let host = value(Variable::Hostname, values.hostname)?.parse().ok()?;
        let namespace = value(Variable::Namespace, values.namespace)?;
        ProviderAddr::new(host, &namespace, &value(Variable::Type, values.kind)?)
    }
}

/// What the variables of a template stand for.
#[derive(Clone, Default)]
struct Values {
    hostname: Option<String>,
    namespace: Option<String>,
    kind: Option<String>,
}

impl Values {
    fn of(&mut self, variable: Variable) -> &mut Option<String> {
        match variable {
            Variable::Hostname => &mut self.hostname,
            Variable::Namespace => &mut self.namespace,
            Variable::Type => &mut self.kind,
        }
    }
}

/// How many ways to read one name are looked at.
const READINGS_MAX: usize = 64;

/// All ways in which `parts` make `text`.
fn read(parts: &[TemplatePart], text: &str, values: Values, found: &mut Vec<Values>) {
    if found.len() >= READINGS_MAX {
        return;
    }
    match parts.split_first() {
        None if text.is_empty() => found.push(values),
        None => {}
        Some((TemplatePart::Text(literal), rest)) => {
            if let Some(text) = text.strip_prefix(literal.as_str()) {
                read(rest, text, values, found);
            }
        }
        Some((TemplatePart::Variable(variable), rest)) => {
            let mut known = values.clone();
            if let Some(value) = known.of(*variable) {
                if let Some(text) = text.strip_prefix(value.as_str()) {
                    read(rest, text, values, found);
                }
                return;
            }
            // No value holds a slash; the last part takes what is left.
            let longest = text.find('/').unwrap_or(text.len());
            let shortest = if rest.is_empty() { longest } else { 1 };
            for end in (shortest.max(1)..=longest).filter(|end| text.is_char_boundary(*end)) {
                let mut values = values.clone();
                *values.of(*variable) = Some(text[..end].to_owned());
                read(rest, &text[end..], values, found);
            }
        }
    }
}

/// All rules of a mount, in order.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Mapping {
    rules: Vec<MappingRule>,
}

impl Mapping {
    /// The mapping of these rules.
    pub fn new(rules: Vec<MappingRule>) -> Mapping {
        Mapping { rules }
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[MappingRule] {
        &self.rules
    }

    /// These rules and those of `other` that are not among them.
    pub fn and(mut self, other: &Mapping) -> Mapping {
        for rule in &other.rules {
            if !self.rules.iter().any(|own| own.is_written_as(rule)) {
                self.rules.push(rule.clone());
            }
        }
        self
    }

    /// These rules, and those of `other` for the providers that none of these matches.
    pub fn or(mut self, other: &Mapping) -> Mapping {
        let before: Arc<[MappingRule]> = self.rules.clone().into();
        let others =
            other.rules.iter().filter(|rule| !before.iter().any(|own| own.is_written_as(rule)));
        let behind = others.map(|rule| MappingRule {
            before: rule.before.iter().chain(before.iter()).cloned().collect(),
            ..rule.clone()
        });
        self.rules.extend(behind);
        self
    }

    /// The rules for which `wanted` holds.
    pub fn only(&self, wanted: impl Fn(&MappingRule) -> bool) -> Mapping {
        Mapping::new(self.rules.iter().filter(|rule| wanted(rule)).cloned().collect())
    }

    /// What goes with releases of `providers`: them, and the rules that lead to them.
    pub fn carried_with(&self, providers: &BTreeSet<ProviderAddr>) -> Carried {
        let mapping = self.only(|rule| providers.iter().any(|provider| rule.matches(provider)));
        Carried { providers: providers.clone(), mapping }
    }

    /// The repository to which releases of `provider` go: that of the first rule that matches it.
    /// `None` if none does.
    ///
    /// # Errors
    /// The template makes no repository's name of this address.
    pub fn repo(&self, provider: &ProviderAddr) -> Result<Option<Repo>, MappingError> {
        self.rules
            .iter()
            .find(|rule| rule.matches(provider))
            .map(|rule| rule.repo(provider))
            .transpose()
    }

    /// The repositories that hold releases of `provider`, in order of preference, each once; none
    /// if no rule matches it.
    ///
    /// # Errors
    /// As for [`Mapping::repo`]: OpenTofu fails as a whole where one of its sources does.
    pub fn repos(&self, provider: &ProviderAddr) -> Result<Vec<Repo>, MappingError> {
        let mut repos = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.matches(provider)) {
            let repo = rule.repo(provider)?;
            if !repos.contains(&repo) {
                repos.push(repo);
            }
        }
        Ok(repos)
    }

    /// Whether a rule matches `provider`.
    pub fn matches(&self, provider: &ProviderAddr) -> bool {
        self.rules.iter().any(|rule| rule.matches(provider))
    }

    /// The providers of which `repo` holds releases, as far as they can be read from its name: a
    /// repository may serve any number of addresses, by one rule or by several.
    pub fn providers_of(&self, repo: &Repo) -> BTreeSet<ProviderAddr> {
        self.rules.iter().flat_map(|rule| rule.providers_of(repo)).collect()
    }

    /// The registries that the rules name without knowing a provider, each with the part of it that
    /// they lead to.
    pub fn prefixes(&self) -> Vec<(Host, Option<RepoName>)> {
        let mut prefixes: Vec<_> = self.rules.iter().filter_map(MappingRule::prefix).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }
}

#[cfg(test)]
mod tests;
