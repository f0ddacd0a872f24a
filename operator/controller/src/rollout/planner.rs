//! One step of a rollout in which roles move together: how many engines of the old and of the new revision each has
//! next. Source: kubernetes-sigs/lws, `pkg/controllers/disaggregatedset` (KEP 766).
//!
//! ```text
//!  old ████████ ██   new                 both roles are at the same share of their way, within one step
//!      ███████░ ██       ▒               surge: old + new ≤ target + surge
//!      ███████  █░       ▒ ▒             away:  old + ready new ≥ target - unavailable
//! ```

/// One role: counts of engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Of the old revision when the rollout began.
    pub(crate) initial: i64,
    /// Of the old revision now.
    pub(crate) old: i64,
    /// Of the new revision now.
    pub(crate) new: i64,
    /// Of these, ready.
    pub(crate) ready: i64,
    /// Wanted in the end.
    pub(crate) target: i64,
    /// Above the target, at most.
    pub(crate) surge: i64,
    /// Below the target, at most; above 0 where `surge` is 0.
    pub(crate) unavailable: i64,
}

impl Role {
    /// Old engines that have to stay until more new ones are ready.
    fn floor(&self) -> i64 {
        (self.target.min(self.initial) - self.unavailable - self.new.min(self.ready)).max(0)
    }

    fn batch(&self) -> i64 {
        if self.surge > 0 {
            self.surge
        } else {
            self.unavailable.max(1)
        }
    }
}

/// Old and new engines of one role after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Of the old revision.
    pub(crate) old: i64,
    /// Of the new revision.
    pub(crate) new: i64,
}

/// The next step of all roles; the same counts when there is nothing to do but wait.
pub(crate) fn next(roles: &[Role]) -> Vec<Next> {
    let scaled = scaled(roles);
    if scaled != unchanged(roles) || !is_settled(roles) {
        return scaled;
    }
    if roles.iter().all(|role| role.new >= role.target) {
        let done = |role: &Role| Next {
            old: 0,
            new: role.new,
        };
        return roles.iter().map(done).collect();
    }
    let steps = roles
        .iter()
        .map(|role| ceil(role.initial.max(role.target), role.batch()))
        .max()
        .unwrap_or(1)
        .max(1);
    let grown = grown(roles, steps);
    let grows = roles.iter().zip(&grown).any(|(role, grown)| *grown > role.new);
    let fits = roles
        .iter()
        .zip(&grown)
        .all(|(role, grown)| role.target == 0 || role.old + grown <= role.target + role.surge);
    if grows && fits {
        let up = |(role, grown): (&Role, i64)| Next {
            old: role.old,
            new: grown,
        };
        return roles.iter().zip(grown).map(up).collect();
    }
    let ways = [drained(roles, steps), forced(roles, &grown), alone(roles)];
    let step = ways.into_iter().find(|step| *step != unchanged(roles));
    step.unwrap_or_else(|| unchanged(roles))
}

/// A new target counts at once, and not as a step: what is missing is new, what is too much is old.
fn scaled(roles: &[Role]) -> Vec<Next> {
    let one = |role: &Role| {
        let new = role.new.min(role.target);
        let missing = (role.target - role.unavailable - role.old).clamp(0, role.target);
        // engines that the old revision never had are no step of the rollout
        let new = if role.initial < role.target {
            new.max(missing)
        } else {
            new
        };
        let most = role.target + role.surge;
        // old ones go first, but not those that serve while new ones do not
        let old = role.old.min(role.initial);
        let old = old.min((most - new).max(role.floor()));
        Next {
            old,
            new: new.min((most - old).max(0)),
        }
    };
    roles.iter().map(one).collect()
}

/// Every new engine that there should be is ready.
fn is_settled(roles: &[Role]) -> bool {
    roles.iter().all(|role| role.ready >= role.new)
}

fn unchanged(roles: &[Role]) -> Vec<Next> {
    let same = |role: &Role| Next {
        old: role.old,
        new: role.new,
    };
    roles.iter().map(same).collect()
}

/// One step up for all roles, from the share that the slowest has reached.
fn grown(roles: &[Role], steps: i64) -> Vec<i64> {
    let reached = |role: &Role| {
        if role.target == 0 {
            steps
        } else {
            role.new * steps / role.target
        }
    };
    let share = roles.iter().map(reached).min().unwrap_or(steps) + 1;
    let one = |role: &Role| role.new.max(role.target.min(ceil(share * role.target, steps)));
    roles.iter().map(one).collect()
}

