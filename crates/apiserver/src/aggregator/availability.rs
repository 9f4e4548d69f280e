//! Whether aggregated API servers can be reached: the condition `Available` of their APIServices.
//!
//! Upstream: kube-aggregator `pkg/controllers/status/remote/remote_available_controller.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use kinds::api_service::{self, API_SERVICES, AVAILABLE, GROUP};
use machinery::phase::ConditionStatus;
use machinery::status::ApiError;
use registry::endpoint::{ENDPOINT_SLICES, SERVICE_NAME, SERVICES};
use registry::optional::text;
use registry::user::User;
use registry::{PatchType, Subresource, WriteOptions, meta};
use serde_json::json;
use store::{Event, Key, Watcher};

use super::documents::{self, RemoteDocuments};
use super::proxy::Place;
use super::{Aggregator, RESYNC, SETTLE, Target, is_available};

/// How soon a server is asked again that could not be reached, at first, and each time twice as late.
const RETRY: Duration = Duration::from_secs(1);
/// How often a server is asked before it counts as one that cannot be reached; each time it may be another endpoint.
const ATTEMPTS: usize = 5;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a document of discovery is read.
const DISCOVERY_BYTES: usize = 3 << 20;
/// The field manager of the conditions.
const FIELD_MANAGER: &str = "kube-apiserver";

