//! What is counted of APIServices: which cannot be reached now, and how often that began.
//!
//! Upstream: kube-aggregator `pkg/controllers/status/metrics/metrics.go`. Both have one name there, too, once the ending
//! of counters is taken off.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinds::api_service::API_SERVICES;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Aggregator, Remote};

const NAME: &str = "aggregator_unavailable_apiservice";

/// How often servers ceased to be reached, by the APIService and the reason of its condition.
#[derive(Debug, Default)]
pub(super) struct Unavailable(Mutex<BTreeMap<(String, &'static str), u64>>);

impl Unavailable {
    /// Counts that the server of an APIService can no longer be reached.
    pub(super) fn count(&self, name: &str, reason: &'static str) {
        *self.0.lock().entry((name.to_owned(), reason)).or_default() += 1;
    }

    /// What was counted of those that `exists` knows. The others are forgotten: their names are the users'.
    fn read(&self, exists: impl Fn(&str) -> bool) -> BTreeMap<(String, &'static str), u64> {
        let mut counts = self.0.lock();
        counts.retain(|(name, _), _| exists(name));
        counts.clone()
    }
}

/// Reads it when it is asked for.
pub(crate) struct AggregatorMetrics(pub(crate) Arc<Aggregator>);

impl std::fmt::Debug for AggregatorMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AggregatorMetrics").finish_non_exhaustive()
    }
}

impl Collector for AggregatorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Self(aggregator) = self;
        let help = "APIServices by name: 1 those that are unavailable now, 0 the others";
        let mut gauges = encoder.encode_descriptor(NAME, help, None, MetricType::Gauge)?;
        let (snapshot, objects) = (aggregator.snapshot(), aggregator.registry.store().snapshot(API_SERVICES));
        for entry in objects.iter() {
            let is_unavailable = |remote: &Remote| remote.target.name == *entry.key.name && !remote.is_available;
            let value = i64::from(snapshot.remotes.iter().any(is_unavailable));
            gauges.encode_family(&[("name", &*entry.key.name)])?.encode_gauge(&value)?;
        }
        let counts = aggregator.unavailable.read(|name| objects.iter().any(|entry| *entry.key.name == *name));
        let help = "How often APIServices became unavailable, by name and reason";
        let mut counters = encoder.encode_descriptor(NAME, help, None, MetricType::Counter)?;
        for ((name, reason), count) in counts {
            let labels = [("name", name.as_str()), ("reason", reason)];
            counters.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
