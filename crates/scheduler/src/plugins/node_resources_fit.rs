//! A node must have left what a pod asks for; with more or less left, it is preferred.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Candidate, ClusterEvent, Filtering, MAX_SCORE, NodeInfo, Plugin, Refusal};
use crate::resources::{Insufficient, Resources, insufficient};

/// `NodeResourcesFitArgs`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeResourcesFit {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Strategy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Strategy {
    r#type: StrategyType,
    resources: Vec<Weighted>,
    requested_to_capacity_ratio: Shape,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            r#type: StrategyType::LeastAllocated,
            resources: defaults(),
            requested_to_capacity_ratio: Shape::default(),
        }
    }
}

#[derive(Default, Deserialize, Clone, Copy, PartialEq, Eq)]
enum StrategyType {
    #[default]
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio,
}

/// A resource, and how much it counts.
#[derive(Deserialize, Clone)]
pub(super) struct Weighted {
    pub(super) name: String,
    #[serde(default = "one")]
    pub(super) weight: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Shape {
    shape: Vec<Point>,
}

/// The score (0 to 10) at a utilization in percent.
#[derive(Deserialize)]
struct Point {
    utilization: i64,
    score: i64,
}

fn one() -> i64 {
    1
}

/// CPU and memory, alike.
pub(super) fn defaults() -> Vec<Weighted> {
    ["cpu", "memory"].map(|name| Weighted { name: name.to_owned(), weight: 1 }).into()
}

impl NodeResourcesFit {
    pub(super) fn new(args: &Value) -> Result<Self, String> {
        let mut new: Self = super::arguments(args)?;
        let strategy = &mut new.scoring_strategy;
        if strategy.resources.is_empty() {
            strategy.resources = defaults();
        }
        strategy.requested_to_capacity_ratio.shape.sort_by_key(|point| point.utilization);
        if strategy.r#type == StrategyType::RequestedToCapacityRatio
            && strategy.requested_to_capacity_ratio.shape.is_empty()
        {
            return Err("scoringStrategy.requestedToCapacityRatio.shape: at least one point is required".to_owned());
        }
        Ok(new)
    }

    fn ignores(&self, name: &str) -> bool {
        self.ignored_resources.iter().any(|ignored| ignored == name)
            || name.split_once('/').is_some_and(|(group, _)| self.ignored_resource_groups.iter().any(|it| it == group))
    }

    fn check(&self, wanted: &Resources, used: &Resources, offered: &Resources) -> Result<(), Refusal> {
        let lacking = insufficient(wanted, used, offered, |name| !self.ignores(name));
        if lacking.is_empty() {
            return Ok(());
        }
        let resolvable = lacking.iter().all(|lack| lack.requested <= lack.capacity);
        Err(Refusal { reasons: lacking.iter().map(reason).collect(), resolvable })
    }

    /// The score for one resource, of which `used` of `offered` would be in use.
    fn rate(&self, used: i64, offered: i64) -> i64 {
        match self.scoring_strategy.r#type {
            StrategyType::LeastAllocated if used > offered => 0,
            StrategyType::LeastAllocated => (offered - used).saturating_mul(MAX_SCORE) / offered,
            // Upstream: what is overcommitted counts as full.
            StrategyType::MostAllocated => used.min(offered).saturating_mul(MAX_SCORE) / offered,
            StrategyType::RequestedToCapacityRatio => {
                let utilization = if used > offered { 100 } else { used.saturating_mul(100) / offered };
                self.scoring_strategy.requested_to_capacity_ratio.at(utilization)
            }
        }
    }
}

/// What is lacking, in upstream's words.
fn reason(lack: &Insufficient<'_>) -> Cow<'static, str> {
    match lack.resource {
        "pods" => "Too many pods".into(),
        "cpu" => "Insufficient cpu".into(),
        "memory" => "Insufficient memory".into(),
        name => format!("Insufficient {name}").into(),
    }
}

impl Shape {
    /// Between its points the line is straight; outside of them it is level. The points' scores go up to 10.
    fn at(&self, utilization: i64) -> i64 {
        let scale = MAX_SCORE / 10;
        let Some(next) = self.shape.iter().position(|point| utilization <= point.utilization) else {
            return self.shape.last().map_or(0, |last| last.score * scale);
        };
        let to = &self.shape[next];
        let Some(from) = next.checked_sub(1).and_then(|before| self.shape.get(before)) else {
            return to.score * scale;
        };
        let width = (to.utilization - from.utilization).max(1);
        (from.score + (to.score - from.score) * (utilization - from.utilization) / width) * scale
    }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        Filtering::each_node(|node: &NodeInfo| self.check(&pod.requests, &node.requested, &node.allocatable))
    }

    fn score(&self, pod: &Candidate, _cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        // Upstream: an extended resource that the pod does not ask for says nothing about nodes.
        let resources = &self.scoring_strategy.resources;
        let resources: Vec<&Weighted> = resources
            .iter()
            .filter(|it| matches!(it.name.as_str(), "cpu" | "memory") || pod.requests.of(&it.name) > 0)
            .collect();
        let score = |node: &&NodeInfo| {
            let (mut sum, mut weights) = (0, 0);
            for resource in &resources {
                let offered = node.allocatable.of(&resource.name);
                if offered > 0 {
                    let used = node.nonzero.of(&resource.name).saturating_add(pod.nonzero.of(&resource.name));
                    sum += self.rate(used, offered) * resource.weight;
                    weights += resource.weight;
                }
            }
            if weights == 0 { 0 } else { sum / weights }
        };
        Some(nodes.iter().map(score).collect())
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Node(node) => self.check(&pod.requests, &Resources::default(), &node.allocatable).is_ok(),
            ClusterEvent::PodRemoved(_) | ClusterEvent::PodScaledDown(_) => true,
            _ => false,
        }
    }
}
