//! `--proxy-api-key-file`: who may use the proxy.

use std::path::{Path, PathBuf};

/// Why a key file was refused. The messages never hold a key.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// Missing or unreadable.
    #[error("--proxy-api-key-file '{path}' cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// No key in it.
    #[error("--proxy-api-key-file '{0}' holds no key; write one key per line")]
    Empty(PathBuf),
    /// A key that no client could send.
    #[error("--proxy-api-key-file '{path}': line {line} has characters that a header cannot carry")]
    Characters {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
}

/// The accepted keys; several, so that they can be exchanged without a gap.
pub struct ApiKeys(Vec<Box<[u8]>>);

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({} hidden)", self.0.len())
    }
}

impl ApiKeys {
    /// Reads one key per line; blank lines do not count.
    pub fn read(path: &Path) -> Result<Self, ApiKeyError> {
        let text = std::fs::read(path).map_err(|source| ApiKeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut keys = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let key = line.trim_ascii();
            if key.is_empty() {
                continue;
            }
            if !key.iter().all(u8::is_ascii_graphic) {
                return Err(ApiKeyError::Characters {
                    path: path.to_owned(),
                    line: index + 1,
                });
            }
            keys.push(key.into());
        }
        if keys.is_empty() {
            return Err(ApiKeyError::Empty(path.to_owned()));
        }
        Ok(Self(keys))
    }

    /// Whether an `Authorization` value presents one of the keys. The time taken tells nothing about
    /// how much of a key was right.
    pub(super) fn accept(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, key)) = authorization.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        let key = key.trim_ascii();
        scheme.eq_ignore_ascii_case(b"bearer ")
            && self
                .0
                .iter()
                .fold(false, |accepted, known| accepted | equal(known, key))
    }
}

fn equal(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<ApiKeys, ApiKeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ApiKeys::read(file.path())
    }

    #[test]
    fn every_line_is_a_key() {
        let keys = read(b"sk-one\n\n  sk-two \r\n").unwrap();
        for good in ["Bearer sk-one", "bearer sk-two", "Bearer  sk-two"] {
            assert!(keys.accept(Some(good.as_bytes())), "{good}");
        }
        for bad in [
            "Bearer sk-on",
            "Bearer sk-onee",
            "Bearer ",
            "Basic sk-one",
            "sk-one",
            "Bearer sk-one sk-two",
        ] {
            assert!(!keys.accept(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!keys.accept(None));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2 hidden)");
    }

    #[test]
    fn unusable_files_are_refused_without_showing_keys() {
        assert!(matches!(read(b"\n \n"), Err(ApiKeyError::Empty(_))));
        let error = read(b"good\nse cret\n").unwrap_err();
        assert!(matches!(error, ApiKeyError::Characters { line: 2, .. }));
        assert!(!error.to_string().contains("cret"));
        assert!(matches!(
            ApiKeys::read(Path::new("/does/not/exist")),
            Err(ApiKeyError::Read { .. })
        ));
    }
}
