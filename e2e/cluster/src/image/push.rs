//! Pushes a docker-archive to a registry (OCI distribution specification 1.1, "Pushing").

mod request;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use self::request::{Answer, send};
use super::archive;
use crate::artifacts;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// User and password, for registries that ask for them.
#[derive(Clone, Default)]
pub struct Credentials(Option<(String, String)>);

impl Credentials {
    /// `LLMD_REGISTRY_USER` and `LLMD_REGISTRY_PASSWORD`; nobody without them.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self(variable("LLMD_REGISTRY_USER").zip(variable("LLMD_REGISTRY_PASSWORD")))
    }

    /// This user.
    pub fn new(user: &str, password: &str) -> Self {
        Self(Some((user.to_owned(), password.to_owned())))
    }

    fn basic(&self) -> Option<String> {
        let (user, password) = self.0.as_ref()?;
        Some(format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{user}:{password}"))
        ))
    }
}

/// One pushed image.
#[derive(Debug)]
pub struct Pushed {
    /// Its name, `registry/repository:tag`.
    pub name: String,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Bytes of its compressed layer.
    pub compressed_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Vec<String>,
}

/// Pushes all images of an archive that [`super::pack_llmd`] wrote. Blobs that are there are not sent again.
pub async fn push(archive: &Path, credentials: &Credentials) -> anyhow::Result<Vec<Pushed>> {
    let folder = tempfile::tempdir()?;
    super::run(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(folder.path()),
    )?;
    let layer = folder.path().join(archive::LAYER);
    super::run(Command::new("gzip").arg("--no-name").arg(&layer))?;
    let layer = Blob::new(std::fs::read(layer.with_extension("tar.gz"))?);
    let entries: Vec<Entry> = serde_json::from_slice(&std::fs::read(folder.path().join(archive::MANIFEST))?)?;
    let mut pushed = Vec::new();
    for entry in entries {
        let config = Blob::new(std::fs::read(folder.path().join(&entry.config))?);
        for name in entry.repo_tags {
            let mut repository = Repository::new(&name, credentials)?;
            let manifest = repository
                .push(&config, &layer)
                .await
                .with_context(|| format!("cannot push {name}"))?;
            pushed.push(Pushed {
                name,
                digest: manifest,
                compressed_bytes: layer.content.len() as u64,
            });
        }
    }
    Ok(pushed)
}

struct Blob {
    digest: String,
    content: Bytes,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        use sha2::{Digest, Sha256};
        Self {
            digest: format!("sha256:{}", artifacts::hex(&Sha256::digest(&content))),
            content: content.into(),
        }
    }
}

/// A repository of a registry, with the authorization that the registry wanted.
struct Repository<'a> {
    /// `https://registry`.
    registry: String,
    path: String,
    tag: String,
    credentials: &'a Credentials,
    authorization: Option<String>,
}

impl<'a> Repository<'a> {
    fn new(name: &str, credentials: &'a Credentials) -> anyhow::Result<Self> {
        let (registry, rest) = name
            .split_once('/')
            .with_context(|| format!("{name} names no registry; use REGISTRY/REPOSITORY"))?;
        let (path, tag) = rest.rsplit_once(':').context("an image name without a tag")?;
        let host = registry.split(':').next().unwrap_or_default();
        let scheme = if matches!(host, "localhost" | "127.0.0.1") {
            "http"
        } else {
            "https"
        };
        Ok(Self {
            registry: format!("{scheme}://{registry}"),
            path: path.to_owned(),
            tag: tag.to_owned(),
            credentials,
            authorization: None,
        })
    }

    async fn push(&mut self, config: &Blob, layer: &Blob) -> anyhow::Result<String> {
        for blob in [layer, config] {
            self.blob(blob).await?;
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.content.len()},
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.content.len()}],
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        let uri = self.uri(&format!("manifests/{}", self.tag))?;
        let answer = self
            .request(&Method::PUT, &uri, MANIFEST_TYPE, manifest.content.clone())
            .await?;
        answer.expect(StatusCode::CREATED, "the manifest")?;
        Ok(manifest.digest)
    }

    async fn blob(&mut self, blob: &Blob) -> anyhow::Result<()> {
        let there = self.uri(&format!("blobs/{}", blob.digest))?;
        if self
            .request(&Method::HEAD, &there, "", Bytes::new())
            .await?
            .status
            == StatusCode::OK
        {
            return Ok(());
        }
        let uploads = self.uri("blobs/uploads/")?;
        let answer = self.request(&Method::POST, &uploads, "", Bytes::new()).await?;
        answer.expect(StatusCode::ACCEPTED, "an upload")?;
        let location = answer
            .header("location")
            .context("an upload without a location")?;
        let location = if location.starts_with('/') {
            format!("{}{location}", self.registry)
        } else {
            location.to_owned()
        };
        let mark = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{mark}digest={}", blob.digest).parse()?;
        let answer = self
            .request(
                &Method::PUT,
                &target,
                "application/octet-stream",
                blob.content.clone(),
            )
            .await?;
        answer.expect(StatusCode::CREATED, "a blob")
    }

    fn uri(&self, rest: &str) -> anyhow::Result<Uri> {
        Ok(format!("{}/v2/{}/{rest}", self.registry, self.path).parse()?)
    }

    /// Asks again with what the registry wants when it refuses.
    async fn request(
        &mut self,
        method: &Method,
        uri: &Uri,
        kind: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let answer = send(method, uri, self.authorization.as_deref(), kind, body.clone()).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = answer.header("www-authenticate").unwrap_or_default().to_owned();
        self.authorization = Some(self.authorize(&challenge).await?);
        send(method, uri, self.authorization.as_deref(), kind, body).await
    }

    /// Answers `Basic …` with the credentials and `Bearer realm="…",service="…",scope="…"` with a token from there.
    async fn authorize(&self, challenge: &str) -> anyhow::Result<String> {
        let basic = self.credentials.basic();
        let Some(parameters) = challenge.strip_prefix("Bearer ") else {
            return basic
                .context("the registry wants a user: set LLMD_REGISTRY_USER and LLMD_REGISTRY_PASSWORD");
        };
        let parameter = |name: &str| {
            let (_, rest) = parameters.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let realm = parameter("realm").context("a token challenge without a realm")?;
        let service = parameter("service").unwrap_or_default();
        let uri = format!(
            "{realm}?service={service}&scope=repository:{}:pull,push",
            self.path
        )
        .parse()?;
        let answer = send(&Method::GET, &uri, basic.as_deref(), "", Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            bail!("{realm} gives no token to LLMD_REGISTRY_USER: {}", answer.status);
        }
        let token: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let token = ["token", "access_token"]
            .iter()
            .find_map(|field| token.get(field)?.as_str())
            .context("an answer without a token")?;
        Ok(format!("Bearer {token}"))
    }
}