/// The status, reason and message of a condition.
type Verdict = (ConditionStatus, &'static str, String);

/// Looks at all of them again and again.
pub(super) async fn run(aggregator: &Aggregator) {
    let mut retry = RETRY;
    loop {
        let snapshot = aggregator.snapshot();
        // What happens from here on is heard of. Where no APIService leads to a service, no service matters.
        let watchers = (!snapshot.remotes.is_empty()).then(|| watch(aggregator)).flatten();
        let targets: Vec<&Arc<Target>> = snapshot.remotes.iter().map(|remote| &remote.target).collect();
        let looked_at = join_all(targets.iter().map(|target| look(aggregator, target))).await;
        let all_there = looked_at.into_iter().all(|available| available);
        let again = if all_there { RESYNC } else { retry };
        retry = if all_there { RETRY } else { (retry * 2).min(RESYNC) };
        tokio::select! {
            () = aggregator.changed.notified() => {}
            () = concerned(watchers, &targets), if !targets.is_empty() => {}
            () = tokio::time::sleep(again), if !targets.is_empty() => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn watch(aggregator: &Aggregator) -> Option<[Watcher; 2]> {
    let store = aggregator.registry.store();
    let revision = store.revision();
    Some([store.watch(SERVICES, revision).ok()?, store.watch(ENDPOINT_SLICES, revision).ok()?])
}

/// Waits until one of the services has changed, or where it is.
async fn concerned(watchers: Option<[Watcher; 2]>, targets: &[&Arc<Target>]) {
    // The history it would begin with is gone: once more from what is there.
    let Some([mut services, mut slices]) = watchers else { return };
    let is_theirs = |event: &Event, by_label: bool| {
        let entry = &event.entry;
        let service = if by_label { entry.attributes.label(SERVICE_NAME).unwrap_or_default() } else { &entry.key.name };
        targets.iter().any(|target| *target.namespace == *entry.key.namespace && *target.service == *service)
    };
    loop {
        let concerns = tokio::select! {
            event = services.next() => event.map(|event| is_theirs(&event, false)),
            event = slices.next() => event.map(|event| is_theirs(&event, true)),
        };
        // A watch that has ended begins again with everything.
        if concerns.unwrap_or(true) {
            return;
        }
    }
}

/// Looks whether a server can be reached and what it has; says so in its APIService.
async fn look(aggregator: &Aggregator, target: &Arc<Target>) -> bool {
    let snapshot = aggregator.snapshot();
    let known = snapshot.remotes.iter().find(|remote| Arc::ptr_eq(&remote.target, target));
    let known = known.map(|remote| Arc::clone(&remote.documents)).unwrap_or_default();
    let (verdict, documents) = match check(aggregator, target, &known).await {
        Ok(documents) => ((ConditionStatus::True, "Passed", "all checks passed".to_owned()), documents),
        // What it had then it may well have again.
        Err(verdict) => (verdict, known.stale()),
    };
    let available = verdict.0 == ConditionStatus::True;
    aggregator.learn(target, documents, available);
    if let Err(error) = write(aggregator, target, &verdict).await {
        tracing::warn!(%error, service = target.name, "cannot write the condition of an APIService");
    }
    available
}

async fn check(
    aggregator: &Aggregator,
    target: &Target,
    known: &Arc<RemoteDocuments>,
) -> Result<Arc<RemoteDocuments>, Verdict> {
    endpoints(aggregator, target)?;
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match tokio::time::timeout(TIMEOUT, discover(aggregator, target)).await {
            Ok(Ok((place, list))) => return Ok(documents::read(target, &place, &list, known).await),
            Ok(Err(error)) => why = error,
            // The time is up for all attempts together, which upstream makes at once.
            Err(_) => {
                let place = target.resolve(aggregator).map(|place| place.to_string()).unwrap_or_default();
                why = format!("timed out waiting for https://{place}/{}", target.root());
                break;
            }
        }
    }
    Err((ConditionStatus::False, "FailedDiscoveryCheck", why))
}

/// Whether there is a service with endpoints. Upstream looks at those of type ClusterIP alone.
fn endpoints(aggregator: &Aggregator, target: &Target) -> Result<(), Verdict> {
    let Target { namespace, service: name, port, .. } = target;
    let missing = |reason, message| (ConditionStatus::False, reason, message);
    let Some(service) = aggregator.registry.service(namespace, name) else {
        return Err(missing("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    let spec = service.spec.unwrap_or_default();
    if !matches!(text(&spec.type_), "" | "ClusterIP") {
        return Ok(());
    }
    let Some(served) = spec.ports.iter().flatten().find(|served| served.port == *port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(missing("ServicePortError", message));
    };
    let slices = aggregator.registry.endpoint_slices(namespace, name);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(missing("EndpointsNotFound", message));
    }
    if registry::endpoint::ready(&slices, served).is_empty() {
        let what = format!("endpointslices for service/{name} in {namespace:?}");
        let message = format!("{what} have no addresses with port name {:?}", text(&served.name));
        return Err(missing("MissingEndpoints", message));
    }
    Ok(())
}

/// Asks for the list of the version's resources, which every aggregated server has to serve.
async fn discover(aggregator: &Aggregator, target: &Target) -> Result<(Place, Bytes), String> {
    let place = target.resolve(aggregator)?;
    let path = format!("/{}", target.root());
    let url = format!("https://{place}{path}");
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let answer = target.get(&place, &path, "", DISCOVERY_BYTES).await;
    let answer = answer.map_err(|why| failed(format!("Get {url:?}: {why}")))?;
    if !answer.status.is_success() {
        return Err(failed(format!("bad status from {url}: {}", answer.status.as_u16())));
    }
    Ok((place, answer.bytes))
}

/// Writes the condition, unless it says so already.
async fn write(aggregator: &Aggregator, target: &Target, verdict: &Verdict) -> Result<(), ApiError> {
    let registry = &aggregator.registry;
    let Some(entry) = registry.store().get(&Key::new(API_SERVICES, "", target.name.as_str())) else { return Ok(()) };
    let object: APIService = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
    let (status, reason, message) = verdict;
    let mut conditions = api_service::conditions(&object).to_vec();
    let before = conditions.iter().find(|condition| condition.type_ == AVAILABLE);
    if before.is_some_and(|condition| {
        condition.status == *status && text(&condition.reason) == *reason && text(&condition.message) == message
    }) {
        return Ok(());
    }
    // Upstream: `setUnavailableCounter`.
    if is_available(&object) && *status != ConditionStatus::True {
        aggregator.unavailable.count(&target.name, reason);
    }
    let since = before.filter(|condition| condition.status == *status);
    let condition = APIServiceCondition {
        type_: AVAILABLE.to_owned(),
        status: status.to_string(),
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        last_transition_time: since
            .and_then(|condition| condition.last_transition_time.clone())
            .or_else(|| Some(meta::time(Timestamp::now()))),
    };
    conditions.retain(|condition| condition.type_ != AVAILABLE);
    conditions.push(condition);
    // On condition of the object that was looked at: another one of its name may lead somewhere else.
    let metadata = json!({ "uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version });
    let patch = json!({ "metadata": metadata, "status": { "conditions": conditions } }).to_string();
    let options = WriteOptions {
        field_manager: FIELD_MANAGER.to_owned(),
        user: Arc::new(User::master("system:apiserver")),
        ..WriteOptions::default()
    };
    let resources = registry.resources();
    let Some(resource) = resources.get(GROUP, "v1", "apiservices") else { return Ok(()) };
    let place = registry::Target::object(resource, "", target.name.as_str());
    let written = registry.patch(&place, Some(Subresource::Status), PatchType::Merge, patch.as_bytes(), &options);
    match written.await {
        // It is gone, or looked at again soon.
        Err(error) if !matches!(error.code, 404 | 409) => Err(error),
        _ => Ok(()),
    }
}
