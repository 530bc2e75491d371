//! The language of `repository_template`: an HCL 2 template over the parts of a provider's address,
//! without functions.

use std::fmt;
use std::str::FromStr;

use hcl::eval::{Context, Evaluate};
use hcl::expr::{Expression, ObjectKey, Operation, TraversalOperator};
use hcl::template::{Directive, Element};
use hcl::{Identifier, Value};

use super::MappingError;
use crate::name::{Host, ProviderAddr, Repo};

/// The longest template, in bytes. A repository's address is shorter; a conditional over some cases
/// is not much longer.
const TEMPLATE_MAX: usize = 2048;
/// How deep expressions may nest.
const DEPTH_MAX: usize = 32;
/// How deep loops may nest. Evaluating a template takes as many steps as its loops together: a
/// bundle's rules are a stranger's.
const LOOPS_MAX: usize = 2;

/// A part of a provider's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Variable {
    Hostname,
    Namespace,
    Type,
}

impl Variable {
    pub(super) const ALL: [Variable; 3] = [Variable::Hostname, Variable::Namespace, Variable::Type];

    fn name(self) -> &'static str {
        match self {
            Variable::Hostname => "hostname",
            Variable::Namespace => "namespace",
            Variable::Type => "type",
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A piece of a template that consists of texts and variables alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TemplatePart {
    Text(String),
    Variable(Variable),
}

/// A template that names nothing but the parts of an address and calls no function.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Template {
    text: String,
    parsed: hcl::Template,
    variables: Vec<Variable>,
    /// `None` where it consists of more.
    parts: Option<Vec<TemplatePart>>,
}

impl FromStr for Template {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let wrong = |rule: String| MappingError { subject: subject(text), rule };
        if text.is_empty() || text.len() > TEMPLATE_MAX {
            return Err(wrong(format!("a template has 1 to {TEMPLATE_MAX} bytes")));
        }
        if let Some(("oci" | "http" | "https" | "docker", bare)) = text.split_once("://") {
            return Err(wrong(format!("it is no address, and has no scheme; write '{bare}'")));
        }
        let parsed: hcl::Template = text.parse().map_err(|e| wrong(reason(&e)))?;
        let mut found = TemplateVariables::default();
        found.in_template(&parsed, &mut Vec::new()).map_err(wrong)?;
        let parts = parsed.elements().iter().map(part).collect();
        Ok(Template { text: text.to_owned(), parsed, variables: found.variables, parts })
    }
}

fn subject(text: &str) -> String {
    format!("the repository template {text:?}")
}

/// What a parser says, in one line.
fn reason(error: &hcl::Error) -> String {
    match error {
        hcl::Error::Parse(e) => {
            format!("it is no HCL template: {} (column {})", e.message(), e.location().column())
        }
        other => format!("it is no HCL template: {other}"),
    }
}

fn part(element: &Element) -> Option<TemplatePart> {
    match element {
        Element::Literal(text) => Some(TemplatePart::Text(text.clone())),
        Element::Interpolation(interpolation) => match &interpolation.expr {
            Expression::Variable(name) => Variable::ALL
                .into_iter()
                .find(|v| v.name() == name.as_str())
                .map(TemplatePart::Variable),
            _ => None,
        },
        Element::Directive(_) => None,
    }
}

