//! Blobs: sizes, broken bodies, ranges.

use super::hostile::{Behaviour, Reply, blobs};
use super::*;
use tofufs::failure::Failure;

fn server(content: &[u8]) -> Hostile {
    let server = Hostile::start();
    server.put_blob(content);
    server
}

fn ranges(server: &Hostile) -> Vec<Option<String>> {
    server.requests().iter().map(|seen| seen.header("range").map(str::to_owned)).collect()
}

fn cut(after: usize) -> Behaviour {
    Behaviour::Cut { after, reset: false }
}

#[tokio::test]
async fn a_blob_arrives_whole() {
    let content = bytes(3 << 20);
    let server = server(&content);
    let remote = remote(&server);
    let (sink, end) = fetch(&remote, &descriptor(&content)).await;
    end.unwrap();
    assert!(sink.bytes == content);
    assert_eq!(ranges(&server), [None]);
    fetch(&remote, &descriptor(b"")).await.1.unwrap();
    assert_eq!(server.requests().len(), 1, "nothing is asked for a blob of no bytes");
}

/// R01: the back end does not hash; the flipped byte is for the sink's owner to find. R53 likewise.
#[tokio::test]
async fn a_flipped_byte_is_delivered_as_it_came() {
    let content = bytes(1000);
    let server = server(&content);
    server.rule(
        blobs(),
        Behaviour::edit(|_, mut reply| {
            reply.body[500] ^= 1;
            reply
        }),
    );
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert!(sink.bytes.len() == 1000 && sink.bytes != content);
}

/// R02
#[tokio::test]
async fn a_size_other_than_the_descriptors_is_an_integrity_failure() {
    let content = bytes(1000);
    let server = server(&content);
    for size in [999, 1001] {
        let (sink, end) = fetch(&remote(&server), &sized(Digest::of(&content), size)).await;
        blob_refused(end, Failure::Integrity, &["size", &size.to_string(), "1000 bytes"]);
        assert!(sink.bytes.is_empty());
    }
    assert_eq!(server.requests().len(), 2, "another try would not help");
}

