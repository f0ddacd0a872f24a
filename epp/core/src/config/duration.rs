//! Go durations: `300ms`, `1h30m`, `0`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A duration in Go's notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration '{0}'; write a number with a unit ns, us, ms, s, m or h, such as 300ms or 1h30m")]
pub struct ParseDurationError(pub String);

/// Parses Go's grammar `(number unit)+` or `0`; negative durations are refused.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let refuse = || ParseDurationError(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(refuse()),
        };
        nanos = part(number, scale)
            .and_then(|value| nanos.checked_add(value))
            .ok_or_else(refuse)?;
        rest = tail;
    }
    // Go's durations are signed 64-bit nanoseconds.
    let nanos = i64::try_from(nanos).map_err(|_| refuse())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

fn part(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        nanos = nanos.checked_add(u128::from(digit.to_digit(10)?) * place)?;
    }
    Some(nanos)
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_grammar() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("2us3ns", 2_003),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "s", "1d", "-1s", "1.2.3s", ".s", "1s ", "99999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
