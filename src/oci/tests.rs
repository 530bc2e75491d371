use super::*;

fn read(text: &str) -> Result<Manifest, DocumentError> {
    Manifest::parse(text.as_bytes().into(), Digest::of(text.as_bytes()), None)
}

fn image(layer: &str) -> String {
    format!(r#"{{"mediaType":"{IMAGE}","artifactType":"t","layers":[{layer}]}}"#)
}

fn layer(digest: &str, size: &str) -> String {
    image(&format!(r#"{{"mediaType":"archive/zip","digest":"{digest}","size":{size}}}"#))
}

#[test]
fn an_image_and_an_index_are_read() {
    let d = Digest::of(b"x");
    let m = read(&layer(&d.to_string(), "1")).unwrap();
    assert_eq!((m.media_type, m.artifact_type.as_deref()), (IMAGE, Some("t")));
    let ManifestBody::Image(layers) = m.body else { panic!("an image") };
    assert_eq!(
        (layers[0].digest, layers[0].size, layers[0].media_type.as_str()),
        (d, 1, "archive/zip")
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","annotations":{{"a":"1","A":"2"}},"manifests":[
        {{"mediaType":"{IMAGE}","digest":"{d}","size":7,"data":"eA==","platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
    );
    let ManifestBody::Index(entries) = read(&index).unwrap().body else { panic!("an index") };
    assert_eq!(entries[0].platform.as_ref().unwrap().os, "linux");
}

/// R31
#[test]
fn a_key_that_stands_twice_is_refused() {
    let d = Digest::of(b"x");
    for text in [
        format!(r#"{{"mediaType":"{IMAGE}","layers":[],"layers":[]}}"#),
        image(&format!(r#"{{"digest":"{d}","digest":"{d}","size":1}}"#)),
        image(&format!(r#"{{"digest":"{d}","Digest":"{d}","size":1}}"#)),
        format!(r#"{{"mediaType":"{IMAGE}","layers":[],"annotations":{{"a":"1","a":"2"}}}}"#),
    ] {
        assert!(matches!(read(&text), Err(DocumentError::Structure(_))), "{text}");
    }
}

/// R34
#[test]
fn digests_of_descriptors_are_checked() {
    for bad in ["", "sha256:00", "sha256:../../x", "x"] {
        assert!(matches!(read(&layer(bad, "1")), Err(DocumentError::Structure(_))), "{bad}");
    }
    for unknown in ["md5:00", "sha1:00", "blake3:00"] {
        assert!(
            matches!(read(&layer(unknown, "1")), Err(DocumentError::Unsupported(_))),
            "{unknown}"
        );
    }
}

/// R36
#[test]
fn sizes_of_descriptors_are_checked() {
    let d = Digest::of(b"x").to_string();
    for bad in
        ["0", "-1", "9223372036854775808", "18446744073709551616", "1.5", "\"12\"", "null", "1e3"]
    {
        assert!(matches!(read(&layer(&d, bad)), Err(DocumentError::Structure(_))), "{bad}");
    }
    assert!(matches!(
        read(&image(&format!(r#"{{"digest":"{d}"}}"#))),
        Err(DocumentError::Structure(_))
    ));
    assert!(read(&layer(&Digest::of(b"").to_string(), "0")).is_ok());
    assert!(read(&layer(&d, "9223372036854775807")).is_ok(), "a claim alone allocates nothing");
}

/// R37, R38, R39
#[test]
fn a_document_is_one_kind_and_says_which() {
    for text in [
        format!(r#"{{"mediaType":"{INDEX}","manifests":[],"layers":[]}}"#),
        format!(r#"{{"mediaType":"{IMAGE}","manifests":[],"config":{{}}}}"#),
        format!(r#"{{"mediaType":"{IMAGE}","manifests":[]}}"#),
        format!(r#"{{"mediaType":"{INDEX}","layers":[]}}"#),
        r#"{"layers":[]}"#.to_owned(),
        r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","layers":[]}"#
            .to_owned(),
        "[]".to_owned(),
        format!("{} x", image("")),
        format!("\u{feff}{}", image("")),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!(r#"{{"mediaType":"{IMAGE}","x":{}1{}}}"#, "[".repeat(65), "]".repeat(65)),
        format!(r#"{{"mediaType":"{IMAGE}","x":1e400}}"#),
        format!(r#"{{"mediaType":"{IMAGE}","x":"\ud800"}}"#),
    ] {
        assert!(matches!(read(&text), Err(DocumentError::Structure(_))), "{text:.80}");
    }
    let text = image("");
    let served = |as_type| Manifest::parse(text.as_bytes().into(), Digest::of(b""), Some(as_type));
    assert!(served(IMAGE).is_ok());
    assert!(matches!(served(INDEX), Err(DocumentError::Structure(_))));
}

/// R29, R33
#[test]
fn limits_are_named() {
    let big = format!(r#"{{"mediaType":"{IMAGE}","x":"{}"}}"#, "y".repeat(MANIFEST_MAX as usize));
    assert!(matches!(read(&big), Err(DocumentError::TooLarge(m)) if m.contains("4194304")));
    let padded = |size: u64| read(&(image("") + &" ".repeat(size as usize - image("").len())));
    assert!(
        padded(MANIFEST_MAX).is_ok()
            && matches!(padded(MANIFEST_MAX + 1), Err(DocumentError::TooLarge(_)))
    );
    let nested = |levels: usize| {
        read(&format!(
            r#"{{"mediaType":"{IMAGE}","x":{}{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        ))
    };
    assert!(nested(64).is_ok());
    assert!(matches!(nested(65), Err(DocumentError::Structure(m)) if m.contains("deeper than 64")));
    let d = Digest::of(b"x");
    let entry = format!(r#"{{"digest":"{d}","size":1}}"#);
    let index = |entries: usize| {
        read(&format!(
            r#"{{"mediaType":"{INDEX}","manifests":[{}]}}"#,
            vec![&*entry; entries].join(",")
        ))
    };
    assert!(index(INDEX_ENTRIES_MAX).is_ok());
    assert!(
        matches!(index(INDEX_ENTRIES_MAX + 1), Err(DocumentError::TooLarge(m)) if m.contains("10000"))
    );
}
