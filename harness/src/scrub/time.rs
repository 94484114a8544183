//! Times in a text, and how they are moved: all by one distance, so that order and distances stay.
//!
//! A time is moved in its own spelling and never changes its length; one that cannot be moved that way is
//! an error. What is a time by its place is in `rules`, by its looks in `detect`.

/// Where the first time of a session goes: 2026-01-01T00:00:00Z.
pub(super) const EPOCH: i64 = 1_767_225_600;

/// A time that was read from a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    /// RFC 3339: seconds of the local time, and those of its offset.
    Stamp { local: i64, offset: i64 },
    /// The date format of HTTP.
    Http(i64),
    /// `20261120T055640Z`.
    Basic(i64),
    /// Seconds, and how many of the last digits are fractions of one.
    Number { seconds: i64, fraction: usize },
}

/// The time that a text is, in seconds of the epoch.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    Some(match read(text)? {
        Time::Stamp { local, offset } => local - offset,
        Time::Http(seconds) | Time::Basic(seconds) | Time::Number { seconds, .. } => seconds,
    })
}

/// Moves the time that a text is. Says false when the moved time cannot be spelled in the same way.
pub(super) fn shift(text: &mut [u8], by: i64) -> bool {
    match read(text) {
        Some(Time::Stamp { local, .. }) => {
            let Some(date) = civil(local + by) else { return false };
            let old = [text[10], text[13], text[16]];
            text[..19].copy_from_slice(date.stamp().as_bytes());
            (text[10], text[13], text[16]) = (old[0], old[1], old[2]);
            true
        }
        Some(Time::Http(seconds)) => {
            let Some(date) = civil(seconds + by) else { return false };
            text.copy_from_slice(date.http().as_bytes());
            true
        }
        Some(Time::Basic(seconds)) => {
            let Some(date) = civil(seconds + by) else { return false };
            let digits: String = date.stamp().chars().filter(char::is_ascii_digit).collect();
            text[..8].copy_from_slice(&digits.as_bytes()[..8]);
            text[9..15].copy_from_slice(&digits.as_bytes()[8..]);
            true
        }
        Some(Time::Number { seconds, .. }) => {
            let moved = (seconds + by).to_string();
            if moved.len() != 10 {
                return false;
            }
            text[..10].copy_from_slice(moved.as_bytes());
            true
        }
        None => true,
    }
}

fn read(text: &[u8]) -> Option<Time> {
    match text.len() {
        10 | 13 | 16 | 19 if text.iter().all(u8::is_ascii_digit) => {
            let seconds = number(&text[..10])?;
            let plausible = (1_000_000_000..4_000_000_000).contains(&seconds);
            plausible.then_some(Time::Number { seconds, fraction: text.len() - 10 })
        }
        12.. if text[..10].iter().all(u8::is_ascii_digit)
            && text[10] == b'.'
            && text[11..].iter().all(u8::is_ascii_digit) =>
        {
            let seconds = number(&text[..10])?;
            let plausible = (1_000_000_000..4_000_000_000).contains(&seconds);
            plausible.then_some(Time::Number { seconds, fraction: 0 })
        }
        29 if text.ends_with(b" GMT") => http(text),
        16 if text[8] == b'T' && text[15] == b'Z' => {
            let local = instant(
                [&text[..4], &text[4..6], &text[6..8]],
                [&text[9..11], &text[11..13], &text[13..15]],
            )?;
            Some(Time::Basic(local))
        }
        20.. => stamp(text),
        _ => None,
    }
}

fn stamp(text: &[u8]) -> Option<Time> {
    if text[4] != b'-'
        || text[7] != b'-'
        || !b"Tt ".contains(&text[10])
        || text[13] != b':'
        || text[16] != b':'
    {
        return None;
    }
    let local =
        instant([&text[..4], &text[5..7], &text[8..10]], [&text[11..13], &text[14..16], &text[17..19]])?;
    let mut rest = &text[19..];
    if let [b'.' | b',', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), hours @ ..] => {
            let minutes = match hours.len() {
                5 if hours[2] == b':' => number(&hours[..2])? * 60 + number(&hours[3..])?,
                4 => number(&hours[..2])? * 60 + number(&hours[2..])?,
                _ => return None,
            };
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    Some(Time::Stamp { local, offset })
}

