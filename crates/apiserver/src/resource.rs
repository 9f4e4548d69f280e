//! Objects: one set of handlers for all kinds, since the registry knows what makes them different.
//!
//! | method | collection | object | subresource |
//! |---|---|---|---|
//! | GET | list, watch | get | get; `log`, `exec`, `attach`, `portforward` |
//! | POST | create | – | `binding`, `exec`, `attach`, `portforward` |
//! | PUT, PATCH | – | update, patch | `status`, `scale`, `finalize` and so on |
//! | DELETE | deletecollection | delete | – |
//! | all | – | – | `proxy` |

mod connect;
mod node;
mod proxy;
mod read;
mod table;
mod watch;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use machinery::selector::FieldSelector;
use machinery::status::ApiError;
use registry::{Resource, Subresource, Target, WriteOptions};

use crate::authn::User;
use crate::body::RequestBody;
use crate::metrics::Labels;
use crate::negotiate::{self, Offer};
use crate::path::ResourcePath;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::reviews;
use crate::server::{ApiServer, method_not_allowed};

/// A request about objects, which has been found to be allowed.
pub(crate) struct Request<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) place: &'a ResourcePath<'a>,
    pub(crate) verb: &'static str,
    pub(crate) query: &'a Query<'a>,
    pub(crate) parts: Parts,
    pub(crate) user: Arc<User>,
}

/// The verb of the API for a method, as authorizers are asked about it; `None` when there is none.
pub(crate) fn verb(method: &Method, place: &ResourcePath<'_>, query: &Query<'_>) -> Option<&'static str> {
    let collection = place.name.is_empty();
    Some(match *method {
        Method::GET if place.watch || (collection && query.flag("watch")) => "watch",
        Method::GET if collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        Method::HEAD if place.subresource == "proxy" => "get",
        Method::OPTIONS if place.subresource == "proxy" => "options",
        _ => return None,
    })
}

/// The name authorizers are asked about: that of the path, or the one a list is restricted to by its field selector.
pub(crate) fn authorized_name<'a>(place: &'a ResourcePath<'_>, query: &Query<'_>, verb: &str) -> Cow<'a, str> {
    let by_field = place.name.is_empty() && matches!(verb, "list" | "watch" | "deletecollection");
    match query.get("fieldSelector").filter(|selector| by_field && !selector.is_empty()) {
        Some(selector) => {
            let selector = FieldSelector::parse(selector).ok();
            let name = selector.as_ref().and_then(|selector| selector.exact("metadata.name"));
            Cow::Owned(name.unwrap_or_default().to_owned())
        }
        None => Cow::Borrowed(&place.name),
    }
}

/// Answers.
pub(crate) async fn serve(request: Request<'_>, body: RequestBody, labels: &mut Labels) -> Result<Answer, ApiError> {
    let Request { server, place, .. } = request;
    let resources = server.0.registry.resources();
    let Some(resource) = resources.get(place.group, place.version, place.resource) else {
        if let Some(extension) = server.0.extensions.find(place.group, place.version) {
            return extension.answer(request.parts, body).await;
        }
        return match reviews::find(place.group, place.version, place.resource) {
            Some(review) => self::review(review, &request, body).await,
            // Upstream answers with a Status below what it serves, with plain text elsewhere.
            None if resources.of_version(place.group, place.version).next().is_some() => {
                Err(ApiError::no_such_resource())
            }
            None => Ok(respond::page_not_found()),
        };
    };
    let resource = Arc::clone(resource);
    let mut answer = objects(request, &resource, body, labels).await?;
    if let Some(deprecation) = &resource.info().deprecation {
        respond::warn(&mut answer, std::slice::from_ref(deprecation));
    }
    Ok(answer)
}

/// Answers a request about objects of a resource.
async fn objects(
    request: Request<'_>,
    resource: &Resource,
    body: RequestBody,
    labels: &mut Labels,
) -> Result<Answer, ApiError> {
    let Request { server, place, verb, .. } = request;
    let info = resource.info();
    labels.resource = Some(Arc::clone(&info.storage));
    let mut namespace = place.namespace.as_ref();
    if !info.namespaced() {
        // `/namespaces/N` names a Namespace; anything else with a namespace in front of it is not there.
        let is_itself = info.plural == "namespaces" && namespace == place.name;
        if !namespace.is_empty() && !is_itself {
            return Err(ApiError::no_such_resource());
        }
        namespace = "";
    } else if namespace.is_empty() {
        if !place.name.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        if !matches!(verb, "list" | "watch") {
            return Err(method_not_allowed());
        }
    }
    let call = Call {
        target: Target::object(resource, namespace, place.name.as_ref()),
        server,
        query: request.query,
        parts: request.parts,
        user: request.user,
    };
    if place.subresource.is_empty() {
        return match verb {
            "get" => read::get(&call).await,
            "list" => read::list(&call).await,
            "watch" => watch::watch(&call).await,
            "create" if place.name.is_empty() => write::create(&call, body).await,
            "update" if !place.name.is_empty() => write::update(&call, None, body).await,
            "patch" if !place.name.is_empty() => write::patch(&call, None, body).await,
            "delete" => write::delete(&call, body).await,
            "deletecollection" => write::delete_collection(&call, body).await,
            _ => Err(method_not_allowed()),
        };
    }
    let subresource = Subresource::from_name(place.subresource).filter(|subresource| info.has(*subresource));
    let Some(subresource) = subresource else { return Err(ApiError::no_such_resource()) };
    labels.subresource = subresource.name();
    match (subresource, verb) {
        (Subresource::Log, "get") => node::log(call).await,
        (Subresource::Exec | Subresource::Attach | Subresource::PortForward, "get" | "create") => {
            connect::connect(call, subresource, place.rest, body).await
        }
        (Subresource::Proxy, _) => connect::connect(call, subresource, place.rest, body).await,
        (Subresource::Binding, "create") => write::bind(&call, body).await,
        (Subresource::Token, "create") => write::token(&call, body).await,
        (Subresource::Eviction, "create") => write::evict(&call, body).await,
        (_, verb) if !subresource.verbs().contains(&verb) => Err(method_not_allowed()),
        (_, "get") => read::subresource(&call, subresource).await,
        (_, "update") => write::update(&call, Some(subresource), body).await,
        (_, "patch") => write::patch(&call, Some(subresource), body).await,
        _ => Err(method_not_allowed()),
    }
}

