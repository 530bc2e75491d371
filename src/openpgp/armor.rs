//! The text form of certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{OpenPgpError, refuse};

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The bytes of the first block of public keys in `text`. The checksum at its end is not looked at:
/// it protects against nothing that a signature would not show.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, OpenPgpError> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != BEGIN);
    if lines.next().is_none() {
        return refuse(format_args!("it holds no {BEGIN}"));
    }
    // Headers, up to an empty line. Some writers leave both out.
    let mut body = String::new();
    let mut is_header = true;
    for line in lines {
        match line {
            END => {
                return STANDARD
                    .decode(&body)
                    .or_else(|e| refuse(format_args!("its base64 is malformed: {e}")));
            }
            "" => is_header = false,
            header if is_header && header.contains(": ") => {}
            checksum if checksum.starts_with('=') => {}
            data => {
                is_header = false;
                body.push_str(data);
            }
        }
    }
    refuse(format_args!("it has no {END}"))
}
