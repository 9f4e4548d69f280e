//! Events are news, and news age: what was last heard of an hour ago is deleted.
//!
//! Upstream gives Events a lease of one hour in etcd. Here they are objects like any other, and this controller is what
//! ends them. It needs no watch: nobody waits for an Event to go.

use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Cause, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::Client;
use kube::api::{DeleteParams, ListParams, Preconditions};

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta;

/// For so long an Event is kept after it was last heard of: upstream's default.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// An Event may outlive its time by so much.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Events are read in pages of so many, so that a great number of them is never in memory at once.
const PAGE: u32 = 500;

/// Whether the Event is old news.
fn is_expired(event: &Event, now: Timestamp) -> bool {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let heard = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    let heard = heard.into_iter().flatten().max();
    heard.is_some_and(|heard| now.duration_since(heard) > LIFETIME)
}

/// The controller that deletes old Events.
pub(crate) struct EventTtl {
    client: Client,
    queue: WorkQueue<AllEvents>,
}

/// The one thing to look at: all Events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AllEvents;

impl std::fmt::Display for AllEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all events")
    }
}

impl Controller for EventTtl {
    const NAME: &'static str = "event_ttl";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = AllEvents;

    fn new(context: &Context, queue: WorkQueue<AllEvents>) -> Self {
        Self { client: context.client.clone(), queue }
    }

    fn watch(self: &Arc<Self>) {
        self.queue.add_after(AllEvents, LOOK_EVERY, Cause::new("the start"));
    }

    async fn synced(&self) {}

    async fn reconcile(&self, AllEvents: &AllEvents) -> Result<Action, Error> {
        let all: Api<Event> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let events = all.list(&page).await?;
            let now = Timestamp::now();
            for event in events.items.iter().filter(|event| is_expired(event, now)) {
                self.delete(event).await?;
            }
            match events.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(Action::RequeueAfter(LOOK_EVERY)),
            }
        }
    }
}

impl EventTtl {
    async fn delete(&self, event: &Event) -> Result<(), Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), meta::namespace(event));
        // One that was repeated meanwhile is news again.
        let unchanged = Preconditions {
            uid: event.metadata.uid.clone(),
            resource_version: event.metadata.resource_version.clone(),
        };
        let params = DeleteParams::default().preconditions(unchanged);
        match ok_if_not_found(api.delete(meta::name(event), &params).await) {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn an_event_ages_from_when_it_was_last_heard_of() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let check = |times: Value, expected: bool| {
            let mut event = json!({ "metadata": {}, "involvedObject": {} });
            for (field, time) in times.as_object().expect("an object") {
                event[field] = time.clone();
            }
            let event: Event = from_value(event).expect("an event");
            assert_eq!(is_expired(&event, now), expected, "{times}");
        };
        check(json!({}), false);
        check(json!({ "lastTimestamp": "2026-01-01T11:00:00Z" }), false);
        check(json!({ "lastTimestamp": "2026-01-01T10:59:59Z" }), true);
        check(json!({ "metadata": { "creationTimestamp": "2026-01-01T10:00:00Z" } }), true);
        check(
            json!({ "metadata": { "creationTimestamp": "2026-01-01T10:00:00Z" }, "lastTimestamp": "2026-01-01T11:30:00Z" }),
            false,
        );
        check(json!({ "eventTime": "2026-01-01T10:00:00.000000Z" }), true);
        check(
            json!({ "eventTime": "2026-01-01T10:00:00.000000Z",
                "series": { "count": 2, "lastObservedTime": "2026-01-01T11:59:00.000000Z" } }),
            false,
        );
    }
}
