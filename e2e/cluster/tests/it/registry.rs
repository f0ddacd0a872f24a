//! Pushing an image to a registry that asks for a token, as public ones do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use llmd_e2e_cluster::image;
use llmd_e2e_cluster::image::push::{Credentials, push};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Blobs by digest, manifests by `repository:tag`, and how many blobs were sent.
#[derive(Default)]
struct Registry {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, Value>,
    sent: usize,
}

type Shared = Arc<Mutex<Registry>>;

#[tokio::test]
async fn images_of_one_archive_share_a_layer_in_the_registry() {
    let (address, registry) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("images.tar");
    let repository = format!("{address}/team");
    let packed = image::pack_llmd(Path::new("/bin/true"), &repository, "v1", &archive).unwrap();
    assert_eq!(
        packed.names,
        [
            format!("{repository}/llmd:v1"),
            format!("{repository}/llmd-epp:v1"),
            format!("{repository}/llmd-routing-sidecar:v1"),
        ]
    );

    let wrong = push(&archive, &Credentials::new("user", "wrong"))
        .await
        .unwrap_err();
    assert!(format!("{wrong:#}").contains("gives no token"), "{wrong:#}");
    let pushed = push(&archive, &Credentials::new("user", "secret")).await.unwrap();
    assert_eq!(pushed.len(), 3);
    {
        let registry = registry.lock().unwrap();
        assert_eq!(registry.manifests.len(), 3);
        let manifest = &registry.manifests["team/llmd-epp:v1"];
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(registry.manifests["team/llmd:v1"]["layers"][0]["digest"], layer);
        assert_eq!(
            registry.blobs[layer].len() as u64,
            manifest["layers"][0]["size"].as_u64().unwrap()
        );
        let config = &registry.blobs[manifest["config"]["digest"].as_str().unwrap()];
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/llmd-epp"]));
        // this registry has blobs for all repositories
        assert_eq!(registry.sent, 4, "one layer and three configurations");
    }
    push(&archive, &Credentials::new("user", "secret")).await.unwrap();
    assert_eq!(
        registry.lock().unwrap().sent,
        4,
        "what is there is not sent again"
    );
}

async fn serve() -> (SocketAddr, Shared) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Shared::default();
    let state = Arc::clone(&registry);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, address, Arc::clone(&state)));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, registry)
}

async fn answer(
    request: Request<Incoming>,
    address: SocketAddr,
    registry: Shared,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let authorization = parts
        .headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if path == "/token" {
        let wanted = format!("Basic {}", BASE64_STANDARD.encode("user:secret"));
        let granted = authorization == Some(wanted) && query.contains("scope=repository:team/");
        return Ok(if granted {
            say(StatusCode::OK, &[], json!({"token": "granted"}).to_string())
        } else {
            say(StatusCode::UNAUTHORIZED, &[], String::new())
        });
    }
    if authorization.as_deref() != Some("Bearer granted") {
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"test\"");
        return Ok(say(
            StatusCode::UNAUTHORIZED,
            &[("www-authenticate", &challenge)],
            String::new(),
        ));
    }
    let mut registry = registry.lock().unwrap();
    let reply = match (
        &parts.method,
        path.strip_prefix("/v2/").unwrap().rsplit_once('/').unwrap(),
    ) {
        (&Method::HEAD, (_, digest)) if registry.blobs.contains_key(digest) => StatusCode::OK,
        (&Method::HEAD, _) => StatusCode::NOT_FOUND,
        (&Method::POST, (uploads, "")) if uploads.ends_with("/blobs/uploads") => {
            let location = format!("/v2/{uploads}/one?state=x");
            return Ok(say(
                StatusCode::ACCEPTED,
                &[("location", &location)],
                String::new(),
            ));
        }
        (&Method::PUT, (_, "one")) => {
            let digest = query.strip_prefix("state=x&digest=").unwrap();
            registry.sent += 1;
            registry.blobs.insert(digest.to_owned(), body);
            StatusCode::CREATED
        }
        (&Method::PUT, (manifests, tag)) => {
            let repository = manifests.strip_suffix("/manifests").unwrap();
            let manifest = serde_json::from_slice(&body).unwrap();
            registry.manifests.insert(format!("{repository}:{tag}"), manifest);
            StatusCode::CREATED
        }
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    Ok(say(reply, &[], String::new()))
}

fn say(status: StatusCode, headers: &[(&str, &str)], body: String) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}
