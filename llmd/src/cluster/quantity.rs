//! Kubernetes quantities as numbers, for adding and comparing.

/// A quantity in thousandths: `100m` is 100, `1` is 1000, `1Ki` is 1024000. `None` for what is no quantity.
pub(crate) fn thousandths(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor: f64 = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some((number * factor * 1000.0).round() as i128)
}

/// Thousandths as people write them: whole numbers without a suffix, bytes in GiB.
pub(crate) fn shown(resource: &str, thousandths: i128) -> String {
    let whole = thousandths as f64 / 1000.0;
    if resource.ends_with("memory") || resource.ends_with("storage") {
        return format!("{:.1} GiB", whole / 1_073_741_824.0);
    }
    format!("{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_every_notation_compare() {
        assert_eq!(thousandths("100m"), Some(100));
        assert_eq!(thousandths("8"), Some(8000));
        assert_eq!(thousandths("1Ki"), Some(1_024_000));
        assert_eq!(thousandths("0.5"), Some(500));
        assert_eq!(thousandths("2e3"), Some(2_000_000));
        assert_eq!(thousandths("1G"), thousandths("1000M"));
        assert_eq!(thousandths("x"), None);
        assert_eq!(shown("cpu", 1500), "1.5");
        assert_eq!(shown("requests.memory", 1024 * 1024 * 1024 * 1000), "1.0 GiB");
    }
}
