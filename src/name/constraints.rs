//! Version constraints of configurations and lock files: read, joined, tested and written by the
//! clients' rules.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Version;

/// How a version stands to the boundary of a constraint, in the order in which the clients write
/// them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Operator {
    Greater,
    GreaterOrEqual,
    Equal,
    /// `~> 1.2.3`: only the patch number may rise.
    SameMinor,
    /// `~> 1.2`: minor and patch number may rise.
    SameMajor,
    LessOrEqual,
    Less,
    NotEqual,
}

/// One term.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Constraint {
    boundary: Version,
    operator: Operator,
}

/// Terms that all have to hold. None allows every release.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Constraints(BTreeSet<Constraint>);

/// Why a text is no list of constraints.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a version constraint: {rule}")]
pub struct ConstraintError {
    text: String,
    rule: &'static str,
}

impl Constraints {
    /// Whether every version is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the terms of `others`: all of both have to hold.
    pub fn add(&mut self, others: Constraints) {
        self.0.extend(others.0);
    }

    /// Whether `version` is allowed. A prerelease is only where a term names exactly it.
    pub fn allow(&self, version: &Version) -> bool {
        let named = |c: &Constraint| c.operator == Operator::Equal && c.boundary == *version;
        self.0.iter().all(|c| c.holds(version))
            && (version.prerelease().is_empty() || self.0.iter().any(named))
    }

    /// The newest of `versions` that is allowed.
    pub fn newest<'a>(
        &self,
        versions: impl IntoIterator<Item = &'a Version>,
    ) -> Option<&'a Version> {
        versions.into_iter().filter(|version| self.allow(version)).max()
    }
}

impl Constraint {
    fn holds(&self, version: &Version) -> bool {
        // Build numbers count in exact terms only.
        let order = version.cmp_precedence(&self.boundary);
        match self.operator {
            Operator::Equal => *version == self.boundary,
            Operator::NotEqual => *version != self.boundary,
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::SameMinor => {
                order != Ordering::Less && version.numbers()[..2] == self.boundary.numbers()[..2]
            }
            Operator::SameMajor => {
                order != Ordering::Less && version.numbers()[0] == self.boundary.numbers()[0]
            }
        }
    }

    fn parse(text: &str) -> Result<Constraint, &'static str> {
        let rest = text.trim_start_matches(['=', '!', '<', '>', '~', '^', '-']);
        let operator = &text[..text.len() - rest.len()];
        let rest = rest.trim_start();
        let core = rest.find(['-', '+']).map_or(rest, |end| &rest[..end]);
        let extra = &rest[core.len()..];
        let numbers: Option<Vec<u64>> = core.split('.').map(|number| number.parse().ok()).collect();
        let digits = core.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let Some(numbers) = numbers.filter(|numbers| digits && numbers.len() <= 3) else {
            return Err(
                "a version is up to three numbers, joined by dots, without a v before them",
            );
        };
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        let boundary = format!("{}.{}.{}{extra}", at(0), at(1), at(2));
        let Ok(boundary) = boundary.parse() else {
            return Err("its prerelease or build is malformed");
        };
        let operator = match operator {
            "" | "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            "~>" if numbers.len() == 3 => Operator::SameMinor,
            "~>" => Operator::SameMajor,
            _ => return Err("the operators are = != > >= < <= ~>"),
        };
        Ok(Constraint { boundary, operator })
    }
}

impl FromStr for Constraints {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let refuse = |rule| ConstraintError { text: text.chars().take(300).collect(), rule };
        if text.trim().is_empty() {
            return Ok(Constraints::default());
        }
        // The clients take a comma at the end.
        let terms = text.trim().strip_suffix(',').unwrap_or(text).split(',');
        terms
            .map(|term| Constraint::parse(term.trim()).map_err(refuse))
            .collect::<Result<_, _>>()
            .map(Constraints)
    }
}

