//! What somebody may do.

use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
    SelfSubjectAccessReviewSpec, SelfSubjectRulesReviewSpec, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
    SubjectRulesReviewStatus,
};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::selector::{FieldRequirement, FieldSelector};
use machinery::status::ApiError;
use serde_json::Value;

use super::{AUTHORIZATION, Question, status};
use crate::authn::User;
use crate::authz::{Attributes, Decision, Target};

pub(super) fn may_i(question: &Question<'_>) -> Result<Value, ApiError> {
    let spec: SelfSubjectAccessReviewSpec = question.spec()?;
    let wanted = Wanted { resource: spec.resource_attributes, path: spec.non_resource_attributes };
    question.refuse(wanted.errors())?;
    wanted.ask(question, question.user)
}

pub(super) fn may_they(question: &Question<'_>) -> Result<Value, ApiError> {
    let (wanted, user, errors) = read(question)?;
    question.refuse(errors)?;
    wanted.ask(question, &user)
}

pub(super) fn may_they_here(question: &Question<'_>) -> Result<Value, ApiError> {
    let (wanted, user, mut errors) = read(question)?;
    let path = Path::new("spec");
    if let Some(resource) = &wanted.resource
        && resource.namespace.as_deref().unwrap_or_default() != question.namespace
    {
        let path = path.child("resourceAttributes").child("namespace");
        errors.0.push(FieldError::invalid(&path, &resource.namespace, "must match metadata.namespace"));
    }
    if let Some(other) = &wanted.path {
        let why = "disallowed on this kind of request";
        errors.0.push(FieldError::invalid(&path.child("nonResourceAttributes"), other, why));
    }
    question.refuse(errors)?;
    wanted.ask(question, &user)
}

pub(super) fn what_may_i(question: &Question<'_>) -> Result<Value, ApiError> {
    let spec: SelfSubjectRulesReviewSpec = question.spec()?;
    let namespace = spec.namespace.filter(|namespace| !namespace.is_empty());
    let namespace = namespace.ok_or_else(|| ApiError::bad_request("no namespace on request"))?;
    let known = question.reviewer.authorizer.rules(question.user, &namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in known.rules {
        if rule.resources.is_some() {
            resources.push(ResourceRule {
                verbs: rule.verbs.clone(),
                api_groups: rule.api_groups,
                resources: rule.resources,
                resource_names: rule.resource_names,
            });
        }
        if let Some(urls) = rule.non_resource_urls {
            paths.push(NonResourceRule { verbs: rule.verbs, non_resource_urls: Some(urls) });
        }
    }
    status(&SubjectRulesReviewStatus {
        resource_rules: resources,
        non_resource_rules: paths,
        incomplete: !known.error.is_empty(),
        evaluation_error: (!known.error.is_empty()).then_some(known.error),
    })
}

impl Question<'_> {
    fn refuse(&self, errors: ErrorList) -> Result<(), ApiError> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&self.group_kind(AUTHORIZATION), "", &errors))
    }
}

/// What is asked about somebody else, and what is wrong with the question.
fn read(question: &Question<'_>) -> Result<(Wanted, User, ErrorList), ApiError> {
    let spec: SubjectAccessReviewSpec = question.spec()?;
    let wanted = Wanted { resource: spec.resource_attributes, path: spec.non_resource_attributes };
    let mut errors = wanted.errors();
    let user = User {
        name: spec.user.unwrap_or_default(),
        uid: spec.uid.unwrap_or_default(),
        groups: spec.groups.unwrap_or_default(),
        extra: spec.extra.unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let path = Path::new("spec").child("user");
        errors.0.push(FieldError::invalid(&path, "", "at least one of user or group must be specified"));
    }
    Ok((wanted, user, errors))
}

/// The selector that a question is restricted to. What of it is not understood restricts nothing (upstream:
/// `pkg/registry/authorization/util/helpers.go`).
fn field_selector(asked: &FieldSelectorAttributes) -> FieldSelector {
    let requirements = asked.requirements.iter().flatten().filter_map(|requirement| {
        let equal = match requirement.operator.as_str() {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let [value] = requirement.values.as_deref()? else { return None };
        Some(FieldRequirement { field: requirement.key.clone(), value: value.clone(), equal })
    });
    match asked.raw_selector.as_deref() {
        Some(raw) if asked.requirements.is_none() => FieldSelector::parse(raw).unwrap_or_default(),
        _ => FieldSelector { requirements: requirements.collect() },
    }
}

/// What somebody wants to do.
struct Wanted {
    resource: Option<ResourceAttributes>,
    path: Option<NonResourceAttributes>,
}

impl Wanted {
    fn errors(&self) -> ErrorList {
        let path = Path::new("spec");
        let error = match (&self.resource, &self.path) {
            (Some(_), Some(other)) => FieldError::invalid(
                &path.child("nonResourceAttributes"),
                other,
                "cannot be specified in combination with resourceAttributes",
            ),
            (None, None) => FieldError::invalid(
                &path.child("resourceAttributes"),
                (),
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
            _ => return ErrorList::default(),
        };
        ErrorList(vec![error])
    }

    fn ask(&self, question: &Question<'_>, user: &User) -> Result<Value, ApiError> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let authorizer = &question.reviewer.authorizer;
        let decision = if let Some(wanted) = &self.resource {
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
            let selector = wanted.field_selector.as_ref().map(field_selector);
            let attributes = Attributes::new(user, verb.as_str().into(), target);
            authorizer.authorize(&Attributes { field_selector: selector.as_ref(), ..attributes })
        } else {
            let wanted = self.path.as_ref();
            let path = wanted.map(|wanted| text(&wanted.path)).unwrap_or_default();
            let verb = wanted.map(|wanted| text(&wanted.verb)).unwrap_or_default();
            authorizer.authorize(&Attributes::new(user, verb.as_str().into(), Target::Path(&path)))
        };
        let (allowed, reason) = match decision {
            Decision::Allow(why) => (true, why.as_deref().unwrap_or_default().to_owned()),
            Decision::Deny(why) => (false, why),
        };
        status(&SubjectAccessReviewStatus {
            allowed,
            reason: (!reason.is_empty()).then_some(reason),
            ..SubjectAccessReviewStatus::default()
        })
    }
}
