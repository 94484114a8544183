//! Numbers as people read them: with a unit that fits their size.

/// A time that is given in milliseconds, with three digits.
pub(super) fn millis(millis: f64) -> String {
    match millis {
        time if time < 0.9995 => format!("{} µs", (time * 1000.0).round()),
        time if time < 9.995 => format!("{time:.2} ms"),
        time if time < 99.95 => format!("{time:.1} ms"),
        time if time < 9_999.5 => format!("{} ms", grouped(time.round() as u64)),
        time => format!("{:.1} s", time / 1000.0),
    }
}

/// A round time that is given in milliseconds, as short as it can be.
pub(super) fn tick(millis: f64) -> String {
    match millis {
        time if time < 0.9995 => format!("{} µs", (time * 1000.0).round()),
        time if time < 999.5 => format!("{} ms", time.round()),
        time => format!("{} s", (time / 1000.0).round()),
    }
}

/// A number without the zeros at its end.
fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number of things.
pub(super) fn count(value: u64) -> String {
    grouped(value)
}

/// Requests a second.
pub(super) fn rate(value: f64) -> String {
    if value < 9.995 {
        format!("{}/s", trimmed(value, 2))
    } else {
        format!("{}/s", grouped(value.round() as u64))
    }
}

/// A share of all, in percent.
pub(super) fn share(part: u64, all: u64) -> String {
    if all == 0 {
        return "–".to_owned();
    }
    let percent = part as f64 * 100.0 / all as f64;
    // What is not all must not be rounded to all, and something not to nothing.
    match (part, percent) {
        (0, _) => "0 %".to_owned(),
        (part, _) if part == all => "100 %".to_owned(),
        (_, percent) if percent > 99.99 => "> 99.99 %".to_owned(),
        (_, percent) if percent < 0.01 => "< 0.01 %".to_owned(),
        (_, percent) => format!("{} %", trimmed(percent, 2)),
    }
}

/// Bytes; the number may be a growth, so it has a sign.
pub(super) fn bytes(bytes: f64) -> String {
    let (size, sign) = (bytes.abs(), if bytes < 0.0 { "−" } else { "" });
    let (value, unit) = match size {
        size if size < 1024.0 => (size, "B"),
        size if size < 1024.0 * 1024.0 => (size / 1024.0, "KiB"),
        size if size < 1024.0 * 1024.0 * 1024.0 => (size / (1024.0 * 1024.0), "MiB"),
        size => (size / (1024.0 * 1024.0 * 1024.0), "GiB"),
    };
    let digits = if value < 99.95 { 1 } else { 0 };
    format!("{sign}{} {unit}", trimmed(value, digits))
}

/// Groups of three digits, parted by thin spaces that do not break.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_that_fit() {
        let times = [
            (0.0004, "0 µs"),
            (0.25, "250 µs"),
            (1.0, "1.00 ms"),
            (12.34, "12.3 ms"),
            (2770.0, "2\u{202f}770 ms"),
            (61_000.0, "61.0 s"),
        ];
        for (value, expected) in times {
            assert_eq!(millis(value), expected);
        }
        assert_eq!([0.01, 1.0, 1e3].map(tick), ["10 µs", "1 ms", "1 s"]);
        for (value, expected) in [(0.0, "0 B"), (-1536.0, "−1.5 KiB"), (3e9, "2.8 GiB"), (1e8, "95.4 MiB")]
        {
            assert_eq!(bytes(value), expected);
        }
        for ((part, all), expected) in
            [((0, 0), "–"), ((1, 3), "33.33 %"), ((999_999, 1_000_000), "> 99.99 %"), ((5, 5), "100 %")]
        {
            assert_eq!(share(part, all), expected);
        }
        assert_eq!((rate(0.5), rate(12_345.6)), ("0.5/s".into(), "12\u{202f}346/s".into()));
        assert_eq!(
            (count(1), count(1_000), count(1_234_567)),
            ("1".into(), "1\u{202f}000".into(), "1\u{202f}234\u{202f}567".into())
        );
    }
}
