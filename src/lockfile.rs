//! `.terraform.lock.hcl`: read as the clients read it, changed in place, written in the clients'
//! own form.
//!
//! What is not changed keeps every byte: comments, order, other providers. What is new or changed
//! looks as Terraform 1.11 and OpenTofu 1.12 write it. Nothing here does I/O.

pub mod configuration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block};

use crate::digest::H1;
use crate::name::{Constraints, Host, NameError, ProviderAddr, Version};

/// The name of a lock file in its working directory.
pub const FILE_NAME: &str = ".terraform.lock.hcl";
/// The largest lock file that is read, in bytes.
pub const FILE_MAX: u64 = 16 << 20;

/// The programs that read and write lock files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    OpenTofu,
    Terraform,
}

impl Client {
    /// The registry of provider addresses that name none.
    pub fn default_registry(self) -> Result<Host, NameError> {
        match self {
            Client::OpenTofu => "registry.opentofu.org",
            Client::Terraform => "registry.terraform.io",
        }
        .parse()
    }

    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Client::OpenTofu => "tofu",
            Client::Terraform => "terraform",
        }
    }
}

/// Why a file is not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyntaxError {
    /// The line, from 1, where one is known.
    pub line: Option<usize>,
    /// The rule that is broken.
    pub rule: String,
}

impl SyntaxError {
    fn at(text: &str, span: Option<Range<usize>>, rule: impl fmt::Display) -> SyntaxError {
        let line = span.map(|span| {
            1 + text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
        });
        SyntaxError { line, rule: rule.to_string() }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

impl std::error::Error for SyntaxError {}

/// A hash of a package as lock files hold it: `SCHEME:VALUE`, ordered as there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackageHash(String);

impl PackageHash {
    /// `zh:`, the SHA-256 digest of the zip, in hexadecimal.
    pub fn of_zip(hex: &str) -> PackageHash {
        PackageHash(format!("zh:{hex}"))
    }

    /// `h1:`, the hash of the unpacked files.
    pub fn of_files(h1: &H1) -> PackageHash {
        PackageHash(h1.to_string())
    }

    /// Whether it is of that scheme: `h1`, `zh`.
    pub fn is(&self, scheme: &str) -> bool {
        self.0.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':'))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sound = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'$' | b'%');
        match text.split_once(':') {
            Some((scheme, value))
                if !scheme.is_empty() && !value.is_empty() && text.bytes().all(sound) =>
            {
                Ok(PackageHash(text.to_owned()))
            }
            _ => Err(format!("{text:?} is not a hash (SCHEME:VALUE)")),
        }
    }
}

impl fmt::Display for PackageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is locked for one provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProviderLock {
    /// The one version that is used.
    pub version: Version,
    /// What the configuration allowed when the version was selected.
    pub constraints: Constraints,
    /// The packages that are trusted.
    pub hashes: BTreeSet<PackageHash>,
}

/// A lock file: its text, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockFile {
    text: String,
    entries: Vec<ProviderBlock>,
    /// The number of a provider's entry.
    numbers: BTreeMap<ProviderAddr, usize>,
}

/// A `provider` block and where its parts stand in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ProviderBlock {
    address: ProviderAddr,
    lock: ProviderLock,
    block: Range<usize>,
    version: Range<usize>,
    constraints: Option<Range<usize>>,
    hashes: Option<Range<usize>>,
}

