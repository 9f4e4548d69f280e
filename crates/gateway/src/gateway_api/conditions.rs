//! Conditions, and how they become a part of a status that others write to as well. Pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// A condition as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) type_: &'static str,
    pub(crate) is_true: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Why something is not as it should be: a reason of the Gateway API, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Condition {
    /// True for this reason, unless there is a fault.
    pub(crate) fn unless(type_: &'static str, reason: &'static str, fault: Option<&Fault>) -> Self {
        match fault {
            None => Self { type_, is_true: true, reason, message: String::new() },
            Some(Fault { reason, message }) => Self { type_, is_true: false, reason, message: message.clone() },
        }
    }
}

/// The list of conditions that `existing` becomes. What others have written stays where it is, and so does what was written for a
/// later generation than the one that was looked at; a condition that stays true, or false, keeps the time since when it is.
pub(crate) fn merge(existing: &Value, desired: &[Condition], generation: i64, now: Timestamp) -> Value {
    let mut merged: Vec<Value> = existing.as_array().cloned().unwrap_or_default();
    for condition in desired {
        let status = if condition.is_true { "True" } else { "False" };
        let mut value = json!({
            "type": condition.type_, "status": status, "reason": condition.reason, "message": condition.message,
            "observedGeneration": generation, "lastTransitionTime": rfc3339(now),
        });
        match merged.iter_mut().find(|other| other["type"] == condition.type_) {
            Some(old) if old["observedGeneration"].as_i64().is_some_and(|observed| observed > generation) => {}
            Some(old) => {
                if old["status"] == status {
                    value["lastTransitionTime"] = old["lastTransitionTime"].clone();
                }
                *old = value;
            }
            None => merged.push(value),
        }
    }
    merged.into()
}

/// In seconds, as `metav1.Time` is written.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_merged() {
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let existing = json!([
            { "type": "Theirs", "status": "True" },
            { "type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "observedGeneration": 1,
              "lastTransitionTime": "2020-01-01T00:00:00Z" },
            { "type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z" },
            { "type": "Later", "status": "True", "observedGeneration": 9 },
        ]);
        let fault = Fault::new("Invalid", "no");
        let desired = [
            Condition::unless("Accepted", "Accepted", Some(&fault)),
            Condition::unless("Programmed", "Programmed", None),
            Condition::unless("Later", "Later", Some(&fault)),
            Condition::unless("New", "New", None),
        ];
        let expected = json!([
            { "type": "Theirs", "status": "True" },
            { "type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "observedGeneration": 2,
              "lastTransitionTime": "2020-01-01T00:00:00Z" },
            { "type": "Accepted", "status": "False", "reason": "Invalid", "message": "no", "observedGeneration": 2,
              "lastTransitionTime": "2026-01-02T03:04:05Z" },
            { "type": "Later", "status": "True", "observedGeneration": 9 },
            { "type": "New", "status": "True", "reason": "New", "message": "", "observedGeneration": 2,
              "lastTransitionTime": "2026-01-02T03:04:05Z" },
        ]);
        let merged = merge(&existing, &desired, 2, now);
        assert_eq!(merged, expected);
        assert_eq!(merge(&merged, &desired, 2, Timestamp::MAX), merged, "nothing is written twice");
    }
}