/// One step down for all roles, from the share that the fastest has reached.
fn drained(roles: &[Role], steps: i64) -> Vec<Next> {
    let gone = |role: &Role| {
        if role.initial == 0 {
            0
        } else {
            (role.initial - role.old) * steps / role.initial
        }
    };
    let share = roles.iter().map(gone).max().unwrap_or(0) + 1;
    let one = |role: &Role| {
        let left = role.initial - share * role.initial / steps;
        Next {
            old: role.old.min(left.max(role.floor()).max(0)),
            new: role.new,
        }
    };
    whole(roles, roles.iter().map(one).collect())
}

/// As much room as the next step up needs.
fn forced(roles: &[Role], grown: &[i64]) -> Vec<Next> {
    let one = |(role, grown): (&Role, &i64)| {
        let room = role.old.min(role.target + role.surge - grown);
        Next {
            old: role.old.min(room.max(role.floor()).max(0)),
            new: role.new,
        }
    };
    whole(roles, roles.iter().zip(grown).map(one).collect())
}

/// Where the ratio cannot be kept, because the last old engine of one role stays for those of another: each role as far
/// as its own limits let it.
fn alone(roles: &[Role]) -> Vec<Next> {
    let one = |role: &Role| {
        let most = role.target.min(role.target + role.surge - role.old);
        Next {
            old: role.old,
            new: role.new.max(most.min(role.new + role.batch())),
        }
    };
    let up: Vec<Next> = roles.iter().map(one).collect();
    if up != unchanged(roles) {
        return up;
    }
    let one = |role: &Role| Next {
        old: role.old.min(role.floor()),
        new: role.new,
    };
    whole(roles, roles.iter().map(one).collect())
}

/// An old revision loses its last engine of one role together with those of all: alone the others are of no use.
fn whole(roles: &[Role], mut next: Vec<Next>) -> Vec<Next> {
    let had = |role: &Role| role.initial > 0;
    let ends = roles
        .iter()
        .zip(&next)
        .any(|(role, next)| had(role) && role.old > 0 && next.old == 0);
    let stays = roles
        .iter()
        .zip(&next)
        .any(|(role, next)| had(role) && next.old > 0);
    if ends && stays {
        let may_end = roles.iter().all(|role| role.floor() == 0);
        for (role, next) in roles.iter().zip(&mut next) {
            if may_end {
                next.old = 0;
            } else if next.old == 0 && role.old > 0 {
                next.old = 1;
            }
        }
    }
    next
}

