//! The order in which data producers run: each after the producers of what it reads.

use llmd_epp_api::registry::Declaration;

/// Sorts `producers` (instance indices in configuration order) by their declared reads and writes;
/// independent ones keep their order. `Err` holds the instances of a cycle.
pub(super) fn order(producers: &[usize], declarations: &[Declaration]) -> Result<Vec<usize>, Vec<usize>> {
    let writers_of_reads = |instance: usize| {
        let reads = declarations
            .iter()
            .filter(move |read| read.instance == instance && read.need.is_some());
        reads.flat_map(move |read| {
            declarations
                .iter()
                .filter(move |write| {
                    write.need.is_none() && write.key == read.key && write.instance != instance
                })
                .map(|write| write.instance)
        })
    };
    let mut waiting: Vec<usize> = producers.to_vec();
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .position(|instance| writers_of_reads(*instance).all(|writer| !waiting.contains(&writer)));
        match ready {
            Some(position) => ordered.push(waiting.remove(position)),
            None => return Err(waiting),
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::DataKey;
    use llmd_epp_api::registry::Need;

    use super::*;

    fn declaration(instance: usize, attribute: &'static str, need: Option<Need>) -> Declaration {
        Declaration {
            instance,
            key: DataKey {
                attribute,
                producer: "p".into(),
            },
            need,
            explicit: false,
        }
    }

    #[test]
    fn readers_run_after_writers_and_others_keep_their_order() {
        let declarations = [
            declaration(0, "b", Some(Need::Optional)),
            declaration(0, "c", None),
            declaration(2, "b", None),
            declaration(3, "c", Some(Need::Required)),
        ];
        assert_eq!(order(&[3, 0, 1, 2], &declarations), Ok(vec![1, 2, 0, 3]));
    }

    #[test]
    fn a_cycle_is_reported_with_its_members() {
        let declarations = [
            declaration(0, "a", None),
            declaration(0, "b", Some(Need::Required)),
            declaration(1, "b", None),
            declaration(1, "a", Some(Need::Required)),
        ];
        assert_eq!(order(&[0, 1, 2], &declarations), Err(vec![0, 1]));
    }
}
