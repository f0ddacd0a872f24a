//! Host names in a list of clusters, looked up once when the list is read.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_epp_api::EndpointSpec;
use llmd_epp_core::plugins::datalayer::file_discovery::Listing;

/// Label with the address or host name of a cluster's metrics.
const METRICS_ADDRESS: &str = "metricsAddress";
/// Label with their port; that of the endpoint without.
const METRICS_PORT: &str = "metricsPort";
/// Longest wait for one name.
const BUDGET: Duration = Duration::from_secs(2);

/// Fills in addresses; a cluster whose name is unknown is left out with a warning.
pub(super) async fn look_up(listing: Listing) -> Listing {
    let Listing {
        endpoints,
        mut warnings,
    } = listing;
    let mut known = Vec::with_capacity(endpoints.len());
    for mut endpoint in endpoints {
        match fill_in(&mut endpoint).await {
            Ok(()) => known.push(endpoint),
            Err(reason) => warnings.push(format!("'{}' skipped: {reason}", endpoint.name)),
        }
    }
    Listing {
        endpoints: known,
        warnings,
    }
}

async fn fill_in(endpoint: &mut EndpointSpec) -> Result<(), String> {
    if let Some(host) = &endpoint.reach.host {
        endpoint.address = address_of("address", host, endpoint.port).await?.ip();
    }
    if let Some(host) = endpoint
        .labels
        .get(METRICS_ADDRESS)
        .filter(|host| !host.is_empty())
    {
        let port = match endpoint.labels.get(METRICS_PORT).filter(|port| !port.is_empty()) {
            None => endpoint.port,
            Some(port) => port
                .parse()
                .map_err(|_| format!("label {METRICS_PORT} '{port}' is no port"))?,
        };
        endpoint.reach.metrics = Some(address_of(METRICS_ADDRESS, host, port).await?);
    }
    Ok(())
}

async fn address_of(field: &str, host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = tokio::time::timeout(BUDGET, tokio::net::lookup_host((host, port))).await;
    let unknown = |reason: &dyn std::fmt::Display| format!("{field} '{host}' cannot be looked up: {reason}");
    match found {
        Ok(Ok(mut addresses)) => addresses.next().ok_or_else(|| unknown(&"it has no address")),
        Ok(Err(error)) => Err(unknown(&error)),
        Err(_) => Err(unknown(&"no answer in 2 s")),
    }
}