impl LockFile {
    /// A file without providers, with the two lines that `client` begins each with.
    pub fn new(client: Client) -> LockFile {
        let program = client.program();
        let text = format!(
            "# This file is maintained automatically by \"{program} init\".\n\
             # Manual edits may be lost in future updates.\n"
        );
        LockFile { text, entries: Vec::new(), numbers: BTreeMap::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first rule that it breaks, with the line.
    pub fn parse(text: &str) -> Result<LockFile, SyntaxError> {
        let body = hcl_edit::parser::parse_body(text).map_err(|e| SyntaxError {
            line: Some(e.location().line()),
            rule: e.message().to_owned(),
        })?;
        let mut file =
            LockFile { text: text.to_owned(), entries: Vec::new(), numbers: BTreeMap::new() };
        for block in body.get_blocks("provider") {
            let entry = read_entry(text, block)?;
            if file.numbers.insert(entry.address.clone(), file.entries.len()).is_some() {
                let rule = format!("the provider {} is locked twice", entry.address);
                return Err(SyntaxError::at(text, Some(entry.block), rule));
            }
            file.entries.push(entry);
        }
        Ok(file)
    }

    /// The text as it stands now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The client that wrote it, as far as the file says: by its first lines, else by the
    /// registries that it names.
    pub fn client(&self) -> Option<Client> {
        let clients = [Client::Terraform, Client::OpenTofu];
        let comments = || self.text.lines().take_while(|line| line.starts_with('#'));
        let said = |client: &Client| {
            comments().any(|line| line.contains(&format!("\"{} init\"", client.program())))
        };
        let used = |client: &Client| {
            let registry = client.default_registry();
            registry.is_ok_and(|registry| {
                self.entries.iter().any(|entry| entry.address.host == registry)
            })
        };
        clients.into_iter().find(said).or_else(|| clients.into_iter().find(used))
    }

    /// What is locked for a provider.
    pub fn lock(&self, address: &ProviderAddr) -> Option<&ProviderLock> {
        self.entry(address).map(|entry| &entry.lock)
    }

    /// All providers, in the order of the file.
    pub fn locks(&self) -> impl Iterator<Item = (&ProviderAddr, &ProviderLock)> {
        self.entries.iter().map(|entry| (&entry.address, &entry.lock))
    }

    /// Locks providers. Nothing changes of one that is locked just so.
    ///
    /// # Errors
    /// The changed file could not be read again, which the syntax of its other parts would have to
    /// be the cause of.
    pub fn set(&mut self, locks: &BTreeMap<ProviderAddr, ProviderLock>) -> Result<(), SyntaxError> {
        let mut edits: Vec<Edit> = Vec::new();
        // What is new at one place, in the order of the addresses.
        let mut added: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (address, lock) in locks {
            match self.entry(address) {
                Some(entry) if entry.lock == *lock => {}
                Some(entry) => edits.extend(self.changed(entry, lock)),
                None => added.entry(self.place_of(address)).or_default().push(block(address, lock)),
            }
        }
        edits.extend(added.into_iter().map(|(at, blocks)| (at..at, self.paragraphs(at, &blocks))));
        if !edits.is_empty() {
            *self = LockFile::parse(&self.edited(edits))?;
        }
        Ok(())
    }

    fn entry(&self, address: &ProviderAddr) -> Option<&ProviderBlock> {
        self.numbers.get(address).map(|number| &self.entries[*number])
    }

    fn edited(&self, mut edits: Vec<Edit>) -> String {
        edits.sort_by_key(|(at, _)| (at.start, at.end));
        let mut text = String::with_capacity(self.text.len());
        let mut copied = 0;
        for (at, new) in edits {
            text += &self.text[copied..at.start];
            text += &new;
            copied = at.end;
        }
        text + &self.text[copied..]
    }

    fn changed(&self, entry: &ProviderBlock, lock: &ProviderLock) -> Vec<Edit> {
        let old = &self.text[entry.block.clone()];
        if !has_comment(old) {
            return vec![(entry.block.clone(), block(&entry.address, lock))];
        }
        let mut edits = vec![(entry.version.clone(), quoted(&lock.version))];
        match (&entry.constraints, lock.constraints.is_empty()) {
            (Some(at), _) => edits.push((at.clone(), quoted(&lock.constraints))),
            (None, true) => {}
            (None, false) => {
                let line_end = self.text[entry.version.end..]
                    .find('\n')
                    .map_or(entry.block.end, |n| entry.version.end + n);
                edits.push((
                    line_end..line_end,
                    format!("\n  constraints = {}", quoted(&lock.constraints)),
                ));
            }
        }
        match &entry.hashes {
            Some(at) => {
                edits.push((at.clone(), self.hashes_with_comments(entry, at.clone(), lock)))
            }
            None => {
                let before = entry.block.end - 1..entry.block.end - 1;
                edits.push((before, format!("  hashes = {}\n", list(&lock.hashes))));
            }
        }
        edits
    }

    /// A list of hashes whose comments are kept: if hashes are only added they precede the old
    /// ones, else it is written anew.
    fn hashes_with_comments(
        &self,
        entry: &ProviderBlock,
        at: Range<usize>,
        lock: &ProviderLock,
    ) -> String {
        let old = &self.text[at];
        if !has_comment(old) || !entry.lock.hashes.is_subset(&lock.hashes) {
            return list(&lock.hashes);
        }
        let added: String = lock
            .hashes
            .difference(&entry.lock.hashes)
            .map(|hash| format!("\n    {},", quoted(hash)))
            .collect();
        // At the front, where no comment can stand between a hash and the comma that it may lack.
        old.replacen('[', &format!("[{added}"), 1)
    }

    /// Where a provider that is not locked yet comes to stand: behind the one before it.
    fn place_of(&self, address: &ProviderAddr) -> usize {
        let Some((_, before)) = self.numbers.range(..address).next_back() else {
            return first_paragraph(&self.text);
        };
        let end = self.entries[*before].block.end;
        self.text[end..].find('\n').map_or(self.text.len(), |newline| end + newline + 1)
    }

    /// New blocks, with the empty lines around them that are wanted at that place.
    fn paragraphs(&self, at: usize, blocks: &[String]) -> String {
        let blocks = blocks.join("\n\n");
        let before = &self.text[..at];
        match (at, before.is_empty() || before.ends_with('\n')) {
            (0, _) if self.text.trim().is_empty() => format!("{blocks}\n"),
            (0, _) => format!("{blocks}\n\n"),
            (_, true) => format!("\n{blocks}\n"),
            (_, false) => format!("\n\n{blocks}\n"),
        }
    }
}

/// A part of a text, and what takes its place.
type Edit = (Range<usize>, String);

/// A block as the clients write it, without the newline behind it.
fn block(address: &ProviderAddr, lock: &ProviderLock) -> String {
    let mut text = format!("provider \"{address}\" {{\n");
    if lock.constraints.is_empty() {
        text += &format!("  version = {}\n", quoted(&lock.version));
    } else {
        // The clients align what follows each other in lines of their own.
        text += &format!("  version     = {}\n", quoted(&lock.version));
        text += &format!("  constraints = {}\n", quoted(&lock.constraints));
    }
    if !lock.hashes.is_empty() {
        text += &format!("  hashes = {}\n", list(&lock.hashes));
    }
    text + "}"
}

fn list(hashes: &BTreeSet<PackageHash>) -> String {
    let lines: String = hashes.iter().map(|hash| format!("    {},\n", quoted(hash))).collect();
    format!("[\n{lines}  ]")
}

/// None of the values holds what would have to be escaped.
fn quoted(value: impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// Where the comments end with which a file begins, if an empty line or nothing follows them.
fn first_paragraph(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        match line.trim() {
            "" => return at,
            comment if comment.starts_with('#') || comment.starts_with("//") => at += line.len(),
            _ => return 0,
        }
    }
    at
}

/// Whether there is a comment outside of strings.
fn has_comment(text: &str) -> bool {
    let (mut quoted, mut escaped, mut before) = (false, false, ' ');
    for c in text.chars() {
        match (quoted, c) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => quoted = !quoted,
            (false, '#') => return true,
            (false, '/' | '*') if before == '/' => return true,
            _ => {}
        }
        before = if quoted { ' ' } else { c };
    }
    false
}

fn read_entry(text: &str, block: &Block) -> Result<ProviderBlock, SyntaxError> {
    let span = block.span().unwrap_or_default();
    let refuse = |rule: String| SyntaxError::at(text, Some(span.clone()), rule);
    let [label] = block.labels.as_slice() else {
        return Err(refuse(
            "a provider block has the provider's address as its one label".to_owned(),
        ));
    };
    // Each address is written in full, so that no default host can come in.
    let address = Some(label.as_str()).filter(|label| label.matches('/').count() == 2);
    let address = address
        .and_then(|label| ProviderAddr::parse(label, &label.split('/').next()?.parse().ok()?).ok());
    let Some(address) = address.filter(|address| address.to_string() == label.as_str()) else {
        return Err(refuse(format!(
            "{:?} is not a provider in full (HOST/NAMESPACE/TYPE)",
            label.as_str()
        )));
    };
    let get = |name: &str| block.body.get_attribute(name);
    let string = |attribute: &Attribute| match attribute.value.as_str() {
        Some(value) => Ok((value.to_owned(), attribute.value.span().unwrap_or_default())),
        None => Err(SyntaxError::at(
            text,
            attribute.span(),
            format!("{} is not a string", attribute.key.as_str()),
        )),
    };
    let Some(version) = get("version") else {
        return Err(refuse(format!("the lock of {address} has no version")));
    };
    let (version, version_at) = string(version)?;
    let parsed = version.parse::<Version>();
    let version = parsed.map_err(|e| SyntaxError::at(text, Some(version_at.clone()), e))?;
    let (constraints, constraints_at) = match get("constraints").map(string).transpose()? {
        Some((constraints, at)) => {
            let parsed = constraints.parse::<Constraints>();
            (parsed.map_err(|e| SyntaxError::at(text, Some(at.clone()), e))?, Some(at))
        }
        None => (Constraints::default(), None),
    };
    let (hashes, hashes_at) = match get("hashes") {
        Some(hashes) => (read_hashes(text, hashes)?, hashes.value.span()),
        None => (BTreeSet::new(), None),
    };
    let lock = ProviderLock { version, constraints, hashes };
    Ok(ProviderBlock {
        address,
        lock,
        block: span,
        version: version_at,
        constraints: constraints_at,
        hashes: hashes_at,
    })
}

fn read_hashes(text: &str, attribute: &Attribute) -> Result<BTreeSet<PackageHash>, SyntaxError> {
    let refuse = |rule: String| SyntaxError::at(text, attribute.span(), rule);
    let Some(list) = attribute.value.as_array() else {
        return Err(refuse("hashes is not a list".to_owned()));
    };
    let hash = |value: &Expression| match value.as_str() {
        Some(hash) => hash.parse::<PackageHash>().map_err(refuse),
        None => Err(refuse("a hash is not a string".to_owned())),
    };
    list.iter().map(hash).collect()
}
