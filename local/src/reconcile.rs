//! Decides which pods to start and stop next; pure, so that roll-outs are tested without processes.

/// What is wanted of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Pods.
    pub replicas: usize,
    /// Whether all old pods stop before a new one starts.
    pub recreate: bool,
    /// Whether one more pod than `replicas` can get its GPUs now.
    pub room_for_surge: bool,
}

/// A pod as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Pod name.
    pub name: String,
    /// Whether it is of the wanted template.
    pub current: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it was told to stop.
    pub stopping: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start this many pods.
    Start(usize),
    /// Drain and stop a pod.
    Stop(String),
}

/// The next steps for one workload. They are taken, and the question is asked again after every change.
pub fn next_steps(wanted: Wanted, pods: &[Seen]) -> Vec<Step> {
    let live: Vec<&Seen> = pods.iter().filter(|pod| !pod.stopping).collect();
    let (current, old): (Vec<&Seen>, Vec<&Seen>) = live.iter().copied().partition(|pod| pod.current);
    let stop = |pod: &Seen| Step::Stop(pod.name.clone());

    if wanted.recreate && !old.is_empty() {
        return old.into_iter().map(stop).collect();
    }
    if wanted.recreate && live.len() < pods.len() {
        return Vec::new(); // the old pod still holds what the new one needs
    }
    if current.len() > wanted.replicas {
        let mut surplus = current.clone();
        surplus.sort_by_key(|pod| pod.ready); // those that serve nothing go first, then the newest
        let ready = surplus.iter().position(|pod| pod.ready).unwrap_or(surplus.len());
        surplus[ready..].reverse();
        surplus.truncate(current.len() - wanted.replicas);
        return surplus
            .into_iter()
            .map(stop)
            .chain(old.into_iter().map(stop))
            .collect();
    }
    if live.len() < wanted.replicas {
        return vec![Step::Start(wanted.replicas - live.len())];
    }
    if old.is_empty() {
        return Vec::new();
    }
    if let Some(idle) = old.iter().find(|pod| !pod.ready) {
        return vec![stop(idle)];
    }
    if !current.iter().all(|pod| pod.ready) {
        return Vec::new(); // one by one: the next old pod goes when the new one serves
    }
    if live.len() > wanted.replicas || !wanted.room_for_surge {
        return old.last().map(|pod| stop(pod)).into_iter().collect();
    }
    vec![Step::Start(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, current: bool, ready: bool) -> Seen {
        Seen {
            name: name.into(),
            current,
            ready,
            stopping: false,
        }
    }

    fn want(replicas: usize) -> Wanted {
        Wanted {
            replicas,
            recreate: false,
            room_for_surge: true,
        }
    }

    #[test]
    fn missing_pods_start_together_and_surplus_ones_stop_newest_first() {
        assert_eq!(next_steps(want(3), &[]), [Step::Start(3)]);
        let pods = [pod("a", true, true), pod("b", true, true), pod("c", true, true)];
        assert_eq!(next_steps(want(3), &pods), []);
        assert_eq!(
            next_steps(want(1), &pods),
            [Step::Stop("c".into()), Step::Stop("b".into())]
        );
        let pods = [pod("a", true, false), pod("b", true, true)];
        assert_eq!(next_steps(want(1), &pods), [Step::Stop("a".into())]);
        assert_eq!(next_steps(want(0), &pods).len(), 2);
    }

    /// Plays a roll-out: started pods become ready one question later. Returns the smallest number of ready pods
    /// and the largest number of pods seen.
    fn roll(wanted: Wanted, pods: &mut Vec<Seen>) -> (usize, usize) {
        let (mut fewest, mut most) = (usize::MAX, 0);
        for round in 0..100 {
            let mut steps = next_steps(wanted, pods);
            if steps.is_empty() && pods.iter().all(|pod| pod.ready) {
                return (fewest, most);
            }
            for step in steps.drain(..) {
                match step {
                    Step::Start(count) => {
                        pods.extend(
                            (0..count).map(|index| pod(&format!("new-{round}-{index}"), true, false)),
                        );
                    }
                    Step::Stop(name) => pods.retain(|pod| pod.name != name),
                }
            }
            most = most.max(pods.len());
            fewest = fewest.min(pods.iter().filter(|pod| pod.ready).count());
            let late: Vec<usize> = (0..pods.len()).filter(|index| !pods[*index].ready).collect();
            if let Some(first) = late.first() {
                pods[*first].ready = next_steps(wanted, pods).is_empty() || pods[*first].ready;
            }
        }
        panic!("the roll-out did not end: {pods:?}");
    }

    #[test]
    fn a_rollout_replaces_one_by_one_without_losing_capacity() {
        let mut pods: Vec<Seen> = ["a", "b", "c"].map(|name| pod(name, false, true)).to_vec();
        assert_eq!(roll(want(3), &mut pods), (3, 4));
        assert!(pods.len() == 3 && pods.iter().all(|pod| pod.current));
    }

    #[test]
    fn without_spare_gpus_an_old_pod_goes_first() {
        let mut pods: Vec<Seen> = ["a", "b"].map(|name| pod(name, false, true)).to_vec();
        let wanted = Wanted {
            room_for_surge: false,
            ..want(2)
        };
        assert_eq!(roll(wanted, &mut pods), (1, 2));
        assert!(pods.iter().all(|pod| pod.current));
    }

    #[test]
    fn a_template_that_never_gets_ready_leaves_the_old_pods_serving() {
        let pods = [
            pod("a", false, true),
            pod("b", false, true),
            pod("new", true, false),
        ];
        assert_eq!(next_steps(want(2), &pods), []);
    }

    #[test]
    fn recreate_waits_until_the_old_pod_is_gone() {
        let wanted = Wanted {
            recreate: true,
            ..want(1)
        };
        let mut old = pod("r", false, true);
        assert_eq!(
            next_steps(wanted, std::slice::from_ref(&old)),
            [Step::Stop("r".into())]
        );
        old.stopping = true;
        assert_eq!(next_steps(wanted, &[old]), []);
        assert_eq!(next_steps(wanted, &[]), [Step::Start(1)]);
    }

    #[test]
    fn scaling_down_with_new_arguments_ends_at_the_wanted_number() {
        let mut pods: Vec<Seen> = ["a", "b", "c", "d"].map(|name| pod(name, false, true)).to_vec();
        roll(want(2), &mut pods);
        assert!(pods.len() == 2 && pods.iter().all(|pod| pod.current));
    }
}
