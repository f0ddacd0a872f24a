//! Reads a picker's metrics page.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);

/// One series.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// All samples of a page.
pub async fn scrape(address: SocketAddr) -> anyhow::Result<Vec<Sample>> {
    let read = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, read)
        .await
        .context("the metrics page takes too long")??;
    let (head, page) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(
        head.split(' ').nth(1) == Some("200"),
        "the metrics page answers {}",
        head.lines().next().unwrap_or_default()
    );
    Ok(page.lines().filter_map(sample).collect())
}

/// Sum of the series called `name` that have all `labels`; `None` when there is none.
pub fn sum(samples: &[Sample], name: &str, labels: &[(String, String)]) -> Option<f64> {
    let mut matching = samples
        .iter()
        .filter(|sample| sample.name == name)
        .filter(|sample| {
            labels
                .iter()
                .all(|(label, value)| sample.labels.get(label).map_or("", String::as_str) == value)
        })
        .peekable();
    matching.peek()?;
    Some(matching.map(|sample| sample.value).sum())
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') || line.trim().is_empty() {
        return None;
    }
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        loop {
            match characters.next()? {
                (index, '"') => {
                    rest = &after[index + 1..];
                    break;
                }
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        }
        labels.insert(name.trim().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let read = sample(r#"a_total{x="1,}\"",y=""} 2.5 17"#).expect("a sample");
        assert_eq!(read.name, "a_total");
        assert_eq!(read.labels["x"], "1,}\"");
        assert_eq!((read.labels["y"].as_str(), read.value), ("", 2.5));
        assert_eq!(sample("# HELP a b"), None);
        assert_eq!(sample("plain 3").map(|sample| sample.value), Some(3.0));
    }

    #[test]
    fn a_label_that_is_missing_is_an_empty_one() {
        let samples: Vec<Sample> = ["a{x=\"1\"} 1", "a{x=\"2\"} 2", "a{x=\"2\",y=\"z\"} 4"]
            .into_iter()
            .filter_map(sample)
            .collect();
        let labels = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        assert_eq!(sum(&samples, "a", &labels(&[("x", "2")])), Some(6.0));
        assert_eq!(sum(&samples, "a", &labels(&[("x", "2"), ("y", "")])), Some(2.0));
        assert_eq!(sum(&samples, "b", &[]), None);
    }
}
