//! Our images and Envoy's in a cluster, and the way to its Services.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::cluster::Cluster;
use crate::image::{self, Packed};
use crate::namespace::Namespace;
use crate::poll::poll_until;
use crate::relay;

/// Where a cluster finds our images.
#[derive(Debug, Clone)]
pub struct Images {
    /// Such as `e2e.local`; the images are `REPOSITORY/llmd` and so on.
    pub repository: String,
    /// Tag of all of them.
    pub tag: String,
}

impl Images {
    /// Reference of one of them, such as that of `llmd-epp`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.repository, self.tag)
    }
}

/// The `llmd` binary under test: `LLMD_BIN`, else the one beside the running test's target directory.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("LLMD_BIN") {
        return Ok(path.into());
    }
    let built = std::env::current_exe()?
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("llmd"))
        .find(|path| path.exists());
    built.context("no llmd binary: run `cargo build -p llmd` or `cargo xtask test`")
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| {
        format!("{name} is not set: where the cluster of LLMD_E2E_KUBECONFIG finds our images")
    })
}

impl Cluster {
    /// Packs the `llmd` binary under test into images on every real node. On a foreign cluster the images are those of
    /// `LLMD_E2E_IMAGE_REPOSITORY` and `LLMD_E2E_IMAGE_TAG`.
    pub async fn install_llmd(&self) -> anyhow::Result<Images> {
        if self.is_foreign() {
            return Ok(Images {
                repository: variable("LLMD_E2E_IMAGE_REPOSITORY")?,
                tag: variable("LLMD_E2E_IMAGE_TAG")?,
            });
        }
        self.install_llmd_as(&binary()?, "e2e").await
    }

    /// The same binary under another tag, for an image that changes. On a foreign cluster the tag is that of
    /// `LLMD_E2E_IMAGE_NEXT_TAG`.
    pub async fn install_llmd_again(&self) -> anyhow::Result<Images> {
        if self.is_foreign() {
            return Ok(Images {
                repository: variable("LLMD_E2E_IMAGE_REPOSITORY")?,
                tag: variable("LLMD_E2E_IMAGE_NEXT_TAG")?,
            });
        }
        self.install_llmd_as(&binary()?, "next").await
    }

    /// The same for any binary and tag, as for an upgrade from one to the other. A tag is packed once.
    pub async fn install_llmd_as(&self, binary: &Path, tag: &str) -> anyhow::Result<Images> {
        let repository = "e2e.local";
        self.import_once(&format!("llmd:{tag}"), |archive| {
            image::pack_llmd(binary, repository, tag, archive)
        })
        .await?;
        Ok(Images {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// Makes the Envoy binary of `e2e/tools/install.sh` known to every real node as image `name`. A foreign cluster
    /// pulls it by itself.
    pub async fn install_envoy(&self, name: &str) -> anyhow::Result<()> {
        if self.is_foreign() {
            return Ok(());
        }
        let cache = crate::artifacts::cache()?;
        let binary = cache.with_file_name("tools").join("envoy/bin/envoy");
        if !binary.exists() {
            bail!("Envoy is not installed: run `e2e/tools/install.sh` or `cargo xtask test`");
        }
        self.import_once(name, |archive| image::pack_envoy(&binary, name, archive))
            .await
    }

    /// Makes an image on every real node whose `program` is a shell script, for what a real one says and does. The
    /// script may go on as `/llmd`. Returns its name.
    pub async fn install_script(&self, program: &str, script: &str) -> anyhow::Result<String> {
        let name = format!("e2e.local/{program}:script");
        let binary = binary()?;
        self.import_once(&name, |archive| {
            image::pack_script(&binary, program, script, &name, archive)
        })
        .await?;
        Ok(name)
    }

    /// Packs and imports unless that was done under this name.
    async fn import_once(
        &self,
        name: &str,
        pack: impl FnOnce(&Path) -> anyhow::Result<Packed>,
    ) -> anyhow::Result<()> {
        let mut there = self.inner.images.lock().await;
        if there.contains(name) {
            return Ok(());
        }
        let archive = self.inner.dir.join("image.tar");
        pack(&archive)?;
        self.import(&archive).await?;
        // the run folder is memory
        std::fs::remove_file(&archive)?;
        there.insert(name.to_owned());
        Ok(())
    }

    /// The address of a name in the cluster's DNS, asked on the first real node.
    pub async fn resolve(&self, name: &str) -> anyhow::Result<IpAddr> {
        let server = self.forward(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 53)?;
        crate::dns::address(server, name).await
    }
}

impl Namespace {
    /// A local address that leads to a TCP port of a Service whose pods wait for the client to speak first, as HTTP
    /// servers do. Connections are spread over its pods. Waits until the first of them is behind it.
    pub async fn service(&self, name: &str, port: u16) -> anyhow::Result<SocketAddr> {
        let services: Api<Service> = Api::default_namespaced(self.client().await?);
        let address = services.get(name).await?.spec.and_then(|spec| spec.cluster_ip);
        let address = address.with_context(|| format!("the Service {name} has no address"))?;
        let address: IpAddr = address
            .parse()
            .with_context(|| format!("the Service {name} is headless"))?;
        let address = if self.cluster().is_foreign() {
            self.gate(SocketAddr::new(address, port)).await?
        } else {
            self.cluster().forward(address, port)?
        };
        poll_until(&format!("pods behind the Service {name}"), || {
            relay::leads_somewhere(address)
        })
        .await?;
        Ok(address)
    }
}
