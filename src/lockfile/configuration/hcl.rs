//! Configuration files in native syntax.

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Block, Body};
use hcl_edit::template::Element;

use super::{Call, Configuration, RESOURCES, SyntaxError};

pub(super) fn read(into: &mut Configuration, text: &str) -> Result<(), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let body = hcl_edit::parser::parse_body(text).map_err(|e| SyntaxError {
        line: Some(e.location().line()),
        rule: e.message().to_owned(),
    })?;
    for block in body.blocks() {
        read_block(into, block, text);
    }
    Ok(())
}

fn read_block(into: &mut Configuration, block: &Block, text: &str) {
    let labels: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
    let attribute = |name: &str| block.body.get_attribute(name).map(|attribute| &attribute.value);
    match (block.ident.as_str(), labels.as_slice()) {
        ("terraform", []) => block
            .body
            .get_blocks("required_providers")
            .for_each(|block| required(into, &block.body)),
        ("provider", [local]) => into.configure(local, attribute("version").and_then(string)),
        ("module", [name]) => into.call(Call {
            name: (*name).to_owned(),
            source: attribute("source").and_then(string),
            version: attribute("version").and_then(string),
            line: attribute("source").and_then(|value| line_of(text, value.span()?.start)),
        }),
        ("check", [_]) => {
            block.body.get_blocks("data").for_each(|block| read_block(into, block, text))
        }
        (kind, [of, _]) if RESOURCES.contains(&kind) => {
            into.resource(of, attribute("provider").and_then(local).as_deref());
        }
        _ => {}
    }
}

/// The line, from 1, of the byte at `at`.
fn line_of(text: &str, at: usize) -> Option<usize> {
    Some(1 + text.as_bytes().get(..at)?.iter().filter(|byte| **byte == b'\n').count())
}

fn required(into: &mut Configuration, body: &Body) {
    for attribute in body.attributes() {
        let get = |name: &str| {
            let entries = attribute.value.as_object()?;
            let (_, value) = entries.iter().find(|(key, _)| key_text(key) == Some(name))?;
            string(value.expr())
        };
        match string(&attribute.value) {
            Some(version) => into.require(attribute.key.as_str(), None, Some(version)),
            None => into.require(attribute.key.as_str(), get("source"), get("version")),
        }
    }
}

fn key_text(key: &ObjectKey) -> Option<&str> {
    match key {
        ObjectKey::Ident(ident) => Some(ident.as_str()),
        ObjectKey::Expression(expression) => {
            expression.as_variable().map(|ident| ident.as_str()).or(expression.as_str())
        }
    }
}

/// The text of a string without interpolations.
fn string(value: &Expression) -> Option<String> {
    match value {
        Expression::String(text) => Some(text.value().clone()),
        Expression::StringTemplate(template) => template.iter().map(literal).collect(),
        Expression::Parenthesis(inner) => string(inner.inner()),
        _ => None,
    }
}

fn literal(element: &Element) -> Option<String> {
    match element {
        Element::Literal(text) => Some(text.value().clone()),
        _ => None,
    }
}

/// The local name in `LOCAL`, `LOCAL.ALIAS` or, as written long ago, `"LOCAL.ALIAS"`.
fn local(value: &Expression) -> Option<String> {
    match value {
        Expression::Variable(name) => Some(name.as_str().to_owned()),
        Expression::Traversal(traversal) => local(&traversal.expr),
        other => string(other),
    }
}
