//! Texts of servers, as they may be shown.

/// How much of a server's text is kept in an error, in bytes.
const SERVER_TEXT_MAX: usize = 4096;

/// A server's text as it may stand in an error, a log or an attribute (hostile input R57): nothing
/// that moves a cursor or breaks a line, and not too much of it.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let moves = matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        let plain = !c.is_control() && !moves;
        let piece = if plain { c.to_string() } else { c.escape_default().to_string() };
        if out.len() + piece.len() > SERVER_TEXT_MAX - '…'.len_utf8() {
            out.push('…');
            break;
        }
        out.push_str(&piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R57
    #[test]
    fn server_text_is_bounded_and_holds_no_control_character() {
        assert_eq!(escaped("a\x1b[31m\nb\u{202e}ä"), "a\\u{1b}[31m\\nb\\u{202e}ä");
        assert_eq!(escaped(&"x".repeat(4096 - 3)).len(), 4096 - 3);
        assert!(escaped(&"ä".repeat(100_000)).len() <= 4096);
    }
}
