//! Durations and instants as people write them.
//!
//! In text formats a duration is `2h`, `30m` or `1h30m` and an instant is RFC 3339; in binary ones both
//! are numbers of milliseconds.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::UnixMs;

/// Longest duration: 100 years of 365 days, in milliseconds.
pub const MAX_DURATION_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// Last instant that RFC 3339 can write: the end of the year 9999.
pub const MAX_INSTANT_MS: UnixMs = 253_402_300_799_999;

/// Units from the largest to the smallest, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration such as `2h`, `30m`, `1h30m` or `250ms`: whole numbers, larger units first.
///
/// # Errors
/// What is wrong with the text, and how to write it.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no duration; write one such as 2h, 30m, 1h30m or 250ms");
    let (mut rest, mut total_ms, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        // The iterator has moved past the units that were used, so they come in order and once.
        let (_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let part_ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*unit_ms));
        total_ms = part_ms
            .and_then(|part_ms| total_ms.checked_add(part_ms))
            .filter(|total_ms| *total_ms <= MAX_DURATION_MS)
            .ok_or_else(|| format!("{text:?} is longer than 100 years"))?;
        rest = tail;
    }
    Ok(total_ms)
}

/// Writes a duration so that [`parse_duration`] reads the same: `1h30m`; `0s` for none.
#[must_use]
pub fn format_duration(mut duration_ms: u64) -> String {
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let count = duration_ms / unit_ms;
        duration_ms %= unit_ms;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads an RFC 3339 instant such as `2026-12-24T18:00:00Z`; finer than a millisecond is cut off.
///
/// # Errors
/// When the text is none, or before 1970.
pub fn parse_instant(text: &str) -> Result<UnixMs, String> {
    let bad = || format!("{text:?} is no instant; write RFC 3339, such as 2026-12-24T18:00:00Z");
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?;
    u64::try_from(instant.unix_timestamp_nanos() / 1_000_000)
        .ok()
        .filter(|at_ms| *at_ms <= MAX_INSTANT_MS)
        .ok_or_else(|| format!("{text:?} is not between 1970 and 9999"))
}

/// Writes an instant so that [`parse_instant`] reads the same. One after [`MAX_INSTANT_MS`] is written
/// as that.
#[must_use]
pub fn format_instant(at_ms: UnixMs) -> String {
    let nanos = i128::from(at_ms.min(MAX_INSTANT_MS)) * 1_000_000;
    let instant = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // The range was cut to what RFC 3339 can write.
    instant.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

/// Serde of an optional number of milliseconds: text for people, a number elsewhere.
macro_rules! optional_text {
    ($(#[$doc:meta])* $module:ident, $parse:path, $format:path) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

            pub(crate) fn serialize<S: Serializer>(value: &Option<u64>, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { value.map($format).serialize(s) } else { value.serialize(s) }
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
                if !d.is_human_readable() {
                    return Option::deserialize(d);
                }
                let text = Option::<String>::deserialize(d)?;
                text.map(|text| $parse(&text)).transpose().map_err(D::Error::custom)
            }
        }
    };
}

optional_text!(
    /// Durations such as `2h` or `30m`, in milliseconds.
    duration_opt,
    super::parse_duration,
    super::format_duration
);
optional_text!(
    /// Instants as RFC 3339 text, in milliseconds since the Unix epoch.
    instant_opt,
    super::parse_instant,
    super::format_instant
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in
            [("2h", 7_200_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1d1ms", 86_400_001)]
        {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), text);
        }
        assert_eq!(parse_duration("90m").map(format_duration).as_deref(), Ok("1h30m"));
        for bad in [
            "",
            "2",
            "h",
            "2 h",
            "2x",
            "-2h",
            "1m1h",
            "1h1h",
            "36501d",
            "99999999999999999999h",
            "1.5h",
            "2h ",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_read_and_written() {
        assert_eq!(parse_instant("2026-12-24T18:00:00Z"), Ok(1_798_135_200_000));
        assert_eq!(parse_instant("2026-12-24T20:00:00.25+02:00"), Ok(1_798_135_200_250));
        for at_ms in [0, 1, 1_798_135_200_250, MAX_INSTANT_MS] {
            assert_eq!(parse_instant(&format_instant(at_ms)), Ok(at_ms));
        }
        for bad in ["", "tomorrow", "1969-12-31T23:59:59Z", "2026-12-24"] {
            assert!(parse_instant(bad).is_err(), "{bad}");
        }
    }
}
