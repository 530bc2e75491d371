//! The language of OpenTofu's CLI configuration: HCL 1, or JSON where the text begins with a brace.
//!
//! HCL 2 is another language: its parsers refuse what is usual here (the quoted keys of
//! `dev_overrides`, a block on one line within another), and take `${…}` for a template where HCL 1
//! has plain text. One reader serves both notations, since an HCL 1 object with `:` for `=` is a
//! JSON object; JSON is checked by a JSON parser before. Values may be secrets: nothing here is
//! printable, and errors carry no text of the file but single characters.

use std::ops::Range;

use zeroize::Zeroizing;

/// How deep lists and objects may nest.
const DEPTH_MAX: usize = 64;

/// A value as it is written.
pub enum Value {
    /// A string or heredoc. `${…}` in it is left as it is.
    Text(Zeroizing<String>),
    /// A number, `true`, `false` or `null`, by its spelling.
    Word(String),
    /// `[…]`
    List(Vec<Value>),
    /// `{…}`
    Object(Vec<Item>),
}

/// `KEY… VALUE` or `KEY = VALUE`.
pub struct Item {
    /// The keys: a block's type and labels, or an argument's name.
    pub keys: Vec<String>,
    /// Whether an equals sign (in JSON, a colon) stands before the value.
    pub assigned: bool,
    pub value: Value,
    /// The line of the first key, from 1.
    pub line: usize,
    /// Where it stands in the text, in bytes.
    pub place: Range<usize>,
}

/// A parsed text.
pub struct HclDocument {
    /// Its items, in order; repeated keys are all there.
    pub items: Vec<Item>,
    /// Whether it is JSON, where blocks are written as objects or lists of them.
    pub json: bool,
}

/// A rule that the text breaks, and in which line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HclSyntaxError {
    /// The line, from 1.
    pub line: usize,
    pub rule: String,
}

type ParseResult<T> = std::result::Result<T, HclSyntaxError>;

/// Reads a text.
pub fn parse(text: &str) -> ParseResult<HclDocument> {
    let length = text.len();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json = text.trim_start().starts_with('{');
    if json && let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(HclSyntaxError {
            line: e.line(),
            rule: format!("not valid JSON (column {})", e.column()),
        });
    }
    let mut reader = HclReader { rest: text, length, line: 1, json, depth: 0 };
    reader.space()?;
    let items = if json {
        reader.rest = reader.rest.get(1..).unwrap_or_default();
        reader.items(Some('}'))?
    } else {
        reader.items(None)?
    };
    Ok(HclDocument { items, json })
}

struct HclReader<'a> {
    rest: &'a str,
    /// The length of the whole text.
    length: usize,
    line: usize,
    json: bool,
    depth: usize,
}

impl<'a> HclReader<'a> {
    fn refuse<T>(&self, rule: impl Into<String>) -> ParseResult<T> {
        Err(HclSyntaxError { line: self.line, rule: rule.into() })
    }

    fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Takes `bytes` bytes, which end at a character's boundary, and counts their lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.take(wanted.len_utf8());
        }
        found
    }

    /// White space and comments.
    fn space(&mut self) -> ParseResult<()> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.take(blank);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                match self.rest.find("*/") {
                    Some(end) => self.take(end + 2),
                    None => return self.refuse("a comment /* without its end */"),
                };
            } else {
                return Ok(());
            }
        }
    }

    /// Items up to the closing brace, which is taken, or to the end of the text.
    fn items(&mut self, close: Option<char>) -> ParseResult<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            self.space()?;
            while self.eat(',') {
                self.space()?;
            }
            match (self.peek(), close) {
                (None, None) => return Ok(items),
                (None, Some(_)) => return self.refuse("a block without its closing brace"),
                (Some(c), Some(close)) if c == close => {
                    self.eat(close);
                    return Ok(items);
                }
                _ => items.push(self.item()?),
            }
        }
    }

    fn item(&mut self) -> ParseResult<Item> {
        let (line, start) = (self.line, self.position());
        let mut keys = Vec::new();
        loop {
            match self.peek() {
                Some('"') => keys.push(self.quoted()?.to_string()),
                Some(c) if c.is_alphabetic() || c == '_' => keys.push(self.word().to_owned()),
                _ => {}
            }
            let before = self.line;
            self.space()?;
            match self.peek() {
                _ if keys.is_empty() => return self.refuse("a key is expected"),
                Some('=') if !self.json && keys.len() == 1 => break,
                Some(':') if self.json => break,
                Some('{') if !self.json => {
                    let value = self.value()?;
                    return Ok(Item {
                        keys,
                        assigned: false,
                        value,
                        line,
                        place: start..self.position(),
                    });
                }
                Some(c) if before == self.line && (c == '"' || c.is_alphabetic() || c == '_') => {}
                _ => return self.refuse("= or { is expected after a key"),
            }
        }
        self.take(1);
        self.space()?;
        let value = self.value()?;
        Ok(Item { keys, assigned: true, value, line, place: start..self.position() })
    }

    fn word(&mut self) -> &'a str {
        let inner = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        self.take(self.rest.find(|c| !inner(c)).unwrap_or(self.rest.len()))
    }

    fn value(&mut self) -> ParseResult<Value> {
        match self.peek() {
            Some('"') => Ok(Value::Text(self.quoted()?)),
            Some('<') if self.rest.starts_with("<<") => Ok(Value::Text(self.heredoc()?)),
            Some('{' | '[') if self.depth == DEPTH_MAX => self.refuse("too deeply nested"),
            Some('{') => {
                self.take(1);
                self.depth += 1;
                let items = self.items(Some('}'))?;
                self.depth -= 1;
                Ok(Value::Object(items))
            }
            Some('[') => {
                self.take(1);
                self.depth += 1;
                let list = self.list()?;
                self.depth -= 1;
                Ok(Value::List(list))
            }
            Some(c) if c.is_ascii_digit() || c == '-' => Ok(Value::Word(self.word().to_owned())),
            Some(_) => match self.word() {
                word @ ("true" | "false") => Ok(Value::Word(word.to_owned())),
                "null" if self.json => Ok(Value::Word("null".to_owned())),
                _ => self.refuse(
                    "a value is expected: text in quotes, a number, true, false, a list or a block",
                ),
            },
            None => self.refuse("a value is expected before the end of the file"),
        }
    }

    fn list(&mut self) -> ParseResult<Vec<Value>> {
        let mut list = Vec::new();
        loop {
            self.space()?;
            if self.eat(']') {
                return Ok(list);
            }
            list.push(self.value()?);
            self.space()?;
            if !self.eat(',') && self.peek() != Some(']') {
                return self.refuse("a comma or ] is expected after a list's element");
            }
        }
    }

    /// A text in quotes. In HCL, quotes and line breaks within `${…}` belong to the text.
    fn quoted(&mut self) -> ParseResult<Zeroizing<String>> {
        let (mut escaped, mut braces, mut before) = (false, 0_usize, '"');
        let mut end = None;
        for (at, c) in self.rest.char_indices().skip(1) {
            let literal = std::mem::replace(&mut escaped, false);
            match c {
                _ if literal => {}
                '\\' => escaped = true,
                '"' if braces == 0 => {
                    end = Some(at);
                    break;
                }
                '\n' if braces == 0 => break,
                '{' if !self.json && (braces > 0 || before == '$') => braces += 1,
                '}' if braces > 0 => braces -= 1,
                _ => {}
            }
            before = c;
        }
        let Some(end) = end else { return self.refuse("a text without its closing quote") };
        if self.json {
            let line = self.line;
            let text = serde_json::from_str(self.take(end + 1)).map(Zeroizing::new);
            return text.map_err(|_| HclSyntaxError { line, rule: "not a JSON text".to_owned() });
        }
        let raw = self.rest.get(1..end).unwrap_or_default();
        let text = unescape(raw);
        match text {
            Some(text) => {
                self.take(end + 1);
                Ok(text)
            }
            None => self.refuse("a backslash in quotes begins none of the known escapes"),
        }
    }

    fn heredoc(&mut self) -> ParseResult<Zeroizing<String>> {
        self.take(2);
        let strip = self.eat('-');
        let Some(end) = self.rest.find('\n') else {
            return self.refuse("a heredoc without a body");
        };
        let anchor = self.take(end + 1).trim();
        if anchor.is_empty() {
            return self.refuse("a heredoc without an end mark");
        }
        let mut lines = Vec::new();
        let mut read = 0;
        for line in self.rest.split_inclusive('\n') {
            read += line.len();
            if line.trim() == anchor {
                let indent = |l: &&str| l.len() - l.trim_start_matches([' ', '\t']).len();
                let margin = if strip { lines.iter().map(indent).min().unwrap_or(0) } else { 0 };
                let body: String =
                    lines.iter().map(|l: &&str| l.get(margin..).unwrap_or_default()).collect();
                // the line break after the mark is left, so that it ends the item
                self.take(read - usize::from(line.ends_with('\n')));
                return Ok(Zeroizing::new(body));
            }
            lines.push(line);
        }
        self.refuse("a heredoc without its end mark")
    }
}

/// Resolves escapes outside of `${…}`; `None` for an unknown one.
fn unescape(raw: &str) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(raw.len()));
    let mut braces = 0_usize;
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if braces > 0 {
            match c {
                '{' => braces += 1,
                '}' => braces -= 1,
                _ => {}
            }
            text.push(c);
        } else if c == '$' && chars.peek() == Some(&'{') {
            chars.next();
            braces = 1;
            text.push_str("${");
        } else if c == '\\' {
            let code =
                |digits: String| u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            text.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('"' | '\\') => c,
                'u' => code(chars.by_ref().take(4).collect())?,
                'U' => code(chars.by_ref().take(8).collect())?,
                _ => return None,
            });
        } else {
            text.push(c);
        }
    }
    Some(text)
}
