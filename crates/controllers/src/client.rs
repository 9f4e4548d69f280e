//! How controllers speak to the API server: [`Api`], which every write passes, and what its answers mean.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, ObjectKey, ObjectVersion, Write, record_write};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, ObjectList, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::core::dynamic::ParseDynamicObjectError;
use kube::core::{DynamicResourceScope, Status};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A [`kube::Api`] whose writes are recorded for the reconcile that makes them.
pub struct Api<K> {
    inner: kube::Api<K>,
    kind: Arc<str>,
    namespace: String,
}

impl<K: Resource> Api<K>
where
    K::DynamicType: Default,
{
    /// Objects of cluster scope, or those of all namespaces.
    pub fn all(client: Client) -> Self {
        Self::all_with(client, &K::DynamicType::default())
    }

    /// The objects of a namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        let kind = K::kind(&K::DynamicType::default()).into();
        Self { inner: kube::Api::namespaced(client, namespace), kind, namespace: namespace.to_owned() }
    }
}

impl<K: Resource> Api<K> {
    /// As [`Api::all`], of a kind that is known at run time.
    pub fn all_with(client: Client, type_: &K::DynamicType) -> Self {
        Self { inner: kube::Api::all_with(client, type_), kind: K::kind(type_).into(), namespace: String::new() }
    }

    /// As [`Api::namespaced`], of a kind that is known at run time.
    pub fn namespaced_with(client: Client, namespace: &str, type_: &K::DynamicType) -> Self
    where
        K: Resource<Scope = DynamicResourceScope>,
    {
        let kind = K::kind(type_).into();
        Self { inner: kube::Api::namespaced_with(client, namespace, type_), kind, namespace: namespace.to_owned() }
    }

    fn record(
        &self,
        verb: &'static str,
        subresource: &'static str,
        name: &str,
        answer: Result<Option<&ObjectMeta>, u16>,
    ) {
        record_write(|| {
            let object = match answer {
                Ok(Some(metadata)) => ObjectVersion::of(Arc::clone(&self.kind), metadata),
                _ => ObjectVersion {
                    kind: Arc::clone(&self.kind),
                    key: ObjectKey::new(self.namespace.as_str(), name),
                    revision: None,
                },
            };
            Write { verb, object, subresource, refused: answer.err() }
        });
    }

    fn record_answer<T: Resource>(
        &self,
        (verb, subresource): (&'static str, &'static str),
        name: &str,
        answer: kube::Result<T>,
    ) -> kube::Result<T> {
        self.record(verb, subresource, name, answer.as_ref().map(|object| Some(object.meta())).map_err(code));
        answer
    }
}

/// The status code of a request that failed; zero if it was not answered.
pub(crate) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

// Reads.
impl<K: Resource + Clone + DeserializeOwned + Debug> Api<K> {
    /// As [`kube::Api::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, name: &str) -> kube::Result<K> {
        self.inner.get(name).await
    }

    /// As [`kube::Api::get_metadata`].
    ///
    /// # Errors
    /// As there.
    pub async fn get_metadata(&self, name: &str) -> kube::Result<PartialObjectMeta<K>> {
        self.inner.get_metadata(name).await
    }

    /// As [`kube::Api::list`].
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<K>> {
        self.inner.list(params).await
    }

    /// As [`kube::Api::list_metadata`].
    ///
    /// # Errors
    /// As there.
    pub async fn list_metadata(&self, params: &ListParams) -> kube::Result<ObjectList<PartialObjectMeta<K>>> {
        self.inner.list_metadata(params).await
    }

    /// As [`kube::Api::get_scale`].
    ///
    /// # Errors
    /// As there.
    pub async fn get_scale(&self, name: &str) -> kube::Result<Scale> {
        self.inner.get_scale(name).await
    }
}

// Writes.
impl<K: Resource + Clone + DeserializeOwned + Debug> Api<K> {
    /// As [`kube::Api::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn create(&self, params: &PostParams, object: &K) -> kube::Result<K>
    where
        K: Serialize,
    {
        let answer = self.inner.create(params, object).await;
        let name = object.meta().name.as_deref().unwrap_or_default();
        self.record_answer(("create", ""), name, answer)
    }

    /// As [`kube::Api::replace`].
    ///
    /// # Errors
    /// As there.
    pub async fn replace(&self, name: &str, params: &PostParams, object: &K) -> kube::Result<K>
    where
        K: Serialize,
    {
        self.record_answer(("update", ""), name, self.inner.replace(name, params, object).await)
    }

    /// As [`kube::Api::replace_status`].
    ///
    /// # Errors
    /// As there.
    pub async fn replace_status(&self, name: &str, params: &PostParams, object: &K) -> kube::Result<K>
    where
        K: Serialize,
    {
        self.record_answer(("update", "status"), name, self.inner.replace_status(name, params, object).await)
    }

