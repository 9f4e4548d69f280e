//! Questions that are answered and forgotten: POST asks, and the answer is the question with a status.
//!
//! | resource | asks | kubectl |
//! |---|---|---|
//! | `selfsubjectreviews` | who am I | `auth whoami` |
//! | `tokenreviews` | whose token is this | |
//! | `selfsubjectaccessreviews` | may I | `auth can-i` |
//! | `subjectaccessreviews`, `localsubjectaccessreviews` | may they | |
//! | `selfsubjectrulesreviews` | what may I | `auth can-i --list` |

mod access;
mod identity;

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

use machinery::GroupKind;
use machinery::status::ApiError;
use registry::{Descriptor, ResourceInfo};
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::authn::User;
use crate::authz::Authorizer;
use crate::tokens::Tokens;

/// A kind of question.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    /// Versions beside `v1` that older clients ask by. Discovery does not list them, as upstream's does not.
    older: &'static [&'static str],
    answer: fn(&Question<'_>) -> Result<Value, ApiError>,
}

/// Who knows the answers.
pub(crate) struct Reviewer {
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: Arc<Tokens>,
}

/// A question as it was asked. Its answer is a status.
struct Question<'a> {
    reviewer: &'a Reviewer,
    user: &'a User,
    namespace: &'a str,
    kind: &'static str,
    body: &'a Value,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// All of them.
pub(crate) const ALL: &[Review] = &[
    Review {
        group: AUTHENTICATION,
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
        namespaced: false,
        schema: SchemaGenerator::subschema_for::<SelfSubjectReview>,
        older: &["v1beta1", "v1alpha1"],
        answer: identity::who_am_i,
    },
    Review {
        group: AUTHENTICATION,
        plural: "tokenreviews",
        singular: "tokenreview",
        kind: "TokenReview",
        definition: "io.k8s.api.authentication.v1.TokenReview",
        namespaced: false,
        schema: SchemaGenerator::subschema_for::<TokenReview>,
        older: &[],
        answer: identity::whose_token,
    },
    Review {
        group: AUTHORIZATION,
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        kind: "LocalSubjectAccessReview",
        definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        namespaced: true,
        schema: SchemaGenerator::subschema_for::<LocalSubjectAccessReview>,
        older: &[],
        answer: access::may_they_here,
    },
    Review {
        group: AUTHORIZATION,
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        namespaced: false,
        schema: SchemaGenerator::subschema_for::<SelfSubjectAccessReview>,
        older: &[],
        answer: access::may_i,
    },
    Review {
        group: AUTHORIZATION,
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        kind: "SelfSubjectRulesReview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        namespaced: false,
        schema: SchemaGenerator::subschema_for::<SelfSubjectRulesReview>,
        older: &[],
        answer: access::what_may_i,
    },
    Review {
        group: AUTHORIZATION,
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        kind: "SubjectAccessReview",
        definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
        namespaced: false,
        schema: SchemaGenerator::subschema_for::<SubjectAccessReview>,
        older: &[],
        answer: access::may_they,
    },
];

/// The question asked by a POST there, if it is one.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    let served = |review: &&Review| version == "v1" || review.older.contains(&version);
    ALL.iter().find(|review| review.group == group && review.plural == plural).filter(served)
}

impl Review {
    /// The resource that is asked under that version, as admission names it.
    pub(crate) fn info(&self, version: &str) -> ResourceInfo {
        let older = self.older.iter().find(|older| **older == version);
        let names = if self.namespaced { Descriptor::namespaced } else { Descriptor::cluster };
        let descriptor = names(self.group, older.copied().unwrap_or("v1"), self.kind, self.plural);
        ResourceInfo::from_descriptor(&descriptor, self.definition)
    }

    /// Reads a body that was sent to this version.
    pub(crate) fn read(&self, version: &str, body: &[u8]) -> Result<Value, ApiError> {
        let mut body: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        if !body.is_object() {
            return Err(ApiError::bad_request("the object provided is no review"));
        }
        body["kind"] = self.kind.into();
        body["apiVersion"] = format!("{}/{version}", self.group).into();
        // The answer repeats it, so it has to be what it says.
        let metadata: ObjectMeta = match body["metadata"].take() {
            Value::Null => ObjectMeta::default(),
            metadata => serde_json::from_value(metadata).map_err(|error| unreadable(&error))?,
        };
        body["metadata"] = serde_json::to_value(metadata).map_err(ApiError::internal)?;
        Ok(body)
    }

    /// Answers what has been read, in a namespace.
    pub(crate) fn answer(
        &self,
        reviewer: &Reviewer,
        user: &User,
        namespace: &str,
        mut body: Value,
    ) -> Result<Vec<u8>, ApiError> {
        let status = (self.answer)(&Question { reviewer, user, namespace, kind: self.kind, body: &body })?;
        body["status"] = status;
        serde_json::to_vec(&body).map_err(ApiError::internal)
    }
}

impl Question<'_> {
    /// The question proper.
    fn spec<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        match &self.body["spec"] {
            Value::Null => Ok(T::default()),
            spec => T::deserialize(spec).map_err(|error| unreadable(&error)),
        }
    }

    fn group_kind(&self, group: &'static str) -> GroupKind {
        GroupKind::from_static(group, self.kind)
    }
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("cannot read the review: {error}"))
}

fn status(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(ApiError::internal)
}
