//! The decision about one autoscaler: pure, but for the history that it reads and writes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::quantity::Quantity;
use machinery::selector::LabelSelector;

use super::behavior::{History, Range, plain, with_rules};
use super::readings::Reading;
use super::replicas::{Goal, Proposal, Tolerances, of_average, of_pods, of_value};
use super::status::{self, ABLE_TO_SCALE, Current, SCALING_ACTIVE, SCALING_LIMITED, whole_seconds};
use super::target::Scale;

/// How far from its target a metric may be without anything being done.
pub const TOLERANCE: f64 = 0.1;

/// What the decision is made from.
pub(super) struct Snapshot<'a> {
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    /// The target's scale, or why there is none.
    pub(super) scale: Result<&'a Scale, &'a String>,
    /// One for each metric, where [`wants_metrics`].
    pub(super) readings: &'a [Result<Reading, String>],
    /// The pods that the target selects.
    pub(super) pods: &'a [Arc<Pod>],
    /// The autoscalers that select any of them, by name; this one among them.
    pub(super) rivals: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Plan {
    pub(super) status: HorizontalPodAutoscalerStatus,
    pub(super) rescale: Option<Rescale>,
    pub(super) events: Vec<Event>,
}

/// A new number of replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rescale {
    pub(super) from: i32,
    pub(super) to: i32,
    pub(super) reason: String,
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Event {
    fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.to_owned(), message: message.into() }
    }
}

/// Whether the metrics matter: they do not for what is switched off by a scale of nothing, or is out of its range.
pub(super) fn wants_metrics(autoscaler: &HorizontalPodAutoscaler, scale: &Scale) -> bool {
    let least = least(autoscaler);
    let off = scale.desired == 0 && least != 0;
    !off && (least..=autoscaler.spec.max_replicas).contains(&scale.desired)
}

fn least(autoscaler: &HorizontalPodAutoscaler) -> i32 {
    autoscaler.spec.min_replicas.unwrap_or(1)
}

/// Decides.
pub(super) fn plan(snapshot: &Snapshot<'_>, history: &mut History, now: Timestamp) -> Plan {
    let autoscaler = snapshot.autoscaler;
    let mut plan = Plan { status: autoscaler.status.clone().unwrap_or_default(), ..Plan::default() };
    let scale = match snapshot.scale {
        Ok(scale) => scale,
        Err(error) => {
            plan.events.push(Event::warning("FailedGetScale", error));
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            status::set(&mut plan.status, ABLE_TO_SCALE, false, "FailedGetScale", message, now);
            return plan;
        }
    };
    let message = "the HPA controller was able to get the target's current scale";
    status::set(&mut plan.status, ABLE_TO_SCALE, true, "SucceededGetScale", message, now);
    let current = scale.desired;
    history.begin(current, now);
    let (least, most) = (least(autoscaler), autoscaler.spec.max_replicas);
    let mut metrics = None;
    let (desired, reason) = if current == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        status::set(&mut plan.status, SCALING_ACTIVE, false, "ScalingDisabled", message, now);
        (0, String::new())
    } else if current > most {
        (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
    } else if current < least {
        (least, "Current number of replicas below Spec.MinReplicas".to_owned())
    } else {
        let (statuses, proposal) = by_metrics(snapshot, scale, &mut plan, now);
        metrics = Some(statuses).filter(|statuses| !statuses.is_empty());
        let Some((desired, name)) = proposal else {
            plan.status.current_replicas = Some(current);
            plan.status.current_metrics = metrics;
            return plan;
        };
        let reason = match desired.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{name} above target"),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let range = Range { current, desired, least, most };
        let normal = match &autoscaler.spec.behavior {
            None => plain(range, history, now),
            Some(behavior) => {
                let none = HPAScalingRules::default();
                let (up, down) = (&behavior.scale_up, &behavior.scale_down);
                with_rules(range, up.as_ref().unwrap_or(&none), down.as_ref().unwrap_or(&none), history, now)
            }
        };
        status::set(&mut plan.status, ABLE_TO_SCALE, true, normal.able.0, normal.able.1, now);
        status::set(&mut plan.status, SCALING_LIMITED, normal.limited, normal.limit.0, normal.limit.1, now);
        (normal.replicas, reason)
    };
    if desired != current {
        plan.rescale = Some(Rescale { from: current, to: desired, reason });
    }
    plan.status.current_replicas = Some(current);
    plan.status.desired_replicas = desired;
    plan.status.current_metrics = metrics;
    plan
}

