//! A blob's way out: the bytes of its source, hashed as they go.
//!
//! INVARIANT: the last piece is handed over only when all bytes have the blob's digest and size. So
//! what a registry gets in whole is the blob, whatever the source holds and whenever the call is
//! dropped.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Response};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::answer::ResponseHead;
use super::super::gate::Permit;
use super::super::outage::Route;
use super::super::request::{Question, RegistryRequester};
use super::super::retry::{Fault, Patience};
use super::super::transport::{Answering, Errand};
use super::super::upload::BlobSource;
use crate::digest::{Digest, Hasher};
use crate::failure::Failure;
use crate::oci::Descriptor;

/// Bytes that are read and hashed at a time.
const PIECE: usize = 64 << 10;
/// Pieces that wait for the connection.
const QUEUE: usize = 4;
/// What may be on its way without a sign: the largest send buffer of a Linux socket, unless the
/// system is set otherwise (`tcp_wmem`), what the HTTP library gathers before it writes, and some
/// that the peer has not read yet.
const IN_FLIGHT: u64 = 6 << 20;

/// A blob that is to be sent, perhaps several times.
pub(super) struct Outgoing<'a> {
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    place: Permit,
    sent: bool,
}

impl<'a> Outgoing<'a> {
    pub fn new(
        blob: &'a Descriptor,
        source: &'a dyn BlobSource,
        place: Permit,
    ) -> Result<Outgoing<'a>, Fault> {
        if blob.size == 0 && blob.digest != Digest::of_with(blob.digest.algorithm(), b"") {
            let rule = "its size is given as 0, but its digest is not that of nothing";
            return Err(Fault::new(Failure::Integrity, rule));
        }
        Ok(Outgoing { blob, source, place, sent: false })
    }

    /// Whether all bytes were handed over at least once.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Sends all bytes in one request. The answer may have come before the last of them.
    pub async fn send(
        &mut self,
        requester: &RegistryRequester,
        question: &Question,
        logins: &mut u32,
        patience: &mut Patience,
    ) -> Result<ResponseHead, Fault> {
        let (tx, rx) = mpsc::channel(QUEUE);
        let mut reader = BodyReader::new(self.blob, self.source, tx);
        let body = body(rx, self.blob.size);
        let (mut request, grant) = requester.request_once(question);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.blob.size));
        *request.body_mut() = Some(body);
        let (fed, place, waiting) = (&mut reader, &self.place, &mut *patience);
        let route = Route { registry: requester.registry.clone(), scope: question.scope.clone() };
        let errand =
            Errand { count: question.count, from: None, route: &route, asker: requester.asker };
        let response = requester
            .transport
            .exchange(request, errand, move |answering| deliver(answering, fed, place, waiting))
            .await;
        self.sent |= reader.position == self.blob.size;
        requester.answered_once(question, grant, response?, logins, patience).await
    }
}

/// Feeds the body until the answer comes, or nothing has moved for too long.
async fn deliver(
    mut answering: Answering,
    reader: &mut BodyReader<'_>,
    place: &Permit,
    patience: &mut Patience,
) -> Result<Result<Response, reqwest::Error>, Fault> {
    let begun = Instant::now();
    let mut moved_at = begun;
    loop {
        let in_flight = reader.position.min(IN_FLIGHT);
        let left = patience.left_to_send(in_flight, reader.position, moved_at - begun);
        tokio::select! {
            biased;
            answer = &mut answering => {
                patience.sent();
                return Ok(answer);
            }
            read = reader.step(), if !reader.is_done() => {
                read?;
                patience.sent();
                place.moved();
                moved_at = Instant::now();
            }
            () = tokio::time::sleep(left) => return Err(patience.not_sent("sending the blob")),
        }
    }
}

/// Reads, hashes and hands over.
struct BodyReader<'a> {
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    position: u64,
    hasher: Option<Hasher>,
    /// `None` once nothing more is to be handed over.
    pieces: Option<mpsc::Sender<Bytes>>,
}

impl<'a> BodyReader<'a> {
    fn new(
        blob: &'a Descriptor,
        source: &'a dyn BlobSource,
        pieces: mpsc::Sender<Bytes>,
    ) -> BodyReader<'a> {
        let pieces = (blob.size > 0).then_some(pieces);
        BodyReader {
            blob,
            source,
            position: 0,
            hasher: Some(Hasher::new(blob.digest.algorithm())),
            pieces,
        }
    }

    fn is_done(&self) -> bool {
        self.pieces.is_none()
    }

    /// Hands over the next piece.
    async fn step(&mut self) -> Result<(), Fault> {
        let want = (self.blob.size - self.position).min(PIECE as u64) as usize;
        let piece = self.read(self.position, want).await?;
        if piece.is_empty() {
            return Err(self.differs(format!("ends after {} bytes", self.position)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        let position = self.position + piece.len() as u64;
        if position == self.blob.size {
            self.check().await?;
        }
        // nobody takes more where the answer has come before the body's end, or the connection
        // broke
        let taken = match &self.pieces {
            Some(pieces) => pieces.send(piece).await.is_ok(),
            None => false,
        };
        if taken {
            self.position = position;
        }
        if !taken || position == self.blob.size {
            self.pieces = None;
        }
        Ok(())
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let piece = self.source.read_at(offset, len).await;
        let piece = piece.map_err(|e| {
            Fault::new(Failure::Io, format!("what is to be sent cannot be read: {e}"))
        })?;
        if piece.len() > len {
            Err(self.differs("gives more bytes than it was asked for".to_owned()))
        } else {
            Ok(piece)
        }
    }

    /// All bytes were read: whether they are the blob.
    async fn check(&mut self) -> Result<(), Fault> {
        let got = self.hasher.take().map(Hasher::finish);
        if let Some(got) = got
            && got != self.blob.digest
        {
            return Err(self.differs(format!("holds {got}")));
        }
        if self.read(self.blob.size, 1).await?.is_empty() {
            Ok(())
        } else {
            Err(self.differs("goes on after its end".to_owned()))
        }
    }

    fn differs(&self, how: String) -> Fault {
        let Descriptor { digest, size, .. } = self.blob;
        let rule = format!(
            "{digest} of {size} bytes was to be sent, but its source {how}; the upload was broken \
             off"
        );
        Fault::new(Failure::Integrity, rule).remedy("see whether the file was changed or damaged")
    }
}

/// The pieces as a request's body. One that ends early is an error, so that no registry takes it
/// for the whole.
fn body(pieces: mpsc::Receiver<Bytes>, size: u64) -> Body {
    let pieces = stream::unfold((pieces, 0), move |(mut pieces, position)| async move {
        match pieces.recv().await {
            Some(piece) => {
                let position = position + piece.len() as u64;
                Some((Ok(piece), (pieces, position)))
            }
            None if position == size => None,
            None => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), (pieces, size))),
        }
    });
    Body::wrap_stream(pieces)
}
