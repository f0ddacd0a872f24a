//! One HTTP request on a connection of its own, plain or with TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// For a layer of some 40 MiB on a slow line.
const LIMIT: Duration = Duration::from_secs(600);

/// What a server answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Fails with the server's words when the status is another one.
    pub(super) fn expect(&self, status: StatusCode, what: &str) -> anyhow::Result<()> {
        if self.status != status {
            bail!(
                "the registry refused {what}: {}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            );
        }
        Ok(())
    }
}

/// Sends a request and reads the whole answer.
pub(super) async fn send(
    method: &Method,
    uri: &Uri,
    authorization: Option<&str>,
    kind: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let host = uri.host().with_context(|| format!("{uri} has no host"))?;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(
            "host",
            uri.authority().map_or(host, |authority| authority.as_str()),
        );
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let request = request.body(Full::new(body))?;
    let exchange = async {
        let stream = TcpStream::connect((host, port)).await?;
        if secure {
            let name = ServerName::try_from(host.to_owned())?;
            let stream = TlsConnector::from(Arc::new(roots()?))
                .connect(name, stream)
                .await?;
            converse(stream, request).await
        } else {
            converse(stream, request).await
        }
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .with_context(|| format!("no answer within {LIMIT:?}"))
        .flatten()
        .with_context(|| format!("{method} {uri}"))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // the connection's end does not mean that the answer was not read
        _ = &mut connection => exchange.await,
    }
}

/// Certificate authorities of the system.
fn roots() -> anyhow::Result<ClientConfig> {
    let file =
        std::env::var_os("SSL_CERT_FILE").unwrap_or_else(|| "/etc/ssl/certs/ca-certificates.crt".into());
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&file)
        .with_context(|| format!("cannot read certificate authorities from {}", file.display()))?;
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
