//! The conditions in the status of an object that is JSON.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::meta;
use crate::meta::ConditionStatus;

/// The conditions of a status.
pub(crate) struct Conditions {
    /// They as JSON.
    pub(crate) list: Vec<Value>,
    /// The time at which they are looked at.
    pub(crate) now: Timestamp,
    generation: i64,
}

impl Conditions {
    /// Those that an object has at this time.
    pub(crate) fn new(object: &DynamicObject, now: Timestamp) -> Self {
        let list = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Self { list, now, generation: object.metadata.generation.unwrap_or_default() }
    }

    /// Since when a condition is true, if it is.
    pub(crate) fn since(&self, type_: &str) -> Option<Timestamp> {
        let known = self.list.iter().find(|known| known["type"] == type_ && known["status"] == "True")?;
        known["lastTransitionTime"].as_str()?.parse().ok()
    }

    /// Sets a condition; true if its status changed.
    pub(crate) fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) -> bool {
        let word = ConditionStatus::from(status).as_str();
        let old = self.list.iter().find(|known| known["type"] == type_);
        let same = old.filter(|known| known["status"] == word).map(|known| known["lastTransitionTime"].clone());
        let changed = same.is_none();
        let since = same.unwrap_or_else(|| json!(meta::seconds(self.now)));
        let new = json!({
            "type": type_, "status": word, "reason": reason, "message": message, "lastTransitionTime": since,
            "observedGeneration": self.generation,
        });
        match self.list.iter_mut().find(|known| known["type"] == type_) {
            Some(known) => *known = new,
            None => self.list.push(new),
        }
        changed
    }
}
