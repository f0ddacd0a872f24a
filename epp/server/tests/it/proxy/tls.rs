//! `--proxy-cert-dir` and `--proxy-client-ca-file`: TLS towards clients of the whole role.

use crate::metrics_tls::{Authority, get_from};
use crate::role::{PORTS, Role, proxy_port, refused, until_async, write_config};

#[tokio::test]
async fn the_proxy_speaks_tls_follows_its_certificate_and_knows_its_clients() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    server.write_pair(directory.path());
    let ca = directory.path().join("clients.pem");
    std::fs::write(&ca, clients.pem()).expect("written");
    let config = write_config(directory.path(), &[]);
    let flags = || {
        format!(
            "{PORTS} --config-file={config} --proxy-port={} --proxy-bind-address=127.0.0.1 --drain-timeout=0s \
             --proxy-cert-dir={}",
            proxy_port(),
            directory.path().display()
        )
    };
    let open = Role::start(flags()).await;
    let closed = Role::start(format!("{} --proxy-client-ca-file={}", flags(), ca.display())).await;
    let health = async |role: &Role, trusted: &Authority, own: Option<&Authority>| {
        get_from(role.addresses.proxy.expect("a proxy"), "/health", trusted, own).await
    };
    let page = health(&open, &server, None).await.expect("a page");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(health(&open, &stranger, None).await.is_err());
    assert!(health(&closed, &server, Some(&clients)).await.is_ok());
    assert!(health(&closed, &server, Some(&stranger)).await.is_err());
    assert!(health(&closed, &server, None).await.is_err());

    stranger.write_pair(directory.path());
    until_async(async || health(&open, &stranger, None).await.ok()).await;
    open.running.abort();
    closed.running.abort();
}

#[tokio::test]
async fn a_wrong_directory_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = write_config(directory.path(), &[]);
    let port = proxy_port();
    let flags =
        format!("{PORTS} --config-file={config} --proxy-port={port} --proxy-cert-dir=/does/not/exist");
    let error = refused(&flags).await;
    assert!(
        error.starts_with("--proxy-cert-dir") && error.contains("tls.crt"),
        "{error}"
    );
}
