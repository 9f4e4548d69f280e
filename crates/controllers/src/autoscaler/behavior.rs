//! From the proposal of the metrics to the number that is set: stabilisation over time, rates, and the range.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules};

/// How long a recommendation to go down must hold where nothing else is said.
pub const DOWN_WINDOW: i32 = 300;
/// More recommendations than this are not remembered: those of an hour, the longest window, every second.
const REMEMBERED: usize = 3_600;

/// What was recommended and what was done, as far back as it matters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct History {
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

impl History {
    /// The first look: what there is counts as recommended, so that nothing goes down at once after a start.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    fn recommend(&mut self, replicas: i32, longest: i32, now: Timestamp) {
        self.recommendations.retain(|(time, _)| within(*time, longest, now));
        if self.recommendations.len() >= REMEMBERED {
            self.recommendations.remove(0);
        }
        self.recommendations.push((now, replicas));
    }

    /// Notes that the number was changed.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        /// The longest period of a policy.
        const LONGEST: i32 = 1800;
        let (events, change) = if to > from { (&mut self.ups, to - from) } else { (&mut self.downs, from - to) };
        events.retain(|(time, _)| within(*time, LONGEST, now));
        events.push((now, change));
    }

    /// The number at the beginning of a period that ends now.
    fn period_start(&self, current: i32, seconds: i32, now: Timestamp) -> i32 {
        let sum = |events: &[(Timestamp, i32)]| -> i32 {
            events.iter().filter(|(time, _)| within(*time, seconds, now)).map(|(_, change)| *change).sum()
        };
        current - sum(&self.ups) + sum(&self.downs)
    }
}

fn within(time: Timestamp, seconds: i32, now: Timestamp) -> bool {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    now.duration_since(time) < jiff::SignedDuration::try_from(seconds).unwrap_or(jiff::SignedDuration::MAX)
}

/// What is to be normalised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) current: i32,
    pub(super) desired: i32,
    pub(super) least: i32,
    pub(super) most: i32,
}

/// The number to set, and the reasons for the conditions AbleToScale and ScalingLimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Normal {
    pub(super) replicas: i32,
    pub(super) able: Words,
    pub(super) limited: bool,
    pub(super) limit: Words,
}

/// Reason and message.
type Words = (&'static str, &'static str);

const READY: Words = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Words = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Words = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const UP_LIMIT: Words = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Words =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Words = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Words = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const IN_RANGE: Words = ("DesiredWithinRange", "the desired count is within the acceptable range");

/// Without a `behavior`: down only once nothing more was recommended in five minutes, up to twice as many at once.
pub(super) fn plain(range: Range, history: &mut History, now: Timestamp) -> Normal {
    history.recommend(range.desired, DOWN_WINDOW, now);
    let stable = history.recommendations.iter().map(|(_, replicas)| *replicas).max().unwrap_or(range.desired);
    let able = if stable == range.desired { READY } else { DOWN_STABILIZED };
    let limit = range.current.saturating_mul(2).max(4);
    let (most, too_many) = if range.most > limit { (limit, UP_LIMIT) } else { (range.most, TOO_MANY) };
    let (replicas, limit) = match stable {
        stable if stable < range.least => (range.least, TOO_FEW),
        stable if stable > most => (most, too_many),
        stable => (stable, IN_RANGE),
    };
    Normal { replicas, able, limited: replicas != stable, limit }
}

/// With a `behavior`: windows and policies in both directions.
pub(super) fn with_rules(
    range: Range,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    history: &mut History,
    now: Timestamp,
) -> Normal {
    let up_window = up.stabilization_window_seconds.unwrap_or_default();
    let down_window = down.stabilization_window_seconds.unwrap_or(DOWN_WINDOW);
    let recent = |window: i32| {
        history
            .recommendations
            .iter()
            .filter(move |(time, _)| within(*time, window, now))
            .map(|(_, replicas)| *replicas)
    };
    let lowest = recent(up_window).fold(range.desired, i32::min);
    let highest = recent(down_window).fold(range.desired, i32::max);
    let stable = range.current.max(lowest).min(highest);
    history.recommend(range.desired, up_window.max(down_window), now);
    let able = match () {
        () if stable == range.desired => READY,
        () if range.desired >= range.current => UP_STABILIZED,
        () => DOWN_STABILIZED,
    };
    let (replicas, limit) = rated(Range { desired: stable, ..range }, up, down, history, now);
    Normal { replicas, able, limited: replicas != stable, limit }
}

fn rated(
    range: Range,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    history: &History,
    now: Timestamp,
) -> (i32, Words) {
    if range.desired > range.current {
        let limit = up_limit(range.current, up, history, now).max(range.current);
        let (most, why) = if range.most > limit { (limit, UP_LIMIT) } else { (range.most, TOO_MANY) };
        if range.desired > most {
            return (most, why);
        }
    } else if range.desired < range.current {
        let limit = down_limit(range.current, down, history, now).min(range.current);
        let (least, why) = if range.least < limit { (limit, DOWN_LIMIT) } else { (range.least, TOO_FEW) };
        if range.desired < least {
            return (least, why);
        }
    }
    (range.desired, IN_RANGE)
}

fn up_limit(current: i32, rules: &HPAScalingRules, history: &History, now: Timestamp) -> i32 {
    let proposals = policies(rules).iter().map(|policy| {
        let start = history.period_start(current, policy.period_seconds, now);
        match &*policy.type_ {
            "Pods" => start.saturating_add(policy.value),
            // Rounded up, or a small number would never grow.
            _ => float(f64::from(start) * (1.0 + f64::from(policy.value) / 100.0), f64::ceil),
        }
    });
    let proposal = match rules.select_policy.as_deref() {
        Some("Disabled") => None,
        Some("Min") => proposals.min(),
        _ => proposals.max(),
    };
    proposal.unwrap_or(current)
}

fn down_limit(current: i32, rules: &HPAScalingRules, history: &History, now: Timestamp) -> i32 {
    let proposals = policies(rules).iter().map(|policy| {
        let start = history.period_start(current, policy.period_seconds, now);
        match &*policy.type_ {
            "Pods" => start.saturating_sub(policy.value),
            _ => float(f64::from(start) * (1.0 - f64::from(policy.value) / 100.0), f64::trunc),
        }
    });
    let proposal = match rules.select_policy.as_deref() {
        Some("Disabled") => None,
        // The smallest change leaves the most.
        Some("Min") => proposals.max(),
        _ => proposals.min(),
    };
    proposal.unwrap_or(current)
}

fn policies(rules: &HPAScalingRules) -> &[HPAScalingPolicy] {
    rules.policies.as_deref().unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn float(value: f64, round: fn(f64) -> f64) -> i32 {
    round(value) as i32
}
