//! OpenTofu's CLI configuration: where it is and what of it concerns a mount.
//!
//! Places and rules are OpenTofu's. Unknown blocks and arguments are ignored, as there. The
//! environment comes in as an [`ClientEnvironment`], so that nothing here depends on the process's
//! own.

mod decode;
mod install;
pub mod mount_mapping;
mod syntax;
#[cfg(test)]
mod tests;
pub mod written;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::input::{self, InputError};
use crate::name::{Host, Platform};
use crate::registry::credentials::{
    Block, CredentialsConfig, DockerFiles, HostToken, HostTokens, Login, Program, TokenProgram,
};

/// The largest configuration file, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// The variables that configure OpenTofu and its credentials.
const VARIABLES: [&str; 8] = [
    "HOME",
    "TF_CLI_CONFIG_FILE",
    "TERRAFORM_CONFIG",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "PATH",
];

/// The part of a process's environment that matters here.
#[derive(Clone, Default, Debug)]
pub struct ClientEnvironment {
    variables: BTreeMap<&'static str, OsString>,
    /// The variables `TF_TOKEN_HOST`.
    tokens: BTreeMap<String, Zeroizing<String>>,
    working_dir: PathBuf,
}

impl ClientEnvironment {
    /// That of this process. Without HOME, the home directory is the user database's.
    pub fn of_process() -> ClientEnvironment {
        let mut environment = ClientEnvironment::new(std::env::current_dir().unwrap_or_default());
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                environment = environment.with(name, value);
            }
        }
        for (name, value) in std::env::vars_os() {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string())
                && name.starts_with("TF_TOKEN_")
            {
                environment.tokens.insert(name, Zeroizing::new(value));
            }
        }
        if environment.get("HOME").is_none()
            && let Some(home) = std::env::home_dir()
        {
            environment = environment.with("HOME", home);
        }
        environment
    }

    /// An environment without variables, for a process that stands in `working_dir`.
    pub fn new(working_dir: impl Into<PathBuf>) -> ClientEnvironment {
        let working_dir = working_dir.into();
        ClientEnvironment { working_dir, ..ClientEnvironment::default() }
    }

    /// The same with one variable more. An empty value counts as none, as it does for OpenTofu.
    pub fn with(mut self, name: &'static str, value: impl Into<OsString>) -> ClientEnvironment {
        let value = value.into();
        if !value.is_empty() {
            self.variables.insert(name, value);
        }
        self
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }

    /// A path from a variable, made absolute.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|path| self.working_dir.join(path))
    }

    fn home(&self) -> PathBuf {
        self.path("HOME").unwrap_or_else(|| PathBuf::from("/"))
    }

    /// The Docker-style files that are asked where the configuration lists none.
    /// `REGISTRY_AUTH_FILE` (a file) and `DOCKER_CONFIG` (a directory) stand in for all others;
    /// OpenTofu knows neither.
    fn docker_files(&self) -> Vec<PathBuf> {
        let named = [
            self.path("REGISTRY_AUTH_FILE"),
            self.path("DOCKER_CONFIG").map(|dir| dir.join("config.json")),
        ];
        let named: Vec<PathBuf> = named.into_iter().flatten().collect();
        if !named.is_empty() {
            return named;
        }
        let home = self.home();
        let config = self.path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let run = self.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        let others = [
            config.join("containers/auth.json"),
            home.join(".docker/config.json"),
            home.join(".dockercfg"),
        ];
        run.into_iter().chain(others).collect()
    }
}

/// Why the CLI configuration cannot be used: which file, which line, which rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TofurcError {
    pub file: PathBuf,
    /// The line, from 1, where one is known.
    pub line: Option<usize>,
    /// The rule that is broken. Never holds a value of the file but names and labels.
    pub rule: String,
}

impl std::fmt::Display for TofurcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the CLI configuration {} cannot be used: ", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.rule)
    }
}

impl std::error::Error for TofurcError {}

/// `oci_default_credentials`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultCredentials {
    /// `discover_ambient_credentials`, by default true.
    pub discover_ambient: bool,
    /// `docker_style_config_files`, as absolute paths.
    pub files: Option<Vec<PathBuf>>,
    /// `docker_credentials_helper`.
    pub program: Option<Program>,
}

/// One method of `provider_installation`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstallationMethod {
    /// From where.
    pub location: InstallationLocation,
    /// Patterns of providers, as written; none means all.
    pub include: Vec<String>,
    /// Patterns of providers, as written.
    pub exclude: Vec<String>,
    /// Where the block stands: `/home/u/.tofurc:12`.
    pub origin: String,
}

/// Where a method installs from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InstallationLocation {
    /// `direct`: the provider's own registry.
    Direct,
    /// `filesystem_mirror`: the path as written.
    FilesystemMirror(PathBuf),
    /// `network_mirror`: the URL as written.
    NetworkMirror(String),
    /// `oci_mirror`: the text of `repository_template`, an HCL 2 template.
    OciMirror(String),
}

/// What the CLI configuration says.
#[derive(Clone, Default, Debug)]
pub struct Tofurc {
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// What the user should know, though it stops nothing.
    pub warnings: Vec<String>,
    /// Blocks that stand where the clients pass them over, with where that is.
    pub misplaced: Vec<String>,
    /// The `oci_credentials` blocks, in order.
    pub blocks: Vec<Block>,
    /// The `oci_default_credentials` block.
    pub defaults: Option<DefaultCredentials>,
    /// The `credentials` blocks, in order: tokens for hosts of services.
    pub tokens: Vec<(Host, HostToken)>,
    /// What `host` blocks say of the services of hosts, in order: such a host is not asked for them.
    pub services: Vec<(Host, BTreeMap<String, String>)>,
    /// The `credentials_helper` block: its name and arguments.
    pub token_program: Option<(String, Vec<String>)>,
    /// `plugin_cache_dir`, as written.
    pub plugin_cache_dir: Option<PathBuf>,
    /// The methods of the `provider_installation` block, in order, `dev_overrides` left out.
    pub installation: Option<Vec<InstallationMethod>>,
}