fn ceil(number: i64, by: i64) -> i64 {
    (number + by - 1).div_euclid(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(initial: i64, target: i64, surge: i64, unavailable: i64) -> Role {
        Role {
            initial,
            old: initial,
            new: 0,
            ready: 0,
            target,
            surge,
            unavailable,
        }
    }

    /// What holds before and after every step, for the counts that are asked for.
    fn check(roles: &[Role], next: &[Next]) {
        for (role, next) in roles.iter().zip(next) {
            assert!(
                next.new >= 0 && next.old >= 0 && next.new <= role.target.max(role.new),
                "{role:?} {next:?}"
            );
            let before = role.old + role.new;
            let most = (role.target + role.surge).max(before);
            assert!(next.old + next.new <= most, "surge: {role:?} {next:?}");
            let least = (role.target.min(role.initial) - role.unavailable).min(role.old + role.ready);
            let there = next.old + role.ready.min(next.new);
            assert!(there >= least, "unavailable: {role:?} {next:?}");
        }
    }

    /// Takes the steps with every new engine ready at once; old and new of each role after each step.
    fn trace(mut roles: Vec<Role>) -> Vec<Vec<(i64, i64)>> {
        let mut steps = Vec::new();
        loop {
            let next = next(&roles);
            check(&roles, &next);
            if next == unchanged(&roles) {
                return steps;
            }
            steps.push(next.iter().map(|next| (next.old, next.new)).collect());
            for (role, next) in roles.iter_mut().zip(&next) {
                (role.old, role.new, role.ready) = (next.old, next.new, next.new);
            }
            assert!(steps.len() < 10_000, "no end: {roles:?}");
        }
    }

    #[test]
    fn equal_roles_with_surge_alternate() {
        assert_eq!(
            trace(vec![role(2, 2, 1, 0), role(2, 2, 1, 0)]),
            [
                vec![(2, 1), (2, 1)],
                vec![(1, 1), (1, 1)],
                vec![(1, 2), (1, 2)],
                vec![(0, 2), (0, 2)],
            ]
        );
    }

    #[test]
    fn without_surge_room_is_made_first() {
        assert_eq!(
            trace(vec![role(2, 2, 0, 1), role(2, 2, 0, 1)]),
            [
                vec![(1, 0), (1, 0)],
                vec![(1, 1), (1, 1)],
                vec![(0, 1), (0, 1)],
                vec![(0, 2), (0, 2)],
            ]
        );
    }

    /// The guide's 8 prefill and 2 decode engines keep their ratio within one engine, all the way.
    #[test]
    fn the_guides_roles_move_in_their_ratio() {
        for (surge, unavailable) in [(0, 1), (1, 0), (1, 1), (2, 0)] {
            let steps = trace(vec![
                role(8, 8, surge, unavailable),
                role(2, 2, surge, unavailable),
            ]);
            for step in &steps {
                let (prefill, decode) = (step[0].1, step[1].1);
                let share = (prefill as f64 / 8.0 - decode as f64 / 2.0).abs();
                assert!(share <= 0.5, "{surge}/{unavailable}: {steps:?}");
            }
            assert_eq!(
                steps.last().unwrap(),
                &vec![(0, 8), (0, 2)],
                "{surge}/{unavailable}"
            );
        }
    }

    #[test]
    fn nothing_moves_while_a_new_engine_is_not_ready() {
        let waiting = Role {
            old: 7,
            new: 1,
            ..role(8, 8, 0, 1)
        };
        assert_eq!(
            next(&[waiting, role(2, 2, 0, 1)]),
            unchanged(&[waiting, role(2, 2, 0, 1)])
        );
    }

    #[test]
    fn a_new_number_counts_at_once_though_new_engines_are_not_ready() {
        let waiting = Role {
            old: 7,
            new: 1,
            target: 12,
            ..role(8, 8, 0, 1)
        };
        assert_eq!(next(&[waiting])[0], Next { old: 7, new: 4 });
        let fewer = Role { target: 4, ..waiting };
        assert_eq!(next(&[fewer])[0], Next { old: 3, new: 1 });
        let none = Role { target: 0, ..waiting };
        assert_eq!(next(&[none])[0], Next { old: 0, new: 0 });
    }

    #[test]
    fn a_role_that_the_old_revision_lacked_comes_along() {
        let steps = trace(vec![role(4, 4, 1, 0), role(0, 2, 1, 0)]);
        assert_eq!(steps.last().unwrap(), &vec![(0, 4), (0, 2)]);
    }

    /// Small random numbers (xorshift): a million traces need no more.
    struct Random(u64);

    impl Random {
        fn below(&mut self, most: i64) -> i64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % most.unsigned_abs()).cast_signed()
        }
    }

    /// Random roles, limits, delays of readiness and changes of targets: limits hold at each step, and there is an end.
    fn wander(random: &mut Random) {
        let mut roles: Vec<Role> = (0..2 + random.below(3))
            .map(|_| {
                let (surge, unavailable) = (random.below(3), random.below(3));
                let unavailable = if surge == 0 {
                    unavailable.max(1)
                } else {
                    unavailable
                };
                role(random.below(9), random.below(9), surge, unavailable)
            })
            .collect();
        for step in 0..400 {
            let next = next(&roles);
            check(&roles, &next);
            let is_still = next == unchanged(&roles) && is_settled(&roles);
            for (role, next) in roles.iter_mut().zip(&next) {
                (role.old, role.new) = (next.old, next.new);
                role.ready = role.ready.min(role.new);
                if role.ready < role.new && random.below(2) == 0 {
                    role.ready += 1;
                }
            }
            if step < 20 && random.below(16) == 0 {
                let target = random.below(9);
                let which = random.below(2);
                if let Some(role) = roles.get_mut(usize::from(which == 1)) {
                    role.target = target;
                }
            } else if is_still {
                break;
            }
        }
        let done = roles.iter().all(|role| role.old == 0 && role.new == role.target);
        assert!(done, "no end: {roles:?}, next {:?}", next(&roles));
    }

    #[test]
    fn a_million_random_rollouts_keep_their_limits_and_end() {
        let threads: Vec<_> = (1..=4_u64)
            .map(|seed| {
                std::thread::spawn(move || {
                    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (seed << 32));
                    for _ in 0..250_000 {
                        wander(&mut random);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
