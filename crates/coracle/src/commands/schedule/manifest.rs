//! The pod in a manifest.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

/// The one pod of a manifest: itself, or as the template of its owner makes it.
pub(super) fn pod(text: &str) -> Result<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        // The lines after the first show the place.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        anyhow!("{}", line.strip_prefix("error: ").unwrap_or(line).to_owned())
    })?;
    let objects: Vec<Value> = documents.into_iter().flat_map(items).filter(|object| !object.is_null()).collect();
    let mut pods = objects.iter().filter_map(of_object);
    match (pods.next(), pods.next()) {
        (Some(pod), None) => pod,
        (Some(_), Some(_)) => bail!("it has more than one pod; put the one that is meant in a file of its own"),
        (None, _) => {
            let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap_or("no kind")).collect();
            let what = if kinds.is_empty() { "it is empty".to_owned() } else { format!("it has {}", kinds.join(", ")) };
            bail!("it holds no pod: {what}; expected a Pod, Deployment, StatefulSet, ReplicaSet, Job or CronJob")
        }
    }
}

/// The objects of a list; any other object is one.
fn items(mut document: Value) -> Vec<Value> {
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if document["kind"] == "List" => items,
        _ => vec![document],
    }
}

/// The pod of an object; nothing of a kind that makes none.
fn of_object(object: &Value) -> Option<Result<Value>> {
    let template = match object["kind"].as_str()? {
        "Pod" => return Some(Ok(object.clone())),
        "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Job" => &object["spec"]["template"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        "DaemonSet" => {
            let why = "a DaemonSet has a pod on each node, which its controller chooses; take its template as a Pod";
            return Some(Err(anyhow!(why)));
        }
        _ => return None,
    };
    let mut metadata = template["metadata"].as_object().cloned().unwrap_or_else(Map::new);
    let name = object["metadata"]["name"].as_str().unwrap_or("pod");
    metadata.insert("generateName".to_owned(), format!("{name}-").into());
    if let Some(namespace) = object["metadata"].get("namespace") {
        metadata.insert("namespace".to_owned(), namespace.clone());
    }
    Some(Ok(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_found_in_what_makes_it() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n";
        let pod_text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a}\nspec: {priority: 1}\n";
        assert_eq!(pod(pod_text).expect("a pod")["metadata"]["name"], "p");
        assert_eq!(pod(&format!("{service}---\n{pod_text}---\n")).expect("a pod")["spec"]["priority"], 1);
        let list = format!("{{kind: List, items: [{}]}}", pod(pod_text).expect("a pod"));
        assert_eq!(pod(&list).expect("a pod")["metadata"]["name"], "p");

        let template = "{metadata: {labels: {app: w}}, spec: {priority: 7}}";
        for (kind, spec) in [
            ("Deployment", format!("{{template: {template}}}")),
            ("Job", format!("{{template: {template}}}")),
            ("CronJob", format!("{{jobTemplate: {{spec: {{template: {template}}}}}}}")),
        ] {
            let found = pod(&format!("{{kind: {kind}, metadata: {{name: w, namespace: a}}, spec: {spec}}}"));
            let expected = json!({
                "apiVersion": "v1", "kind": "Pod", "spec": { "priority": 7 },
                "metadata": { "generateName": "w-", "namespace": "a", "labels": { "app": "w" } },
            });
            assert_eq!(found.expect(kind), expected, "{kind}");
        }
        for (text, why) in [
            ("", "it is empty"),
            (service, "it holds no pod: it has Service; expected a Pod"),
            ("{a: [", "line"),
            ("just words", "no kind"),
            ("kind: DaemonSet", "take its template as a Pod"),
            (&format!("{pod_text}---\n{pod_text}"), "more than one pod"),
        ] {
            let error = pod(text).expect_err(text).to_string();
            assert!(error.contains(why) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
