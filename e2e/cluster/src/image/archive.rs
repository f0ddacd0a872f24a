//! The docker-archive format: one layer, any number of images that share it.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::artifacts;

/// One image of an archive.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    /// `registry/repository:tag`.
    pub(super) name: String,
    /// Program and first arguments.
    pub(super) entrypoint: Vec<String>,
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Bytes of the layer, uncompressed.
    pub layer_bytes: u64,
    /// Names of the images.
    pub names: Vec<String>,
}

/// Names of files in an archive.
pub(super) const LAYER: &str = "layer.tar";
pub(super) const MANIFEST: &str = "manifest.json";

/// Packs a folder. Equal content gives equal bytes.
pub(super) fn write(content: &Path, variants: &[Variant], archive: &Path) -> anyhow::Result<Packed> {
    let stage = tempfile::tempdir()?;
    let layer = stage.path().join(LAYER);
    tar(content, &layer)?;
    let (digest, layer_bytes) = hash(&layer)?;
    let mut manifest = Vec::new();
    for (number, variant) in variants.iter().enumerate() {
        let config = format!("config-{number}.json");
        std::fs::write(
            stage.path().join(&config),
            configuration(variant, &digest).to_string(),
        )?;
        manifest.push(json!({"Config": config, "RepoTags": [variant.name], "Layers": [LAYER]}));
    }
    std::fs::write(stage.path().join(MANIFEST), Value::from(manifest).to_string())?;
    tar(stage.path(), archive)?;
    Ok(Packed {
        layer_bytes,
        names: variants.iter().map(|variant| variant.name.clone()).collect(),
    })
}

/// An image configuration. The user is the one that charts and restricted clusters expect: nobody special.
fn configuration(variant: &Variant, layer: &str) -> Value {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": "65532:65532",
            "WorkingDir": "/",
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "Entrypoint": variant.entrypoint,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    })
}

/// Entries by their plain names: readers look for `manifest.json`, not for `./manifest.json`.
fn tar(content: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut names = std::fs::read_dir(content)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    super::run(
        Command::new("tar")
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime=@0",
                "-cf",
            ])
            .arg(archive)
            .arg("-C")
            .arg(content)
            .args(names),
    )
}

/// Hexadecimal SHA-256 and length of a file.
pub(super) fn hash(path: &Path) -> anyhow::Result<(String, u64)> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut digest = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut digest)?;
    Ok((artifacts::hex(&digest.finalize()), bytes))
}
