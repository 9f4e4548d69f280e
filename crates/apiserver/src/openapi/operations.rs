//! The paths of a document: what can be done with each resource.

use registry::Subresource;
use serde_json::{Map, Value, json};

use super::Dialect;
use super::schemas::{DELETE_OPTIONS, STATUS, list_definition};
use crate::catalog::Served;

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. The only valid value is 'All'.",
);
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name of the actor or entity that is making these changes.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown or duplicate fields: Ignore, Warn (the default) or Strict.",
);

const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Requests watch events with type BOOKMARK."),
    ("continue", "string", "Where the page before this one ended."),
    ("fieldSelector", "string", "Restricts the list by the fields of its objects."),
    ("labelSelector", "string", "Restricts the list by the labels of its objects."),
    ("limit", "integer", "The maximum number of objects to return."),
    ("resourceVersion", "string", "The state to list, or to watch from."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to a list."),
    ("sendInitialEvents", "boolean", "Begins a watch with the objects as they are."),
    ("timeoutSeconds", "integer", "Limits the duration of the call."),
    ("watch", "boolean", "Watch for changes and return them as a stream."),
];
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] =
    &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, ("force", "boolean", "Force an apply request.")];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
];

const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// What an operation is, whatever the dialect.
struct Operation<'a> {
    method: &'static str,
    /// As in `x-kubernetes-action`.
    action: &'static str,
    /// What `operationId` and the description begin with.
    verb: &'static str,
    parameters: &'static [Parameter],
    body: Body<'a>,
    answer: Answer,
}

enum Body<'a> {
    None,
    Definition(&'a str),
    Patch,
}

enum Answer {
    Definition(String),
    Text,
}

/// All paths of these resources.
pub(super) fn paths(served: &[Served<'_>], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for entry in served {
        let prefix = match entry.group {
            "" => format!("/api/{}", entry.version),
            group => format!("/apis/{group}/{}", entry.version),
        };
        let scope = if entry.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{prefix}{scope}/{}", entry.plural);
        let writer = Writer { entry, dialect };
        if entry.list_kind.is_empty() {
            paths.insert(collection, writer.path(&collection_parameters(entry), &[writer.create()], ""));
            continue;
        }
        if entry.namespaced {
            let everywhere = format!("{prefix}/{}", entry.plural);
            paths.insert(everywhere, writer.path(&[], &[writer.list()], "ForAllNamespaces"));
        }
        paths.insert(
            collection.clone(),
            writer.path(
                &collection_parameters(entry),
                &writer.offered([writer.list(), writer.create(), writer.delete_collection()]),
                "",
            ),
        );
        let object = format!("{collection}/{{name}}");
        let mut in_path = collection_parameters(entry);
        in_path.push("name");
        paths.insert(
            object.clone(),
            writer.path(
                &in_path,
                &writer.offered([writer.get(), writer.update(), writer.patch(), writer.delete()]),
                "",
            ),
        );
        for subresource in entry.subresources {
            let operations = writer.subresource(*subresource);
            if !operations.is_empty() {
                let name = subresource.name();
                paths.insert(format!("{object}/{name}"), writer.path(&in_path, &operations, &capitalized(name)));
            }
        }
    }
    paths
}

fn collection_parameters(entry: &Served<'_>) -> Vec<&'static str> {
    if entry.namespaced { vec!["namespace"] } else { Vec::new() }
}

struct Writer<'a> {
    entry: &'a Served<'a>,
    dialect: Dialect,
}

impl<'a> Writer<'a> {
    fn object(&self) -> Answer {
        Answer::Definition(self.entry.definition.to_owned())
    }

    /// Those of the operations that the resource has.
    fn offered<const COUNT: usize>(&self, operations: [Operation<'a>; COUNT]) -> Vec<Operation<'a>> {
        let has = |operation: &Operation<'_>| {
            let verb = match operation.action {
                "post" => "create",
                "put" => "update",
                action => action,
            };
            self.entry.verbs.iter().any(|offered| offered.as_str() == verb)
        };
        operations.into_iter().filter(has).collect()
    }

    fn list(&self) -> Operation<'a> {
        let answer = Answer::Definition(list_definition(self.entry));
        Operation { method: "get", action: "list", verb: "list", parameters: LIST, body: Body::None, answer }
    }

