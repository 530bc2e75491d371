//! Points in time as people and programs read them: UTC, by the Gregorian calendar.

use std::fmt;
use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;
/// The last second of the year 9999, the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

/// A second of some day; shown as RFC 3339 has it (`2026-11-29T18:20:11Z`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(u64);

impl Moment {
    /// The moment that is `seconds` after the beginning of 1970; the last that can be written if it
    /// is beyond that.
    pub fn at(seconds: u64) -> Moment {
        Moment(seconds.min(LAST))
    }

    /// This moment.
    pub fn now() -> Moment {
        Moment::at(
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        )
    }

    /// The seconds since the beginning of 1970.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// How long it was after `earlier`; no time where it was before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Its day, as `2026-11-29`.
    pub fn day(self) -> String {
        let (year, month, day) = date(self.0 / DAY);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// How many whole days lie between the two.
    pub fn days_to(self, other: Moment) -> u64 {
        self.0.abs_diff(other.0) / DAY
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.0 % DAY;
        write!(f, "{}T{:02}:{:02}:{:02}Z", self.day(), second / 3600, second / 60 % 60, second % 60)
    }
}

/// Year, month and day of the day that is `days` after the first of 1970. Years are counted from
/// the first of March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    const OF_400_YEARS: u64 = 146_097;
    // From the first of March of the year 0 on.
    let days = days + 719_468;
    let (era, day) = (days / OF_400_YEARS, days % OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (784_111_777, "1994-11-06T08:49:37Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment::at(seconds).to_string(), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        for day in 1..=LAST / DAY {
            let (year, month, of_month) = date(day);
            let next_month = (of_month == 1) && (before.1 % 12 + 1 == month);
            let next_year = u64::from(month == 1 && of_month == 1);
            assert!(
                year == before.0 + next_year
                    && (next_month && before.2 >= 28
                        || month == before.1 && of_month == before.2 + 1),
                "{before:?} {year} {month} {of_month}"
            );
            before = (year, month, of_month);
        }
        assert_eq!(before, (9999, 12, 31));
    }

    #[test]
    fn days_are_counted_whole_in_either_direction() {
        let at = |days: u64| Moment::at(days * DAY + 7);
        assert_eq!((at(3).days_to(at(10)), at(10).days_to(at(3))), (7, 7));
        assert_eq!(Moment::at(0).days_to(Moment::at(DAY - 1)), 0);
    }
}
