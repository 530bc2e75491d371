//! A blob's way into a sink: ranges, resuming, starting over.
//!
//! Bytes reach the sink in order and never beyond the blob's size. They are not verified here; but
//! an answer whose length or range contradicts the descriptor is refused, so that two answers are
//! spliced only where both said that they are parts of the same bytes.

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{StatusCode, Url};

use super::answer::{ResponseHead, content_length, is_html};
use super::gate::Permit;
use super::request::{Question, RegistryRequester};
use super::retry::{Fault, Patience};
use super::scope::TokenScope;
use super::transport::Count;
use super::{BlobSink, SinkError};
use crate::failure::Failure;
use crate::name::RepoName;

/// How much is read of an answer that is no part of the blob.
const REFUSAL_MAX: u64 = 16 << 10;

/// What ends a transfer early.
pub(super) enum TransferEnd {
    /// The registry's side.
    Fault(Fault),
    /// Ours.
    Sink(SinkError),
}

impl From<Fault> for TransferEnd {
    fn from(fault: Fault) -> TransferEnd {
        TransferEnd::Fault(fault)
    }
}

impl From<SinkError> for TransferEnd {
    fn from(error: SinkError) -> TransferEnd {
        TransferEnd::Sink(error)
    }
}

/// One blob on its way.
pub(super) struct Transfer<'a> {
    requester: &'a RegistryRequester,
    place: Permit,
    question: Question,
    size: u64,
    patience: Patience,
    /// The version that the bytes so far are of, where the server names versions.
    etag: Option<HeaderValue>,
    /// Whether an answer to a range was wrong once; after that the blob was begun anew.
    range_failed: bool,
    /// Whether a complete answer was too short once.
    short: bool,
}

