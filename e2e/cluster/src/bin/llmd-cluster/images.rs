//! `image`: packs the images of an llmd binary, and pushes them.

use std::path::PathBuf;

use llmd_e2e_cluster::image;

#[derive(clap::Args)]
pub(crate) struct Image {
    /// The binary.
    #[arg(long)]
    binary: PathBuf,
    /// First part of the images' names.
    #[arg(long, default_value = "ghcr.io/llmd-dev")]
    repository: String,
    /// Tag of the images.
    #[arg(long)]
    tag: String,
    /// Archive to write, for `docker load`, `ctr images import` and the like.
    #[arg(long)]
    archive: PathBuf,
    /// Push to the registry of `--repository`, over HTTPS, or over HTTP to a loopback address. Credentials:
    /// `LLMD_REGISTRY_USER` and `LLMD_REGISTRY_PASSWORD`.
    #[arg(long)]
    push: bool,
}

pub(crate) async fn run(arguments: &Image) -> anyhow::Result<()> {
    let archive = &arguments.archive;
    let packed = image::pack_llmd(&arguments.binary, &arguments.repository, &arguments.tag, archive)?;
    println!(
        "{}: one layer of {:.1} MiB for {}",
        archive.display(),
        packed.layer_bytes as f64 / f64::from(1 << 20),
        packed.names.join(", ")
    );
    if arguments.push {
        for pushed in image::push::push(archive, &image::push::Credentials::from_environment()).await? {
            println!(
                "pushed {} ({}), {:.1} MiB compressed",
                pushed.name,
                pushed.digest,
                pushed.compressed_bytes as f64 / f64::from(1 << 20)
            );
        }
    }
    Ok(())
}
