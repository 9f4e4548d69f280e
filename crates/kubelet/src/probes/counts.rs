//! How often probes ended how: `/metrics/probes` (upstream: `ProberResults` in `pkg/kubelet/prober/prober.go`).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use runtime::PodIdentity;
use streaming::exposition::{Family, family, labels};

use super::{AttemptResult, ProbeKind};

const TOTAL: Family = (
    "prober_probe_total",
    "counter",
    "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
);

/// The values of the label `result`, in the order in which they are counted.
const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

/// The counts of all pods that are probed.
#[derive(Default)]
pub(crate) struct ProbeCounts(Mutex<Vec<Weak<PodProbeCounts>>>);

/// The counts of one pod. They go with whoever probes it.
pub(crate) struct PodProbeCounts {
    pod: PodIdentity,
    counts: Mutex<BTreeMap<(String, ProbeKind), [u64; 3]>>,
}

impl ProbeCounts {
    /// Begins to count for a pod.
    pub(crate) fn of(&self, pod: &PodIdentity) -> Arc<PodProbeCounts> {
        let counts = Arc::new(PodProbeCounts { pod: pod.clone(), counts: Mutex::default() });
        let mut all = self.0.lock();
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&counts));
        counts
    }

    /// The counts in Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        let mut samples = Vec::new();
        for pod in self.0.lock().iter().filter_map(Weak::upgrade) {
            let PodIdentity { namespace, name, uid } = &pod.pod;
            for ((container, kind), counts) in &*pod.counts.lock() {
                // Upstream, too, has no sample of what never happened.
                for (result, count) in RESULTS.iter().zip(counts).filter(|(_, count)| **count > 0) {
                    let labels = labels(&[
                        ("container", container),
                        ("namespace", namespace),
                        ("pod", name),
                        ("pod_uid", uid),
                        ("probe_type", kind.title()),
                        ("result", result),
                    ]);
                    #[expect(clippy::cast_precision_loss, reason = "one a second, for longer than there are machines")]
                    samples.push((labels, (*count as f64, None)));
                }
            }
        }
        samples.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut out = String::new();
        family(&mut out, TOTAL, samples);
        out
    }
}

impl PodProbeCounts {
    /// Counts one probe of a container, whose attempts ended like this.
    pub(crate) fn count(&self, container: &str, kind: ProbeKind, result: &AttemptResult) {
        let which = match result {
            AttemptResult::Success | AttemptResult::Warning(_) => 0,
            AttemptResult::Failure(_) => 1,
            AttemptResult::Error(_) => 2,
        };
        self.counts.lock().entry((container.to_owned(), kind)).or_default()[which] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_with_their_pod() {
        let all = ProbeCounts::default();
        let identity = PodIdentity { namespace: "ns".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        let pod = all.of(&identity);
        assert_eq!(all.metrics(), "");
        pod.count("main", ProbeKind::Readiness, &AttemptResult::Success);
        pod.count("main", ProbeKind::Readiness, &AttemptResult::Warning("moved".to_owned()));
        pod.count("main", ProbeKind::Liveness, &AttemptResult::Error("no answer".to_owned()));
        let text = all.metrics();
        let own = r#"container="main",namespace="ns",pod="web",pod_uid="u""#;
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expect = [
            format!(r#"prober_probe_total{{{own},probe_type="Liveness",result="unknown"}} 1"#),
            format!(r#"prober_probe_total{{{own},probe_type="Readiness",result="successful"}} 2"#),
        ];
        assert_eq!(samples, expect);
        drop(pod);
        assert_eq!(all.metrics(), "");
    }
}
