use super::*;

#[test]
fn what_is_no_certificate_or_signature_is_refused() {
    for text in [
        "",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n????\n-----END PGP PUBLIC KEY BLOCK-----",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----",
    ] {
        assert!(Certificate::read(text, 0).is_err(), "{text}");
    }
    for bytes in
        [&b""[..], b"\0", b"\xc2", b"\xc2\x01\x04", b"\xc2\xff\xff\xff\xff\xff", b"\xc2\xe0"]
    {
        let refusal = verify(b"", bytes, &[], 0).unwrap_err();
        assert!(matches!(refusal, SignatureRefusal::Unread(_)), "{bytes:?}: {refusal}");
    }
}

#[test]
fn lengths_are_read_in_each_of_their_forms() {
    for (form, length) in
        [(&[191][..], 191), (&[192, 0], 192), (&[223, 255], 8383), (&[255, 0, 1, 0, 0], 65536)]
    {
        assert_eq!(packet::new_length(&mut packet::Cursor(form)).unwrap(), length);
    }
    let packets = |bytes: &[u8]| packet::read(bytes).map(|packets| packets.len());
    assert_eq!(packets(b"\x88\x01x\x89\x00\x01x\x8a\x00\x00\x00\x01x\xc2\x01x"), Ok(4));
    assert!(packets(b"\x8bx").is_err(), "a length that is not told");
}