/// What became of a rescale: the rest of the status, an event, and, for those who count changes, an entry of the history.
pub(super) fn rescaled(
    plan: &mut Plan,
    rescale: &Rescale,
    result: Result<&mut History, &str>,
    behaves: bool,
    now: Timestamp,
) {
    let Rescale { from, to, reason } = rescale;
    match result {
        Ok(history) => {
            let message = format!("the HPA controller was able to update the target scale to {to}");
            status::set(&mut plan.status, ABLE_TO_SCALE, true, "SucceededRescale", message, now);
            let message = format!("New size: {to}; reason: {reason}");
            plan.events.push(Event { warning: false, reason: "SuccessfulRescale".to_owned(), message });
            plan.status.last_scale_time = Some(Time(whole_seconds(now)));
            if behaves {
                history.scaled(*from, *to, now);
            }
        }
        Err(error) => {
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            status::set(&mut plan.status, ABLE_TO_SCALE, false, "FailedUpdateScale", message, now);
            let message = format!("New size: {to}; reason: {reason}; error: {error}");
            plan.events.push(Event::warning("FailedRescale", message));
            plan.status.desired_replicas = *from;
        }
    }
}

/// The highest proposal of all metrics with the name of its metric, and the status of each. No proposal if none can be read, or if
/// one cannot and the others would have less: then nobody knows.
fn by_metrics(
    snapshot: &Snapshot<'_>,
    scale: &Scale,
    plan: &mut Plan,
    now: Timestamp,
) -> (Vec<MetricStatus>, Option<(i32, String)>) {
    if let Err((reason, message, event)) = selectable(snapshot, scale) {
        plan.events.push(Event::warning(event.unwrap_or(reason), event.map_or(&*message, |_| "selector is required")));
        status::set(&mut plan.status, SCALING_ACTIVE, false, reason, message.clone(), now);
        let error = event.map_or(message, |_| "selector is required".to_owned());
        plan.events.push(Event::warning("FailedComputeMetricsReplicas", error));
        return (Vec::new(), None);
    }
    let specs = snapshot.autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let (mut statuses, mut failures) = (Vec::with_capacity(specs.len()), Vec::new());
    let mut best: Option<(i32, String)> = None;
    for (at, spec) in specs.iter().enumerate() {
        let none = Err("no reading".to_owned());
        let reading = snapshot.readings.get(at).unwrap_or(&none);
        match by_metric(snapshot, scale, spec, reading, now) {
            Ok((proposal, current, name)) => {
                statuses.push(status::metric(spec, current));
                if best.as_ref().is_none_or(|(best, _)| proposal > *best) {
                    best = Some((proposal, name));
                }
            }
            Err(failure) => {
                statuses.push(MetricStatus::default());
                plan.events.push(Event::warning(failure.reason, &failure.inner));
                failures.push(failure);
            }
        }
    }
    if let Some(first) = failures.first()
        && best.as_ref().is_none_or(|(best, _)| *best < scale.desired)
    {
        let message = format!("the HPA was unable to compute the replica count: {}", first.inner);
        status::set(&mut plan.status, SCALING_ACTIVE, false, first.reason, message, now);
        let message = format!(
            "invalid metrics ({} invalid out of {}), first error is: {}: {}",
            failures.len(),
            specs.len(),
            first.outer,
            first.inner
        );
        plan.events.push(Event::warning("FailedComputeMetricsReplicas", message));
        return (statuses, None);
    }
    let name = best.as_ref().map_or("", |(_, name)| name.as_str());
    let message = format!("the HPA was able to successfully calculate a replica count from {name}");
    status::set(&mut plan.status, SCALING_ACTIVE, true, "ValidMetricFound", message, now);
    (statuses, Some(best.unwrap_or((0, String::new()))))
}

