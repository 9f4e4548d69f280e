//! What the node's object says of the store: a condition beside the kubelet's, as node-problem-detector's are.
//!
//! It is written once there is something to say. While nothing at all can be written it stays what it was, and `/readyz` and
//! `coracle status` alone tell.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use store::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The condition: `True` while the store refuses writes.
const CONDITION: &str = "StoreReadOnly";
/// How soon it is tried again when the condition could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the condition of the node `name` as the store is, until `cancel` is triggered.
pub(crate) async fn run(client: Client, name: String, mut health: watch::Receiver<Health>, cancel: CancellationToken) {
    let nodes: Api<Node> = Api::all(client);
    loop {
        let now = health.borrow_and_update().clone();
        let written = write(&nodes, &name, &now).await;
        if let Err(error) = &written {
            tracing::debug!(%error, "the node's condition {CONDITION} is not written");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = health.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if written.is_err() => {}
        }
    }
}

async fn write(nodes: &Api<Node>, name: &str, health: &Health) -> Result<(), kube::Error> {
    let node = nodes.get(name).await?;
    let known = node.status.and_then(|status| status.conditions).unwrap_or_default();
    if let Some(condition) = condition(health, &known, Timestamp::now()) {
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        nodes.patch_status(name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// The condition to be written, if it says anything new to who knows the `known` ones.
fn condition(health: &Health, known: &[NodeCondition], now: Timestamp) -> Option<NodeCondition> {
    let (status, reason, message) = match health {
        Health::Healthy => ("False", "Writable", "the store takes writes"),
        Health::DiskFull(why) => ("True", "DiskFull", &**why),
        Health::ReadOnly(why) => ("True", "WriteFailed", &**why),
    };
    let known = known.iter().find(|condition| condition.type_ == CONDITION);
    let says_so = known.is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason));
    // That all is well needs no words where nobody has said otherwise.
    if says_so || (known.is_none() && *health == Health::Healthy) {
        return None;
    }
    Some(NodeCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once() {
        let full = Health::DiskFull("3 MiB are free".into());
        let fuller = Health::DiskFull("2 MiB are free".into());
        let broken = Health::ReadOnly("Input/output error".into());
        let mut known = Vec::new();
        for (health, expect) in [
            (&Health::Healthy, None),
            (&full, Some("True DiskFull 3 MiB are free")),
            (&fuller, None),
            (&broken, Some("True WriteFailed Input/output error")),
            (&Health::Healthy, Some("False Writable the store takes writes")),
            (&Health::Healthy, None),
        ] {
            let written = condition(health, &known, Timestamp::UNIX_EPOCH);
            let text = |condition: &NodeCondition| {
                let reason = condition.reason.as_deref().unwrap_or_default();
                format!("{} {reason} {}", condition.status, condition.message.as_deref().unwrap_or_default())
            };
            assert_eq!(written.as_ref().map(text).as_deref(), expect, "{health:?}");
            if let Some(written) = written {
                known = vec![written];
            }
        }
    }
}
