//! Proxies and certificate authorities of the installation, for engines that load models over the network.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, EnvVar, KeyToPath, Volume, VolumeMount};

use super::super::pod::{env, mount};
use crate::options::Egress;

/// Where the bundle is mounted.
const DIRECTORY: &str = "/etc/llmd/ca";
const FILE: &str = "ca.crt";
/// OpenSSL and httpx, requests, curl and aiohttp's users.
const BUNDLE_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// Never through a proxy: the pod itself and the cluster's Services.
const INSIDE: &str = "localhost,127.0.0.1,.svc,.cluster.local";

/// Each proxy variable in both cases: programs differ in which they read.
pub(super) fn variables(egress: &Egress) -> Vec<EnvVar> {
    let mut found = Vec::new();
    let mut both = |name: &str, value: &str| {
        found.push(env(name, value));
        found.push(env(&name.to_lowercase(), value));
    };
    for (name, value) in [
        ("HTTP_PROXY", &egress.http_proxy),
        ("HTTPS_PROXY", &egress.https_proxy),
    ] {
        if let Some(value) = value {
            both(name, value);
        }
    }
    if egress.http_proxy.is_some() || egress.https_proxy.is_some() {
        let more = egress.no_proxy.as_ref().map(|hosts| format!(",{hosts}"));
        both("NO_PROXY", &format!("{INSIDE}{}", more.unwrap_or_default()));
    }
    if egress.ca_bundle.is_some() {
        let file = format!("{DIRECTORY}/{FILE}");
        found.extend(BUNDLE_VARIABLES.map(|name| env(name, &file)));
    }
    found
}

/// The bundle's volume and its mount.
pub(super) fn bundle(egress: &Egress) -> Option<(Volume, VolumeMount)> {
    let bundle = egress.ca_bundle.as_ref()?;
    let volume = Volume {
        name: "ca-bundle".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: bundle.config_map.clone(),
            items: Some(vec![KeyToPath {
                key: bundle.key.clone(),
                path: FILE.to_owned(),
                ..KeyToPath::default()
            }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    Some((volume, mount("ca-bundle", DIRECTORY, true)))
}