/// Reason and message of the condition, and the reason of the event where it is another.
type NotSelectable = (&'static str, String, Option<&'static str>);

/// Whether it is clear which pods the metrics are of.
fn selectable(snapshot: &Snapshot<'_>, scale: &Scale) -> Result<(), NotSelectable> {
    let selector = &scale.selector;
    if selector.is_empty() {
        let message = "the HPA target's scale is missing a selector".to_owned();
        return Err(("InvalidSelector", message, Some("SelectorRequired")));
    }
    if let Err(error) = LabelSelector::parse(selector) {
        let message = format!("couldn't convert selector into a corresponding internal selector object: {error}");
        return Err(("InvalidSelector", message, None));
    }
    if snapshot.rivals.len() > 1 {
        let rivals = snapshot.rivals.join(" ");
        let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{rivals}]");
        return Err(("AmbiguousSelector", message, None));
    }
    Ok(())
}

/// Why a metric has no proposal.
struct Failure {
    /// For the condition and the event.
    reason: &'static str,
    /// What failed, and why.
    outer: String,
    inner: String,
}

/// The proposal of one metric, what it is now, and its name in messages.
fn by_metric(
    snapshot: &Snapshot<'_>,
    scale: &Scale,
    spec: &MetricSpec,
    reading: &Result<Reading, String>,
    now: Timestamp,
) -> Result<(i32, Current, String), Failure> {
    let tolerances = tolerances(snapshot.autoscaler);
    let pods = |goal: Goal<'_>, wrap: &dyn Fn(&str) -> String| -> Result<Proposal, String> {
        match reading {
            Ok(Reading::Pods(readings)) => of_pods(scale.desired, goal, tolerances, snapshot.pods, readings, now),
            Ok(_) => Err("a reading of another kind".to_owned()),
            Err(error) => Err(wrap(error)),
        }
    };
    if let Some(source) = &spec.resource {
        let failure = |inner: String| Failure {
            reason: "FailedGetResourceMetric",
            outer: format!("failed to get {} resource metric value", source.name),
            inner,
        };
        let (proposal, current) = by_resource(&source.name, None, &source.target, &pods).map_err(failure)?;
        return Ok((proposal, current, resource_name(&source.name, "resource", &source.target)));
    }
    if let Some(source) = &spec.container_resource {
        let failure = |inner: String| Failure {
            reason: "FailedGetContainerResourceMetric",
            outer: format!("failed to get {} container metric value", source.name),
            inner,
        };
        let container = Some(source.container.as_str());
        let (proposal, current) = by_resource(&source.name, container, &source.target, &pods).map_err(failure)?;
        return Ok((proposal, current, resource_name(&source.name, "container resource", &source.target)));
    }
    if let Some(source) = &spec.pods {
        let name = &source.metric.name;
        let failure = |inner: String| Failure {
            reason: "FailedGetPodsMetric",
            outer: "failed to get pods metric value".to_owned(),
            inner,
        };
        let goal = Goal::Average { milli: milli(source.target.average_value.as_ref()), resource: "" };
        let proposal = pods(goal, &|error| format!("unable to get metric {name}: {error}")).map_err(failure)?;
        let current = Current { average: Some(proposal.value), ..Current::default() };
        return Ok((proposal.replicas, current, format!("pods metric {name}")));
    }
    if let Some(source) = &spec.object {
        let (name, object) = (&source.metric.name, &source.described_object);
        let namespace = snapshot.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let failure = |inner: String| Failure {
            reason: "FailedGetObjectMetric",
            outer: "failed to get object metric value".to_owned(),
            inner,
        };
        let value = match reading {
            Ok(Reading::Object(value)) => Ok(*value),
            Ok(_) => Err("a reading of another kind".to_owned()),
            // Upstream's words, in upstream's order.
            Err(error) => {
                Err(format!("unable to get metric {name}: {} on {namespace} {}/{error}", object.kind, object.name))
            }
        };
        let (proposal, current) = by_value(snapshot, scale, value, &source.target).map_err(failure)?;
        return Ok((proposal, current, format!("{} metric {name}", object.kind)));
    }
    if let Some(source) = &spec.external {
        let name = &source.metric.name;
        let selector = go_selector(&source.metric);
        let failure = |inner: String| Failure {
            reason: "FailedGetExternalMetric",
            outer: format!("failed to get {name} external metric value"),
            inner,
        };
        let value = match reading {
            Ok(Reading::External(values)) => Ok(values.iter().sum()),
            Ok(_) => Err("a reading of another kind".to_owned()),
            Err(error) => {
                let namespace = snapshot.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
                let why = format!("unable to get external metric {namespace}/{name}/{selector}: {error}");
                Err(match source.target.average_value {
                    Some(_) => format!("failed to get {name} external metric: {why}"),
                    None => format!("failed to get external metric {name}: {why}"),
                })
            }
        };
        let (proposal, current) = by_value(snapshot, scale, value, &source.target).map_err(failure)?;
        return Ok((proposal, current, format!("external metric {name}({selector})")));
    }
    let inner = format!("unknown metric source type {:?}", spec.type_);
    Err(Failure { reason: "InvalidMetricSourceType", outer: "invalid metric".to_owned(), inner })
}

