//! What goes with releases that are carried somewhere: whose they are, and the rules by which they
//! were found.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Mapping, MappingError, MappingRule, refuse};
use crate::name::ProviderAddr;

/// The most rules that a document may hold.
pub const RULES_MAX: usize = 100;
/// The most providers that it may name.
const PROVIDERS_MAX: usize = 100_000;

/// See the module.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Carried {
    /// Providers of which releases are there.
    pub providers: BTreeSet<ProviderAddr>,
    /// Where those releases are.
    pub mapping: Mapping,
}

/// The same, written.
#[derive(Default, Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    providers: Vec<String>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
}

/// A rule, as an `oci_mirror` block has it.
#[derive(Serialize, Deserialize)]
struct WrittenRule {
    repository_template: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
}

impl WrittenRule {
    fn of(rule: &MappingRule) -> WrittenRule {
        WrittenRule {
            repository_template: rule.template().to_owned(),
            include: rule.include().iter().map(ToString::to_string).collect(),
            exclude: rule.exclude().iter().map(ToString::to_string).collect(),
        }
    }

    fn rule(&self) -> Result<MappingRule, MappingError> {
        MappingRule::new(&self.repository_template, &self.include, &self.exclude)
    }
}

impl Carried {
    /// Whether nothing goes with what is carried.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty() && self.mapping.rules().is_empty()
    }

    /// What this and, behind it, `other` say.
    pub fn and(mut self, other: &Carried) -> Carried {
        self.providers.extend(other.providers.iter().cloned());
        self.mapping = self.mapping.and(&other.mapping);
        self
    }

    /// The same as a JSON document. Equal values give equal bytes.
    pub fn document(&self) -> Vec<u8> {
        let document = Document {
            providers: self.providers.iter().map(ProviderAddr::to_string).collect(),
            rules: self.mapping.rules().iter().map(WrittenRule::of).collect(),
        };
        // Lists of texts: nothing in it can be refused.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Reads a document, of which `subject` is the name.
    ///
    /// # Errors
    /// It is none, or one of its rules is wrong.
    pub fn parse(document: &[u8], subject: &str) -> Result<Carried, MappingError> {
        let wrong = |rule: String| MappingError { subject: subject.to_owned(), rule };
        let document: Document =
            serde_json::from_slice(document).map_err(|e| wrong(e.to_string()))?;
        if document.rules.len() > RULES_MAX || document.providers.len() > PROVIDERS_MAX {
            let rule = format_args!(
                "it has more than {RULES_MAX} rules or {PROVIDERS_MAX} providers, the limits"
            );
            return refuse(subject, rule);
        }
        let address =
            |text: String| text.parse().map_err(|e: crate::name::NameError| wrong(e.to_string()));
        let rules = document.rules.iter().map(WrittenRule::rule).collect::<Result<_, _>>();
        Ok(Carried {
            providers: document.providers.into_iter().map(address).collect::<Result<_, _>>()?,
            mapping: Mapping::new(rules.map_err(|e| wrong(e.to_string()))?),
        })
    }
}
