//! The URLs that `--engine` takes: plain HTTP without a base path, because a request is forwarded as it came.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use thiserror::Error;

/// Why a URL cannot be routed to.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// Not a URL.
    #[error("is no URL: write `http://HOST:PORT`")]
    Malformed,
    /// TLS to engines is not part of the router.
    #[error("`https` engines cannot be routed to: give the engine's plain `http://HOST:PORT`")]
    Https,
    /// Another scheme.
    #[error("scheme `{0}` cannot be routed to: write `http://HOST:PORT`")]
    Scheme(String),
    /// A base path would have to be put before each request's path.
    #[error("base path `{0}` cannot be routed to: the engine must serve `/v1/…` at its root")]
    BasePath(String),
    /// User and password.
    #[error("credentials in the URL cannot be routed to: start the engine without a key")]
    Credentials,
    /// The name has no IPv4 address.
    #[error("host `{0}` has no IPv4 address")]
    NoAddress(String),
}

/// A URL that can be routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineUrl {
    host: String,
    port: u16,
}

impl EngineUrl {
    /// Checks the text. `/v1` at the end is what clients are configured with and means the root.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = with_scheme.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Https),
            Some(other) => return Err(UrlError::Scheme(other.to_owned())),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        let path = uri.path().trim_end_matches('/');
        if !(path.is_empty() || path == "/v1") || uri.query().is_some() {
            return Err(UrlError::BasePath(uri.path().to_owned()));
        }
        if authority.host().is_empty() {
            return Err(UrlError::Malformed);
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: uri.port_u16().unwrap_or(80),
        })
    }

    /// The address to connect to; the endpoints file takes IPv4 literals only.
    pub async fn resolve(&self) -> Result<SocketAddr, UrlError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found
            .ok()
            .and_then(|mut addresses| addresses.find(|address| matches!(address.ip(), IpAddr::V4(_))))
            .ok_or_else(|| UrlError::NoAddress(self.host.clone()))
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_routed_is_accepted_and_the_rest_is_refused_by_name() {
        for (text, shown) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://localhost:11434/v1", "http://localhost:11434"),
            ("127.0.0.1:8000/", "http://127.0.0.1:8000"),
            ("http://10.0.0.1", "http://10.0.0.1:80"),
        ] {
            assert_eq!(EngineUrl::parse(text).unwrap().to_string(), shown);
        }
        let refused = |text| EngineUrl::parse(text).unwrap_err();
        assert_eq!(refused("https://api.example.com"), UrlError::Https);
        assert_eq!(refused("http://h:1/openai"), UrlError::BasePath("/openai".into()));
        assert_eq!(refused("http://h:1/v1?x=1"), UrlError::BasePath("/v1".into()));
        assert_eq!(refused("ftp://h"), UrlError::Scheme("ftp".into()));
        assert_eq!(refused("http://u:p@h:1"), UrlError::Credentials);
        assert_eq!(refused("http://"), UrlError::Malformed);
    }
}