/// Computes a proposal from readings of pods, wrapping the error of a missing reading.
type ByPods<'a> = dyn Fn(Goal<'_>, &dyn Fn(&str) -> String) -> Result<Proposal, String> + 'a;

fn by_resource(
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
    pods: &ByPods<'_>,
) -> Result<(i32, Current), String> {
    let missing = |error: &str| format!("unable to get metrics for resource {resource}: {error}");
    if let Some(wanted) = &target.average_value {
        let goal = Goal::Average { milli: milli(Some(wanted)), resource };
        let proposal = pods(goal, &missing).map_err(|error| format!("failed to get {resource} usage: {error}"))?;
        return Ok((proposal.replicas, Current { average: Some(proposal.value), ..Current::default() }));
    }
    let Some(percent) = target.average_utilization else {
        let why = "neither an average utilization target nor an average value (usage) target was set";
        return Err(format!("invalid resource metric source: {why}"));
    };
    let goal = Goal::Utilization { percent, resource, container };
    let proposal = pods(goal, &missing).map_err(|error| format!("failed to get {resource} utilization: {error}"))?;
    let current =
        Current { utilization: Some(proposal.utilization), average: Some(proposal.value), ..Current::default() };
    Ok((proposal.replicas, current))
}

fn by_value(
    snapshot: &Snapshot<'_>,
    scale: &Scale,
    value: Result<i64, String>,
    target: &MetricTarget,
) -> Result<(i32, Current), String> {
    let tolerances = tolerances(snapshot.autoscaler);
    if let Some(average) = &target.average_value {
        let proposal = of_average(scale.current, value?, milli(Some(average)), tolerances);
        return Ok((proposal.replicas, Current { average: Some(proposal.value), ..Current::default() }));
    }
    let proposal = of_value(scale.desired, value?, milli(target.value.as_ref()), tolerances, snapshot.pods)?;
    Ok((proposal.replicas, Current { value: Some(proposal.value), ..Current::default() }))
}

fn resource_name(resource: &str, sort: &str, target: &MetricTarget) -> String {
    match target.average_value {
        Some(_) => format!("{resource} {sort}"),
        None => format!("{resource} {sort} utilization (percentage of request)"),
    }
}

fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let own = rules.and_then(|rules| Quantity::try_from(rules.tolerance.as_ref()?).ok());
        own.map_or(TOLERANCE, |own| own.as_f64())
    };
    Tolerances {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

fn milli(quantity: Option<&WireQuantity>) -> i64 {
    quantity.and_then(|quantity| Quantity::try_from(quantity).ok()).map_or(0, |quantity| quantity.milli_value())
}

/// A selector as Go prints it in upstream's messages.
fn go_selector(metric: &MetricIdentifier) -> String {
    let Some(selector) = &metric.selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(name, value)| format!("{name}: {value},")).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}"
    )
}
