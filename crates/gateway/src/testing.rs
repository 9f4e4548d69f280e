//! Objects for the tests of this crate.

pub(crate) mod api;

use std::collections::HashMap;
use std::sync::Arc;

use informer::{ObjectKey, SERVICE_NAME, service_of};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::backend::Objects;
use crate::gateway_api::objects::Typed;

/// A few objects that rules lead to.
#[derive(Default)]
pub(crate) struct TestObjects {
    services: HashMap<ObjectKey, Arc<Service>>,
    slices: HashMap<ObjectKey, Vec<Arc<EndpointSlice>>>,
    secrets: HashMap<ObjectKey, Arc<Secret>>,
}

impl TestObjects {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn service(mut self, service: Value) -> Self {
        let service: Service = parse(service);
        self.services.insert(ObjectKey::of(&service), Arc::new(service));
        self
    }

    /// A Service with one port, and its endpoints.
    pub(crate) fn web(self, namespace: &str, name: &str, port: (&str, u16), endpoints: &[&str]) -> Self {
        let spec = json!({ "ports": [{ "name": port.0, "port": 80 }] });
        let service = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
        self.service(service).slices([slice(namespace, name, port, endpoints)])
    }

    pub(crate) fn slices(mut self, slices: impl IntoIterator<Item = Value>) -> Self {
        for slice in slices {
            let slice: EndpointSlice = parse(slice);
            self.slices.entry(service_of(&slice).unwrap()).or_default().push(Arc::new(slice));
        }
        self
    }

    pub(crate) fn secret(mut self, secret: Secret) -> Self {
        self.secrets.insert(ObjectKey::of(&secret), Arc::new(secret));
        self
    }
}

impl Objects for TestObjects {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key).cloned()
    }

    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.get(service).cloned().unwrap_or_default()
    }

    fn secret(&self, key: &ObjectKey) -> Option<Arc<Secret>> {
        self.secrets.get(key).cloned()
    }
}

/// An object from its JSON.
pub(crate) fn parse<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// An object of the Gateway API from its JSON.
pub(crate) fn typed<S: DeserializeOwned>(object: Value) -> Typed<S> {
    Typed::new(Arc::new(parse(object))).unwrap()
}

/// A slice whose endpoints are `ADDRESS`, `ADDRESS unready` or `ADDRESS going`.
pub(crate) fn slice(namespace: &str, service: &str, port: (&str, u16), endpoints: &[&str]) -> Value {
    let endpoint = |text: &&str| {
        let (address, state) = text.split_once(' ').unwrap_or((text, ""));
        let conditions = match state {
            "" => json!({}),
            "unready" => json!({ "ready": false, "serving": false, "terminating": false }),
            _ => json!({ "ready": false, "serving": true, "terminating": true }),
        };
        json!({ "addresses": [address], "conditions": conditions })
    };
    json!({
        "metadata": {
            "namespace": namespace, "name": format!("{service}-{}", port.0), "labels": { SERVICE_NAME: service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": port.0, "port": port.1, "protocol": "TCP" }],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// A certificate for a name and its key, in PEM.
pub(crate) fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A Secret with a certificate.
pub(crate) fn secret(namespace: &str, name: &str, version: &str, (chain, key): &(String, String)) -> Secret {
    let data = [("tls.crt", chain), ("tls.key", key)];
    Secret {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(crate::certificate::TLS.to_owned()),
        data: Some(data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes()))).into()),
        ..Secret::default()
    }
}
