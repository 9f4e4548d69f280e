//! Objects: one set of handlers for all kinds, since the registry knows what makes them different.
//!
//! | method | collection | object | subresource |
//! |---|---|---|---|
//! | GET | list, watch | get | get; `log`, `exec`, `attach`, `portforward` |
//! | POST | create; of `bindings`, `binding` of the pod that the body names | – | `binding`, `exec`, `attach`, `portforward` |
//! | PUT, PATCH | – | update, patch | `status`, `scale`, `finalize` and so on |
//! | DELETE | deletecollection | delete | – |
//! | all | – | – | `proxy` |

mod connect;
mod large;
mod node;
mod proxy;
mod read;
mod table;
mod watch;
mod write;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use machinery::Verb;
use machinery::selector::FieldSelector;
use machinery::status::ApiError;
use registry::{Registry, Resource, Subresource, Target, WriteOptions};

use crate::aggregated_api::AggregatedApis;
use crate::aggregator::Aggregator;
use crate::authn::User;
use crate::authz;
use crate::body::RequestBody;
use crate::kubelet_routes;
use crate::metrics::Labels;
use crate::negotiate::{self, Offer};
use crate::past::{self, AsOf};
use crate::path::ResourcePath;
use crate::protobuf;
use crate::query::Query;
use crate::respond::method_not_allowed;
use crate::respond::{self, Answer};
use crate::reviews::{self, Reviewer};
use crate::tokens::Tokens;

use large::LARGE;
pub(crate) use large::Turns;
pub(crate) use node::Connections;
pub use node::NodeConnector;
pub(crate) use watch::{Slots as WatchSlots, Watches};
pub(crate) use write::json as yaml_to_json;

/// The handlers, and the parts of the server that they work with: each is given what it needs.
pub(crate) struct Handlers {
    pub(crate) registry: Registry,
    pub(crate) aggregated: AggregatedApis,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) reviewer: Reviewer,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) encoded_lists: protobuf::Portions,
    pub(crate) watches: Watches,
    pub(crate) large: Turns,
    pub(crate) connections: Connections,
}

/// A request about objects, which has been found to be allowed.
pub(crate) struct Request<'a> {
    pub(crate) place: &'a ResourcePath<'a>,
    pub(crate) verb: Verb<'static>,
    pub(crate) query: &'a Query<'a>,
    pub(crate) parts: Parts,
    pub(crate) user: Arc<User>,
}

/// The verb of the API for a method, as authorizers are asked about it; `None` when there is none.
pub(crate) fn verb(method: &Method, place: &ResourcePath<'_>, query: &Query<'_>) -> Option<Verb<'static>> {
    let collection = place.name.is_empty();
    Some(match *method {
        Method::GET if place.watch || (collection && query.flag("watch")) => Verb::Watch,
        Method::GET if collection => Verb::List,
        Method::GET => Verb::Get,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if collection => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        Method::HEAD if place.subresource == "proxy" => Verb::Get,
        Method::OPTIONS if place.subresource == "proxy" => Verb::Options,
        _ => return None,
    })
}

/// Whether a subresource is a connection or a stream, which lasts as long as its client likes (upstream: the long-running
/// requests of `BuildGenericConfig` in `pkg/controlplane/apiserver/config.go`).
pub(crate) fn lasts(subresource: &str) -> bool {
    matches!(subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
}

/// Whether a request runs something in a pod, or reaches into it, be it through the kubelet of a node.
pub(crate) fn connects(place: &ResourcePath<'_>) -> bool {
    let is_connection = match (place.resource, place.subresource) {
        ("pods", "attach" | "exec" | "portforward") => true,
        // As many slashes as there are lead to the same place.
        ("nodes", "proxy") => kubelet_routes::connects(place.rest.trim_matches('/')),
        _ => false,
    };
    is_connection && place.group.is_empty()
}

/// The field selector authorizers are told of: that of a list, a watch or the deletion of a collection. One that cannot be read
/// restricts nothing; it is refused later.
pub(crate) fn field_selector(place: &ResourcePath<'_>, query: &Query<'_>, verb: Verb<'_>) -> Option<FieldSelector> {
    let is_collection = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let selector = query.get("fieldSelector").filter(|selector| !selector.is_empty());
    FieldSelector::parse(selector.filter(|_| is_collection && place.name.is_empty())?).ok()
}

/// The name authorizers are asked about: that of the path, or the one a list is restricted to by its field selector.
pub(crate) fn authorized_name<'a>(place: &'a ResourcePath<'_>, selector: Option<&'a FieldSelector>) -> &'a str {
    selector.and_then(|selector| selector.exact("metadata.name")).unwrap_or(&place.name)
}

