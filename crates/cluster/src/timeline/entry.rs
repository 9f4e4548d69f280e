//! What a timeline consists of, as the API answers it and as `coracle timeline` reads it.

use machinery::changes::Change;
use serde::{Deserialize, Serialize};

/// The status of a `TimelineReview`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// What happened, oldest first.
    pub entries: Vec<Entry>,
    /// Whether more happened than is told.
    pub is_cut: bool,
    /// The newest revision by then.
    pub revision: String,
}

/// What happened in one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When, in microseconds since 1970. The log knows milliseconds.
    pub time_micros: i64,
    /// What kind of thing happened.
    pub what: What,
    /// The revision that a change has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The object that changed, or that something was done for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// What was done or failed, or what an Event says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The component of this process that did it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Who wrote, by the log; nothing of what an earlier version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Writer>,
    /// The fields that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What woke the component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Because>,
    /// How long the component took for all that it did then, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_micros: Option<u64>,
    /// Whether it is told only because something of the story followed from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cause: bool,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An object came into being.
    Created,
    /// An object, or an Event that was repeated, changed.
    Changed,
    /// An object went.
    Deleted,
    /// A component did something outside of the API.
    Did,
    /// A component failed to do something.
    Failed,
}

/// An object's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for one of cluster scope.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who wrote: what the log keeps of it ([`registry::Author`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The user's name.
    pub user: String,
    /// What the program calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// The verb.
    pub verb: String,
    /// The subresource; empty for the object itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// Why a component was woken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// `ReplicaSet web-5d4f`, `Pod web-0 deleted`, or other words.
    pub text: String,
    /// The revision of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}
