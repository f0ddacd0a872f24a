//! Waiting for caches to be filled, for many at once.
//!
//! kube's `Store::wait_until_ready` wakes only the one that asked last: of two reconciles that wait for the same cache
//! the other would stand forever, and its resource with it, until the operator is restarted.

use tokio::sync::OnceCell;

/// Lets one at a time do the waiting, and all through after it.
#[derive(Debug, Default)]
pub(crate) struct Gate(OnceCell<()>);

impl Gate {
    /// Waits for `ready`, unless somebody did already. When one who waits is dropped, the next takes over.
    ///
    /// # Errors
    /// Those of `ready`; the gate stays closed.
    pub(crate) async fn pass<E>(&self, ready: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        self.0.get_or_try_init(|| ready).await.map(|&()| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_a_cache_go_on_when_it_is_filled() {
        let mut writer = Writer::<ConfigMap>::default();
        let (store, gate) = (writer.as_reader(), std::sync::Arc::new(Gate::default()));
        let mut waiting = JoinSet::new();
        for _ in 0..3 {
            let (store, gate) = (store.clone(), gate.clone());
            waiting.spawn(async move { gate.pass(store.wait_until_ready()).await });
        }
        // one who gives up leaves the others waiting
        let impatient = tokio::time::timeout(Duration::ZERO, gate.pass(store.wait_until_ready()));
        assert!(impatient.await.is_err());
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let all = async {
            while let Some(one) = waiting.join_next().await {
                one.unwrap().unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    }
}
