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
    /// The beginning of 1970.
    pub const BEGINNING: Moment = Moment(0);

    /// Reads what RFC 3339 has, from 1970 on; parts of a second are left away.
    pub fn parse(text: &str) -> Option<Moment> {
        let (day, time) = text.split_once(['T', 't', ' '])?;
        let [year, month, of_month] = numbers(day, '-', [4, 2, 2])?;
        let zone = time.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = time.split_at(zone);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let is_time = hour < 24 && minute < 60 && second <= 60;
        let is_fraction = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
        let days = days(year, month, of_month).filter(|_| is_time && is_fraction)?;
        let local = days * DAY + hour * 3600 + minute * 60 + second;
        let seconds = match zone.split_at(1) {
            ("Z" | "z", "") => local,
            (sign, offset) => {
                let [hours, minutes] = numbers(offset, ':', [2, 2])?;
                let offset = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
                if sign == "+" { local.checked_sub(offset)? } else { local + offset }
            }
        };
        (seconds <= LAST).then_some(Moment(seconds))
    }

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

/// The numbers of so many digits that `text` is made of.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(between);
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let is_number = part.bytes().all(|b| b.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(found)
}

/// How many days after the first of 1970 a day is, if there is such a day.
fn days(year: u64, month: u64, of_month: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Years from the first of March on, as in `date`.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (years / 400, years % 400);
    let day = of_era * 365 + of_era / 4 - of_era / 100 + (153 * months + 2) / 5;
    let days = (era * 146_097 + day + of_month).checked_sub(719_469)?;
    (date(days) == (year, month, of_month)).then_some(days)
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
            assert_eq!(Moment::parse(text), Some(Moment::at(seconds.min(LAST))), "{text}");
        }
    }

    #[test]
    fn a_moment_is_read_as_rfc_3339_has_it() {
        for (text, seconds) in [
            ("1994-11-06T09:49:37.5+01:00", 784_111_777),
            ("1994-11-06t00:49:37-08:00", 784_111_777),
            ("2000-02-29 00:00:00z", 951_782_400),
        ] {
            assert_eq!(Moment::parse(text), Some(Moment::at(seconds)), "{text}");
        }
        for bad in [
            "",
            "2026",
            "2026-11-29",
            "2026-11-29T18:20:11",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T18:20:11.Z",
            "2026-11-29T18:20:11+1:00",
            "2026-11-29T18:20:11Zx",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "26-11-29T18:20:11Z",
            "2026-11-29T18:20:1\u{663}Z",
        ] {
            assert_eq!(Moment::parse(bad), None, "{bad}");
        }
        for day in 0..=LAST / DAY {
            let at = Moment::at(day * DAY + 86_399);
            assert_eq!(Moment::parse(&at.to_string()), Some(at));
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
