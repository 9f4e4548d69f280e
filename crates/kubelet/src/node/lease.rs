//! The node's Lease: the sign of life that controllers watch.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use machinery::well_known::NODE_LEASES;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// How long a Lease holds.
pub(crate) const SECONDS: i32 = 40;
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the Lease of the node until `cancel` is triggered.
pub(crate) async fn renew(shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        let wait = match once(&shared.client, &shared.config.node_name).await {
            Ok(()) => shared.config.lease_period,
            Err(error) => {
                tracing::debug!(%error, "the node's Lease was not renewed");
                RETRY.min(shared.config.lease_period)
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn once(client: &Client, name: &str) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NODE_LEASES);
    let now = MicroTime(jiff::Timestamp::now());
    let patch = json!({ "spec": { "renewTime": now, "holderIdentity": name, "leaseDurationSeconds": SECONDS } });
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => return result.map(|_| ()),
    }
    let nodes: Api<Node> = Api::all(client.clone());
    // The Lease goes with its node, which therefore must be there first.
    let node = nodes.get(name).await?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NODE_LEASES.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}