/// What a handler knows: the object or collection, and how it was asked for.
struct Call<'a> {
    server: &'a ApiServer,
    target: Target,
    query: &'a Query<'a>,
    parts: Parts,
    user: Arc<User>,
}

impl Call<'_> {
    fn registry(&self) -> &registry::Registry {
        &self.server.0.registry
    }

    fn resource(&self) -> &Resource {
        &self.target.resource
    }

    /// What the answers about objects of the resource can be.
    fn objects(&self) -> Offer {
        Offer::Objects { custom: self.resource().info().custom }
    }

    /// What the answers to a DELETE can be.
    fn outcome(&self) -> Offer {
        Offer::Answer { custom: self.resource().info().custom }
    }

    fn pretty(&self) -> bool {
        self.query.flag("pretty")
    }

    /// The name under which a client claims fields: as given, else the first part of its user agent, as upstream has
    /// it. Components in this process send none; they go by the name they are known by.
    fn field_manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager").filter(|manager| !manager.is_empty()) {
            return manager.to_owned();
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        match agent.and_then(|agent| agent.split('/').next()) {
            Some(agent) => agent.chars().filter(|c| !c.is_control()).take(FIELD_MANAGER_MAX).collect(),
            None if self.user.name.starts_with(registry::user::NODE_PREFIX) => "kubelet".to_owned(),
            None => self.user.name.strip_prefix("system:").unwrap_or(&self.user.name).to_owned(),
        }
    }
}

/// The longest name of a field manager; upstream's figure.
const FIELD_MANAGER_MAX: usize = 128;

/// A question that is answered and forgotten.
async fn review(review: &reviews::Review, request: &Request<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    if request.verb != "create" || !request.place.name.is_empty() {
        return Err(method_not_allowed());
    }
    // Of the older versions there is no protobuf type.
    let output = negotiate::output(&request.parts.headers, Offer::Answer { custom: request.place.version != "v1" })?;
    let Request { server, place, user, query, .. } = request;
    let (dry_run, user) = (query.dry_run("CreateOptions")?, Arc::clone(user));
    let body = write::object(&request.parts.headers, body, review.kind).await?;
    if review.namespaced == place.namespace.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    let asked = review.read(place.version, &body)?;
    let (namespace, options) = (&*place.namespace, WriteOptions { dry_run, user, ..WriteOptions::default() });
    let (info, mut warnings) = (review.info(place.version), Vec::new());
    let asked = server.0.registry.admit_review(&info, namespace, asked, &options, &mut warnings).await?;
    let answer = review.answer(server, &options.user, namespace, asked)?;
    let mut response = respond::json(StatusCode::CREATED, output.encoding, query.flag("pretty"), answer.into())?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Route;

    #[test]
    fn verbs() {
        for (method, path, query, expect) in [
            (Method::GET, "/api/v1/pods", "", Some("list")),
            (Method::GET, "/api/v1/pods", "watch=true", Some("watch")),
            (Method::GET, "/api/v1/pods", "watch=false", Some("list")),
            (Method::GET, "/api/v1/watch/pods", "", Some("watch")),
            (Method::GET, "/api/v1/nodes/a", "watch=true", Some("get")),
            (Method::POST, "/api/v1/namespaces/x/pods", "", Some("create")),
            (Method::PUT, "/api/v1/namespaces/x/pods/a", "", Some("update")),
            (Method::PATCH, "/api/v1/namespaces/x/pods/a", "", Some("patch")),
            (Method::DELETE, "/api/v1/namespaces/x/pods/a", "", Some("delete")),
            (Method::DELETE, "/api/v1/namespaces/x/pods", "", Some("deletecollection")),
            (Method::OPTIONS, "/api/v1/pods", "", None),
            (Method::TRACE, "/api/v1/pods", "", None),
            (Method::HEAD, "/api/v1/pods", "", None),
            (Method::HEAD, "/api/v1/nodes/a/proxy/x", "", Some("get")),
        ] {
            let Route::Resource(place) = Route::parse(path) else { panic!("{path}") };
            assert_eq!(verb(&method, &place, &Query::parse(Some(query))), expect, "{method} {path}?{query}");
        }
    }

    #[test]
    fn a_list_of_one_is_about_that_one() {
        let Route::Resource(place) = Route::parse("/api/v1/pods") else { panic!() };
        for (query, expect) in [
            ("fieldSelector=metadata.name%3Dweb", "web"),
            ("fieldSelector=metadata.name%3Dweb,spec.nodeName%3Da", "web"),
            ("fieldSelector=metadata.name!%3Dweb", ""),
            ("", ""),
        ] {
            assert_eq!(authorized_name(&place, &Query::parse(Some(query)), "list"), expect, "{query}");
        }
    }
}
