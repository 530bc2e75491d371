//! From items to typed values, with OpenTofu's own checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use super::syntax::{HclDocument, HclSyntaxError, Item, Value};
use super::{DefaultCredentials, InstallationLocation, InstallationMethod, Tofurc};
use crate::name::Host;
use crate::registry::credentials::{Block, Credential, HostToken, Login, Prefix, Program, Secret};

type DecodeResult<T> = std::result::Result<T, HclSyntaxError>;

fn refuse<T>(line: usize, rule: impl Into<String>) -> DecodeResult<T> {
    Err(HclSyntaxError { line, rule: rule.into() })
}

/// Adds what a document says to what is known.
pub fn add(tofurc: &mut Tofurc, file: &Path, document: HclDocument) -> DecodeResult<()> {
    let json = document.json;
    for item in document.items {
        let (line, key) = (item.line, item.keys.first().cloned());
        match key.as_deref() {
            Some("oci_credentials") => {
                const LABEL: &str =
                    "an oci_credentials block has one label: the registry, or a path in it";
                for (label, body) in labelled(item, json, LABEL)? {
                    let block = credentials(&label, body, file)?;
                    if tofurc.blocks.iter().any(|b| b.prefix == block.prefix) {
                        return refuse(
                            line,
                            format!("oci_credentials {label:?} stands there a second time"),
                        );
                    }
                    tofurc.blocks.push(block);
                }
            }
            Some("credentials") => {
                const LABEL: &str = "a credentials block has one label: the host";
                for (label, body) in labelled(item, json, LABEL)? {
                    tofurc.tokens.extend(token(&label, body, file)?);
                }
            }
            Some("host") => {
                const LABEL: &str = "a host block has one label: the host";
                for (label, body) in labelled(item, json, LABEL)? {
                    tofurc.services.extend(services(&label, body)?);
                }
            }
            Some(key @ "credentials_helper") => {
                const LABEL: &str = "a credentials_helper block has one label: its name";
                for (name, body) in labelled(item, json, LABEL)? {
                    if name.is_empty() || name.contains(['/', '\0']) {
                        return body.refuse("has a label that can be no part of a program's name");
                    }
                    let arguments = body.texts("args")?.unwrap_or_default();
                    once(&mut tofurc.token_program, (name, arguments), line, key)?;
                }
            }
            Some(key @ "oci_default_credentials") => {
                for body in plain(item, json)? {
                    once(&mut tofurc.defaults, default_credentials(body, file)?, line, key)?;
                }
            }
            Some("plugin_cache_dir") => {
                let Some(path) = text(&item.value) else {
                    return refuse(line, "plugin_cache_dir must be a text");
                };
                tofurc.plugin_cache_dir = Some(PathBuf::from(path.as_str()));
            }
            Some(key @ "provider_installation") => {
                for body in plain(item, json)? {
                    once(&mut tofurc.installation, installation(body, file, json)?, line, key)?;
                }
            }
            Some(method) if METHODS.contains(&method) => tofurc.misplaced.push(format!(
                "{}:{line}: {method} stands outside of provider_installation, where it is passed \
                 over; put it into a provider_installation block",
                file.display()
            )),
            _ => {}
        }
    }
    Ok(())
}

/// Keeps what may be there once.
fn once<T>(place: &mut Option<T>, value: T, line: usize, block: &str) -> DecodeResult<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => refuse(line, format!("there may be one {block} block, over all files")),
    }
}

/// The methods of installation.
const METHODS: [&str; 5] =
    ["oci_mirror", "filesystem_mirror", "network_mirror", "direct", "dev_overrides"];

/// The inside of a block.
struct BlockBody {
    /// `oci_credentials "ghcr.io"`, for messages.
    name: String,
    line: usize,
    items: Vec<Item>,
}

/// The blocks that one item stands for: itself, or in JSON an object or each object of a list.
fn plain(item: Item, json: bool) -> DecodeResult<Vec<BlockBody>> {
    let Item { keys, assigned, value, line, .. } = item;
    let name = keys.first().cloned().unwrap_or_default();
    if !json && assigned {
        return refuse(line, format!("{name} is a block, without an equals sign"));
    }
    if keys.len() > 1 {
        return refuse(line, format!("a {name} block has no label"));
    }
    let body = |value| match value {
        Value::Object(items) => Ok(BlockBody { name: name.clone(), line, items }),
        _ => refuse(line, format!("{name} must be an object")),
    };
    match value {
        Value::List(list) if json => list.into_iter().map(body).collect(),
        value => Ok(vec![body(value)?]),
    }
}

