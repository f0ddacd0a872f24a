//! How the proxy speaks with engines: by flag, or by the pool's `appProtocol`.

use std::sync::Arc;

use llmd_epp_core::plugins::datalayer::polled::Tls;
use llmd_proxy::{TargetProtocol, TargetTls};

use crate::datalayer::TlsError;
use crate::datalayer::tls::client_config;
use crate::flags::EngineOptions;
use crate::reload::PoolProtocol;

/// `appProtocol` of pools whose engines speak HTTP/2 without TLS.
pub(crate) const H2C: &str = "kubernetes.io/h2c";

/// Reads the CA, and looks at the pool for each new connection.
///
/// # Errors
/// When the CA cannot be read.
pub fn protocol(options: &EngineOptions, pool: PoolProtocol) -> Result<TargetProtocol, TlsError> {
    let asked = options.http2;
    let is_http2 = move || asked.unwrap_or_else(|| pool.get() == H2C);
    let tls = options.tls.as_ref().map(|tls| {
        let mut config = client_config(&Tls {
            skip_verify: tls.ca.is_none(),
            ca: tls.ca.clone(),
            identity: None,
        })?;
        // With TLS both may be offered: the engine takes what it has.
        let offered: &[&[u8]] = match asked {
            None => &[b"h2", b"http/1.1"],
            Some(true) => &[b"h2"],
            Some(false) => &[b"http/1.1"],
        };
        Arc::make_mut(&mut config).alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        Ok::<_, TlsError>(TargetTls {
            config,
            server_name: tls.server_name.clone(),
        })
    });
    Ok(TargetProtocol {
        speaks_http2: Arc::new(is_http2),
        tls: tls.transpose()?,
    })
}