impl Template {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.variables.contains(&variable)
    }

    pub(super) fn parts(&self) -> Option<&[TemplatePart]> {
        self.parts.as_deref()
    }

    /// A variable that is text, where it was probably meant to be referred to; and how it is
    /// written.
    pub(super) fn unreferred(&self) -> Option<(Variable, String)> {
        let written = |variable: Variable| {
            let braced = format!("{{{variable}}}");
            let bare = format!("${variable}");
            let is_text = self
                .text
                .match_indices(&braced)
                .any(|(at, _)| !self.text[..at].ends_with(['$', '%']));
            if is_text { Some(braced) } else { self.text.contains(&bare).then_some(bare) }
        };
        Variable::ALL.into_iter().find_map(|variable| Some((variable, written(variable)?)))
    }

    /// The text with which all results begin.
    pub(super) fn leading_text(&self) -> &str {
        match self.parsed.elements().first() {
            Some(Element::Literal(text)) => text,
            _ => "",
        }
    }

    /// Makes the repository of an address that no provider has.
    pub(super) fn try_out(&self) -> Result<(), MappingError> {
        let host: Result<Host, _> = "example.com".parse();
        let example =
            host.ok().and_then(|host| ProviderAddr::new(host, "example-namespace", "example-type"));
        match example {
            Some(example) => self.repo(&example).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The repository of `provider`.
    pub(super) fn repo(&self, provider: &ProviderAddr) -> Result<Repo, MappingError> {
        let wrong = |rule: String| MappingError {
            subject: format!("{} for {provider}", subject(&self.text)),
            rule: rule.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let text = self.evaluate(provider).map_err(wrong)?;
        const WANTED: &str =
            "is no repository: HOST[:PORT]/NAME without a tag is wanted, in lower-case letters";
        let (host, name) =
            text.split_once('/').ok_or_else(|| wrong(format!("{text:?} {WANTED}")))?;
        match (host.parse(), name.parse()) {
            (Ok(host), Ok(name)) => Ok(Repo { host, name }),
            _ => Err(wrong(format!("{text:?} {WANTED}"))),
        }
    }

    fn evaluate(&self, provider: &ProviderAddr) -> Result<String, String> {
        let mut context = Context::new();
        for variable in Variable::ALL {
            let value = match variable {
                Variable::Hostname => provider.host.as_str(),
                Variable::Namespace => provider.namespace(),
                Variable::Type => provider.kind(),
            };
            context.declare_var(Identifier::unchecked(variable.name()), value);
        }
        for element in self.parsed.elements() {
            if let Element::Interpolation(interpolation) = element {
                let value = interpolation.expr.evaluate(&context).map_err(|e| e.to_string())?;
                // Printed they would be texts, as they are not in HCL.
                if let Value::Null | Value::Array(_) | Value::Object(_) = value {
                    return Err(format!("{} is no text", interpolation.expr));
                }
            }
        }
        self.parsed.evaluate(&context).map_err(|e| e.to_string())
    }
}

/// What a template refers to, in whichever branch.
#[derive(Default)]
struct TemplateVariables {
    variables: Vec<Variable>,
    depth: usize,
    loops: usize,
}

/// Names that loops declare.
type LoopNames = Vec<Identifier>;

impl TemplateVariables {
    fn in_template(
        &mut self,
        template: &hcl::Template,
        scope: &mut LoopNames,
    ) -> Result<(), String> {
        for element in template.elements() {
            match element {
                Element::Literal(_) => {}
                Element::Interpolation(interpolation) => {
                    self.in_expression(&interpolation.expr, scope)?
                }
                Element::Directive(directive) => match directive.as_ref() {
                    Directive::If(branch) => {
                        self.in_expression(&branch.cond_expr, scope)?;
                        self.in_template(&branch.true_template, scope)?;
                        if let Some(template) = &branch.false_template {
                            self.in_template(template, scope)?;
                        }
                    }
                    Directive::For(round) => {
                        self.in_expression(&round.collection_expr, scope)?;
                        let outside = scope.len();
                        scope.extend(round.key_var.iter().chain([&round.value_var]).cloned());
                        self.enter_loop()?;
                        self.in_template(&round.template, scope)?;
                        self.loops -= 1;
                        scope.truncate(outside);
                    }
                },
            }
        }
        Ok(())
    }

    fn enter_loop(&mut self) -> Result<(), String> {
        self.loops += 1;
        if self.loops > LOOPS_MAX {
            return Err(format!("its loops nest deeper than {LOOPS_MAX}"));
        }
        Ok(())
    }

    fn in_expression(
        &mut self,
        expression: &Expression,
        scope: &mut LoopNames,
    ) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("its expressions nest deeper than {DEPTH_MAX}"));
        }
        self.in_deeper(expression, scope)?;
        self.depth -= 1;
        Ok(())
    }

    fn in_deeper(&mut self, expression: &Expression, scope: &mut LoopNames) -> Result<(), String> {
        match expression {
            Expression::Variable(name) => self.variable(name, scope),
            Expression::FuncCall(call) => {
                Err(format!("it calls {}, but there are no functions here", call.name.name))
            }
            Expression::Array(list) => list.iter().try_for_each(|e| self.in_expression(e, scope)),
            Expression::Object(object) => object.iter().try_for_each(|(key, value)| {
                if let ObjectKey::Expression(key) = key {
                    self.in_expression(key, scope)?;
                }
                self.in_expression(value, scope)
            }),
            Expression::TemplateExpr(text) => {
                let template = hcl::Template::from_expr(text).map_err(|e| reason(&e))?;
                self.in_template(&template, scope)
            }
            Expression::Traversal(traversal) => {
                self.in_expression(&traversal.expr, scope)?;
                traversal.operators.iter().try_for_each(|operator| match operator {
                    TraversalOperator::Index(index) => self.in_expression(index, scope),
                    _ => Ok(()),
                })
            }
            Expression::Parenthesis(inner) => self.in_expression(inner, scope),
            Expression::Conditional(conditional) => {
                [&conditional.cond_expr, &conditional.true_expr, &conditional.false_expr]
                    .into_iter()
                    .try_for_each(|e| self.in_expression(e, scope))
            }
            Expression::Operation(operation) => match operation.as_ref() {
                Operation::Unary(unary) => self.in_expression(&unary.expr, scope),
                Operation::Binary(binary) => {
                    self.in_expression(&binary.lhs_expr, scope)?;
                    self.in_expression(&binary.rhs_expr, scope)
                }
            },
            Expression::ForExpr(round) => {
                self.in_expression(&round.collection_expr, scope)?;
                let outside = scope.len();
                scope.extend(round.key_var.iter().chain([&round.value_var]).cloned());
                self.enter_loop()?;
                let inner =
                    round.key_expr.iter().chain([&round.value_expr]).chain(round.cond_expr.iter());
                let walked = inner.into_iter().try_for_each(|e| self.in_expression(e, scope));
                self.loops -= 1;
                scope.truncate(outside);
                walked
            }
            _ => Ok(()),
        }
    }

    fn variable(&mut self, name: &Identifier, scope: &LoopNames) -> Result<(), String> {
        if scope.contains(name) {
            return Ok(());
        }
        match Variable::ALL.into_iter().find(|v| v.name() == name.as_str()) {
            Some(variable) => self.variables.push(variable),
            None => {
                return Err(format!(
                    "it refers to {name}, but there are ${{hostname}}, ${{namespace}} and ${{type}}"
                ));
            }
        }
        Ok(())
    }
}