/// R03, R07
#[tokio::test]
async fn a_body_without_length_is_cut_at_the_descriptors_size() {
    let content = bytes(1000);
    let server = server(&content);
    let remote = remote(&server);
    server.rule(blobs(), Behaviour::Chunked { bytes: 1000, terminated: true });
    let (sink, end) = fetch(&remote, &sized(Digest::of(&content), 999)).await;
    blob_refused(end, Failure::Integrity, &["longer"]);
    assert!(sink.bytes.len() <= 999);
    server.rule(blobs(), Behaviour::Endless("application/octet-stream"));
    let (sink, end) = fetch(&remote, &descriptor(&content)).await;
    blob_refused(end, Failure::Integrity, &["longer"]);
    assert!(sink.bytes.len() <= 1000);
    let extra =
        Reply::new(200, "application/octet-stream", "").with("Transfer-Encoding", "chunked");
    server.rule(
        blobs(),
        Behaviour::Answer(Reply { body: b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n".to_vec(), ..extra }),
    );
    blob_refused(fetch(&remote, &descriptor(b"x")).await.1, Failure::Integrity, &["longer"]);
    server.rule(blobs(), Behaviour::Chunked { bytes: 1000, terminated: false });
    fetch(&remote, &descriptor(&content)).await.1.unwrap();
}

/// R04, O02
#[tokio::test]
async fn a_body_that_breaks_off_is_resumed_by_a_closed_range() {
    let content = bytes(100_000);
    for reset in [false, true] {
        let server = server(&content);
        server.script(blobs(), (1..8).map(|n| Behaviour::Cut { after: 1000 * n, reset }));
        let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
        end.unwrap();
        assert!(sink.bytes == content);
        assert_eq!(sink.restarts, 0);
        let requests = server.requests();
        assert_eq!(requests.len(), 8, "progress earns new tries");
        if reset {
            // a reset may outrun the bytes before it
            continue;
        }
        assert_eq!(requests[1].header("range"), Some("bytes=1000-99999"));
        assert_eq!(requests[1].header("if-range"), Some(&*format!("\"{}\"", Digest::of(&content))));
    }
}

#[tokio::test]
async fn a_sink_that_already_holds_bytes_gets_the_rest() {
    let content = bytes(1000);
    let server = server(&content);
    let remote = remote(&server);
    let mut sink = MemorySink { bytes: content[..600].to_vec(), ..MemorySink::default() };
    remote.blob(&name("acme/net"), &descriptor(&content), &mut sink).await.unwrap();
    assert_eq!((sink.bytes == content, sink.restarts), (true, 0));
    assert_eq!(ranges(&server), [Some("bytes=600-999".to_owned())]);
    remote.blob(&name("acme/net"), &descriptor(&content), &mut sink).await.unwrap();
    assert_eq!(server.requests().len(), 1, "nothing is missing");
    let mut too_long = MemorySink { bytes: vec![0; 1001], ..MemorySink::default() };
    remote.blob(&name("acme/net"), &descriptor(&content), &mut too_long).await.unwrap();
    assert_eq!((too_long.bytes == content, too_long.restarts), (true, 1));
}

/// R04: complete by its framing, but short.
#[tokio::test]
async fn a_complete_answer_that_is_too_short_is_an_integrity_failure() {
    let content = bytes(1000);
    let server = server(&content);
    server.rule(blobs(), Behaviour::Chunked { bytes: 400, terminated: true });
    let (_, end) = fetch(&remote(&server), &descriptor(&content)).await;
    blob_refused(end, Failure::Integrity, &["size is 1000 bytes", "ended after"]);
    assert_eq!(server.requests().len(), 2, "once may be a connection that closed early");
    server.behave();
    server.script(blobs(), [Behaviour::Chunked { bytes: 400, terminated: true }]);
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert!(sink.bytes == content);
}

/// RFC 9110, section 13.1.5: a weak ETag names no bytes.
#[tokio::test]
async fn a_weak_etag_is_not_asked_for() {
    let content = bytes(1000);
    let server = server(&content);
    let head = b"HTTP/1.1 200 X\r\nETag: W/\"a\"\r\nContent-Length: 1000\r\n\r\n";
    server.script(blobs(), [Behaviour::Raw([head, &content[..400]].concat())]);
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert_eq!((sink.bytes == content, sink.restarts), (true, 0));
    assert_eq!(server.requests()[1].header("if-range"), None);
    assert_eq!(server.requests()[1].header("range"), Some("bytes=400-999"));
}

/// R04
#[tokio::test]
async fn bodies_that_always_break_at_the_same_place_end_as_timed_out() {
    let content = bytes(1000);
    let server = server(&content);
    server.rule(
        blobs(),
        Behaviour::Raw(
            [b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n", &content[..400]].concat(),
        ),
    );
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    blob_refused(end, Failure::TimedOut, &["broke", "tries without progress"]);
    assert!(sink.bytes.len() <= 400 && sink.restarts >= 4);
}

/// R52: 200 to a range.
#[tokio::test]
async fn a_whole_answer_to_a_range_starts_over() {
    let content = bytes(1000);
    let server = server(&content);
    server.script(blobs(), [cut(400), Behaviour::IgnoreRange]);
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert_eq!((sink.bytes == content, sink.restarts), (true, 1));
}

/// R52: wrong Content-Range, none, multipart, 416, another ETag.
#[tokio::test]
async fn a_wrong_answer_to_a_range_starts_over_once_and_is_then_refused() {
    let content = bytes(1000);
    let wrong = |name: &'static str, value: &'static str| {
        Behaviour::edit(move |seen, reply| {
            if seen.header("range").is_some() { reply.with(name, value) } else { reply }
        })
    };
    let missing = Behaviour::edit(|_, mut reply| {
        reply.headers.retain(|(name, _)| name != "Content-Range");
        reply
    });
    let multipart = Behaviour::Answer(Reply::new(206, "multipart/byteranges; boundary=x", "--x--"));
    for behaviour in [
        wrong("Content-Range", "bytes 0-599/1000"),
        wrong("Content-Range", "bytes 400-999/2000"),
        wrong("Content-Range", "bytes 400-1000/1001"),
        wrong("Content-Range", "bytes 400-1000/1000"),
        wrong("Content-Range", "bytes 400-1000/*"),
        wrong("Content-Range", "bytes 401-999/1000"),
        wrong("Content-Range", "bytes 400-399/1000"),
        wrong("Content-Range", "bytes 400-300/1000"),
        wrong("Content-Range", "bytes 400-998/1000"),
        wrong("ETag", "\"other\""),
        Behaviour::edit(|seen, mut reply| match seen.header("range") {
            Some(_) => {
                reply.body.push(b'x');
                reply.with("Content-Range", "bytes 400-1000/*")
            }
            None => reply,
        }),
        missing,
        multipart,
        Behaviour::Answer(Reply::error(416, "RANGE")),
    ] {
        let server = server(&content);
        let remote = remote(&server);
        server.script(blobs(), [cut(400), behaviour.clone()]);
        let (sink, end) = fetch(&remote, &descriptor(&content)).await;
        end.unwrap();
        assert_eq!((sink.bytes == content, sink.restarts), (true, 1));
        assert_eq!(ranges(&server), [None, Some("bytes=400-999".to_owned()), None]);

        server.script(blobs(), [cut(400), behaviour.clone(), cut(500), behaviour]);
        blob_refused(fetch(&remote, &descriptor(&content)).await.1, Failure::Protocol, &[]);
    }
}

/// Of whatever length: it is no limit that was met.
#[tokio::test]
async fn a_part_that_nobody_asked_for_is_a_protocol_failure() {
    for length in [100, 100_000] {
        let server = Hostile::start();
        let content = bytes(length);
        server.put_blob(&content);
        let part = Reply::new(206, "application/octet-stream", content.clone());
        let part = part.with("Content-Range", format!("bytes 0-{}/{length}", length - 1));
        server.rule(blobs(), Behaviour::Answer(part));
        let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
        blob_refused(end, Failure::Protocol, &["206", "all of the blob was asked for"]);
        assert!(sink.bytes.is_empty());
    }
}

#[tokio::test]
async fn a_shorter_part_than_asked_for_is_continued() {
    let content = bytes(1000);
    let server = server(&content);
    server.script(
        blobs(),
        [
            cut(100),
            Behaviour::edit(|_, reply| {
                Reply { body: reply.body[..50].to_vec(), ..reply }
                    .with("Content-Range", "bytes 100-149/*")
            }),
        ],
    );
    let (sink, end) = fetch(&remote(&server), &descriptor(&content)).await;
    end.unwrap();
    assert!(sink.bytes == content);
    assert_eq!(ranges(&server)[2].as_deref(), Some("bytes=150-999"));
}

/// R48, R49
#[tokio::test]
async fn a_blob_that_the_registry_lacks_is_never_absent() {
    let server = Hostile::start();
    let remote = remote(&server);
    let blob = descriptor(b"x");
    server.put_blob(b"x");
    fetch(&remote, &blob).await.1.unwrap();
    server.remove_blob(&blob.digest);
    let lacks = ["names a blob that the registry lacks"];
    blob_refused(fetch(&remote, &blob).await.1, Failure::Integrity, &lacks);
    for (status, failure) in
        [(410, Failure::Integrity), (403, Failure::Denied), (451, Failure::Denied)]
    {
        server.rule(blobs(), Behaviour::Answer(Reply::error(status, "X")));
        blob_refused(fetch(&remote, &blob).await.1, failure, &[&status.to_string()]);
    }
    for status in [200, 404] {
        server.rule(blobs(), Behaviour::Answer(Reply::new(status, "text/html", "<html></html>")));
        blob_refused(fetch(&remote, &blob).await.1, Failure::Protocol, &["not a registry"]);
    }
}

#[tokio::test]
async fn a_sink_that_takes_no_more_ends_the_transfer() {
    let content = bytes(1000);
    let server = server(&content);
    let mut sink = MemorySink::that_is_full();
    let end = remote(&server).blob(&name("acme/net"), &descriptor(&content), &mut sink).await;
    assert!(matches!(end, Err(BlobError::Sink(SinkError))), "{end:?}");
    assert_eq!(server.requests().len(), 1);
}
