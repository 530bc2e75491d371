use super::*;
use crate::failure::Failure;
use std::time::Duration;

/// R59
#[test]
fn a_location_is_at_the_registry_in_whatever_form() {
    let registry: Origin = "https://r.example".parse().unwrap();
    let at = Url::parse("https://r.example/v2/a/b/blobs/uploads/").unwrap();
    let to = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        let mut url = location(&at, &headers, &registry)?;
        append_digest(&mut url, &Digest::of(b""));
        Ok::<_, Fault>(url.to_string().replace(&Digest::of(b"").to_string(), "D"))
    };
    for (given, wanted) in [
        ("/v2/a/b/blobs/uploads/1", "https://r.example/v2/a/b/blobs/uploads/1?digest=D"),
        ("/v2/u?_state=a%2Bb=&x", "https://r.example/v2/u?_state=a%2Bb=&x&digest=D"),
        ("https://R.example:443/u?", "https://r.example/u?digest=D"),
        ("1", "https://r.example/v2/a/b/blobs/uploads/1?digest=D"),
        ("?id=1#x", "https://r.example/v2/a/b/blobs/uploads/?id=1&digest=D"),
    ] {
        assert_eq!(to(given).unwrap(), wanted, "{given}");
    }
    let long = format!("/{}", "x".repeat(10 << 10));
    for refused in [
        "https://evil.example/u",
        "http://r.example/u",
        "https://r.example:8443/u",
        "https://u:p@r.example/",
        "file:///u",
        "/ä",
        &long,
    ] {
        assert_eq!(to(refused).unwrap_err().failure, Failure::Protocol, "{refused}");
    }
    assert!(location(&at, &HeaderMap::new(), &registry).is_err());
}

#[test]
fn the_range_of_an_upload_has_an_end() {
    for (text, last) in [
        ("0-0", Some(0)),
        ("0-99", Some(99)),
        ("bytes=0-99", Some(99)),
        ("0--1", None),
        ("x", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static(text));
        assert_eq!(last_of_range(&headers), last, "{text}");
    }
}

/// Bytes that were handed over may take their time on a slow line, but not where the line was seen
/// to be fast.
#[test]
fn what_is_on_its_way_is_waited_for_by_the_speed_that_was_seen() {
    let patience = Patience::new(Duration::from_secs(60), 0);
    let left = |in_flight, sent, elapsed| {
        patience.left_to_send(in_flight, sent, Duration::from_secs(elapsed)).as_secs()
    };
    assert!((59..=60).contains(&left(0, 0, 0)));
    assert!(
        (59 + 64..=60 + 64).contains(&left(64 << 10, 64 << 10, 0)),
        "nothing is known but the low-speed limit"
    );
    assert!((59..=60).contains(&left(4 << 20, 104 << 20, 1)), "100 MiB/s");
    assert!((59 + 40..=60 + 40).contains(&left(4 << 20, 8 << 20, 40)));
    assert!(
        (359..=360).contains(&left(4 << 20, 4 << 20, 0)),
        "a registry that is silent is not waited for for hours"
    );
}
