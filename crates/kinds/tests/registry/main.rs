//! The registry on a real store in a directory of its own.

mod admission;
mod applies;
mod custom;
mod deletes;
mod every_kind;
mod flow_control;
mod mutations;
mod pod_security;
mod policies;
mod reads;
mod resets;
mod subresources;
mod watches;
mod writes;

use std::sync::Arc;

use bytes::Bytes;
use coracle_kinds::AdmissionConfig;
use futures::future::BoxFuture;
use machinery::Verb;
use registry::request::{DeleteRequest, ListRequest, PatchType, Target, WriteOptions, Written};
use registry::{
    Access, ApiError, Dependencies, EscalationCheck, Options, Registry, Storage, Subresource, User, WebhookCall,
    WebhookClient, WriteAttributes,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Everybody may write anything.
struct Everybody;

impl EscalationCheck for Everybody {
    fn check(&self, _write: &WriteAttributes<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    fn may(&self, _user: &User, _access: &Access<'_>) -> Result<(), String> {
        Ok(())
    }

    fn may_reach(&self, _user: &User, _verb: Verb<'_>, _path: &str) -> Result<(), String> {
        Ok(())
    }
}

/// No webhook can be reached.
struct NoWebhooks;

impl WebhookClient for NoWebhooks {
    fn call(&self, _call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async { Err("there are no webhooks here".to_owned()) })
    }
}

pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) async fn open() -> Self {
        Self::with_webhooks(Arc::new(NoWebhooks)).await
    }

    /// One whose webhooks are all `client`.
    pub(crate) async fn with_webhooks(client: Arc<dyn WebhookClient>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Self::open_with(&dir, client);
        coracle_kinds::bootstrap(&registry, 6443).await.unwrap();
        Self { registry, dir }
    }

    pub(crate) fn open_in(dir: &TempDir) -> Registry {
        Self::open_with(dir, Arc::new(NoWebhooks))
    }

    /// One with a configuration of admission.
    pub(crate) async fn with_admission(config: AdmissionConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Self::open_configured(&dir, Arc::new(NoWebhooks), config);
        coracle_kinds::bootstrap(&registry, 6443).await.unwrap();
        Self { registry, dir }
    }

    fn open_with(dir: &TempDir, webhooks: Arc<dyn WebhookClient>) -> Registry {
        Self::open_configured(dir, webhooks, AdmissionConfig::default())
    }

    fn open_configured(dir: &TempDir, webhooks: Arc<dyn WebhookClient>, config: AdmissionConfig) -> Registry {
        let store = store::Options { fsync: false, ..store::Options::new(dir.path()) };
        let storage = Storage::open(Options { store, allocators: Default::default() }, coracle_kinds::all()).unwrap();
        let plugins = coracle_kinds::plugins(&[addon_lws::ADMISSION], config);
        Registry::new(storage, Dependencies { escalation: Arc::new(Everybody), webhooks, plugins })
    }

    /// `apps/v1/deployments`, `v1/pods`.
    pub(crate) fn target(&self, path: &str, namespace: &str, name: &str) -> Target {
        let (api_version, plural) = path.rsplit_once('/').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resources = self.registry.resources();
        Target::object(resources.get(group, version, plural).unwrap(), namespace, name)
    }

    pub(crate) async fn create(&self, path: &str, namespace: &str, body: Value) -> Result<Value, ApiError> {
        let written = self.create_with(path, namespace, body, &WriteOptions::default()).await?;
        assert!(written.created);
        Ok(object(&written))
    }

    pub(crate) async fn create_with(
        &self,
        path: &str,
        namespace: &str,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let target = self.target(path, namespace, "");
        self.registry.create(&target, body.to_string().as_bytes(), options).await
    }

    pub(crate) async fn update(&self, target: &Target, body: &Value) -> Result<Value, ApiError> {
        let options = WriteOptions::default();
        let written = self.registry.update(target, None, body.to_string().as_bytes(), &options).await?;
        Ok(object(&written))
    }

    pub(crate) async fn update_sub(
        &self,
        target: &Target,
        subresource: Subresource,
        body: &Value,
    ) -> Result<Value, ApiError> {
        let options = WriteOptions::default();
        let body = body.to_string();
        let written = self.registry.update(target, Some(subresource), body.as_bytes(), &options).await?;
        Ok(object(&written))
    }

    pub(crate) async fn merge(&self, target: &Target, patch: Value) -> Result<Value, ApiError> {
        self.patch(target, PatchType::Merge, patch).await
    }

    pub(crate) async fn patch(&self, target: &Target, kind: PatchType, patch: Value) -> Result<Value, ApiError> {
        let options = WriteOptions::default();
        let patch = patch.to_string();
        let written = self.registry.patch(target, None, kind, patch.as_bytes(), &options).await?;
        Ok(object(&written))
    }

    pub(crate) async fn get(&self, target: &Target) -> Result<Value, ApiError> {
        let entry = self.registry.get(target, "").await?;
        Ok(serde_json::from_slice(&self.registry.body(&target.resource, &entry)?).unwrap())
    }

    pub(crate) async fn delete(&self, target: &Target, request: &DeleteRequest) -> Result<(Value, bool), ApiError> {
        let deleted = self.registry.delete(target, request).await?;
        Ok((serde_json::from_slice(&deleted.body).unwrap(), deleted.gone))
    }

    pub(crate) async fn names(&self, target: &Target, request: &ListRequest) -> Result<Vec<String>, ApiError> {
        let page = self.registry.list(target, request).await?;
        Ok(page.entries.iter().map(|entry| entry.key.name.to_string()).collect())
    }
}

pub(crate) fn object(written: &Written) -> Value {
    serde_json::from_slice(&written.body).unwrap()
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "1" } })
}

pub(crate) fn labelled(name: &str, app: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "app": app } } })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "nginx" }] },
    })
}

pub(crate) fn deployment(name: &str, replicas: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "nginx" }] },
            },
        },
    })
}