    /// As [`kube::Api::replace_subresource`].
    ///
    /// # Errors
    /// As there.
    pub async fn replace_subresource(
        &self,
        subresource: &'static str,
        name: &str,
        params: &PostParams,
        object: &K,
    ) -> kube::Result<K>
    where
        K: Serialize,
    {
        let answer = self.inner.replace_subresource(subresource, name, params, object).await;
        self.record_answer(("update", subresource), name, answer)
    }

    /// As [`kube::Api::patch`].
    ///
    /// # Errors
    /// As there.
    pub async fn patch<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> kube::Result<K> {
        self.record_answer(("patch", ""), name, self.inner.patch(name, params, patch).await)
    }

    /// As [`kube::Api::patch_metadata`].
    ///
    /// # Errors
    /// As there.
    pub async fn patch_metadata<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> kube::Result<PartialObjectMeta<K>> {
        let answer = self.inner.patch_metadata(name, params, patch).await;
        self.record("patch", "", name, answer.as_ref().map(|object| Some(&object.metadata)).map_err(code));
        answer
    }

    /// As [`kube::Api::patch_status`].
    ///
    /// # Errors
    /// As there.
    pub async fn patch_status<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> kube::Result<K> {
        self.record_answer(("patch", "status"), name, self.inner.patch_status(name, params, patch).await)
    }

    /// As [`kube::Api::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> kube::Result<()> {
        let answer = self.inner.delete(name, params).await;
        let deleted = answer.as_ref().map(|answer| answer.as_ref().left().map(Resource::meta)).map_err(code);
        self.record("delete", "", name, deleted);
        answer.map(drop)
    }

    /// As [`kube::Api::delete_collection`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete_collection(&self, params: &DeleteParams, list: &ListParams) -> kube::Result<()> {
        let answer = self.inner.delete_collection(params, list).await;
        self.record("deletecollection", "", "", answer.as_ref().map(|_| None).map_err(code));
        answer.map(drop)
    }
}

/// Why a reconciliation did not come to its end. It is tried again after a back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// A request did not reach the API server or its answer could not be read.
    #[error("request failed")]
    Request(#[source] Box<kube::Error>),
    /// An object could not be encoded.
    #[error("cannot encode an object")]
    Encode(#[from] serde_json::Error),
    /// A custom resource is not what its kind's type has: it was stored under another schema.
    #[error("cannot decode {kind} {key}: {source}")]
    Decode {
        /// The kind.
        kind: String,
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        source: ParseDynamicObjectError,
    },
    /// A selector of an object means nothing.
    #[error("invalid selector")]
    Selector(#[from] machinery::selector::LabelSelectorError),
    /// A certificate could not be issued.
    #[error("{0}")]
    Sign(String),
    /// An owner reference names a kind that no API serves.
    #[error("no API serves {kind} of {api_version}")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            error => Self::Request(Box::new(error)),
        }
    }
}

impl Error {
    /// What the API server said, if it was the API server that refused.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the object is not there, or not even its kind: of that an API server says no more than the code.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether an object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// Whether the object changed meanwhile, or another one has its name now.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// Whether the namespace is going away, so that nothing can be created in it.
    pub fn is_namespace_terminating(&self) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        let mut causes = details.into_iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// The answer, or nothing if the object is not there: then there is nothing left to do to it.
///
/// # Errors
/// Any other failure of the request.
pub fn ok_if_not_found<T>(answer: kube::Result<T>) -> Result<Option<T>, Error> {
    match answer.map_err(Error::from) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The time after which something is tried again that changed under the controller's hands.
const AFTER_CONFLICT: Duration = Duration::from_millis(5);

/// What becomes of a key after a reconciliation with this result. A conflict is nothing to report: somebody else was
/// faster, and what they did is looked at in a moment.
pub(crate) fn requeue_on_conflict(result: Result<Action, Error>) -> Result<Action, Error> {
    match result {
        Err(error) if error.is_conflict() => Ok(Action::RequeueAfter(AFTER_CONFLICT)),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Files of this crate that name `kube::Api` because they only watch and read.
    const WATCHES: [&str; 6] =
        ["client.rs", "controller.rs", "expectations.rs", "garbage/kinds.rs", "node_lifecycle.rs", "served.rs"];

    fn check(root: &Path, folder: &Path, watches: &[&str]) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                check(root, &path, watches);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a file");
            let names_api = text
                .lines()
                .any(|line| line.contains("kube::Api") || (line.starts_with("use kube::{") && line.contains("Api")));
            let is_known =
                path.strip_prefix(root).is_ok_and(|path| watches.iter().any(|known| path == Path::new(known)));
            assert!(!names_api || is_known, "{}: use crate::client::Api, which records writes", path.display());
        }
    }

    #[test]
    fn every_write_passes_the_api_of_this_crate() {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let crate_ = Path::new(&package);
        for (root, watches) in [(crate_.join("src"), &WATCHES[..]), (crate_.join("../../addons"), &[])] {
            check(&root, &root, watches);
        }
    }
}
