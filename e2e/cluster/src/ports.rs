//! Ports of one control plane.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Below the range from which the kernel takes ports of outgoing connections, so that only other clusters compete.
const RANGE: std::ops::Range<u16> = 12_000..30_000;

#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) api: u16,
    pub(crate) controllers: u16,
    pub(crate) scheduler: u16,
    /// Webhooks of the LeaderWorkerSet manager.
    pub(crate) lws: u16,
}

impl Ports {
    /// Ports that were free a moment ago.
    pub(crate) fn free() -> anyhow::Result<Self> {
        let mut held = Vec::new();
        for _ in 0..1000 {
            let port = fastrand::u16(RANGE);
            held.extend(
                TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                    .ok()
                    .map(|held| (port, held)),
            );
            if let [etcd, etcd_peer, api, controllers, scheduler, lws] = &held[..] {
                return Ok(Self {
                    etcd: etcd.0,
                    etcd_peer: etcd_peer.0,
                    api: api.0,
                    controllers: controllers.0,
                    scheduler: scheduler.0,
                    lws: lws.0,
                });
            }
        }
        Err(std::io::Error::other("none of 1000 tried ports is free")).context("ports for a control plane")
    }

    /// Consecutive ports.
    pub(crate) fn starting_at(base: u16) -> Self {
        Self {
            etcd: base,
            etcd_peer: base + 1,
            api: base + 3,
            controllers: base + 4,
            scheduler: base + 5,
            lws: base + 6,
        }
    }
}
