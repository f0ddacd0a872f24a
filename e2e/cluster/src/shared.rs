//! One cluster for all tests of a test binary.

use tokio::sync::OnceCell;

use crate::builder::Builder;
use crate::cluster::Cluster;

/// A cluster that starts with the first test that asks for it and ends with the process. Each test takes a
/// [`Cluster::namespace`] of its own.
///
/// ```no_run
/// use llmd_e2e_cluster::{Cluster, Shared};
///
/// static CLUSTER: Shared = Shared::new(|| Cluster::control(3).with_foreign_crds());
///
/// # async fn test() -> anyhow::Result<()> {
/// let namespace = CLUSTER.get().await?.namespace().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Shared {
    cell: OnceCell<Cluster>,
    builder: fn() -> Builder,
}

impl Shared {
    /// For a `static`.
    pub const fn new(builder: fn() -> Builder) -> Self {
        Self {
            cell: OnceCell::const_new(),
            builder,
        }
    }

    /// The cluster; the first caller starts it, others wait.
    pub async fn get(&self) -> anyhow::Result<&Cluster> {
        self.cell.get_or_try_init(async || (self.builder)().await).await
    }
}
