//! Durations and moments as people write them. A day has 24 hours here, whatever the clocks do.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Reads a duration, such as `30d` or `1h30m`.
///
/// # Errors
/// When it is none, or negative, or in units without a fixed length.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let no_duration = |_| format!("{text:?} is no duration, such as 30d or 12h30m");
    let span: Span = text.parse().map_err(no_duration)?;
    let length: SignedDuration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("{text:?} has no fixed length: use days or less"))?;
    Duration::try_from(length).map_err(|_| format!("{text:?} is negative"))
}

/// Reads a moment: RFC 3339, or a duration before now. In ns since 1970.
///
/// # Errors
/// When it is neither.
pub(crate) fn parse_since(text: &str) -> Result<i128, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_nanosecond());
    }
    let ago = parse_duration(text).map_err(|_| {
        format!(
            "{text:?} is neither a duration, such as 24h, nor a time, such as 2026-08-22T10:00:00Z"
        )
    })?;
    let ago = i128::try_from(ago.as_nanos()).unwrap_or(i128::MAX);
    Ok(Timestamp::now().as_nanosecond().saturating_sub(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_people_write() {
        let day = 24 * 3600;
        for (text, seconds) in [
            ("30d", 30 * day),
            ("1h30m", 5400),
            ("1w 2d", 9 * day),
            ("90s", 90),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for bad in ["", "30", "d", "-1h", "1 fortnight", "2 months"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn moments_are_told_or_counted_back() {
        assert_eq!(parse_since("1970-01-01T00:00:01Z"), Ok(1_000_000_000));
        assert_eq!(parse_since("1970-01-01T01:00:00+01:00"), Ok(0));
        let now = Timestamp::now().as_nanosecond();
        let hour_ago = parse_since("1h").unwrap();
        assert!((now - hour_ago - 3_600_000_000_000).abs() < 60_000_000_000);
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "-1h"] {
            assert!(parse_since(bad).is_err(), "{bad:?}");
        }
    }
}
