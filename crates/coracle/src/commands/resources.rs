//! What the API server serves, by the names that people use for it.

use anyhow::{Result, bail};
use http::Request;
use http::header::ACCEPT;
use kube::Client;
use serde_json::Value;

/// Upstream's aggregated discovery (`staging/src/k8s.io/api/apidiscovery/v2`).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(super) group: String,
    pub(super) version: String,
    /// `pods`.
    pub(super) plural: String,
    pub(crate) singular: String,
    short: Vec<String>,
    kind: String,
    pub(super) is_namespaced: bool,
}

impl Resource {
    /// The path of all objects, or of those of a namespace.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let Self { group, version, plural, .. } = self;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{plural}"),
        }
    }

    /// `deployments.apps`, `pods`.
    pub(super) fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether objects of this kind and API version, as references name them, are of the resource.
    pub(super) fn is_of(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.kind == kind && self.group == group
    }

    /// How an object is called: `deployment.apps/web`, with its namespace.
    pub(super) fn name_of(&self, object: &Value) -> String {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let kind =
            if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) };
        match text("namespace") {
            "" => format!("{kind}/{}", text("name")),
            namespace => format!("{kind}/{} -n {namespace}", text("name")),
        }
    }

    fn is_called(&self, word: &str) -> bool {
        let name = word.split_once('.').filter(|(_, group)| *group == self.group).map_or(word, |(name, _)| name);
        let names = [&self.plural, &self.singular, &self.kind].into_iter().chain(&self.short);
        names.into_iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// All kinds whose objects can be listed, in the order of discovery; of each the version that is preferred.
pub(crate) async fn all(client: &Client) -> Result<Vec<Resource>> {
    let mut found = Vec::new();
    for root in ["/api", "/apis"] {
        let request = Request::get(root).header(ACCEPT, AGGREGATED).body(Vec::new())?;
        found.extend(resources(&client.request::<Value>(request).await?));
    }
    Ok(found)
}

fn resources(document: &Value) -> Vec<Resource> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<Resource> = Vec::new();
    for group in list(&document["items"]) {
        for version in list(&group["versions"]) {
            for resource in list(&version["resources"]) {
                let new = Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    short: list(&resource["shortNames"]).iter().map(text).collect(),
                    kind: text(&resource["responseKind"]["kind"]),
                    is_namespaced: resource["scope"] == "Namespaced",
                };
                let can_be_listed = list(&resource["verbs"]).iter().any(|verb| verb == "list");
                let is_there = found.iter().any(|other| (&other.group, &other.plural) == (&new.group, &new.plural));
                if can_be_listed && !is_there {
                    found.push(new);
                }
            }
        }
    }
    found
}

/// The kind that people call so.
pub(crate) fn of_kind(resources: &[Resource], kind: &str) -> Result<Resource> {
    match resources.iter().find(|resource| resource.is_called(kind)) {
        Some(resource) => Ok(resource.clone()),
        None => bail!("the cluster has no kind {kind}; see: kubectl api-resources"),
    }
}

/// The kind and the name in `KIND/NAME`.
pub(super) fn find<'a>(resources: &[Resource], object: &'a str) -> Result<(Resource, &'a str)> {
    let Some((kind, name)) = object.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()) else {
        bail!("expected KIND/NAME, such as deployment/web");
    };
    Ok((of_kind(resources, kind)?, name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_by_their_names() {
        let deployments = json!({
            "resource": "deployments", "singularResource": "deployment", "shortNames": ["deploy"], "scope": "Namespaced",
            "responseKind": { "kind": "Deployment" }, "verbs": ["get", "list"],
        });
        let nodes = json!({
            "resource": "nodes", "singularResource": "node", "shortNames": ["no"], "scope": "Cluster",
            "responseKind": { "kind": "Node" }, "verbs": ["list"],
        });
        let reviews = json!({ "resource": "reviews", "verbs": ["create"] });
        let document = json!({ "items": [
            { "metadata": {}, "versions": [{ "version": "v1", "resources": [nodes] }] },
            { "metadata": { "name": "apps" }, "versions": [
                { "version": "v1", "resources": [deployments, reviews] }, { "version": "v1beta1", "resources": [deployments] },
            ] },
        ]});
        let all = resources(&document);
        assert_eq!(all.len(), 2);
        let path =
            |object: &str, namespace| find(&all, object).map(|(found, name)| (found.path(namespace), name.to_owned()));
        let expected = ("/apis/apps/v1/namespaces/a/deployments".to_owned(), "web".to_owned());
        for word in ["deploy/web", "Deployment/web", "deployments/web", "deployments.apps/web"] {
            assert_eq!(path(word, Some("a")).expect(word), expected, "{word}");
        }
        assert_eq!(path("no/n", Some("a")).expect("a node").0, "/api/v1/nodes");
        for (bad, why) in [
            ("web", "expected KIND/NAME"),
            ("x/web", "no kind x"),
            ("deploy/", "expected"),
            ("deployments.x/w", "no kind"),
        ] {
            assert!(path(bad, None).expect_err(bad).to_string().contains(why), "{bad}");
        }
        let object = json!({ "metadata": { "name": "web", "namespace": "a" } });
        assert_eq!(all[1].name_of(&object), "deployment.apps/web -n a");
    }
}
