//! Conversion by a webhook: a program of the user's that knows how the versions of a definition differ.
//!
//! Objects are read and written by functions that do not wait, since nothing else here has to. A conversion does: the thread
//! that needs it lets go of its other work ([`tokio::task::block_in_place`]), so that a webhook which is slow harms nobody
//! but those who ask for another version than the one that is stored. What was converted is kept for a while, so that many
//! watchers of a version cost one call.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, ServiceReference, WebhookClientConfig,
};
use machinery::depth;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::object::CustomObject;
use crate::admission::webhook::{ClientConfig, ServiceTarget, post};
use crate::table::ResourceInfo;
use crate::{Inner, Registry};

/// How long a conversion may take; upstream's figure.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many converted objects are kept, and of how many bytes together.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 32 << 20;

/// The version of the conversation, in the order of preference.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// The webhook of a definition.
pub(super) struct Converter {
    registry: Weak<Inner>,
    client_config: ClientConfig,
    review: &'static str,
    kept: Mutex<Conversions>,
    hasher: RandomState,
}

/// What was converted.
#[derive(Default)]
struct Conversions {
    objects: HashMap<Kept, Bytes>,
    bytes: usize,
}

/// The bytes that were converted, by their hash, and the version they were converted to. The revision alone does not tell:
/// what is only tried (dry run), or stored without its owners, has it too.
#[derive(PartialEq, Eq, Hash)]
struct Kept {
    stored: u64,
    length: usize,
    version: Box<str>,
}

impl Converter {
    /// The webhook that a definition names, if it has one.
    pub(super) fn new(registry: &Registry, conversion: &CustomResourceConversion) -> Option<Self> {
        if conversion.strategy != "Webhook" {
            return None;
        }
        let webhook = conversion.webhook.clone()?;
        let WebhookClientConfig { ca_bundle, service, url } = webhook.client_config.unwrap_or_default();
        let service = service.map(|ServiceReference { name, namespace, path, port }| ServiceTarget {
            namespace,
            name,
            path,
            port,
        });
        let ca_bundle = ca_bundle.map(|bundle| bundle.0).unwrap_or_default();
        let known = |version: &String| REVIEWS.into_iter().find(|known| known == version);
        let review = webhook.conversion_review_versions.iter().find_map(known).unwrap_or(REVIEWS[0]);
        let registry = std::sync::Arc::downgrade(&registry.0);
        Some(Self {
            registry,
            client_config: ClientConfig::new(url, service, ca_bundle, TIMEOUT),
            review,
            kept: Mutex::default(),
            hasher: RandomState::new(),
        })
    }

    fn key(&self, stored: &[u8], to: &ResourceInfo) -> Kept {
        Kept { stored: self.hasher.hash_one(stored), length: stored.len(), version: to.version.as_str().into() }
    }

    /// What a stored object was converted to before.
    pub(super) fn kept(&self, stored: &[u8], to: &ResourceInfo) -> Option<Bytes> {
        let key = self.key(stored, to);
        self.kept.lock().objects.get(&key).cloned()
    }

    /// Keeps what a stored object was converted to.
    pub(super) fn keep(&self, stored: &[u8], to: &ResourceInfo, converted: Bytes) {
        let key = self.key(stored, to);
        let mut kept = self.kept.lock();
        if kept.objects.len() >= KEPT || kept.bytes + converted.len() > KEPT_BYTES {
            *kept = Conversions::default();
        }
        kept.bytes += converted.len();
        kept.objects.insert(key, converted);
    }

    /// Asks the webhook. The error is what follows `conversion webhook for KIND`.
    pub(super) fn convert(&self, objects: Vec<CustomObject>, to: &ResourceInfo) -> Result<Vec<CustomObject>, String> {
        let registry = self.registry.upgrade().map(Registry).ok_or("failed: the server is shutting down")?;
        let uid = uuid::Uuid::new_v4().to_string();
        let request = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
            "request": { "uid": uid, "desiredAPIVersion": to.api_version, "objects": objects },
        });
        let answer = wait(post(&registry, &self.client_config, request.to_string().into()));
        let converted = answer.and_then(|answer| self.read(&uid, answer)).map_err(|why| format!("failed: {why}"))?;
        if converted.len() != objects.len() {
            return Err(format!("returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.into_iter().zip(converted).enumerate();
        pairs
            .map(|(index, (original, converted))| {
                accept(original, converted, to)
                    .map_err(|why| format!("returned invalid object at index {index}: {why}"))
            })
            .collect()
    }

    /// The objects of an answer.
    fn read(&self, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        let expected = format!("apiextensions.k8s.io/{}", self.review);
        if version != expected || kind != "ConversionReview" {
            return Err(format!(
                "expected webhook response of {expected}, Kind=ConversionReview, got {version}, Kind={kind}"
            ));
        }
        let mut response = answer["response"].take();
        if response.is_null() {
            return Err("no response provided".to_owned());
        }
        let found = text(&response["uid"]);
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let (status, message) = (text(&response["result"]["status"]), text(&response["result"]["message"]));
        if status != "Success" {
            let unsaid = || format!("response.result.status was '{status}', not 'Success'");
            return Err(if message.is_empty() { unsaid() } else { message });
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// Takes a converted object for what it should be: of the version that was asked for, and the same object. A webhook may
/// change labels and annotations, and nothing else of the metadata.
fn accept(original: CustomObject, converted: Value, to: &ResourceInfo) -> Result<CustomObject, String> {
    depth::check(&converted).map_err(|error| error.to_string())?;
    if !converted["metadata"].is_object() {
        return Err("invalid metadata: missing metadata in converted object".to_owned());
    }
    let mut converted: CustomObject = serde_json::from_value(converted).map_err(|error| error.to_string())?;
    if converted.api_version != to.api_version {
        let (expected, found) = (&to.api_version, &converted.api_version);
        return Err(format!("invalid groupVersion (expected {expected}, received {found})"));
    }
    if converted.kind != to.kind {
        return Err(format!("invalid kind (expected {}, received {})", to.kind, converted.kind));
    }
    let mut meta = original.meta;
    for (what, before, after) in [
        ("name", &meta.name, &converted.meta.name),
        ("namespace", &meta.namespace, &converted.meta.namespace),
        ("UID", &meta.uid, &converted.meta.uid),
    ] {
        let (before, after) = (before.as_deref().unwrap_or_default(), after.as_deref().unwrap_or_default());
        if before != after {
            return Err(format!("invalid metadata: must have the same {what}: {before} != {after}"));
        }
    }
    meta.labels = converted.meta.labels.take();
    meta.annotations = converted.meta.annotations.take();
    converted.meta = meta;
    Ok(converted)
}

/// Waits for something on a thread that must not wait.
fn wait<T: Send>(future: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    if let Ok(handle) = Handle::try_current()
        && handle.runtime_flavor() == RuntimeFlavor::MultiThread
    {
        return tokio::task::block_in_place(|| handle.block_on(future));
    }
    // A runtime of one thread cannot go on meanwhile; the webhook is waited for on another one.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(future)
        });
        waiting.join().unwrap_or_else(|_| Err("the conversion was given up".to_owned()))
    })
}
