//! The webhooks that are configured, read once for each state of the configurations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use machinery::selector::LabelSelectorError;
use machinery::status::ApiError;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use store::Snapshot;

use crate::Registry;
use crate::admission::conditions::Conditions;
use crate::admission::decode_stored;
use crate::admission::scope::{Rule, Scope, selector};
use crate::apart;
use crate::pipeline::managed_fields;

const MUTATING: &str = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
const VALIDATING: &str = "admissionregistration.k8s.io/validatingwebhookconfigurations";

/// What the registry knows of webhooks.
#[derive(Default)]
pub(crate) struct Configured {
    mutating: Known,
    validating: Known,
}

/// The webhooks of the configurations of one resource.
#[derive(Default)]
struct Known {
    /// As they were read last. It is held for a moment only.
    read: Mutex<Option<Read>>,
    /// Held by whoever reads them: conditions are compiled, which takes its time.
    reading: Mutex<()>,
}

/// Webhooks, and the configurations they were read from.
struct Read {
    of: Snapshot,
    hooks: Arc<Vec<Hook>>,
}

impl Known {
    /// The webhooks, if the configurations are still those that were read.
    fn of(&self, snapshot: &Snapshot) -> Option<Arc<Vec<Hook>>> {
        let read = self.read.lock();
        read.as_ref().filter(|read| read.of.is_same(snapshot)).map(|read| Arc::clone(&read.hooks))
    }
}

/// A webhook.
pub(in crate::admission) struct Hook {
    pub(in crate::admission) name: String,
    pub(super) scope: Scope,
    pub(super) conditions: Conditions,
    pub(super) ignore_failure: bool,
    pub(in crate::admission) reinvoke: bool,
    pub(super) side_effects: String,
    pub(super) client_config: ClientConfig,
}

/// Where a webhook is, and for how long it is waited for.
pub(crate) struct ClientConfig {
    url: Option<String>,
    service: Option<ServiceTarget>,
    pub(super) ca_bundle: Vec<u8>,
    pub(super) timeout: Duration,
}

/// A webhook within the cluster.
pub(crate) struct ServiceTarget {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) path: Option<String>,
    pub(crate) port: Option<i32>,
}

/// The webhooks that may change objects.
///
/// # Errors
/// 500 when a configuration cannot be decoded: nobody knows what it would have refused.
pub(in crate::admission) fn mutating(registry: &Registry) -> Result<Arc<Vec<Hook>>, ApiError> {
    read(registry, MUTATING, &registry.0.webhooks.mutating, |configuration: MutatingWebhookConfiguration| {
        configuration.webhooks.unwrap_or_default()
    })
}

/// The webhooks that judge objects.
///
/// # Errors
/// As [`mutating`].
pub(in crate::admission) fn validating(registry: &Registry) -> Result<Arc<Vec<Hook>>, ApiError> {
    read(registry, VALIDATING, &registry.0.webhooks.validating, |configuration: ValidatingWebhookConfiguration| {
        configuration.webhooks.unwrap_or_default().into_iter().map(as_mutating).collect()
    })
}

/// Upstream: configurations in the order of their names, webhooks in the order of their configuration.
fn read<T: DeserializeOwned>(
    registry: &Registry,
    storage: &str,
    known: &Known,
    webhooks: impl Fn(T) -> Vec<MutatingWebhook>,
) -> Result<Arc<Vec<Hook>>, ApiError> {
    let snapshot = registry.store().snapshot(storage);
    if snapshot.is_empty() {
        return Ok(Arc::default());
    }
    if let Some(hooks) = known.of(&snapshot) {
        return Ok(hooks);
    }
    apart::compute(|| {
        let _reading = known.reading.lock();
        // Somebody else may have read them meanwhile.
        if let Some(hooks) = known.of(&snapshot) {
            return Ok(hooks);
        }
        let mut hooks = Vec::new();
        for entry in snapshot.iter() {
            let configuration = decode_stored(entry, &managed_fields::split(&entry.value).0)?;
            for hook in webhooks(configuration) {
                hooks.push(Hook::new(hook).map_err(|error| {
                    ApiError::internal(format!("cannot read a selector of the stored object {}: {error}", entry.key))
                })?);
            }
        }
        let hooks = Arc::new(hooks);
        *known.read.lock() = Some(Read { of: snapshot.clone(), hooks: Arc::clone(&hooks) });
        Ok(hooks)
    })
}

impl Hook {
    fn new(hook: MutatingWebhook) -> Result<Self, LabelSelectorError> {
        let seconds = u64::try_from(hook.timeout_seconds.unwrap_or(10)).unwrap_or(10);
        let WebhookClientConfig { ca_bundle, service, url } = hook.client_config;
        let service = service.map(|ServiceReference { name, namespace, path, port }| ServiceTarget {
            namespace,
            name,
            path,
            port,
        });
        let ca_bundle = ca_bundle.map(|bundle| bundle.0).unwrap_or_default();
        Ok(Self {
            name: hook.name,
            scope: Scope {
                rules: hook.rules.into_iter().flatten().map(Rule::from).collect(),
                excluded: Vec::new(),
                unruled: false,
                equivalent: hook.match_policy.as_deref() != Some("Exact"),
                namespaces: selector(hook.namespace_selector)?,
                objects: selector(hook.object_selector)?,
            },
            conditions: Conditions::new(hook.match_conditions.iter().flatten(), false),
            ignore_failure: hook.failure_policy.as_deref() == Some("Ignore"),
            reinvoke: hook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            side_effects: hook.side_effects,
            client_config: ClientConfig::new(url, service, ca_bundle, Duration::from_secs(seconds)),
        })
    }
}

impl ClientConfig {
    pub(crate) fn new(
        url: Option<String>,
        service: Option<ServiceTarget>,
        ca_bundle: Vec<u8>,
        timeout: Duration,
    ) -> Self {
        Self { url, service, ca_bundle, timeout }
    }

    /// Its URL, and the address behind it where it is a service's. The error says why there is none.
    pub(super) fn find(&self, registry: &Registry) -> Result<(String, Option<SocketAddr>), String> {
        match (&self.url, &self.service) {
            (Some(url), _) => Ok((url.clone(), None)),
            (None, Some(service)) => {
                let port = service.port.unwrap_or(443);
                let path = service.path.as_deref().unwrap_or("/");
                let url = format!("https://{}.{}.svc:{port}{path}", service.name, service.namespace);
                let address = registry
                    .endpoint(&service.namespace, &service.name, port)
                    .map_err(|why| format!("Post \"{url}?timeout={}s\": {why}", self.timeout.as_secs()))?;
                Ok((url, Some(address)))
            }
            (None, None) => Err("there is neither a url nor a service".to_owned()),
        }
    }
}

/// A webhook of either kind as one that may change objects: it has all fields of the others.
#[must_use]
pub fn as_mutating(hook: ValidatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        reinvocation_policy: None,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}