/// What authorizers and the audit log are told that a request is about.
pub(crate) fn target<'a>(place: &'a ResourcePath<'_>, name: &'a str) -> authz::Target<'a> {
    authz::Target::Resource {
        group: place.group,
        version: place.version,
        resource: place.resource,
        subresource: place.subresource,
        namespace: &place.namespace,
        name,
    }
}

impl Handlers {
    /// Answers.
    pub(crate) async fn serve(
        &self,
        request: Request<'_>,
        body: RequestBody,
        labels: &mut Labels,
    ) -> Result<Answer, ApiError> {
        let place = request.place;
        let has_past = request.parts.extensions.get::<AsOf>().is_some();
        if has_past && !self.is_stored(place) {
            return Err(past::no_past(place.resource));
        }
        if let Some(remote) = self.aggregator.find(place.group, place.version) {
            return self.aggregator.proxy(&remote, request.parts, &request.user, body).await;
        }
        if !place.rest.is_empty() && place.subresource != "proxy" {
            return Ok(respond::page_not_found());
        }
        let resources = self.registry.resources();
        let Some(resource) = resources.get(place.group, place.version, place.resource) else {
            if let Some(extension) = self.aggregated.find(place.group, place.version) {
                return extension.answer(request.parts, body).await;
            }
            return match reviews::find(place.group, place.version, place.resource) {
                Some(review) => self.review(review, &request, body).await,
                None if resources.is_built_in(place.group) => Err(ApiError::no_such_resource()),
                None => Ok(respond::page_not_found()),
            };
        };
        let resource = Arc::clone(resource);
        let is_large = body.arrived().max(self.stored(&request, &resource)) > LARGE;
        let mut answer = if is_large {
            self.large.work(self.objects(request, &resource, body, labels)).await
        } else {
            self.objects(request, &resource, body, labels).await
        };
        if let Some(deprecation) = &resource.info().deprecation {
            match &mut answer {
                Ok(answer) => respond::warn(answer, std::slice::from_ref(deprecation)),
                Err(error) => error.warnings.insert(0, deprecation.clone()),
            }
        }
        answer
    }

    /// How many bytes the object has that a request is to change.
    fn stored(&self, request: &Request<'_>, resource: &Resource) -> usize {
        let place = request.place;
        if place.name.is_empty() || request.verb.is_read() {
            return 0;
        }
        let namespace = if resource.info().namespaced() { place.namespace.as_ref() } else { "" };
        let key = store::Key::new(Arc::clone(&resource.info().storage), namespace, place.name.as_ref());
        self.registry.store().get(&key).map_or(0, |entry| entry.value.len())
    }

    /// Whether objects of a resource are kept here, and with them what they were.
    fn is_stored(&self, place: &ResourcePath<'_>) -> bool {
        let is_elsewhere = self.aggregator.find(place.group, place.version).is_some();
        let resources = self.registry.resources();
        let found = resources.get(place.group, place.version, place.resource);
        !is_elsewhere && found.is_some_and(|resource| !resource.info().computed)
    }