impl fmt::Display for Constraints {
    /// In the one form in which lock files may hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Constraint { boundary, operator }) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            f.write_str(match operator {
                Operator::Greater => "> ",
                Operator::GreaterOrEqual => ">= ",
                Operator::Equal => "",
                Operator::SameMinor | Operator::SameMajor => "~> ",
                Operator::LessOrEqual => "<= ",
                Operator::Less => "< ",
                Operator::NotEqual => "!= ",
            })?;
            match operator {
                Operator::SameMajor => {
                    let [major, minor, _] = boundary.numbers();
                    write!(f, "{major}.{minor}")?;
                    let full = boundary.to_string();
                    f.write_str(full.find(['-', '+']).map_or("", |extra| &full[extra..]))?;
                }
                _ => write!(f, "{boundary}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints(text: &str) -> Constraints {
        text.parse().unwrap()
    }

    #[test]
    fn constraints_allow_what_the_clients_allow() {
        // (constraints, allowed, refused), as go-versions answers.
        for (text, allowed, refused) in [
            ("", "0.1.0 9.9.9 1.0.0+b1", "1.0.0-rc1"),
            ("1.2", "1.2.0", "1.2.1 1.2.0+b"),
            ("= 1.2.3", "1.2.3", "1.2.4 1.2.3-rc1"),
            ("!= 1.2.3", "1.2.4 1.2.3+b", "1.2.3 2.0.0-rc1"),
            ("> 1.2", "1.2.1", "1.2.0 1.1.9 1.2.0+b"),
            (">=1.2.3,<2", "1.2.3 1.9.9", "2.0.0 1.2.2 2.0.0-rc1"),
            ("<= 2.0.0", "2.0.0 2.0.0+b", "2.0.1"),
            ("~> 1.2", "1.2.0 1.9.0", "2.0.0 1.1.9"),
            ("~> 1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
            ("~> 2", "2.0.0 2.9.9", "3.0.0 1.9.9"),
            ("1.0.0-rc1", "1.0.0-rc1", "1.0.0 1.0.0-rc2"),
            (">= 1.0.0-rc1", "1.0.0", "1.0.0-rc1 1.0.0-rc2"),
            (">= 0.9, 1.0.0-rc1", "1.0.0-rc1", "1.0.0 0.9.0"),
            ("1.0.0+b1", "1.0.0+b1", "1.0.0 1.0.0+b2"),
            ("01.3.0", "1.3.0", "1.3.1"),
        ] {
            let c = constraints(text);
            let answers = |versions: &str| {
                versions.split(' ').map(|v| c.allow(&v.parse().unwrap())).collect::<Vec<_>>()
            };
            assert!(answers(allowed).iter().all(|a| *a), "{text} has to allow {allowed}");
            assert!(answers(refused).iter().all(|a| !*a), "{text} has to refuse {refused}");
        }
    }

    #[test]
    fn joined_constraints_are_written_in_the_form_of_lock_files() {
        for (text, wanted) in [
            (">= 0.9,<2, != 1.5", ">= 0.9.0, != 1.5.0, < 2.0.0"),
            ("~> 2", "~> 2.0"),
            ("~> 3.2", "~> 3.2"),
            ("~> 3.2.1, > 3.2.1, 3.2.1", "> 3.2.1, 3.2.1, ~> 3.2.1"),
            ("= 1.0.0-rc1+b", "1.0.0-rc1+b"),
            (">=1.0, >= 1.0.0 ,", ">= 1.0.0"),
        ] {
            assert_eq!(constraints(text).to_string(), wanted);
            assert_eq!(constraints(wanted), constraints(text), "{wanted}");
        }
        let mut both = constraints("< 2");
        both.add(constraints(">= 1.1"));
        assert_eq!(both.to_string(), ">= 1.1.0, < 2.0.0");
    }

    #[test]
    fn what_the_clients_refuse_is_refused() {
        for text in [
            "v1.0", "1.2.3.4", "1.x", "=> 1", "^1.0", ">= ", "1.0 2.0", ",", "1,,2", "latest",
            ">= v1",
        ] {
            assert!(text.parse::<Constraints>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_release_wins() {
        let versions: Vec<Version> =
            ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc1"].iter().map(|v| v.parse().unwrap()).collect();
        assert_eq!(constraints("").newest(&versions).unwrap().to_string(), "1.10.0");
        assert_eq!(constraints("~> 1.9.0").newest(&versions).unwrap().to_string(), "1.9.0");
        assert_eq!(constraints("> 3").newest(&versions), None);
    }
}
