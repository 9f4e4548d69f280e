//! How many replicas a metric asks for: upstream's replica calculator.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use machinery::quantity::Quantity;

use super::readings::PodReading;
use super::{CPU_INITIALIZATION, FIRST_READINESS};
use crate::meta::ConditionStatus;
use crate::pods::PodPhase;
use crate::{meta, pods};

/// How far from the target a ratio may be without anything being done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerances {
    fn cover(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// A proposed number of replicas, and what it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent of what is requested; 0 where that is not asked.
    pub(super) utilization: i32,
    /// The average over the pods, or the whole; in thousandths.
    pub(super) value: i64,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// What is compared with the target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal<'a> {
    /// So many percent of what the pods request of a resource, all containers or one.
    Utilization { percent: i32, resource: &'a str, container: Option<&'a str> },
    /// So many thousandths on average; of a resource, if it is one.
    Average { milli: i64, resource: &'a str },
}

impl<'a> Goal<'a> {
    fn resource(self) -> &'a str {
        match self {
            Self::Utilization { resource, .. } | Self::Average { resource, .. } => resource,
        }
    }
}

/// The proposal of a metric of pods. Pods that are not ready yet and pods without a reading count so that they rather keep the
/// number as it is than change it.
pub(super) fn of_pods(
    current: i32,
    goal: Goal<'_>,
    tolerances: Tolerances,
    all: &[Arc<Pod>],
    readings: &HashMap<String, PodReading>,
    now: Timestamp,
) -> Result<Proposal, String> {
    if all.is_empty() {
        return Err(NO_PODS.to_owned());
    }
    let mut groups = Groups::new(all, readings, goal.resource(), now);
    if groups.ready.is_empty() {
        return Err(NO_METRICS.to_owned());
    }
    let requests = match goal {
        Goal::Utilization { resource, container, .. } => requests(all, resource, container)?,
        Goal::Average { .. } => HashMap::new(),
    };
    let (ratio, utilization, value) = ratio(&groups.ready, &requests, goal)?;
    let keep = Proposal { replicas: current, utilization, value };
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        if tolerances.cover(ratio) {
            return Ok(keep);
        }
        return Ok(Proposal { replicas: ceil(ratio * count(groups.counted)), ..keep });
    }
    for pod in std::mem::take(&mut groups.missing) {
        // On the way down it is taken to be at its target or beyond, on the way up to be idle.
        let value = match goal {
            _ if ratio > 1.0 => 0,
            Goal::Utilization { percent, .. } if ratio < 1.0 => {
                requests.get(pod).copied().unwrap_or_default().saturating_mul(i64::from(percent.max(100))) / 100
            }
            // Exactly at its target: nothing is assumed.
            Goal::Utilization { .. } => continue,
            Goal::Average { .. } if ratio >= 1.0 => 0,
            Goal::Average { milli, .. } => milli,
        };
        groups.ready.insert(pod, value);
    }
    if up_with_unready {
        for pod in std::mem::take(&mut groups.unready) {
            groups.ready.insert(pod, 0);
        }
    }
    let (new, ..) = self::ratio(&groups.ready, &requests, goal)?;
    if tolerances.cover(new) || (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0) {
        return Ok(keep);
    }
    let replicas = ceil(new * count(groups.ready.len()));
    if (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current) {
        return Ok(keep);
    }
    Ok(Proposal { replicas, ..keep })
}

/// The proposal of a value that is to be so large as a whole.
pub(super) fn of_value(
    current: i32,
    value: i64,
    target: i64,
    tolerances: Tolerances,
    all: &[Arc<Pod>],
) -> Result<Proposal, String> {
    let ratio = divide(value, target);
    let keep = Proposal { replicas: current, utilization: 0, value };
    if current == 0 {
        return Ok(Proposal { replicas: ceil(ratio), ..keep });
    }
    if tolerances.cover(ratio) {
        return Ok(keep);
    }
    if all.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let ready = all.iter().filter(|pod| pods::phase(pod) == PodPhase::Running && pods::is_ready(pod)).count();
    Ok(Proposal { replicas: ceil(ratio * count(ready)), ..keep })
}

/// The proposal of a value that is to be so large for each pod.
pub(super) fn of_average(current: i32, value: i64, target: i64, tolerances: Tolerances) -> Proposal {
    let ratio = divide(value, target.saturating_mul(i64::from(current)));
    let replicas = if tolerances.cover(ratio) { current } else { ceil(divide(value, target)) };
    let average = if current > 0 { whole((divide(value, i64::from(current))).ceil()) } else { 0 };
    Proposal { replicas, utilization: 0, value: average }
}

