//! Updates of `managedFields` as text, of which only those entries are decoded that a change may concern.
//!
//! A kubelet that writes a status neither takes nor adds anything in the entry of whoever made the pod, which is the
//! longer one.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::compare::Comparison;
use super::entries::{Entry, Manager, Operation, joined};
use super::set::FieldSet;
use super::update::{MAX_UPDATERS, update};

/// An entry whose fields are not decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    operation: Cow<'a, str>,
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(borrow, default, rename = "fieldsV1")]
    fields: Option<HashMap<Cow<'a, str>, IgnoredAny>>,
}

impl Header<'_> {
    /// The entry, but for its fields.
    fn entry(&self) -> Option<Entry> {
        let manager = Manager {
            name: self.manager.as_ref().to_owned(),
            operation: Operation::parse(&self.operation)?,
            api_version: self.api_version.as_ref().to_owned(),
            subresource: self.subresource.as_ref().to_owned(),
        };
        Some(Entry { manager, time: self.time.as_ref().to_owned(), fields: FieldSet::default() })
    }

    fn concerned(&self, changes: &Comparison) -> bool {
        self.fields.iter().flat_map(HashMap::keys).any(|element| changes.concerns(element))
    }
}

/// Does to the text of `managedFields` what [`update`] does to entries; `changes` hold nothing that the write cannot have
/// changed. The text that was given comes back when it may stay.
///
/// `None` when the entries have to be looked at together: there are too many, or some that no server wrote.
#[must_use]
pub fn update_text<'a>(present: &'a str, changes: &Comparison, manager: &Manager, now: &str) -> Option<Cow<'a, str>> {
    let texts: Vec<&RawValue> = serde_json::from_str(present).ok()?;
    if texts.len() >= MAX_UPDATERS {
        return None;
    }
    let (mut settled, mut concerned) = (Vec::new(), Vec::new());
    for text in texts {
        let header: Header<'_> = serde_json::from_str(text.get()).ok()?;
        let entry = header.entry()?;
        if entry.manager.is(manager) || header.concerned(changes) {
            concerned.push(Entry::parse(&serde_json::from_str(text.get()).ok()?)?);
        } else {
            settled.push((entry, text.get()));
        }
    }
    let before = concerned.clone();
    update(&mut concerned, changes, manager, FieldSet::clone, now);
    if concerned == before {
        return Some(present.into());
    }
    let changed = concerned.into_iter().map(|entry| {
        let text = Cow::from(entry.render());
        (entry, text)
    });
    Some(joined(changed.chain(settled.into_iter().map(|(entry, text)| (entry, text.into()))).collect()).into())
}
