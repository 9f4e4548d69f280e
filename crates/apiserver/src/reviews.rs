//! Questions about oneself: `kubectl auth can-i` and `kubectl auth whoami`. Nothing is stored; POST answers.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReviewStatus};
use machinery::GroupKind;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;
use schemars::{Schema, SchemaGenerator};

use crate::authn::User;
use crate::authz::{Attributes, Authorizer, Decision, Target};

/// A question that can be asked.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    answer: Answer,
}

/// From the body of the question to the body of the answer.
type Answer = fn(&[u8], &User, &dyn Authorizer) -> Result<Vec<u8>, ApiError>;

/// All of them; each is of version v1 and cluster-scoped.
pub(crate) const ALL: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
        schema: SchemaGenerator::subschema_for::<SelfSubjectReview>,
        answer: who_am_i,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        schema: SchemaGenerator::subschema_for::<SelfSubjectAccessReview>,
        answer: can_i,
    },
];

/// The question asked by a POST there, if it is one.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    ALL.iter().find(|review| review.group == group && version == "v1" && review.plural == plural)
}

impl Review {
    /// Answers.
    pub(crate) fn answer(&self, body: &[u8], user: &User, authorizer: &dyn Authorizer) -> Result<Vec<u8>, ApiError> {
        (self.answer)(body, user, authorizer)
    }
}

fn who_am_i(body: &[u8], user: &User, _: &dyn Authorizer) -> Result<Vec<u8>, ApiError> {
    let mut review: SelfSubjectReview = decode(body)?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    review.status = Some(SelfSubjectReviewStatus {
        user_info: Some(UserInfo {
            username: some(&user.name),
            uid: some(&user.uid),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
        }),
    });
    encode(&review)
}

fn can_i(body: &[u8], user: &User, authorizer: &dyn Authorizer) -> Result<Vec<u8>, ApiError> {
    let mut review: SelfSubjectAccessReview = decode(body)?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let decision = match (&review.spec.resource_attributes, &review.spec.non_resource_attributes) {
        (Some(wanted), None) => {
            let [group, version, resource, subresource, namespace, name, verb] = [
                &wanted.group,
                &wanted.version,
                &wanted.resource,
                &wanted.subresource,
                &wanted.namespace,
                &wanted.name,
                &wanted.verb,
            ]
            .map(text);
            let target = Target::Resource {
                group: &group,
                version: &version,
                resource: &resource,
                subresource: &subresource,
                namespace: &namespace,
                name: &name,
            };
            authorizer.authorize(&Attributes { user, verb: &verb, target })
        }
        (None, Some(wanted)) => {
            let (path, verb) = (text(&wanted.path), text(&wanted.verb));
            authorizer.authorize(&Attributes { user, verb: &verb, target: Target::Path(&path) })
        }
        (resource, _) => {
            let path = Path::new("spec").child("resourceAttributes");
            let why = if resource.is_some() {
                "cannot be specified in combination with nonResourceAttributes"
            } else {
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            let errors = ErrorList(vec![FieldError::invalid(&path, (), why)]);
            let kind = GroupKind::from_static("authorization.k8s.io", "SelfSubjectAccessReview");
            return Err(ApiError::invalid(&kind, "", &errors));
        }
    };
    let (allowed, reason) = match decision {
        Decision::Allow(why) => (true, why.as_deref().unwrap_or_default().to_owned()),
        Decision::Deny(reason) => (false, reason),
    };
    review.status = Some(SubjectAccessReviewStatus {
        allowed,
        reason: (!reason.is_empty()).then_some(reason),
        ..SubjectAccessReviewStatus::default()
    });
    encode(&review)
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("cannot read the review: {error}")))
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(ApiError::internal)
}
