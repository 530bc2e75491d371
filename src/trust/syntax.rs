//! The notation of policy files: HCL of which every attribute has to be known, once, and of one
//! type. No expressions.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Attribute, Body, Structure};

/// The rule of a policy that its text breaks, and in which line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct PolicyError {
    pub line: usize,
    pub rule: String,
}

/// A policy's text, by which places in it become lines.
pub(super) struct PolicyText<'a>(pub &'a str);

impl PolicyText<'_> {
    pub(super) fn parse(&self) -> Result<Body, PolicyError> {
        hcl_edit::parser::parse_body(self.0)
            .map_err(|e| PolicyError { line: e.location().line(), rule: e.message().to_owned() })
    }

    /// The line in which something stands, from 1.
    pub(super) fn line(&self, span: Option<std::ops::Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start).min(self.0.len());
        1 + self.0.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn error<T>(&self, at: usize, rule: impl Into<String>) -> Result<T, PolicyError> {
        Err(PolicyError { line: at, rule: rule.into() })
    }

    /// The attributes of a body that may have these and no others, each once.
    pub(super) fn attributes<'b>(
        &self,
        body: &'b Body,
        known: &[&str],
        of: &str,
    ) -> Result<BTreeMap<&'b str, (&'b Attribute, usize)>, PolicyError> {
        let mut found = BTreeMap::new();
        for structure in body.iter() {
            let Structure::Attribute(attribute) = structure else { continue };
            let (name, line) = (attribute.key.as_str(), self.line(attribute.span()));
            if !known.contains(&name) {
                let wanted = known.join(", ");
                return self.error(line, format!("{of} has no {name:?}; it may have {wanted}"));
            }
            // one that stands twice was refused by the parser
            found.insert(name, (attribute, line));
        }
        Ok(found)
    }

    pub(super) fn string(
        &self,
        (attribute, line): (&Attribute, usize),
    ) -> Result<String, PolicyError> {
        match text(&attribute.value) {
            Some(text) => Ok(text),
            None => self.error(line, format!("{} is no text", attribute.key.as_str())),
        }
    }

    pub(super) fn boolean(
        &self,
        (attribute, line): (&Attribute, usize),
    ) -> Result<bool, PolicyError> {
        match &attribute.value {
            Expression::Bool(value) => Ok(*value.value()),
            _ => self.error(line, format!("{} is true or false", attribute.key.as_str())),
        }
    }

    /// Texts by name, of which there are some.
    pub(super) fn named_strings(
        &self,
        (attribute, line): (&Attribute, usize),
    ) -> Result<BTreeMap<String, String>, PolicyError> {
        let rule = || format!("{} is no {{ NAME = \"TEXT\" }}", attribute.key.as_str());
        let Expression::Object(entries) = &attribute.value else {
            return self.error(line, rule());
        };
        let mut found = BTreeMap::new();
        for (key, value) in entries.iter() {
            let key = match key {
                ObjectKey::Ident(name) => Some(name.as_str().to_owned()),
                ObjectKey::Expression(key) => text(key),
            };
            let (Some(key), Some(value)) = (key, text(value.expr())) else {
                return self.error(line, rule());
            };
            // the parser takes a name and the same name in quotes for two
            if found.insert(key, value).is_some() {
                return self.error(line, rule());
            }
        }
        if found.is_empty() { self.error(line, rule()) } else { Ok(found) }
    }

    /// A list of texts that is not empty.
    pub(super) fn strings(
        &self,
        (attribute, line): (&Attribute, usize),
    ) -> Result<Vec<String>, PolicyError> {
        let name = attribute.key.as_str();
        let Expression::Array(items) = &attribute.value else {
            return self.error(line, format!("{name} is no list of texts"));
        };
        let texts: Option<Vec<String>> = items.iter().map(text).collect();
        match texts {
            Some(texts) if !texts.is_empty() => Ok(texts),
            Some(_) => self.error(line, format!("{name} is empty")),
            None => self.error(line, format!("{name} is no list of texts")),
        }
    }
}

fn text(value: &Expression) -> Option<String> {
    match value {
        Expression::String(text) => Some(text.value().clone()),
        _ => None,
    }
}
