//! The conditions of a status.

use controllers::meta::{self, ConditionStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

/// The conditions of a status.
pub(crate) struct Conditions {
    /// They themselves.
    pub(crate) list: Vec<Condition>,
    /// The time at which they are looked at.
    pub(crate) now: Timestamp,
    generation: Option<i64>,
}

impl Conditions {
    /// Those that an object with this metadata has at this time.
    pub(crate) fn new(metadata: &ObjectMeta, list: Option<&Vec<Condition>>, now: Timestamp) -> Self {
        let generation = Some(metadata.generation.unwrap_or_default());
        Self { list: list.cloned().unwrap_or_default(), now, generation }
    }

    /// Since when a condition is true, if it is.
    pub(crate) fn since(&self, type_: &str) -> Option<Timestamp> {
        let is_true = |known: &&Condition| known.type_ == type_ && known.status == ConditionStatus::True;
        Some(self.list.iter().find(is_true)?.last_transition_time.0)
    }

    /// Sets a condition; true if its status changed.
    pub(crate) fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) -> bool {
        let status = ConditionStatus::from(status);
        let place = self.list.iter().position(|known| known.type_ == type_);
        let same = place.map(|place| &self.list[place]).filter(|known| known.status == status);
        let since = same.map(|known| known.last_transition_time.clone());
        let changed = since.is_none();
        let new = Condition {
            type_: type_.to_owned(),
            status: status.as_str().to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since.unwrap_or_else(|| meta::seconds(self.now)),
            observed_generation: self.generation,
        };
        match place {
            Some(place) => self.list[place] = new,
            None => self.list.push(new),
        }
        changed
    }
}
