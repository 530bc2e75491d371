//! Tokens for hosts of services, from where the clients take them: `TF_TOKEN_*`, `credentials`
//! blocks (and `credentials.tfrc.json`, which is a file of such), a credentials helper. In this
//! order; the first that has one decides.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{CredentialError, PROGRAM_LIMIT, Secret, program};
use crate::name::Host;

/// What variables begin with that hold tokens.
const VARIABLE: &str = "TF_TOKEN_";

/// A token and where it was found, in words for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostToken {
    /// The token.
    pub secret: Secret,
    /// `the variable TF_TOKEN_app_terraform_io`
    pub source: String,
}

/// A program that knows tokens: `credentials_helper`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenProgram {
    /// `NAME` of `terraform-credentials-NAME`.
    pub name: String,
    /// What it is given before the question.
    pub arguments: Vec<String>,
    /// The places where it may lie, in order.
    pub directories: Vec<PathBuf>,
}

/// Somebody else who runs the program that knows tokens.
#[async_trait]
pub trait TokenAsking: fmt::Debug + Send + Sync {
    /// The token that it knows for `host`.
    async fn token(&self, host: &Host) -> Result<Option<HostToken>, CredentialError>;
}

/// All sources of tokens. The default has none.
#[derive(Clone, Default, Debug)]
pub struct HostTokens {
    asking: Option<Arc<dyn TokenAsking>>,
    variables: Vec<(Host, HostToken)>,
    blocks: Vec<(Host, HostToken)>,
    program: Option<TokenProgram>,
}

impl HostTokens {
    /// Tokens of `credentials` blocks, and of a helper.
    pub fn new(blocks: Vec<(Host, HostToken)>, program: Option<TokenProgram>) -> HostTokens {
        HostTokens { asking: None, variables: Vec::new(), blocks, program }
    }

    /// The same, where `asking` runs the program.
    pub fn asking(self, asking: Arc<dyn TokenAsking>) -> HostTokens {
        HostTokens { asking: Some(asking), ..self }
    }

    /// Takes the token of a variable, if it is one that holds one: `_` stands for `.` in its name,
    /// and `__` for `-`.
    pub fn add_variable(&mut self, name: &str, value: &str) {
        let Some(host) = name.strip_prefix(VARIABLE).filter(|_| !value.is_empty()) else { return };
        if let Ok(host) = host.replace("__", "-").replace('_', ".").parse::<Host>() {
            let secret = Secret::new(value.to_owned());
            let source = format!("the variable {name}");
            self.variables.push((host, HostToken { secret, source }));
        }
    }

    /// The token for `host`; `None` if no source has one.
    ///
    /// # Errors
    /// The helper fails.
    pub async fn find(&self, host: &Host) -> Result<Option<HostToken>, CredentialError> {
        let known = self.variables.iter().chain(&self.blocks).find(|(of, _)| is_same(of, host));
        if let Some((_, token)) = known {
            return Ok(Some(token.clone()));
        }
        let Some(program) = &self.program else { return Ok(None) };
        if let Some(asking) = &self.asking {
            return asking.token(host).await;
        }
        program.get(host).await.map_err(|reason| CredentialError {
            host: host.clone(),
            source_name: program.file_name(),
            reason,
        })
    }
}

/// Hosts are compared without their case, and 443 is the port of one without.
fn is_same(a: &Host, b: &Host) -> bool {
    let bare = |host: &Host| {
        let text = host.as_str().to_ascii_lowercase();
        text.strip_suffix(":443").map(str::to_owned).unwrap_or(text)
    };
    bare(a) == bare(b)
}

impl TokenProgram {
    fn file_name(&self) -> String {
        format!("terraform-credentials-{}", self.name)
    }

    async fn get(&self, host: &Host) -> Result<Option<HostToken>, String> {
        let name = self.file_name();
        let places: Vec<PathBuf> = self.directories.iter().map(|dir| dir.join(&name)).collect();
        let found =
            tokio::task::spawn_blocking(move || places.into_iter().find(|file| file.is_file()));
        let path = found.await.map_err(|e| e.to_string())?;
        let path = path.ok_or("there is no such program in the clients' plugin directories")?;
        let mut command = std::process::Command::new(path);
        command.args(&self.arguments).args(["get", host.as_str()]);
        let (status, answer, _) = program::ask(command, "", PROGRAM_LIMIT).await?;
        if !status.success() {
            return Err(format!("it failed ({status}); run it by hand to see why"));
        }
        if answer.len() > program::ANSWER_MAX {
            return Err("its answer is too long".to_owned());
        }
        token_in(&answer).map(|token| token.map(|secret| HostToken { secret, source: name }))
    }
}

/// The token of an answer `{"token": "…"}`; an object without one is one that has none.
fn token_in(answer: &Zeroizing<Vec<u8>>) -> Result<Option<Secret>, String> {
    match serde_json::from_slice(answer) {
        Ok(Value::Object(mut object)) => match object.remove("token") {
            Some(Value::String(token)) if !token.is_empty() => Ok(Some(Secret::new(token))),
            Some(Value::String(_) | Value::Null) | None => Ok(None),
            Some(_) => Err("its token is no text".to_owned()),
        },
        _ => Err("its answer is not a JSON object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, source: &str) -> HostToken {
        HostToken { secret: Secret::new(text.to_owned()), source: source.to_owned() }
    }

    #[tokio::test]
    async fn a_variable_goes_before_a_block_and_a_name_is_compared_without_its_case() {
        let host = |text: &str| text.parse::<Host>().unwrap();
        let blocks = vec![
            (host("App.Terraform.io"), token("block", "b")),
            (host("my-reg.example"), token("block", "b")),
        ];
        let mut tokens = HostTokens::new(blocks, None);
        tokens.add_variable("TF_TOKEN_my__reg_example", "variable");
        tokens.add_variable("TF_TOKEN_empty_example", "");
        tokens.add_variable("TF_TOKENS_other_example", "x");
        for (name, wanted) in [
            ("app.terraform.io", Some("block")),
            ("app.terraform.io:443", Some("block")),
            ("app.terraform.io:8443", None),
            ("my-reg.example", Some("variable")),
            ("empty.example", None),
        ] {
            let found = tokens.find(&host(name)).await.unwrap();
            assert_eq!(found.as_ref().map(|found| found.secret.expose()), wanted, "{name}");
        }
    }

    #[test]
    fn a_helper_answers_an_object_that_may_hold_a_token() {
        let read = |text: &str| token_in(&Zeroizing::new(text.as_bytes().to_vec()));
        assert_eq!(read(r#"{"token": "t", "x": 1}"#).unwrap().unwrap().expose(), "t");
        assert_eq!(read("{}"), Ok(None));
        assert!(read("").is_err() && read("[]").is_err() && read(r#"{"token": 1}"#).is_err());
    }
}
