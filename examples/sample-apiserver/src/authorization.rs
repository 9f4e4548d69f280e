//! Whether somebody may: the cluster is asked by a SubjectAccessReview, which the ClusterRole `system:auth-delegator` allows.

use anyhow::Result;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::authentication::User;

/// What somebody wants to do.
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    /// Empty for all namespaces.
    pub(crate) namespace: &'a str,
    /// Empty for the collection.
    pub(crate) name: &'a str,
}

/// Asks whether `user` may; the answer to a no is the reason.
pub(crate) async fn authorize(client: &Client, user: &User, attributes: &Attributes<'_>) -> Result<Result<(), String>> {
    let resource = ResourceAttributes {
        group: Some(crate::flunders::GROUP.to_owned()),
        version: Some(crate::flunders::VERSION.to_owned()),
        resource: Some(crate::flunders::PLURAL.to_owned()),
        verb: Some(attributes.verb.to_owned()),
        namespace: Some(attributes.namespace.to_owned()),
        name: Some(attributes.name.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
    Ok(if status.allowed { Ok(()) } else { Err(status.reason.unwrap_or_default()) })
}
