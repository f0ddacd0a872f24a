//! `helm install` on a real node, and the size of what it runs.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use llmd_e2e::process::llmd_bin;
use llmd_e2e_cluster::{Cluster, image};

use super::figure;

pub(crate) async fn measure() {
    let archive = tempfile::tempdir().expect("a directory");
    let file = archive.path().join("llmd.tar");
    image::pack_llmd(&llmd_bin(), "e2e.local", "bench", &file).expect("a packed image");
    let compressed = Command::new("gzip")
        .arg("-6")
        .arg("--keep")
        .arg(&file)
        .status()
        .expect("gzip");
    assert!(compressed.success(), "gzip failed");
    let bytes = std::fs::metadata(file.with_extension("tar.gz"))
        .expect("a compressed image")
        .len();
    let mib = bytes as f64 / f64::from(1 << 20);
    figure(
        "image: size, compressed",
        mib,
        "MiB",
        Some(40.0),
        "release binary with its libraries, as packed by `cargo xtask image`",
    );

    let cluster = Cluster::node(1).without_our_crds().await.expect("a real node");
    let images = cluster.install_llmd().await.expect("our image on the node");
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("charts/llmd");
    let chart = chart.display().to_string();
    let (repository, tag) = (
        format!("image.repository={}", images.repository),
        format!("image.tag={}", images.tag),
    );
    let began = Instant::now();
    let words = [
        "install",
        "llmd",
        &chart,
        "--namespace=llmd-system",
        "--create-namespace",
        "--set",
        &repository,
    ];
    cluster
        .helm(
            words
                .into_iter()
                .chain(["--set", &tag, "--wait", "--timeout=60s"]),
        )
        .await
        .expect("helm install");
    figure(
        "chart: helm install until ready",
        began.elapsed().as_secs_f64(),
        "s",
        Some(15.0),
        "one real node, image on it, two replicas",
    );
}
