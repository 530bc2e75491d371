//! Signatures as real GnuPG makes them, and what becomes of them when a bit changes: whatever is
//! accepted here, `gpgv` accepts too.

#[path = "support/mod.rs"]
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::gnupg::GnuPg;
use tofufs::openpgp::{Certificate, SignatureRefusal, Signer, verify};

const DOCUMENT: &[u8] = b"0000  terraform-provider-tiny_1.0.0_linux_amd64.zip\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn checked(armor: &str, document: &[u8], signature: &[u8]) -> Result<Signer, SignatureRefusal> {
    let certificates = Certificate::read(armor, now())?;
    verify(document, signature, &certificates, now())
}

#[test]
fn what_gnupg_signs_is_accepted_whatever_the_key_and_the_hash() {
    let Some(gpg) = GnuPg::new() else { return };
    for algorithm in ["rsa2048", "rsa4096", "ed25519", "nistp256", "nistp384"] {
        let key = gpg.key(algorithm, algorithm, "never");
        for hash in ["SHA256", "SHA384", "SHA512"] {
            // GnuPG asks for no less than the curve's length, and no library here has SHA-512 with
            // these curves.
            let is_usual = match algorithm {
                "nistp256" => hash != "SHA512",
                "nistp384" => hash == "SHA384",
                _ => true,
            };
            if !is_usual {
                continue;
            }
            let signature = gpg.sign(&key, DOCUMENT, &["--digest-algo", hash]);
            let signer = checked(&gpg.export(&key), DOCUMENT, &signature);
            let signer = signer.unwrap_or_else(|e| panic!("{algorithm} {hash}: {e}"));
            assert_eq!(signer.primary.to_string(), key[key.len() - 16..], "{algorithm}");
            assert!(!signer.is_expired);
        }
        if algorithm.starts_with("rsa") {
            let words = ["--digest-algo", "SHA1", "--allow-weak-digest-algos"];
            let weak = gpg.sign(&key, DOCUMENT, &words);
            assert!(checked(&gpg.export(&key), DOCUMENT, &weak).is_err(), "{algorithm} SHA1");
        }
    }
}

#[test]
fn a_subkey_signs_for_its_primary_key_until_that_is_revoked() {
    let Some(gpg) = GnuPg::new() else { return };
    let key = gpg.key("primary", "rsa2048", "never");
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    let listed = String::from_utf8(gpg.run(&["--with-colons", "--list-keys", &key])).unwrap();
    let subkey = listed.lines().filter(|line| line.starts_with("fpr:")).nth(1).unwrap();
    let subkey = subkey.split(':').nth(9).unwrap();
    let signature = gpg.sign(subkey, DOCUMENT, &[]);
    let signer = checked(&gpg.export(&key), DOCUMENT, &signature).unwrap();
    assert_eq!(signer.primary.to_string(), key[key.len() - 16..], "named by its primary key");
    // A certificate without the subkey knows nothing of the signature.
    let other = gpg.key("other", "rsa2048", "never");
    let refusal = checked(&gpg.export(&other), DOCUMENT, &signature).unwrap_err();
    assert!(matches!(refusal, SignatureRefusal::UnknownKey(_)), "{refusal}");
    gpg.revoke(&key);
    let refusal = checked(&gpg.export(&key), DOCUMENT, &signature).unwrap_err();
    assert!(matches!(refusal, SignatureRefusal::Revoked(_)), "{refusal}");
}

