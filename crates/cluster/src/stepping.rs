//! The components of this process as an API: `stepping.coracle.dev/v1`, resource `components`. They are shown with what waits
//! for them and what they have done, and can be paused, resumed and stepped by their subresources of these names.
//!
//! In the place of a component's name stands that of a group too: `controllers`, `scheduler`, `kubelet`, or `all`. No role but
//! those that may do everything allows any of it. Nothing of it is in the store: a start ends all pauses.

mod components;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use informer::{Component, PauseSwitch, Reconcile, Reconciles, Step};
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::{ApiError, Reason};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::own_api;

const GROUP: &str = "stepping.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "components";

/// How long a pause waits for the reconciles that are running.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a step waits for something to do: a change that was written just now takes a moment to be noticed.
const STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a step waits for the end of what it let through: less than a request may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a step waits for a worker to take it.
const TAKE_TIMEOUT: Duration = Duration::from_millis(100);
/// How often all this is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The API over the components that report to `reconciles`.
pub(crate) fn extension(reconciles: Reconciles) -> AggregatedApi {
    let resource = |name: &str, kind: &str, verbs: &[Verb<'static>]| AggregatedResource {
        name: name.to_owned(),
        singular: if name == RESOURCE { "component".to_owned() } else { String::new() },
        kind: kind.to_owned(),
        verbs: verbs.to_vec(),
        ..AggregatedResource::default()
    };
    let resources = [
        resource(RESOURCE, "Component", &[Verb::Get, Verb::List]),
        resource("components/pause", "ComponentList", &[Verb::Create]),
        resource("components/resume", "ComponentList", &[Verb::Create]),
        resource("components/step", "Step", &[Verb::Create]),
    ];
    AggregatedApi {
        group: GROUP,
        version: VERSION,
        service: Arc::new(Stepping { reconciles, resources: resources.into() }),
    }
}

struct Stepping {
    reconciles: Reconciles,
    resources: Arc<[AggregatedResource]>,
}

impl Stepping {
    async fn answer(&self, request: &Request<Bytes>) -> Result<Value, ApiError> {
        let parts = own_api::path(request, GROUP, VERSION);
        let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
        let all = self.reconciles.components();
        let table = own_api::wants_table(request);
        match parts[..] {
            [RESOURCE] if get => Ok(list(&all, table)),
            [RESOURCE, name] if get => {
                let found: Vec<Component> = all.into_iter().filter(|component| component.name() == name).collect();
                match found.first() {
                    Some(_) if table => Ok(list(&found, true)),
                    Some(component) => Ok(components::object(component)),
                    None => Err(ApiError::not_found(&GroupResource::from_static(GROUP, RESOURCE), name)),
                }
            }
            [RESOURCE, what, "pause" | "resume" | "step"] if post => {
                if request.uri().query().is_some_and(|query| query.contains("dryRun")) {
                    return Err(ApiError::bad_request("dryRun is not supported for components"));
                }
                let found = components::find(&all, what).map_err(|why| ApiError::new(404, Reason::NotFound, why))?;
                if components::is_all_controllers(what) && parts[2] != "step" {
                    self.reconciles.set_pauses_new(parts[2] == "pause");
                }
                match parts[2] {
                    "pause" => Ok(pause(&found).await),
                    "resume" => Ok(resume(&found)),
                    _ => step(&found, what, STEP_TIMEOUT).await,
                }
            }
            [RESOURCE] | [RESOURCE, _] | [RESOURCE, _, "pause" | "resume" | "step"] => {
                let resource = GroupResource::from_static(GROUP, RESOURCE);
                Err(ApiError::method_not_supported(&resource, &request.method().as_str().to_lowercase()))
            }
            _ => Err(ApiError::no_such_resource()),
        }
    }
}

/// Pauses components. What they are at goes on to its end, for which this waits a moment.
async fn pause(found: &[Component]) -> Value {
    let paused: Vec<&str> = found
        .iter()
        .filter(|component| component.pause().is_some_and(PauseSwitch::pause))
        .map(Component::name)
        .collect();
    if !paused.is_empty() {
        tracing::info!(components = paused.join(","), "paused");
    }
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    while found.iter().any(|component| component.running() > 0) && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    list(found, false)
}

/// Ends the pauses of components; the answer is those that were paused.
fn resume(found: &[Component]) -> Value {
    let resumed: Vec<Component> =
        found.iter().filter(|component| component.pause().is_some_and(PauseSwitch::resume)).cloned().collect();
    if !resumed.is_empty() {
        let names: Vec<&str> = resumed.iter().map(Component::name).collect();
        tracing::info!(components = names.join(","), "resumed");
    }
    list(&resumed, false)
}

/// Lets through one piece of work of those components that are paused: the one that has waited longest.
async fn step(found: &[Component], what: &str, wait: Duration) -> Result<Value, ApiError> {
    let conflict = |why: String| ApiError::new(409, Reason::Conflict, why);
    let deadline = Instant::now() + wait;
    loop {
        let paused: Vec<&Component> = found.iter().filter(|component| component.is_paused()).collect();
        if paused.is_empty() {
            let (what, pause) = if what == components::ALL { ("nothing", "controllers") } else { (what, what) };
            let is = if what == "nothing" { "is" } else { "is not" };
            return Err(conflict(format!("{what} {is} paused; pause it first: coracle pause {pause}")));
        }
        let oldest = paused.iter().filter_map(|component| Some((component.next()?.1, component)));
        if let Some((_, component)) = oldest.max_by_key(|(waited, _)| *waited)
            && let Some(switch) = component.pause()
        {
            match switch.step(TAKE_TIMEOUT, FINISH_TIMEOUT).await {
                Step::Done(done) => return Ok(stepped(component, &done, false)),
                Step::UnderWay(done) => return Ok(stepped(component, &done, true)),
                // Somebody else was faster.
                Step::Idle | Step::NotPaused => {}
            }
        }
        if Instant::now() >= deadline {
            let names: Vec<&str> = paused.iter().map(|component| component.name()).collect();
            let names = if let [name] = names[..] { name.to_owned() } else { format!("the {} paused", names.len()) };
            return Err(conflict(format!("there is nothing to do for {names}; what waits is shown by: coracle top")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What became of a step.
fn stepped(component: &Component, done: &[Arc<Reconcile>], under_way: bool) -> Value {
    let mut told = Vec::new();
    for reconcile in done {
        tracing::info!(component = component.name(), key = reconcile.key, "stepped");
        told.push(components::reconcile(reconcile));
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Step", "metadata": { "name": component.name() },
        "status": { "underWay": under_way, "reconciles": told },
    })
}

fn list(found: &[Component], as_table: bool) -> Value {
    if as_table {
        return components::table(found);
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "ComponentList", "metadata": {},
        "items": found.iter().map(components::object).collect::<Vec<_>>(),
    })
}

#[async_trait]
impl AggregatedService for Stepping {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        own_api::response(request.method(), self.answer(&request).await)
    }
}

#[cfg(test)]
mod tests;
