//! Sizes and durations as they are typed: a whole number with a unit. A duration without one is
//! seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text that is no size or no duration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct QuantityError {
    text: String,
    wanted: &'static str,
}

/// A number of bytes, typed as `20GiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

const SIZES: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The same units as other tools write them.
const SHORT_SIZES: [(&str, u64); 4] =
    [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        with_unit(text, &SIZES)
            .map(Size)
            .or_else(|| with_unit(text, &SHORT_SIZES).map(Size))
            .ok_or_else(|| QuantityError {
                text: text.into(),
                wanted: "a size (a number with KiB, MiB, GiB or TiB)",
            })
    }
}

impl fmt::Display for Size {
    /// In the largest unit that leaves at least 1, with one decimal where it is not whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, unit)| self.0 >= *unit) {
            None => write!(f, "{} B", self.0),
            Some((name, unit)) if self.0.is_multiple_of(*unit) => {
                write!(f, "{} {name}", self.0 / unit)
            }
            Some((name, unit)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
        }
    }
}

/// A length of time, typed as `60s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

const SPANS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        with_unit(text, &SPANS)
            .or_else(|| with_unit(&format!("{text}s"), &SPANS))
            .map(|milliseconds| Span(Duration::from_millis(milliseconds)))
            .ok_or_else(|| QuantityError {
                text: text.into(),
                wanted: "a duration (a number with ms, s, m, h or d)",
            })
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_binary_unit() {
        for (text, bytes) in [
            ("1KiB", 1 << 10),
            ("20GiB", 20 << 30),
            ("3MiB", 3 << 20),
            ("2TiB", 2 << 40),
            ("0KiB", 0),
            ("20G", 20 << 30),
            ("1K", 1 << 10),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in [
            "",
            "1",
            "GiB",
            "1GB",
            "1.5GiB",
            "-1GiB",
            "+1GiB",
            "1 GiB",
            "1gib",
            "1g",
            "G",
            "99999999999TiB",
        ] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("60", 60_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "s", "1.5s", "1ss", "m1", "-1s", "1 s", "1w", "99999999999999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_unit() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (20 << 30, "20 GiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