/// The same for blocks with one label; in JSON the label is a key of the object.
fn labelled(item: Item, json: bool, wanted: &str) -> DecodeResult<Vec<(String, BlockBody)>> {
    let line = item.line;
    if !json {
        let [name, label] = item.keys.as_slice() else { return refuse(line, wanted) };
        let (name, label) = (format!("{name} {label:?}"), label.clone());
        return match item.value {
            Value::Object(items) if !item.assigned => {
                Ok(vec![(label, BlockBody { name, line, items })])
            }
            _ => refuse(line, format!("{name} is a block, without an equals sign")),
        };
    }
    let mut blocks = Vec::new();
    for outer in plain(item, json)? {
        for inner in outer.items {
            let label = inner.keys.first().cloned().unwrap_or_default();
            for mut body in plain(inner, json)? {
                body.name = format!("{} {label:?}", outer.name);
                blocks.push((label.clone(), body));
            }
        }
    }
    Ok(blocks)
}

impl BlockBody {
    fn refuse<T>(&self, rule: impl std::fmt::Display) -> DecodeResult<T> {
        refuse(self.line, format!("{} {rule}", self.name))
    }

    /// The last argument of that name; null is none.
    fn argument(&self, name: &str) -> Option<&Item> {
        let named =
            self.items.iter().rev().find(|item| item.keys.first().is_some_and(|key| key == name));
        named.filter(|item| !matches!(&item.value, Value::Word(word) if word == "null"))
    }

    fn text(&self, name: &str) -> DecodeResult<Option<Zeroizing<String>>> {
        let Some(item) = self.argument(name) else { return Ok(None) };
        match text(&item.value) {
            Some(text) => Ok(Some(text)),
            None => refuse(item.line, format!("{} must be a text", name)),
        }
    }

    fn flag(&self, name: &str) -> DecodeResult<Option<bool>> {
        let Some(item) = self.argument(name) else { return Ok(None) };
        let word = match &item.value {
            Value::Word(word) => word.as_str(),
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        match word {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => refuse(item.line, format!("{name} must be true or false")),
        }
    }

    fn texts(&self, name: &str) -> DecodeResult<Option<Vec<String>>> {
        let Some(item) = self.argument(name) else { return Ok(None) };
        let list = match &item.value {
            Value::List(list) => list.iter().map(|v| Some(text(v)?.to_string())).collect(),
            value => text(value).map(|t| vec![t.to_string()]),
        };
        match list {
            Some(list) => Ok(Some(list)),
            None => refuse(item.line, format!("{name} must be a list of texts")),
        }
    }

    /// The texts of a map. What it holds beside texts says nothing here.
    fn map(&self, name: &str) -> DecodeResult<BTreeMap<String, String>> {
        let Some(item) = self.argument(name) else { return Ok(BTreeMap::new()) };
        let Value::Object(items) = &item.value else {
            return refuse(item.line, format!("{name} must be an object"));
        };
        let told = items.iter().filter_map(|item| {
            let key = item.keys.first()?;
            Some((key.clone(), text(&item.value)?.to_string()))
        });
        Ok(told.collect())
    }

    fn program(&self) -> DecodeResult<Option<Program>> {
        let Some(name) = self.text("docker_credentials_helper")? else { return Ok(None) };
        match Program::from_str(&name) {
            Ok(program) => Ok(Some(program)),
            Err(e) => self.refuse(format_args!("sets docker_credentials_helper: {e}")),
        }
    }
}

/// A text, or a number as it is written.
fn text(value: &Value) -> Option<Zeroizing<String>> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Word(word) if !matches!(word.as_str(), "true" | "false" | "null") => {
            Some(Zeroizing::new(word.clone()))
        }
        _ => None,
    }
}

/// The token of a `credentials` block. A label that is no host, and a block without a token, say
/// nothing, as to the clients.
fn token(label: &str, body: BlockBody, file: &Path) -> DecodeResult<Option<(Host, HostToken)>> {
    let token = body.text("token")?.filter(|token| !token.is_empty());
    let source = format!("{}:{}", file.display(), body.line);
    let found =
        |token: Zeroizing<String>| HostToken { secret: Secret::new(token.to_string()), source };
    Ok(label.parse().ok().zip(token.map(found)))
}