fn http(text: &[u8]) -> Option<Time> {
    let month = MONTHS.iter().position(|month| text[8..11] == *month.as_bytes())? + 1;
    if text[3] != b',' || text[19] != b':' || text[22] != b':' {
        return None;
    }
    let month = format!("{month:02}");
    let date = [&text[12..16], month.as_bytes(), &text[5..7]];
    instant(date, [&text[17..19], &text[20..22], &text[23..25]]).map(Time::Http)
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds of the epoch from year, month and day, and hour, minute and second.
fn instant(date: [&[u8]; 3], time: [&[u8]; 3]) -> Option<i64> {
    let [year, month, day] = [number(date[0])?, number(date[1])?, number(date[2])?];
    let [hour, minute, second] = [number(time[0])?, number(time[1])?, number(time[2])?];
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days of the civil calendar, after Howard Hinnant's `days_from_civil`.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    // What is no date, as 30 February, does not come back as itself.
    (civil(seconds)?.day == day).then_some(seconds)
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    weekday: usize,
    of_day: i64,
}

fn civil(seconds: i64) -> Option<Civil> {
    let days = seconds.div_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let moved = (5 * of_year + 2) / 153;
    let month = if moved < 10 { moved + 3 } else { moved - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (0..=9999).contains(&year).then_some(Civil {
        year,
        month,
        day: of_year - (153 * moved + 2) / 5 + 1,
        weekday: (days + 4).rem_euclid(7) as usize,
        of_day: seconds.rem_euclid(86_400),
    })
}

impl Civil {
    fn clock(&self) -> String {
        let (hour, minute, second) = (self.of_day / 3600, self.of_day / 60 % 60, self.of_day % 60);
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    fn stamp(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}", self.year, self.month, self.day, self.clock())
    }

    fn http(&self) -> String {
        let (weekday, month) = (DAYS[self.weekday], MONTHS[self.month as usize - 1]);
        format!("{weekday}, {:02} {month} {:04} {} GMT", self.day, self.year, self.clock())
    }
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shifted(text: &str, by: i64) -> String {
        let mut bytes = text.as_bytes().to_vec();
        assert!(shift(&mut bytes, by));
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn times_keep_their_spelling() {
        for (text, expected) in [
            ("2026-11-20T05:56:44.294Z", "2026-11-21T05:56:45.294Z"),
            ("2026-02-28t23:59:59+05:30", "2026-03-02t00:00:00+05:30"),
            ("2026-11-20 05:56:44,5-0800", "2026-11-21 05:56:45,5-0800"),
            ("Fri, 20 Nov 2026 05:56:44 GMT", "Sat, 21 Nov 2026 05:56:45 GMT"),
            ("20261120T055644Z", "20261121T055645Z"),
            ("1795170000", "1795256401"),
            ("1795170000123", "1795256401123"),
            ("1795170000.25", "1795256401.25"),
        ] {
            assert_eq!(shifted(text, 86_401), expected);
        }
        for none in ["300", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "9999999999", "2026-11-20", ""] {
            assert_eq!(seconds(none.as_bytes()), None, "{none}");
        }
        assert_eq!(seconds(b"2026-01-01T00:00:00Z"), Some(EPOCH));
        assert_eq!(seconds(b"2026-01-01T05:30:00+05:30"), Some(EPOCH));
        assert_eq!(seconds(b"Thu, 01 Jan 2026 00:00:00 GMT"), Some(EPOCH));
    }

    proptest! {
        #[test]
        fn a_shift_is_exact_and_can_be_undone(at in 1_000_000_000_i64..3_900_000_000, by in -9_999_999_i64..9_999_999) {
            let date = civil(at).expect("a year of four digits");
            for text in [format!("{}.75Z", date.stamp()), date.http(), at.to_string()] {
                if (1_000_000_000..4_000_000_000).contains(&(at + by)) {
                    let moved = shifted(&text, by);
                    prop_assert_eq!(seconds(moved.as_bytes()), Some(at + by));
                    prop_assert_eq!(shifted(&moved, -by), text);
                }
            }
        }

        #[test]
        fn any_bytes_can_be_looked_at(mut text in prop::collection::vec(prop_oneof![prop::sample::select(b"0123456789-:TZ. ,GMT".to_vec()), any::<u8>()], 0..40)) {
            let before = text.len();
            let _ = (seconds(&text), shift(&mut text, 86_400));
            prop_assert_eq!(text.len(), before);
        }
    }
}
