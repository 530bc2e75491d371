//! Answers: bodies within bounds, and what an answer's status and text mean.

use std::time::SystemTime;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::no_answer::{fault_of, may_want_tls, way_to};
use super::origin::Origin;
use super::retry::{Fault, Patience, Retry, retry_after};
use super::server_text::escaped;
use crate::failure::Failure;
use crate::metrics::metrics;

/// How much is read of the body of an answer that is an error.
const ERROR_BODY_MAX: u64 = 16 << 10;
/// An answer's head, with the body still to come.
pub(super) struct ResponseHead {
    pub response: Response,
    /// Who answered, after redirects.
    pub origin: Origin,
}

/// An answer with its whole body.
pub(super) struct ResponseDocument {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    pub origin: Origin,
}

impl ResponseHead {
    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self, patience: &Patience) -> Result<Option<Bytes>, Fault> {
        let piece = patience.piece(self.response.chunk()).await?;
        let piece = piece.map_err(|error| fault_of(&error, &self.origin))?;
        if let Some(piece) = &piece {
            metrics().received(&self.origin.authority(), piece.len());
        }
        Ok(piece)
    }

    /// Reads the whole body: of a success at most `limit` bytes, else `TooLarge`; of an error the
    /// beginning.
    pub async fn document(
        mut self,
        limit: u64,
        what: &str,
        patience: &mut Patience,
    ) -> Result<ResponseDocument, Fault> {
        let status = self.response.status();
        let headers = self.response.headers().clone();
        let bounded = if status.is_success() { limit } else { ERROR_BODY_MAX };
        let too_large = || {
            Fault::new(
                Failure::TooLarge,
                format!("{what} has more than {limit} bytes, the limit for it"),
            )
        };
        if status.is_success() && content_length(&headers).is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        patience.body_begins();
        loop {
            let piece = match self.piece(patience).await {
                Ok(piece) => piece,
                // the status says enough, even if its explanation breaks off
                Err(_) if !status.is_success() => None,
                Err(fault) => return Err(fault),
            };
            let Some(piece) = piece else { break };
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > bounded {
                if status.is_success() {
                    return Err(too_large());
                }
                bytes.truncate(usize::try_from(bounded).unwrap_or(usize::MAX));
                break;
            }
            patience.received(piece.len() as u64, bytes.len() as u64);
        }
        Ok(ResponseDocument { status, headers, bytes, origin: self.origin })
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl ResponseDocument {
    /// The codes of an OCI error body; `None` if the body is none.
    pub fn error_codes(&self) -> Option<Vec<String>> {
        let body: ErrorBody = serde_json::from_slice(&self.bytes).ok()?;
        Some(body.errors.into_iter().map(|entry| entry.code).collect())
    }

    /// Whether a 404 of this form may be believed (hostile input R49): proxies and portals answer
    /// 404 too, in HTML.
    pub fn is_authoritative(&self) -> bool {
        is_json(&self.headers) || self.error_codes().is_some()
    }

    /// Status and server text, for an error's sentence.
    pub fn words(&self) -> String {
        let text = match serde_json::from_slice::<ErrorBody>(&self.bytes) {
            Ok(body) => {
                let entry = |e: ErrorEntry| match e.message {
                    Some(message) if !message.is_empty() => format!("{}: {message}", e.code),
                    _ => e.code,
                };
                body.errors.into_iter().map(entry).collect::<Vec<_>>().join("; ")
            }
            Err(_) if is_html(&self.headers) => "an HTML page".to_owned(),
            Err(_) => String::from_utf8_lossy(&self.bytes).into_owned(),
        };
        let text = escaped(text.trim());
        let (origin, status) = (way_to(&self.origin), self.status.as_u16());
        if text.is_empty() {
            format!("{origin} answered {status}")
        } else {
            format!("{origin} answered {status} ({text})")
        }
    }

    /// The fault of a status that nobody asked for.
    pub fn unexpected(&self) -> Fault {
        let failure = match self.status {
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => Failure::Denied,
            _ => Failure::Protocol,
        };
        let is_of_server = self.status == StatusCode::BAD_REQUEST && self.error_codes().is_none();
        let remedy = may_want_tls(&self.origin).filter(|_| is_of_server);
        Fault { remedy: remedy.map(str::to_owned), ..Fault::new(failure, self.words()) }
    }

    /// The fault of a 5xx or 429.
    pub fn overloaded(&self) -> Fault {
        let asked = self
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, SystemTime::now()));
        Fault { retry: Retry::After(asked), ..Fault::new(Failure::TimedOut, self.words()) }
    }

    /// Refuses an answer that is a web page (hostile input R38).
    pub fn refuse_html(&self) -> Result<(), Fault> {
        if is_html(&self.headers) { Err(not_a_registry(&self.origin)) } else { Ok(()) }
    }
}

/// The fault of a web page where a document was due.
pub(super) fn not_a_registry(origin: &Origin) -> Fault {
    Fault::new(
        Failure::Protocol,
        format!("{origin} answered with an HTML page; it is not a registry"),
    )
    .remedy("check the registry's name, and whether a proxy or portal answers in its place")
}

/// `Content-Type` without parameters, in lower case.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!essence.is_empty()).then_some(essence)
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|t| t == "application/json" || t.ends_with("+json"))
}

pub(super) fn is_html(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|t| t == "text/html" || t == "application/xhtml+xml")
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