impl Tofurc {
    /// The user's own configuration, found by OpenTofu's rules. Blocks on the disk.
    pub fn load(environment: &ClientEnvironment) -> Result<Tofurc, TofurcError> {
        let mut tofurc = Tofurc::default();
        let named =
            environment.path("TF_CLI_CONFIG_FILE").or_else(|| environment.path("TERRAFORM_CONFIG"));
        let main = named.clone().unwrap_or_else(|| main_file(environment));
        match input::open(&main) {
            Err(e) if named.is_none() && e.is_absence() => {}
            Ok(_) | Err(InputError::Kind(_)) => tofurc.read(&main)?,
            Err(e) => tofurc.warnings.push(format!(
                "the CLI configuration {} is not used: {e}; correct TF_CLI_CONFIG_FILE or the file",
                main.display()
            )),
        }
        if named.is_none() {
            for file in directory_files(&configuration_dir(environment))? {
                tofurc.read(&file)?;
            }
        }
        Ok(tofurc)
    }

    /// One file and nothing else (`--tofurc FILE`); it must exist. Blocks on the disk.
    pub fn load_file(file: &Path, environment: &ClientEnvironment) -> Result<Tofurc, TofurcError> {
        let mut tofurc = Tofurc::default();
        tofurc.read(&environment.working_dir.join(file))?;
        Ok(tofurc)
    }

    /// All sources of credentials: those of this configuration and those of the environment.
    pub fn credentials(&self, environment: &ClientEnvironment) -> CredentialsConfig {
        let defaults = self.defaults.as_ref();
        let files = match defaults {
            Some(DefaultCredentials { discover_ambient: false, .. }) => {
                DockerFiles::Listed(Vec::new())
            }
            Some(DefaultCredentials { files: Some(listed), .. }) => {
                DockerFiles::Listed(listed.clone())
            }
            _ => DockerFiles::Ambient(environment.docker_files()),
        };
        CredentialsConfig {
            blocks: self.blocks.clone(),
            default_program: defaults.and_then(|d| d.program.clone()),
            files,
            search_path: environment.get("PATH").unwrap_or_default().to_owned(),
            program_limit: None,
        }
    }

    /// All sources of tokens for hosts of services: those of this configuration and those of the
    /// environment.
    pub fn host_tokens(&self, environment: &ClientEnvironment) -> HostTokens {
        let plugins = configuration_dir(environment).join("plugins");
        let directories = vec![plugins.clone(), plugins.join(Platform::host().to_string())];
        let program = self.token_program.clone().map(|(name, arguments)| TokenProgram {
            name,
            arguments,
            directories,
        });
        let mut tokens = HostTokens::new(self.tokens.clone(), program);
        for (name, value) in &environment.tokens {
            tokens.add_variable(name, value);
        }
        tokens
    }

    /// Adds what a file says.
    fn read(&mut self, file: &Path) -> Result<(), TofurcError> {
        let error = |line, rule: String| TofurcError { file: file.to_owned(), line, rule };
        let unreadable = |e: InputError| error(None, format!("it cannot be read: {e}"));
        let opened = input::open(file).map_err(unreadable)?;
        let mode = opened.metadata().map_err(|e| unreadable(e.into()))?.mode();
        let mut bytes = Zeroizing::new(Vec::new());
        input::append_from(opened, FILE_MAX, &mut bytes).map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable(InputError::NotText))?;
        let (before, tokens) = (self.blocks.len(), self.tokens.len());
        let document = syntax::parse(text).map_err(|e| error(Some(e.line), e.rule))?;
        decode::add(self, file, document).map_err(|e| error(Some(e.line), e.rule))?;
        let secret = |block: &Block| matches!(block.login, Login::Credential(_));
        let holds_secrets =
            self.tokens.len() > tokens || self.blocks.iter().skip(before).any(secret);
        if mode & 0o077 != 0 && holds_secrets {
            self.warnings.push(format!(
                "{} holds credentials and other users can open it (mode {:04o}); run chmod 600 on \
                 it",
                file.display(),
                mode & 0o7777
            ));
        }
        self.files.push(file.to_owned());
        Ok(())
    }
}

fn main_file(environment: &ClientEnvironment) -> PathBuf {
    let home = environment.home();
    let (new, old) = (home.join(".tofurc"), home.join(".terraformrc"));
    match environment.path("XDG_CONFIG_HOME") {
        Some(config) if !new.exists() && !old.exists() => config.join("opentofu/tofurc"),
        _ if !new.exists() && old.exists() => old,
        _ => new,
    }
}

fn configuration_dir(environment: &ClientEnvironment) -> PathBuf {
    let dir = environment.home().join(".terraform.d");
    match environment.path("XDG_CONFIG_HOME") {
        Some(config) if !dir.exists() => config.join("opentofu"),
        _ => dir,
    }
}

/// The configuration files of a directory, sorted by name; none if there is no such directory.
fn directory_files(dir: &Path) -> Result<Vec<PathBuf>, TofurcError> {
    let wanted = |name: &OsStr| {
        name.to_str().is_some_and(|n| n.ends_with(".tfrc") || n.ends_with(".tfrc.json"))
    };
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if wanted(&entry.file_name()) {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    };
    list().map_err(|e| TofurcError {
        file: dir.to_owned(),
        line: None,
        rule: format!("it cannot be read: {e}"),
    })
}
