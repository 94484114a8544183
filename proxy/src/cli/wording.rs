//! How amounts and names are written for people.

/// A percentage; what is left is never rounded up, nor down to nothing.
pub(super) fn percent(remaining: f64) -> String {
    if remaining > 0.0 && remaining < 1.0 { "<1%".to_owned() } else { format!("{:.0}%", remaining.floor()) }
}

/// Seconds in the two largest units that say something.
pub(super) fn duration(seconds: i64) -> String {
    let minutes = seconds.max(0) / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "<1m".to_owned(),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// Milliseconds as seconds, with as many digits as matter.
pub(super) fn seconds(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{:.2}s", milliseconds as f64 / 1e3),
        10_000..100_000 => format!("{:.1}s", milliseconds as f64 / 1e3),
        _ => format!("{}s", milliseconds / 1000),
    }
}

/// A text in so many columns.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Text that others wrote, without what a terminal would act upon.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
