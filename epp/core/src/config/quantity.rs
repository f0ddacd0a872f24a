//! Kubernetes quantities: `2k`, `1G`, `512Mi`, `1e3`.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// A non-negative whole amount written as a Kubernetes quantity; fractions are rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(pub u64);

/// Why a text is not a quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid quantity '{0}'; write a non-negative number with an optional suffix such as 500, 2k, 1G or 512Mi"
)]
pub struct ParseQuantityError(pub String);

impl std::str::FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        amount(text)
            .and_then(|value| u64::try_from(value).ok())
            .map(Self)
            .ok_or_else(|| ParseQuantityError(text.to_owned()))
    }
}

fn amount(text: &str) -> Option<u128> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 30 {
        return None;
    }
    let value: u128 = digits.parse().ok()?;
    let (scale, tens) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1_u128 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => {
            let tens: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, tens)
        }
    };
    let tens = tens - i32::try_from(fraction.len()).ok()?;
    let scaled = value.checked_mul(scale)?;
    let power = 10_u128.checked_pow(tens.unsigned_abs());
    if tens >= 0 {
        scaled.checked_mul(power?)
    } else {
        // Beyond 38 places any amount is a fraction of one.
        Some(power.map_or(u128::from(scaled > 0), |power| scaled.div_ceil(power)))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Quantity;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a quantity such as 500, 2k or 1G")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                value.to_string().parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                value.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Quantity, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_and_rounding() {
        let cases = [
            ("0", 0),
            ("2k", 2_000),
            ("1G", 1_000_000_000),
            ("512Mi", 512 << 20),
            ("1.5Ki", 1536),
            ("1e3", 1000),
            ("100m", 1),
            ("0.5", 1),
            ("1e-200", 1),
        ];
        for (text, value) in cases {
            assert_eq!(text.parse(), Ok(Quantity(value)), "{text}");
        }
        for text in ["", "-1", "k", "1x", "1 k", "99999E", "1e400", "1e", "1.2.3"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
