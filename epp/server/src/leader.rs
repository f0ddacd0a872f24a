//! Leader election by a Lease, compatible with client-go's: of several replicas one is ready.
//!
//! ```text
//!  candidate ──lease is free or expired──▶ leader ──renews every 2 s──▶ leader
//!      ▲ tries every 2 s                     └─ 10 s without renewal ─▶ lost: the process ends
//! ```
//!
//! Whether another's lease has expired is measured by our own clock from the moment at which we saw it
//! change: clocks of replicas are never compared.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::flags::PoolOptions;
use crate::health::Health;
use crate::kubernetes::cause::{Subject, explain_client};

/// Longest wait for the answer to the release at the end.
const RELEASE: Duration = Duration::from_secs(5);

/// How long a lease is good for and how often it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Others may take the lease this long after its last renewal; whole seconds.
    pub lease: Duration,
    /// A leader that could not renew for so long gives up; shorter than `lease`.
    pub renew: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl Default for Timings {
    /// controller-runtime's.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A running candidate. Dropping it stops renewing without releasing.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Stands for election until released; `health` is told who leads.
pub fn start(client: Client, pool: &PoolOptions, health: Health, timings: Timings) -> Leadership {
    health.elect();
    let name = format!("epp-{}-{}.llm-d.ai", pool.namespace, pool.name);
    let pod = pool.pod_name.as_deref().unwrap_or("epp");
    let candidate = Candidate {
        leases: Api::namespaced(client, &pool.namespace),
        identity: format!("{pod}_{}", uuid::Uuid::new_v4()),
        subject: Subject {
            resource: "leases.coordination.k8s.io/v1".to_owned(),
            namespace: pool.namespace.clone(),
            verbs: "get, create and update",
            when_missing: "this is not the API server of a Kubernetes cluster",
        },
        name,
        timings,
        health,
        seen: None,
        problem: None,
    };
    let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
    let task = tokio::spawn(candidate.run(lost.clone(), stop.clone()));
    Leadership {
        lost,
        stop,
        task: AbortOnDropHandle::new(task),
    }
}

impl Leadership {
    /// Returns when this process led and does not any more.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives the lease back, so that another replica need not wait for its end.
    pub async fn release(self) {
        self.stop.cancel();
        // An error means that the task panicked and has logged itself.
        let _ = self.task.await;
    }
}

/// A lease as it was last seen to change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
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

struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    subject: Subject,
    timings: Timings,
    health: Health,
    seen: Option<Seen>,
    problem: Option<String>,
}

impl Candidate {
    async fn run(mut self, lost: CancellationToken, stop: CancellationToken) {
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
        self.health.set_leading(true);
        let mut renewed = Instant::now();
        loop {
            if self.paused(&stop).await {
                self.health.set_leading(false);
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
        self.health.set_leading(false);
        tracing::error!(lease = self.name, "this replica does not lead any more");
        lost.cancel();
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
            Ok(Err(error)) => explain_client(&self.subject, &error).1,
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
