//! Follows the FlowSchemas and PriorityLevelConfigurations: what they say counts at once, those that every cluster has are there
//! again a moment after somebody deletes them, and a schema whose level is missing has the condition `Dangling` (upstream:
//! apiserver `pkg/util/flowcontrol/apf_controller.go`, and `pkg/registry/flowcontrol/rest/storage_flowcontrol.go`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use machinery::status::ApiError;
use registry::optional::{list, text};
use registry::user::User;
use registry::{PatchType, Registry, Subresource, Target, WriteOptions};
use serde_json::json;
use store::{Store, Watcher};

use super::FlowControl;
use super::flow_schema::{FLOW_SCHEMAS, PRIORITY_LEVELS};

/// How long it takes at most until everything is looked at again, whatever happened; upstream's figure.
const RESYNC: Duration = Duration::from_secs(60);
/// How long changes that come together are waited for.
const SETTLE: Duration = Duration::from_millis(100);
/// The field manager of the conditions; upstream's name.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

pub(super) async fn run(flow_control: &FlowControl, registry: &Registry) {
    loop {
        // What happens from here on is heard of.
        let watchers = watch(&flow_control.store);
        flow_control.reload();
        if let Err(error) = keep(registry).await {
            tracing::warn!(%error, "the flow schemas and priority levels that every cluster has cannot be kept");
        }
        let changed = async {
            match watchers {
                Some([mut levels, mut schemas]) => {
                    tokio::select! {
                        _ = levels.next() => {}
                        _ = schemas.next() => {}
                    }
                }
                // The history it would begin with is gone: once more from what is there.
                None => tokio::time::sleep(SETTLE).await,
            }
        };
        // At the end of the time everything is looked at again, so it does not matter which of them it was.
        let _ = tokio::time::timeout(RESYNC, changed).await;
        flow_control.reload();
        tokio::time::sleep(SETTLE).await;
    }
}

fn watch(store: &Store) -> Option<[Watcher; 2]> {
    let revision = store.revision();
    Some([store.watch(PRIORITY_LEVELS, revision).ok()?, store.watch(FLOW_SCHEMAS, revision).ok()?])
}

/// Makes the objects what they should be, and says which of them miss another.
async fn keep(registry: &Registry) -> Result<(), ApiError> {
    kinds::flowcontrol::bootstrap(registry).await?;
    let resources = registry.resources();
    let Some(resource) = resources.get("flowcontrol.apiserver.k8s.io", "v1", "flowschemas") else { return Ok(()) };
    let levels = registry.store().snapshot(PRIORITY_LEVELS);
    let levels: HashSet<&str> = levels.iter().map(|entry| &*entry.key.name).collect();
    let schemas = registry.store().snapshot(FLOW_SCHEMAS);
    let conditions = schemas.iter().filter_map(|entry| {
        let schema: FlowSchema = serde_json::from_slice(&entry.value).ok()?;
        let level = schema.spec.as_ref().map_or("", |spec| &spec.priority_level_configuration.name);
        let condition = dangling(&schema, level, levels.contains(level))?;
        Some((Target::object(resource, "", &*entry.key.name), condition))
    });
    let conditions: Vec<_> = conditions.collect();
    let options = WriteOptions {
        field_manager: FIELD_MANAGER.to_owned(),
        user: Arc::new(User::master("system:apiserver")),
        ..WriteOptions::default()
    };
    let written = conditions.iter().map(|(target, status)| {
        registry.patch(target, Some(Subresource::Status), PatchType::Strategic, status, &options)
    });
    for written in futures::future::join_all(written).await {
        match written {
            // It is gone, or looked at again soon.
            Err(error) if !matches!(error.code, 404 | 409) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The patch that makes the condition of a schema true; `None` where it is.
fn dangling(schema: &FlowSchema, level: &str, is_there: bool) -> Option<Vec<u8>> {
    let (status, reason, end) = match is_there {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let conditions = schema.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
    let is_said = conditions.iter().any(|condition| {
        let said = [&condition.type_, &condition.status, &condition.message].map(text);
        said == ["Dangling", status, message.as_str()]
    });
    if is_said {
        return None;
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({ "type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now });
    Some(json!({ "status": { "conditions": [condition] } }).to_string().into_bytes())
}
