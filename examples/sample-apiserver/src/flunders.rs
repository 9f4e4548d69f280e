//! The objects: in memory, with a version that counts all changes, and everybody who watches told of each.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The API group.
pub(crate) const GROUP: &str = "wardle.example.coracle.dev";
/// Its version.
pub(crate) const VERSION: &str = "v1";
/// The resource.
pub(crate) const PLURAL: &str = "flunders";
/// The kind.
pub(crate) const KIND: &str = "Flunder";

/// So many changes somebody may be behind who watches; then the watch ends.
const BEHIND: usize = 1024;

/// All there are.
pub(crate) struct Flunders {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
}

/// What happened, and to what.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

impl Flunders {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changes: broadcast::channel(BEHIND).0 }
    }

    /// Those of a namespace, or all, and the version that they have together.
    pub(crate) fn list(&self, namespace: &str) -> (Vec<Value>, u64) {
        let state = self.state();
        (state.of(namespace), state.version)
    }

    /// Those there are, and every change from then on.
    pub(crate) fn watch(&self, namespace: &str) -> (Vec<Value>, broadcast::Receiver<Change>) {
        let state = self.state();
        (state.of(namespace), self.changes.subscribe())
    }

    /// The one of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Adds one; `None` where there is one of its name.
    pub(crate) fn create(&self, namespace: &str, name: &str, mut object: Value) -> Option<Value> {
        let mut state = self.state();
        let key = (namespace.to_owned(), name.to_owned());
        if state.objects.contains_key(&key) {
            return None;
        }
        state.version += 1;
        object["apiVersion"] = format!("{GROUP}/{VERSION}").into();
        object["kind"] = KIND.into();
        let metadata = &mut object["metadata"];
        metadata["namespace"] = namespace.into();
        metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
        metadata["creationTimestamp"] = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        metadata["resourceVersion"] = state.version.to_string().into();
        state.objects.insert(key, object.clone());
        self.tell("ADDED", &object);
        Some(object)
    }

    /// Removes one.
    pub(crate) fn delete(&self, namespace: &str, name: &str) -> Option<Value> {
        let mut state = self.state();
        let mut object = state.objects.remove(&(namespace.to_owned(), name.to_owned()))?;
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        self.tell("DELETED", &object);
        Some(object)
    }

    /// While the state is held, so that changes are told in their order.
    fn tell(&self, kind: &'static str, object: &Value) {
        // Nobody may be watching.
        let _ = self.changes.send(Change { kind, object: object.clone() });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn of(&self, namespace: &str) -> Vec<Value> {
        let objects = self.objects.iter().filter(|((of, _), _)| namespace.is_empty() || of == namespace);
        objects.map(|(_, object)| object.clone()).collect()
    }
}

/// The document of a version that each aggregated server has to serve.
pub(crate) fn resource_list() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": PLURAL, "singularName": "flunder", "namespaced": true, "kind": KIND,
            "verbs": ["create", "delete", "get", "list", "watch"], "shortNames": ["fl"],
        }],
    })
}

/// What `kubectl explain` and `kubectl apply` read.
pub(crate) fn openapi() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let schema = json!({
        "type": "object",
        "description": "A Flunder is an object of the sample API server.",
        "x-kubernetes-group-version-kind": [{ "group": GROUP, "version": VERSION, "kind": KIND }],
        "properties": {
            "apiVersion": text("The version of the API."),
            "kind": text("The kind."),
            "metadata": { "type": "object", "description": "Standard metadata.", "x-kubernetes-preserve-unknown-fields": true },
            "spec": {
                "type": "object",
                "description": "What the Flunder is to be.",
                "properties": { "reference": text("The name of another Flunder.") },
            },
        },
    });
    let name = "dev.coracle.example.wardle.v1.Flunder";
    let body = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
    let operation = |action: &str| {
        json!({
            "responses": { "200": { "description": "OK", "content": body } },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": { "group": GROUP, "version": VERSION, "kind": KIND },
        })
    };
    let collection = format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}");
    let mut paths = serde_json::Map::new();
    paths.insert(format!("{collection}/{{name}}"), json!({ "get": operation("get"), "delete": operation("delete") }));
    paths.insert(collection, json!({ "get": operation("list"), "post": operation("post") }));
    json!({
        "openapi": "3.0.0",
        "info": { "title": "sample-apiserver", "version": "1" },
        "paths": paths,
        "components": { "schemas": { name: schema } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told() {
        let flunders = Flunders::new();
        let (before, mut changes) = flunders.watch("");
        assert!(before.is_empty());
        let object = json!({ "metadata": { "name": "a" } });
        let made = flunders.create("n", "a", object.clone()).expect("a new one");
        assert_eq!(made["metadata"]["resourceVersion"], "1");
        assert!(flunders.create("n", "a", object).is_none(), "it is there already");
        assert_eq!(flunders.list("n").0.len(), 1);
        assert!(flunders.list("other").0.is_empty());
        flunders.delete("n", "a").expect("it was there");
        let told: Vec<&str> = [changes.try_recv(), changes.try_recv()].map(|change| change.expect("told").kind).into();
        assert_eq!(told, ["ADDED", "DELETED"]);
        assert!(flunders.get("n", "a").is_none());
    }
}
