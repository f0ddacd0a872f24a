//! One candidate: reads the Lease, takes it when it is free, renews it while it leads.
//!
//! Whether another's lease has expired is measured by our own clock from the moment at which we saw it
//! change: clocks of replicas are never compared.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::leadership::Phase;
use crate::timings::Timings;

/// Longest wait for the answer to the release at the end.
const RELEASE: Duration = Duration::from_secs(5);

/// A lease as it was last seen to change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// What may be done with a lease.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Mine,
    Free,
    Held,
}

fn standing(seen: &Seen, identity: &str, now: Instant) -> Standing {
    let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
    if holder == identity {
        return Standing::Mine;
    }
    let seconds = seen.spec.lease_duration_seconds.unwrap_or_default();
    let duration = Duration::from_secs(u64::from(seconds.unsigned_abs()));
    if holder.is_empty() || now.duration_since(seen.since) >= duration {
        Standing::Free
    } else {
        Standing::Held
    }
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    /// Somebody else holds it.
    Denied,
    /// Nobody knows.
    Failed,
}

pub(crate) struct Candidate {
    pub(crate) leases: Api<Lease>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) identity: String,
    pub(crate) timings: Timings,
    pub(crate) seen: Option<Seen>,
    /// The last one that was logged.
    pub(crate) problem: Option<String>,
}

impl Candidate {
    pub(crate) async fn run(mut self, phase: watch::Sender<Phase>, stop: CancellationToken) {
        tracing::info!(
            lease = self.name,
            identity = self.identity,
            "standing for election"
        );
        while self.attempt(self.timings.renew).await != Attempt::Held {
            if self.paused(&stop).await {
                return;
            }
        }
        tracing::info!(lease = self.name, "this replica leads");
        phase.send_replace(Phase::Leading);
        let mut renewed = Instant::now();
        loop {
            if self.paused(&stop).await {
                phase.send_replace(Phase::Over);
                self.release().await;
                return;
            }
            let left = self.timings.renew.saturating_sub(renewed.elapsed());
            match self.attempt(left).await {
                Attempt::Held => renewed = Instant::now(),
                Attempt::Failed if renewed.elapsed() < self.timings.renew => {}
                Attempt::Failed | Attempt::Denied => break,
            }
        }
        phase.send_replace(Phase::Over);
        tracing::error!(lease = self.name, "this replica does not lead any more");
    }

    /// Waits for the next attempt; true when there shall be none.
    async fn paused(&self, stop: &CancellationToken) -> bool {
        let pause = self.timings.retry.mul_f64(1.0 + 0.2 * fastrand::f64());
        tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    async fn attempt(&mut self, patience: Duration) -> Attempt {
        let outcome = tokio::time::timeout(patience, self.take_or_renew()).await;
        let problem = match outcome {
            Ok(Ok(attempt)) => {
                self.problem = None;
                return attempt;
            }
            Ok(Err(error)) => self.explain(&error),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!(
                lease = self.name,
                "the lease cannot be taken or renewed: {problem}"
            );
            self.problem = Some(problem);
        }
        Attempt::Failed
    }

    fn explain(&self, error: &kube::Error) -> String {
        if let kube::Error::Api(status) = error
            && status.is_forbidden()
        {
            let Self { namespace, .. } = self;
            return format!(
                "access to leases.coordination.k8s.io in namespace '{namespace}' is denied: allow get, create and update in a Role and bind it to this ServiceAccount ({})",
                status.message
            );
        }
        // The outer errors say only which layer it passed.
        let mut inner: &dyn std::error::Error = error;
        while let Some(source) = inner.source() {
            inner = source;
        }
        inner.to_string()
    }

    async fn take_or_renew(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return self.written(self.leases.create(&PostParams::default(), &lease).await);
        };
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = match self.seen.take() {
            Some(seen) if seen.spec == spec => seen,
            _ => Seen { spec, since: now },
        };
        let standing = standing(&seen, &self.identity, now);
        let next = self.spec(Some(&seen.spec));
        self.seen = Some(seen);
        if standing == Standing::Held {
            return Ok(Attempt::Denied);
        }
        let lease = Lease {
            spec: Some(next),
            ..lease
        };
        // The resource version in it makes the API server refuse the write if somebody was faster.
        let outcome = self
            .leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await;
        self.written(outcome)
    }

    fn written(&mut self, outcome: kube::Result<Lease>) -> Result<Attempt, kube::Error> {
        match outcome {
            Ok(lease) => {
                self.seen = Some(Seen {
                    spec: lease.spec.unwrap_or_default(),
                    since: Instant::now(),
                });
                Ok(Attempt::Held)
            }
            // Somebody wrote it first; the next look shows who holds it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Failed),
            Err(error) => Err(error),
        }
    }

    /// What we write over `old`.
    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let renewed = old.filter(|old| old.holder_identity.as_deref() == Some(&self.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.timings.lease.as_secs() as i32),
            acquire_time: renewed
                .and_then(|old| old.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if renewed.is_some() || old.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..LeaseSpec::default()
        }
    }

    /// As client-go: nobody holds it, for a second.
    async fn release(&self) {
        let released = async {
            let mut lease = self.leases.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(RELEASE, released).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "the lease is released"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "the lease runs out by itself"),
            Err(_) => tracing::warn!(lease = self.name, "the lease runs out by itself: no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, since: Instant) -> Seen {
        Seen {
            spec: LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            },
            since,
        }
    }

    #[test]
    fn anothers_lease_is_free_only_when_it_did_not_change_for_its_duration() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(standing(&seen("me", start), "me", at(100)), Standing::Mine);
        assert_eq!(standing(&seen("", start), "me", at(0)), Standing::Free);
        assert_eq!(standing(&seen("other", start), "me", at(14)), Standing::Held);
        assert_eq!(standing(&seen("other", start), "me", at(15)), Standing::Free);
    }
}