/// What a `host` block says. A label that is no host says nothing, as to the clients.
fn services(
    label: &str,
    body: BlockBody,
) -> DecodeResult<Option<(Host, BTreeMap<String, String>)>> {
    let services = body.map("services")?;
    Ok(label.parse().ok().map(|host| (host, services)))
}

fn credentials(label: &str, body: BlockBody, file: &Path) -> DecodeResult<Block> {
    let prefix = match Prefix::from_str(label) {
        Ok(prefix) => prefix,
        Err(e) => return body.refuse(format_args!("has a wrong label: {e}")),
    };
    let (username, password) = (body.text("username")?, body.text("password")?);
    let (access, refresh) = (body.text("access_token")?, body.text("refresh_token")?);
    let program = body.program()?;
    let styles = [
        username.is_some() || password.is_some(),
        access.is_some() || refresh.is_some(),
        program.is_some(),
    ];
    if styles.iter().filter(|set| **set).count() != 1 {
        return body.refuse(
            "must set exactly one of username+password, access_token+refresh_token, \
             docker_credentials_helper",
        );
    }
    let secret = |text: Zeroizing<String>| Secret::new(text.to_string());
    let login = match (username, password, access, refresh, program) {
        (Some(username), Some(password), ..) if !username.is_empty() => {
            Login::Credential(Credential::Basic {
                username: username.to_string(),
                password: secret(password),
            })
        }
        (_, _, Some(access), Some(refresh), _) if !access.is_empty() => {
            let refresh = (!refresh.is_empty()).then(|| secret(refresh));
            Login::Credential(Credential::Tokens { access: Some(secret(access)), refresh })
        }
        (.., Some(program)) if prefix.has_path() => {
            let rule = "names a path, but a credential helper knows whole registries only";
            return body.refuse(format_args!("{rule} ({program})"));
        }
        (.., Some(program)) => Login::Program(program),
        (Some(_), Some(_), ..) => return body.refuse("must not set an empty username"),
        (_, _, Some(_), Some(_), _) => return body.refuse("must not set an empty access_token"),
        (_, _, None, None, _) => return body.refuse("must set username and password together"),
        _ => return body.refuse("must set access_token and refresh_token together"),
    };
    Ok(Block { prefix, login, origin: format!("{}:{}", file.display(), body.line) })
}

fn default_credentials(body: BlockBody, file: &Path) -> DecodeResult<DefaultCredentials> {
    let discover_ambient = body.flag("discover_ambient_credentials")?.unwrap_or(true);
    let listed = body.texts("docker_style_config_files")?;
    if !discover_ambient && listed.is_some() {
        return body
            .refuse("lists docker_style_config_files, but discover_ambient_credentials is false");
    }
    let base = file.parent().unwrap_or(Path::new("/"));
    let files =
        listed.map(|paths| paths.iter().map(|path| base.join(path)).collect::<Vec<PathBuf>>());
    Ok(DefaultCredentials { discover_ambient, files, program: body.program()? })
}

fn installation(body: BlockBody, file: &Path, json: bool) -> DecodeResult<Vec<InstallationMethod>> {
    let mut methods = Vec::new();
    for item in body.items {
        for body in plain(item, json)? {
            let required = |argument: &str| match body.text(argument)? {
                Some(text) if !text.is_empty() => Ok(text.to_string()),
                _ => body.refuse(format_args!("must set {argument}")),
            };
            let location = match body.name.as_str() {
                "direct" => InstallationLocation::Direct,
                "filesystem_mirror" => {
                    InstallationLocation::FilesystemMirror(required("path")?.into())
                }
                "network_mirror" => InstallationLocation::NetworkMirror(required("url")?),
                "oci_mirror" => InstallationLocation::OciMirror(required("repository_template")?),
                "dev_overrides" if methods.is_empty() => continue,
                "dev_overrides" => return body.refuse("must stand before all other methods"),
                _ => return body.refuse("is no method of installation"),
            };
            let include = body.texts("include")?.unwrap_or_default();
            let exclude = body.texts("exclude")?.unwrap_or_default();
            let origin = format!("{}:{}", file.display(), body.line);
            methods.push(InstallationMethod { location, include, exclude, origin });
        }
    }
    Ok(methods)
}
