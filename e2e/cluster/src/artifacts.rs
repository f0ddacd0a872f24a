//! Where `build.sh` put what it built; the names must agree with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// `${LLMD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/llmd}/cluster`.
pub fn cache() -> anyhow::Result<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = variable("LLMD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("llmd")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/llmd")))
        .context("none of LLMD_CACHE, XDG_CACHE_HOME and HOME is set")?;
    Ok(base.join("cluster"))
}

/// The built program `part`: `kube`, `kwok`, `lws`, `helm`, `lua` or `coredns`.
pub fn program(part: &str) -> anyhow::Result<PathBuf> {
    let source = match part {
        "kube" | "coredns" => here().join(part),
        _ => here().join("tools").join(part),
    };
    let mut files = vec![source.join("go.mod"), source.join("go.sum")];
    let mut code: Vec<PathBuf> = std::fs::read_dir(&source)
        .with_context(|| format!("cannot list {}", source.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "go"))
        .collect();
    code.sort();
    files.extend(code);
    let program = cache()?.join(format!("{part}-{}", hash(&files)?)).join(part);
    if !program.exists() {
        bail!("{part} is not built: run `e2e/cluster/build.sh {part}` or `cargo xtask test`");
    }
    Ok(program)
}

/// The folder with the foreign definitions `name` of `crds.txt`: `gateway`, `gaie`, `lws` or `keda`.
pub fn foreign_definitions(name: &str) -> anyhow::Result<PathBuf> {
    let folder = cache()?
        .join(format!("crds-{}", hash(&[here().join("crds.txt")])?))
        .join(name);
    if !folder.exists() {
        bail!(
            "the foreign definitions `{name}` are not there: run `e2e/cluster/build.sh crds` or `cargo xtask test`"
        );
    }
    Ok(folder)
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// First twelve hexadecimal digits of the SHA-256 of the files' contents, as `build.sh` computes it.
fn hash(files: &[PathBuf]) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    for file in files {
        digest.update(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(short(&digest.finalize()))
}

/// First twelve hexadecimal digits.
pub(crate) fn short(digest: &[u8]) -> String {
    hex(&digest[..6])
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