    fn create(&self) -> Operation<'a> {
        let body = Body::Definition(self.entry.definition);
        Operation { method: "post", action: "post", verb: "create", parameters: WRITE, body, answer: self.object() }
    }

    fn delete_collection(&self) -> Operation<'a> {
        Operation {
            method: "delete",
            action: "deletecollection",
            verb: "deleteCollection",
            parameters: LIST,
            body: Body::Definition(DELETE_OPTIONS),
            answer: Answer::Definition(STATUS.to_owned()),
        }
    }

    fn get(&self) -> Operation<'a> {
        let answer = self.object();
        Operation { method: "get", action: "get", verb: "read", parameters: &[], body: Body::None, answer }
    }

    fn update(&self) -> Operation<'a> {
        let body = Body::Definition(self.entry.definition);
        Operation { method: "put", action: "put", verb: "replace", parameters: WRITE, body, answer: self.object() }
    }

    fn patch(&self) -> Operation<'a> {
        let answer = self.object();
        Operation { method: "patch", action: "patch", verb: "patch", parameters: PATCH, body: Body::Patch, answer }
    }

    fn delete(&self) -> Operation<'a> {
        Operation {
            method: "delete",
            action: "delete",
            verb: "delete",
            parameters: DELETE,
            body: Body::Definition(DELETE_OPTIONS),
            answer: Answer::Definition(STATUS.to_owned()),
        }
    }

    /// The operations of a subresource whose objects are those of the kind itself, or text. The others (scale, exec and
    /// so on) are of kinds which kubectl does not look up here.
    fn subresource(&self, subresource: Subresource) -> Vec<Operation<'a>> {
        match subresource {
            Subresource::Status | Subresource::Approval | Subresource::EphemeralContainers | Subresource::Resize => {
                vec![self.get(), self.update(), self.patch()]
            }
            Subresource::Finalize => vec![self.update()],
            Subresource::Log => vec![Operation { answer: Answer::Text, ..self.get() }],
            _ => Vec::new(),
        }
    }

    fn path(&self, in_path: &[&str], operations: &[Operation<'_>], suffix: &str) -> Value {
        let mut path = Map::new();
        let mut parameters: Vec<Value> = in_path.iter().map(|name| self.path_parameter(name)).collect();
        parameters.push(self.query_parameter(&PRETTY));
        path.insert("parameters".to_owned(), parameters.into());
        for operation in operations {
            path.insert(operation.method.to_owned(), self.operation(operation, suffix));
        }
        Value::Object(path)
    }

    fn operation(&self, operation: &Operation<'_>, suffix: &str) -> Value {
        let entry = self.entry;
        let (group, version) = (group_name(entry.group), capitalized(entry.version));
        let scope = if entry.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
        let id = format!("{}{}{version}{scope}{}{suffix}", operation.verb, capitalized(&group), entry.kind);
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|parameter| self.query_parameter(parameter)).collect();
        let mut value = json!({
            "description": format!("{} {}", operation.verb, entry.plural),
            "operationId": id,
            "tags": [format!("{group}_{}", entry.version)],
            "responses": self.responses(operation),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {
                "group": entry.group, "kind": entry.kind, "version": entry.version,
            },
        });
        let schema = match operation.body {
            Body::None => None,
            Body::Definition(definition) => Some(self.dialect.reference(definition)),
            Body::Patch => Some(json!({ "type": "object" })),
        };
        let required = operation.method != "delete";
        let patch = matches!(operation.body, Body::Patch);
        // kubectl merges strategically where it sees that it may.
        let patch_types: Vec<&str> =
            PATCH_TYPES.iter().copied().filter(|kind| !(entry.custom && kind.contains("strategic"))).collect();
        match (self.dialect, schema) {
            (_, None) => {}
            (Dialect::V2, Some(schema)) => {
                parameters.push(json!({ "name": "body", "in": "body", "required": required, "schema": schema }));
                value["consumes"] = if patch { patch_types.into() } else { json!(["*/*"]) };
            }
            (Dialect::V3, Some(schema)) => {
                let types = if patch { patch_types } else { vec!["*/*"] };
                let content: Map<String, Value> =
                    types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect();
                value["requestBody"] = json!({ "content": content, "required": required });
            }
        }
        if self.dialect == Dialect::V2 {
            let text = matches!(operation.answer, Answer::Text);
            value["produces"] = json!([if text { "text/plain" } else { "application/json" }]);
            value["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        value
    }

    fn responses(&self, operation: &Operation<'_>) -> Value {
        let (kind, schema) = match &operation.answer {
            Answer::Definition(name) => ("application/json", self.dialect.reference(name)),
            Answer::Text => ("text/plain", json!({ "type": "string" })),
        };
        let good = |description: &str| match self.dialect {
            Dialect::V2 => json!({ "description": description, "schema": schema }),
            Dialect::V3 => json!({ "description": description, "content": { kind: { "schema": schema } } }),
        };
        let mut responses = json!({ "200": good("OK"), "401": { "description": "Unauthorized" } });
        match operation.action {
            "post" | "put" | "patch" => responses["201"] = good("Created"),
            "delete" => responses["202"] = good("Accepted"),
            _ => {}
        }
        responses
    }

    fn path_parameter(&self, name: &str) -> Value {
        let description = match name {
            "name" => format!("name of the {}", self.entry.kind),
            _ => "object name and auth scope, such as for teams and projects".to_owned(),
        };
        let parameter = json!({ "name": name, "in": "path", "description": description, "required": true });
        self.typed(parameter, "string")
    }

    fn query_parameter(&self, (name, kind, description): &Parameter) -> Value {
        self.typed(json!({ "name": name, "in": "query", "description": description }), kind)
    }

    fn typed(&self, mut parameter: Value, kind: &str) -> Value {
        match self.dialect {
            Dialect::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Dialect::V3 => parameter["schema"] = json!({ "type": kind, "uniqueItems": true }),
        }
        parameter
    }
}

/// `core`, `apps`, `events`, `rbacAuthorization`: the group as it stands in names.
fn group_name(group: &str) -> String {
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut parts = short.split('.');
    let first = parts.next().filter(|first| !first.is_empty()).unwrap_or("core").to_owned();
    parts.fold(first, |name, part| name + &capitalized(part))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
