//! Lists, watches and deletions of whole collections.

use http::Method;
use serde_json::json;

use super::{Resource, TABLE};
use crate::cluster::Request;

/// Parameters of lists.
const QUERIES: [&str; 27] = [
    "limit=1",
    "limit=x",
    "limit=-1",
    "continue=bad",
    "limit=1&continue=bad&resourceVersion=1",
    "labelSelector=compare%3Da",
    "labelSelector=a%3D%3D%3Db",
    "labelSelector=a%20in%20(b",
    "labelSelector=a%3D-b",
    "fieldSelector=metadata.name%3Dminimal",
    "fieldSelector=metadata.name%21%3Dminimal",
    "fieldSelector=none%3Da",
    "fieldSelector=a",
    "resourceVersion=0&fieldSelector=metadata.name%3Dminimal",
    "resourceVersion=x",
    "resourceVersion=1&resourceVersionMatch=Exact",
    "resourceVersion=99999999",
    "resourceVersionMatch=Exact",
    "resourceVersion=0&resourceVersionMatch=Exact",
    "resourceVersion=1&resourceVersionMatch=Other",
    "sendInitialEvents=true",
    "watch=1&sendInitialEvents=true&timeoutSeconds=1",
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1",
    "watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1&timeoutSeconds=1",
    "watch=1&resourceVersion=x",
    "watch=1&resourceVersion=1&timeoutSeconds=1",
    "timeoutSeconds=x",
];
const FORMS: [&str; 4] = [
    "application/yaml",
    TABLE,
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
];

/// With objects in the collection.
pub(super) fn requests(resource: &Resource) -> Vec<Request> {
    let path = &resource.collection;
    let mut requests = vec![Request::get(path)];
    requests.extend(FORMS.map(|form| Request::get(path).accept(form)));
    requests.push(Request::get(format!("{path}?includeObject=None")).accept(TABLE));
    requests.push(Request::get(format!("{path}?includeObject=Other")).accept(TABLE));
    requests.extend(QUERIES.map(|query| Request::get(format!("{path}?{query}"))));
    for form in ["application/json", TABLE, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
        requests.push(Request::get(format!("{path}?watch=1&resourceVersion=START&timeoutSeconds=1")).accept(form));
    }
    requests.extend([
        Request::get(format!(
            "{path}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
        )),
        Request::new(Method::DELETE, format!("{path}?labelSelector=none%3Dnone")),
        Request::delete(format!("{path}?labelSelector=none%3Dnone"), json!({ "propagationPolicy": "Other" })),
        Request::new(Method::DELETE, format!("{path}?labelSelector=a%3D%3D%3Db")),
        Request::new(Method::PUT, path),
        Request::new(Method::PATCH, path),
    ]);
    if resource.namespaced {
        let all = path.replacen(&format!("/namespaces/{}", crate::objects::NAMESPACE), "", 1);
        requests.push(Request::get(format!("{all}?fieldSelector=metadata.namespace%3Dcompare")));
        requests.push(Request::post(&all, json!({})).note("without its namespace"));
        requests.push(Request::new(Method::DELETE, &all));
    }
    requests
}

/// When they are gone: what was seen of them.
pub(super) fn after_deletion(resource: &Resource) -> Vec<Request> {
    let path = &resource.collection;
    vec![
        Request::get(format!("{path}?watch=1&resourceVersion=START&timeoutSeconds=1")).note("after the deletion"),
        Request::get(path).note("after the deletion"),
    ]
}