    /// Answers a request about objects of a resource.
    async fn objects(
        &self,
        request: Request<'_>,
        resource: &Resource,
        body: RequestBody,
        labels: &mut Labels,
    ) -> Result<Answer, ApiError> {
        let Request { place, verb, .. } = request;
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
            if !matches!(verb, Verb::List | Verb::Watch) {
                return Err(method_not_allowed());
            }
        }
        if place.subresource.is_empty() && !info.verbs.contains(&verb) {
            return Err(method_not_allowed());
        }
        let call = Call {
            target: Target::object(resource, namespace, place.name.as_ref()),
            registry: &self.registry,
            query: request.query,
            parts: request.parts,
            user: request.user,
        };
        if place.subresource.is_empty() {
            if let Some((_, subresource)) = info.stands_for {
                return match subresource {
                    Subresource::Binding if place.name.is_empty() => write::bind(&call, body).await,
                    _ => Err(method_not_allowed()),
                };
            }
            return match verb {
                Verb::Get => read::get(&call).await,
                Verb::List => read::list(&call, &self.encoded_lists).await,
                Verb::Watch => watch::watch(&call, &self.watches).await,
                Verb::Create if place.name.is_empty() => write::create(&call, body).await,
                Verb::Update if !place.name.is_empty() => write::update(&call, None, body).await,
                Verb::Patch if !place.name.is_empty() => write::patch(&call, None, body).await,
                Verb::Delete => write::delete(&call, body).await,
                Verb::DeleteCollection => write::delete_collection(&call, body).await,
                _ => Err(method_not_allowed()),
            };
        }
        let subresource = Subresource::from_name(place.subresource).filter(|subresource| info.has(*subresource));
        let Some(subresource) = subresource else { return Err(ApiError::no_such_resource()) };
        labels.subresource = subresource.name();
        match (subresource, verb) {
            (Subresource::Log, Verb::Get) => node::log(call, &self.connections).await,
            (Subresource::Exec | Subresource::Attach | Subresource::PortForward, Verb::Get | Verb::Create) => {
                connect::connect(call, &self.connections, subresource, place.rest, body).await
            }
            (Subresource::Proxy, _) => connect::connect(call, &self.connections, subresource, place.rest, body).await,
            (Subresource::Binding, Verb::Create) => write::bind(&call, body).await,
            (Subresource::Token, Verb::Create) => write::token(&call, &self.tokens, body).await,
            (Subresource::Eviction, Verb::Create) => write::evict(&call, body).await,
            (_, verb) if !subresource.verbs().contains(&verb) => Err(method_not_allowed()),
            (_, Verb::Get) => read::subresource(&call, subresource).await,
            (_, Verb::Update) => write::update(&call, Some(subresource), body).await,
            (_, Verb::Patch) => write::patch(&call, Some(subresource), body).await,
            _ => Err(method_not_allowed()),
        }
    }

    /// A question that is answered and forgotten.
    async fn review(
        &self,
        review: &reviews::Review,
        request: &Request<'_>,
        body: RequestBody,
    ) -> Result<Answer, ApiError> {
        if request.verb != Verb::Create || !request.place.name.is_empty() {
            return Err(method_not_allowed());
        }
        // Of the older versions there is no protobuf type.
        let output =
            negotiate::output(&request.parts.headers, Offer::Answer { custom: request.place.version != "v1" })?;
        let Request { place, user, query, .. } = request;
        let (dry_run, user) = (query.dry_run("CreateOptions")?, Arc::clone(user));
        let body = write::object(&request.parts.headers, body, review.kind).await?;
        if review.namespaced == place.namespace.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        let asked = review.read(place.version, &body)?;
        let (namespace, options) = (&*place.namespace, WriteOptions { dry_run, user, ..WriteOptions::default() });
        let (info, mut warnings) = (review.info(place.version), Vec::new());
        let asked = self.registry.admit_review(&info, namespace, asked, &options, &mut warnings).await?;
        let answer = review.answer(&self.reviewer, &options.user, namespace, asked)?;
        let mut response = respond::json(StatusCode::CREATED, output.encoding, query.flag("pretty"), answer.into())?;
        respond::warn(&mut response, &warnings);
        Ok(response)
    }
}

/// What a handler knows: the object or collection, and how it was asked for.
struct Call<'a> {
    registry: &'a Registry,
    target: Target,
    query: &'a Query<'a>,
    parts: Parts,
    user: Arc<User>,
}

impl Call<'_> {
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
            None => {
                let name = self.user.name.strip_prefix("system:").unwrap_or(&self.user.name);
                // A service account's name comes after its namespace.
                let name = name.rsplit(':').next().unwrap_or(name);
                name.chars().take(FIELD_MANAGER_MAX).collect()
            }
        }
    }
}

/// The longest name of a field manager; upstream's figure.
const FIELD_MANAGER_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Route;

    #[test]
    fn verbs() {
        for (method, path, query, expect) in [
            (Method::GET, "/api/v1/pods", "", Some(Verb::List)),
            (Method::GET, "/api/v1/pods", "watch=true", Some(Verb::Watch)),
            (Method::GET, "/api/v1/pods", "watch=false", Some(Verb::List)),
            (Method::GET, "/api/v1/watch/pods", "", Some(Verb::Watch)),
            (Method::GET, "/api/v1/nodes/a", "watch=true", Some(Verb::Get)),
            (Method::POST, "/api/v1/namespaces/x/pods", "", Some(Verb::Create)),
            (Method::PUT, "/api/v1/namespaces/x/pods/a", "", Some(Verb::Update)),
            (Method::PATCH, "/api/v1/namespaces/x/pods/a", "", Some(Verb::Patch)),
            (Method::DELETE, "/api/v1/namespaces/x/pods/a", "", Some(Verb::Delete)),
            (Method::DELETE, "/api/v1/namespaces/x/pods", "", Some(Verb::DeleteCollection)),
            (Method::OPTIONS, "/api/v1/pods", "", None),
            (Method::TRACE, "/api/v1/pods", "", None),
            (Method::HEAD, "/api/v1/pods", "", None),
            (Method::HEAD, "/api/v1/nodes/a/proxy/x", "", Some(Verb::Get)),
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
            let selector = field_selector(&place, &Query::parse(Some(query)), Verb::List);
            assert_eq!(authorized_name(&place, selector.as_ref()), expect, "{query}");
        }
    }
}