impl<'a> Transfer<'a> {
    pub fn new(
        requester: &'a RegistryRequester,
        place: Permit,
        url: Url,
        repo: RepoName,
        size: u64,
    ) -> Transfer<'a> {
        let mut question = Question::get(url, "*/*", TokenScope::Pull(repo));
        question.count = Count::Blob;
        let patience = requester.patience();
        Transfer {
            requester,
            place,
            question,
            size,
            patience,
            etag: None,
            range_failed: false,
            short: false,
        }
    }

    /// Fetches what the sink lacks.
    pub async fn run(mut self, sink: &mut dyn BlobSink) -> Result<(), TransferEnd> {
        if sink.position() > self.size {
            sink.restart().await?;
        }
        while sink.position() < self.size {
            match self.attempt(sink).await {
                Ok(()) => {}
                Err(TransferEnd::Fault(fault)) => self.patience.again(fault).await?,
                Err(sink) => return Err(sink),
            }
        }
        Ok(())
    }

    /// One request, and as much of its answer as is good.
    async fn attempt(&mut self, sink: &mut dyn BlobSink) -> Result<(), TransferEnd> {
        let start = sink.position();
        self.ask_from(start);
        let mut answer = self.requester.ask(&self.question, &mut self.patience).await?;
        let headers = answer.response.headers();
        match answer.response.status() {
            StatusCode::OK => {
                if is_html(headers)
                    && content_length(headers).is_none_or(|length| length != self.size)
                {
                    return Err(super::answer::not_a_registry(&answer.origin).into());
                }
                if let Some(length) = content_length(headers)
                    && length != self.size
                {
                    return Err(self.wrong_size(&format!("the answer has {length} bytes")).into());
                }
                self.etag = strong_etag(headers);
                if start > 0 {
                    sink.restart().await?;
                }
                self.receive(&mut answer, self.size, sink).await
            }
            StatusCode::PARTIAL_CONTENT if start > 0 => match self.part(headers, start) {
                Ok(end) => self.receive(&mut answer, end, sink).await,
                Err(rule) => self.begin_anew(&rule, sink).await,
            },
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                self.begin_anew("the registry cannot serve the rest of the blob (416)", sink).await
            }
            _ => Err(self.refusal(answer).await.into()),
        }
    }

    fn ask_from(&mut self, start: u64) {
        let headers = &mut self.question.headers;
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
        // closed: some stores answer 416 to `bytes=a-` (registry quirk Q12)
        if start > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={start}-{}", self.size - 1))
        {
            headers.insert(RANGE, range);
            if let Some(etag) = &self.etag {
                headers.insert(IF_RANGE, etag.clone());
            }
        }
    }

    /// The position after the part that a 206 brings, if it is what was asked for.
    fn part(&self, headers: &HeaderMap, start: u64) -> Result<u64, String> {
        let text = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (first, last, total) =
            content_range(text).ok_or("the answer to a range has no Content-Range")?;
        if first != start
            || last < first
            || last >= self.size
            || total.is_some_and(|total| total != self.size)
        {
            return Err(format!(
                "bytes {start}-{} of {1} were asked for; {text:?} came",
                self.size - 1,
                self.size
            ));
        }
        if content_length(headers).is_some_and(|length| length != last - first + 1) {
            return Err(
                "the answer to a range has another length than its Content-Range".to_owned()
            );
        }
        if self.etag.is_some() && strong_etag(headers).is_some_and(|etag| Some(etag) != self.etag) {
            return Err("the blob's ETag changed between two ranges".to_owned());
        }
        Ok(last + 1)
    }

    /// Forgets what came, once; ranges that go wrong again are a server that cannot be dealt with.
    async fn begin_anew(&mut self, rule: &str, sink: &mut dyn BlobSink) -> Result<(), TransferEnd> {
        if self.range_failed {
            return Err(Fault::new(Failure::Protocol, rule).into());
        }
        self.range_failed = true;
        sink.restart().await?;
        Ok(())
    }

    /// Passes the body on to the sink, up to the position `end`.
    async fn receive(
        &mut self,
        answer: &mut ResponseHead,
        end: u64,
        sink: &mut dyn BlobSink,
    ) -> Result<(), TransferEnd> {
        self.patience.body_begins();
        while let Some(piece) = answer.piece(&self.patience).await? {
            let position = sink.position() + piece.len() as u64;
            if position > end {
                return Err(self.wrong_size("the answer is longer").into());
            }
            self.patience.received(piece.len() as u64, position);
            self.place.moved();
            sink.write(piece).await?;
            if position == self.size {
                return self.nothing_follows(answer).await;
            }
        }
        if sink.position() == end || content_length(answer.response.headers()).is_some() {
            return Ok(());
        }
        self.too_short(sink.position())
    }

    /// A complete answer with too few bytes: a connection that closed early may look so, hence one
    /// more try.
    fn too_short(&mut self, position: u64) -> Result<(), TransferEnd> {
        let fault = self.wrong_size(&format!("the answer ended after {position} bytes"));
        if self.short {
            return Err(fault.into());
        }
        self.short = true;
        Err(Fault { retry: super::retry::Retry::After(None), ..fault }.into())
    }

    /// The blob is complete; whether the body goes on (hostile input R03) is worth one look, not a
    /// wait that fails.
    async fn nothing_follows(&self, answer: &mut ResponseHead) -> Result<(), TransferEnd> {
        if content_length(answer.response.headers()).is_some() {
            return Ok(());
        }
        match tokio::time::timeout(std::time::Duration::from_secs(1), answer.response.chunk()).await
        {
            Ok(Ok(Some(_))) => Err(self.wrong_size("the answer is longer").into()),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, what: &str) -> Fault {
        Fault::new(
            Failure::Integrity,
            format!("the blob's size is {} bytes by its manifest, but {what}", self.size),
        )
    }

    /// The fault of an answer that brings nothing.
    async fn refusal(&mut self, answer: ResponseHead) -> Fault {
        let own = answer.origin == self.requester.registry;
        let status = answer.response.status();
        if status.is_success() {
            let rule =
                format!("{} answered {status} where all of the blob was asked for", answer.origin);
            return Fault::new(Failure::Protocol, rule);
        }
        let document = match answer.document(REFUSAL_MAX, "the answer", &mut self.patience).await {
            Ok(document) => document,
            Err(fault) => return fault,
        };
        match document.status {
            StatusCode::NOT_FOUND | StatusCode::GONE if own && is_html(&document.headers) => {
                super::answer::not_a_registry(&document.origin)
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Fault::new(
                Failure::Integrity,
                format!("the manifest names a blob that the registry lacks ({})", document.words()),
            )
            .remedy("publish the artifact again"),
            _ => document.unexpected(),
        }
    }
}

/// An `ETag` that may stand in `If-Range`: weak ones may not. RFC 9110, section 13.1.5.
pub(super) fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")).cloned()
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
pub(super) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number =
        |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    let total = if total == "*" { None } else { Some(number(total)?) };
    Some((number(first)?, number(last)?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_three_numbers() {
        assert_eq!(content_range("bytes 1-2/3"), Some((1, 2, Some(3))));
        assert_eq!(content_range("bytes 1-2/*"), Some((1, 2, None)));
        for bad in [
            "",
            "bytes */3",
            "bytes 1-2",
            "bytes -2/3",
            "items 1-2/3",
            "bytes +1-2/3",
            "bytes 1-99999999999999999999/*",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
