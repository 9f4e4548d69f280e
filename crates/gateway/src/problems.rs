//! Problems of Ingresses, and when somebody is told of them.
//!
//! What is applied together arrives one after the other, so a backend that is missing is told of only when it still is after a
//! moment; and once, until it has been there in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use informer::ObjectKey;
use tokio::time::Instant;

use crate::ingress::Problem;

/// How long a problem may last before anybody is told.
const GRACE: Duration = Duration::from_secs(3);

/// The problems there are.
#[derive(Default)]
pub(crate) struct Problems {
    /// With when it was first seen; none for those that were told of.
    seen: BTreeMap<(ObjectKey, Problem), Option<Instant>>,
}

impl Problems {
    /// Takes note of what is wrong now. Returns what is to be told, and when to look again.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        current: &BTreeSet<(ObjectKey, Problem)>,
    ) -> (Vec<(ObjectKey, Problem)>, Option<Instant>) {
        self.seen.retain(|problem, _| current.contains(problem));
        for problem in current {
            self.seen.entry(problem.clone()).or_insert(Some(now));
        }
        let mut told = Vec::new();
        let mut again = None;
        for (problem, seen) in &mut self.seen {
            match seen.map(|seen| seen + GRACE) {
                Some(due) if due <= now => {
                    told.push(problem.clone());
                    *seen = None;
                }
                Some(due) => again = Some(again.map_or(due, |other: Instant| other.min(due))),
                None => {}
            }
        }
        (told, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once() {
        let problem = |name: &str| (ObjectKey::new("a", name), Problem::Resource(name.to_owned()));
        let [one, two] = ["one", "two"].map(problem);
        let mut problems = Problems::default();
        let start = Instant::now();
        let mut check =
            |seconds: u64, current: &[&(ObjectKey, Problem)], told: &[&(ObjectKey, Problem)], again: Option<u64>| {
                let at = |seconds| start + Duration::from_secs(seconds);
                let current = current.iter().map(|problem| (*problem).clone()).collect();
                let (found, next) = problems.update(at(seconds), &current);
                assert_eq!(found.iter().collect::<Vec<_>>(), told, "{seconds}");
                assert_eq!(next, again.map(at), "{seconds}");
            };
        check(0, &[&one], &[], Some(3));
        check(1, &[&one, &two], &[], Some(3));
        check(3, &[&one, &two], &[&one], Some(4));
        check(4, &[&one], &[], None);
        check(5, &[&one, &two], &[], Some(8));
        check(8, &[&one, &two], &[&two], None);
        check(9, &[], &[], None);
        check(10, &[&one], &[], Some(13));
    }
}
