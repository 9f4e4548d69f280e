//! An operator: it makes websites out of objects of a kind of its own.
//!
//! `operator-rust crd` prints the CustomResourceDefinition; without an argument it runs, from a host with a kubeconfig or
//! in a pod with a service account.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// As whom fields are claimed, and events reported.
const MANAGER: &str = "website-operator";

/// What a user wishes: a page, served by so many replicas.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug)]
#[kube(
    group = "example.coracle.dev",
    version = "v1",
    kind = "Website",
    namespaced,
    shortname = "site",
    status = "WebsiteStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
struct WebsiteSpec {
    /// The page.
    html: String,
    /// How many serve it.
    #[serde(default = "one")]
    replicas: i32,
}

/// What there is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
struct WebsiteStatus {
    /// `READY/WISHED`.
    ready: String,
}

fn one() -> i32 {
    1
}

/// What went wrong; it is tried again.
#[derive(Debug)]
struct Failed(kube::Error);

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Failed {}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        Self(error)
    }
}

/// What the reconciler works with.
struct Operator {
    client: Client,
    events: Recorder,
}

/// Brings the actual state nearer to the wished one. It gets an object, not a change: whatever happened, and however
/// often it is called, it looks at what is there and does what is missing.
async fn reconcile(site: Arc<Website>, operator: Arc<Operator>) -> Result<Action, Failed> {
    let client = &operator.client;
    let namespace = site.namespace().unwrap_or_default();
    for (kind, api_version, body) in wished(&site) {
        apply(client, &site, &namespace, kind, api_version, body).await?;
    }
    // The actual state is the Deployment's to know.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let deployment = deployments.get_opt(&site.name_any()).await?;
    let ready = deployment.and_then(|deployment| deployment.status?.ready_replicas).unwrap_or_default();
    let status = WebsiteStatus { ready: format!("{ready}/{}", site.spec.replicas) };
    if site.status.as_ref() != Some(&status) {
        let sites: Api<Website> = Api::namespaced(client.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": status }));
        sites.patch_status(&site.name_any(), &PatchParams::default(), &patch).await?;
        let event = Event {
            type_: EventType::Normal,
            reason: "Serving".to_owned(),
            note: Some(format!("{} replicas are ready", status.ready)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        operator.events.publish(&event, &site.object_ref(&())).await?;
    }
    // Everything that matters is watched; this is for what was missed all the same.
    Ok(Action::requeue(Duration::from_secs(300)))
}

/// The objects a site is made of: the page, who serves it, and where.
fn wished(site: &Website) -> [(&'static str, &'static str, Value); 3] {
    let name = site.name_any();
    let labels = json!({ "website": name });
    let page = json!({ "data": { "index.html": site.spec.html } });
    let server = json!({ "spec": {
        "replicas": site.spec.replicas,
        "selector": { "matchLabels": labels },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "volumes": [{ "name": "page", "configMap": { "name": name } }],
                "containers": [{
                    "name": "httpd",
                    "image": std::env::var("WEBSITE_IMAGE").unwrap_or_else(|_| "busybox:1".to_owned()),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["httpd", "-f", "-p", "8080", "-h", "/page"],
                    "ports": [{ "containerPort": 8080 }],
                    "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "page", "mountPath": "/page" }],
                }],
            },
        },
    } });
    let place = json!({ "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] } });
    [("ConfigMap", "v1", page), ("Deployment", "apps/v1", server), ("Service", "v1", place)]
}

/// Applies an object that belongs to the site: it goes when the site goes, and a change of it wakes the reconciler.
async fn apply(
    client: &Client,
    site: &Website,
    namespace: &str,
    kind: &str,
    api_version: &str,
    mut body: Value,
) -> Result<(), Failed> {
    let name = site.name_any();
    body["apiVersion"] = api_version.into();
    body["kind"] = kind.into();
    let owner = site.controller_owner_ref(&());
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    body["metadata"] = json!(metadata);
    let parameters = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(body);
    match kind {
        "Deployment" => {
            drop(Api::<Deployment>::namespaced(client.clone(), namespace).patch(&name, &parameters, &patch).await?);
        }
        "Service" => {
            drop(Api::<Service>::namespaced(client.clone(), namespace).patch(&name, &parameters, &patch).await?);
        }
        _ => drop(Api::<ConfigMap>::namespaced(client.clone(), namespace).patch(&name, &parameters, &patch).await?),
    }
    Ok(())
}

/// What fails is tried again after a while.
fn again(site: Arc<Website>, error: &Failed, _operator: Arc<Operator>) -> Action {
    eprintln!("{}: {error}", site.name_any());
    Action::requeue(Duration::from_secs(2))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("crd") {
        serde_json::to_writer_pretty(std::io::stdout(), &Website::crd())?;
        return Ok(());
    }
    let client = Client::try_default().await?;
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
    let events = Recorder::new(client.clone(), reporter);
    let sites: Api<Website> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    eprintln!("watching websites");
    Controller::new(sites, watcher::Config::default())
        .owns(deployments, watcher::Config::default())
        .shutdown_on_signal()
        .run(reconcile, again, Arc::new(Operator { client, events }))
        .for_each(|_| async {})
        .await;
    Ok(())
}