/// The pods by what is known of them.
struct Groups<'a> {
    /// Values of those that count as they are.
    ready: HashMap<&'a str, i64>,
    /// How many those are, whether or not there is a request to compare with.
    counted: usize,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
}

impl<'a> Groups<'a> {
    fn new(all: &'a [Arc<Pod>], readings: &'a HashMap<String, PodReading>, resource: &str, now: Timestamp) -> Self {
        let mut ready: HashMap<&str, i64> =
            readings.iter().map(|(name, reading)| (name.as_str(), reading.value)).collect();
        let (mut counted, mut unready, mut missing) = (0, Vec::new(), Vec::new());
        for pod in all {
            let name = meta::name(&**pod);
            if meta::is_deleting(&**pod) || pods::phase(pod) == PodPhase::Failed {
                ready.remove(name);
                continue;
            }
            let reading = readings.get(name);
            let unsettled = match reading {
                _ if pods::phase(pod) == PodPhase::Pending => true,
                None => {
                    missing.push(name);
                    continue;
                }
                Some(reading) => resource == "cpu" && starts(pod, reading, now),
            };
            if unsettled {
                unready.push(name);
                ready.remove(name);
            } else {
                counted += 1;
            }
        }
        Self { ready, counted, unready, missing }
    }
}

/// Whether the processor time of a pod is that of its start, which says nothing of its load.
fn starts(pod: &Pod, reading: &PodReading, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(condition), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
    let unready = condition.status == ConditionStatus::False;
    let since = condition.last_transition_time.as_ref().map_or(started, |time| time.0);
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
    if seconds(started, now) < CPU_INITIALIZATION.as_secs_f64() {
        // One whole window since it became what it is.
        unready || seconds(since, reading.time) < reading.window
    } else {
        // It has never been ready.
        unready && seconds(started, since) < FIRST_READINESS.as_secs_f64()
    }
}

/// Current over desired, the utilization in percent, and the average in thousandths.
fn ratio(
    values: &HashMap<&str, i64>,
    requests: &HashMap<&str, i64>,
    goal: Goal<'_>,
) -> Result<(f64, i32, i64), String> {
    match goal {
        Goal::Average { milli, .. } => {
            let sum: i64 = values.values().sum();
            let average = sum / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1);
            Ok((divide(average, milli), 0, average))
        }
        Goal::Utilization { percent, .. } => {
            let known = values.iter().filter_map(|(pod, value)| Some((*value, *requests.get(pod)?)));
            let (mut used, mut requested, mut number) = (0_i64, 0_i64, 0_i64);
            for (value, request) in known {
                (used, requested, number) = (used + value, requested + request, number + 1);
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
            Ok((f64::from(utilization) / f64::from(percent), utilization, used / number.max(1)))
        }
    }
}

/// What each pod requests of a resource, in thousandths.
fn requests<'a>(all: &'a [Arc<Pod>], resource: &str, container: Option<&str>) -> Result<HashMap<&'a str, i64>, String> {
    let mut requests = HashMap::with_capacity(all.len());
    for pod in all {
        let Some(spec) = &pod.spec else { continue };
        let amount = |requested: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
            requested.and_then(|requested| Quantity::try_from(requested).ok()).map(|amount| amount.milli_value())
        };
        let name = meta::name(&**pod);
        // What is requested for the pod as a whole goes before what its containers request.
        let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
        if let Some(whole) = amount(whole).filter(|_| container.is_none()) {
            requests.insert(name, whole);
            continue;
        }
        let sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
        let meant = spec.containers.iter().chain(sidecars).filter(|one| container.is_none_or(|name| name == one.name));
        let mut sum = 0_i64;
        for one in meant {
            let requested = one.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
            sum += amount(requested)
                .ok_or_else(|| format!("missing request for {resource} in container {} of Pod {name}", one.name))?;
        }
        requests.insert(name, sum);
    }
    Ok(requests)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more")]
fn divide(value: i64, by: i64) -> f64 {
    if by == 0 {
        // Nobody does the work of somebody.
        return if value > 0 { f64::INFINITY } else { 1.0 };
    }
    value as f64 / by as f64
}

#[expect(clippy::cast_precision_loss, reason = "a number of pods")]
fn count(pods: usize) -> f64 {
    pods as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn whole(value: f64) -> i64 {
    value as i64
}