#[test]
fn expired_revoked_and_wrong_are_told_apart() {
    let Some(gpg) = GnuPg::new() else { return };
    gpg.key("vendor", "rsa2048", "never");
    let expired = gpg.expired_key("expired");
    let then = ["--faked-system-time=20200201T000000"];
    let signature = gpg.sign(&expired, DOCUMENT, &then);
    assert!(checked(&gpg.export(&expired), DOCUMENT, &signature).unwrap().is_expired);

    let key = gpg.key("revoked", "rsa2048", "never");
    let signature = gpg.sign(&key, DOCUMENT, &[]);
    let before = gpg.export(&key);
    assert!(checked(&before, DOCUMENT, &signature).is_ok());
    let refusal = checked(&before, b"another document", &signature).unwrap_err();
    assert!(matches!(refusal, SignatureRefusal::Wrong(_)), "{refusal}");
    gpg.revoke(&key);
    let refusal = checked(&gpg.export(&key), DOCUMENT, &signature).unwrap_err();
    assert!(matches!(refusal, SignatureRefusal::Revoked(_)), "{refusal}");

    // A revocation in a form that is not read is not passed over; another signature is.
    let ring = gpg.run(&["--export", "vendor"]);
    for (kind, is_read) in [(0x20, false), (0x28, false), (0x10, true)] {
        let ring = [&ring[..], &[0xc2, 3, 3, 5, kind]].concat();
        assert_eq!(Certificate::read(&armored(&ring), now()).is_ok(), is_read, "{kind:x}");
    }

    let passing = gpg.key("passing", "rsa2048", "never");
    let words = ["--faked-system-time=20300101T000000", "--default-sig-expire", "1d"];
    let over = gpg.sign(&passing, DOCUMENT, &words);
    let certificates = Certificate::read(&gpg.export(&passing), now()).unwrap();
    let later = 2_000_000_000;
    let refusal = verify(DOCUMENT, &over, &certificates, later).unwrap_err();
    assert_eq!(refusal, SignatureRefusal::Expired);
}

/// Each byte of a signature, of a key and of the document with one bit changed.
#[test]
fn whatever_is_accepted_gpgv_accepts() {
    let Some(gpg) = GnuPg::new() else { return };
    if support::program("gpgv").is_none() {
        return;
    }
    for algorithm in ["rsa2048", "ed25519", "nistp256"] {
        let key = gpg.key(algorithm, algorithm, "never");
        let signature = gpg.sign(&key, DOCUMENT, &[]);
        let ring = gpg.run(&["--export", &key]);
        assert!(gpg.is_good(&ring, DOCUMENT, &signature));
        let mut random = fastrand::Rng::with_seed(7);
        let mut accepted = 0;
        let signed = |bytes: &[u8], at: usize| unsigned(bytes).is_none_or(|not| !not.contains(&at));
        for at in 0..signature.len() + ring.len() {
            let (mut signature, mut ring) = (signature.clone(), ring.clone());
            let bit = 1 << random.u8(..8);
            let (changed, at) = match at.checked_sub(signature.len()) {
                None => (&mut signature, at),
                Some(at) => (&mut ring, at),
            };
            if !signed(changed, at) {
                continue;
            }
            changed[at] ^= bit;
            if checked(&armored(&ring), DOCUMENT, &signature).is_ok() {
                accepted += 1;
                assert!(
                    gpg.is_good(&ring, DOCUMENT, &signature),
                    "{algorithm}: byte {at}, bit {bit}"
                );
            }
        }
        // Such as a bit of the user ID's packet that says how its length is written.
        assert!(accepted < 8, "{algorithm}: {accepted}");
    }
}

/// What nobody signs in what GnuPG writes: the key ID by which the key is to be found, and the first
/// bits of the hash.
fn unsigned(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = bytes.windows(4).position(|window| window == [0, 10, 9, 16])?;
    Some(start..start + 14)
}

/// A key ring as text.
fn armored(ring: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n");
    for line in ring.chunks(48) {
        for three in line.chunks(3) {
            let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
                << (8 * (3 - three.len()));
            for digit in 0..4 {
                let value = (number >> (18 - 6 * digit)) as usize & 63;
                text.push(if digit > three.len() { '=' } else { char::from(DIGITS[value]) });
            }
        }
        text.push('\n');
    }
    text + "-----END PGP PUBLIC KEY BLOCK-----\n"
}
