//! Snapshots of a cluster that runs, as an API: `snapshots.coracle.dev/v1`, resource `snapshots`. One is created, which begins
//! it, and asked for until it is saved. What was saved is a file: the API knows only the latest one that it was asked for.
//!
//! A snapshot has everything that is in the cluster, so no role but those that may do everything allows it.

use std::sync::Arc;

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use docker::Docker;
use http::{Method, Request, Response};
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::{ApiError, Reason};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Store, Transformer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::save::{Source, Wanted, save};
use super::{Error, Manifest, Snapshots, check_name};
use crate::own_api;
use crate::profile::Profile;

const GROUP: &str = "snapshots.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "snapshots";

/// Makes snapshots of the cluster in this process.
#[derive(Clone)]
pub(crate) struct Saver(Arc<Inner>);

struct Inner {
    source: Source,
    latest: Mutex<Option<Job>>,
    resources: Arc<[AggregatedResource]>,
}

/// A snapshot that was asked for.
struct Job {
    name: String,
    /// Absent while it is being saved; then what became of it.
    result: Arc<Mutex<Option<Result<Manifest, String>>>>,
    task: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Body {
    metadata: Name,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    /// The revision whose state is to be saved, as text like any `resourceVersion`; the newest if it is left out.
    revision: Option<String>,
    /// Whether what pods keep in volumes is saved.
    volumes: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self { revision: None, volumes: true }
    }
}

impl Saver {
    /// `tell` is told while the pods are held.
    pub(crate) fn new(
        profile: &Profile,
        store: Store,
        transformer: Arc<dyn Transformer>,
        docker: Docker,
        tell: watch::Sender<bool>,
    ) -> Self {
        let resource = AggregatedResource {
            name: RESOURCE.to_owned(),
            singular: "snapshot".to_owned(),
            kind: "Snapshot".to_owned(),
            verbs: vec![Verb::Create, Verb::Get],
            ..AggregatedResource::default()
        };
        let source = Source {
            profile: profile.clone(),
            store,
            transformer,
            freezer: Some((docker, tell)),
            cancel: CancellationToken::new(),
        };
        Self(Arc::new(Inner { source, latest: Mutex::default(), resources: [resource].into() }))
    }

    /// The API.
    pub(crate) fn extension(&self) -> AggregatedApi {
        AggregatedApi { group: GROUP, version: VERSION, service: Arc::new(self.clone()) }
    }

    /// Gives up a snapshot that is being saved, and lets the pods go on.
    pub(crate) async fn shutdown(&self) {
        self.0.source.cancel.cancel();
        let latest = self.0.latest.lock().take();
        if let Some(job) = latest {
            // It fails only if it panicked, and then nothing is left to wait for.
            let _ = job.task.await;
        }
    }

    fn create(&self, request: &Request<Bytes>) -> Result<Value, ApiError> {
        if request.uri().query().is_some_and(|query| query.contains("dryRun")) {
            return Err(ApiError::bad_request("dryRun is not supported for snapshots: one is saved or not"));
        }
        let Body { metadata: Name { name }, spec } =
            serde_json::from_slice(request.body()).map_err(|error| ApiError::bad_request(error.to_string()))?;
        check_name(&name).map_err(|error| ApiError::bad_request(format!("metadata.name: {error}")))?;
        let revision = spec.revision.as_deref().map(str::parse).transpose();
        let revision = revision.map_err(|_| ApiError::bad_request("spec.revision: must be a revision"))?;
        let snapshots = Snapshots::beside(&self.0.source.profile).map_err(ApiError::internal)?;
        let mut latest = self.0.latest.lock();
        if let Some(job) = latest.as_ref().filter(|job| job.result.lock().is_none()) {
            let why = format!("the snapshot {} is being saved; try again when it is", job.name);
            return Err(ApiError::new(409, Reason::Conflict, why));
        }
        if snapshots.path(&name).is_ok_and(|path| path.exists()) {
            return Err(ApiError::new(409, Reason::AlreadyExists, Error::Exists(name).to_string()));
        }
        let result = Arc::new(Mutex::new(None));
        let wanted = Wanted { name: name.clone(), revision, volumes: spec.volumes };
        let (source, ended) = (self.0.source.clone(), Arc::clone(&result));
        // Whether or not somebody waits for it: the pods are held meanwhile.
        let task = tokio::spawn(async move {
            let saved = save(&source, &wanted).await;
            match &saved {
                Ok(manifest) => {
                    tracing::info!(
                        name = wanted.name,
                        revision = manifest.revision,
                        objects = manifest.objects,
                        "saved a snapshot"
                    );
                }
                Err(error) => tracing::warn!(name = wanted.name, %error, "no snapshot was saved"),
            }
            *ended.lock() = Some(saved.map_err(|error| told(&error)));
        });
        let job = Job { name, result, task };
        let object = object(&job);
        *latest = Some(job);
        Ok(object)
    }

    fn get(&self, name: &str) -> Result<Value, ApiError> {
        let latest = self.0.latest.lock();
        let job = latest.as_ref().filter(|job| job.name == name);
        let none = || {
            format!("no snapshot {name} was asked for last; those that are saved are listed by: coracle snapshot list")
        };
        job.map(object).ok_or_else(|| ApiError::new(404, Reason::NotFound, none()))
    }
}

/// An error with its causes, on one line.
fn told(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn object(job: &Job) -> Value {
    let status = match &*job.result.lock() {
        None => json!({ "phase": "Saving" }),
        Some(Ok(manifest)) => json!({
            "phase": "Saved", "revision": manifest.revision.to_string(), "objects": manifest.objects,
            "bytes": manifest.bytes(), "volumes": manifest.volumes, "leftOut": manifest.left_out,
        }),
        Some(Err(why)) => json!({ "phase": "Failed", "message": why }),
    };
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Snapshot",
        "metadata": { "name": job.name }, "status": status,
    })
}

#[async_trait]
impl AggregatedService for Saver {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.0.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = match (request.method(), &own_api::path(&request, GROUP, VERSION)[..]) {
            (&Method::POST, [RESOURCE]) => self.create(&request),
            (&Method::GET, [RESOURCE, name]) => self.get(name),
            (_, [RESOURCE] | [RESOURCE, _]) => {
                let resource = GroupResource::from_static(GROUP, RESOURCE);
                Err(ApiError::method_not_supported(&resource, &request.method().as_str().to_lowercase()))
            }
            _ => Err(ApiError::no_such_resource()),
        };
        own_api::response(request.method(), answer)
    }
}
