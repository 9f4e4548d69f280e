//! What somebody may do: `authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()`
//! (`staging/src/k8s.io/apiserver/pkg/cel/library/authz.go`).

use std::fmt;
use std::sync::Arc;

use cel::common::types::STRING_TYPE;
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{argument, flag, opaque, text, written, wrong};
use crate::validate;

/// Says what the user of a request may do, and service accounts besides. Must answer from memory.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether that may be done. `account` is the namespace and name of a service account; without one it is the user of the request.
    fn decide(&self, account: Option<(&str, &str)>, verb: &str, check: &Check) -> Decision;
}

/// What is to be done, but for the verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Something to a path that is no object.
    Path(String),
    /// Something to objects of the API.
    Resource {
        /// API group, empty for the core group.
        group: String,
        /// Plural name.
        resource: String,
        /// Subresource, or empty.
        subresource: String,
        /// Namespace; empty for cluster scope and for all namespaces.
        namespace: String,
        /// Name; empty for all.
        name: String,
    },
}

/// Whether something may be done, and why or why not, where that can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
}

/// About whom an authorizer is asked.
#[derive(Clone)]
pub(in crate::expression) struct Subject {
    authorizer: Arc<dyn Authorizer>,
    account: Option<Arc<(String, String)>>,
}

impl Subject {
    fn decide(&self, verb: &str, check: &Check) -> Decision {
        let account = self.account.as_deref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        self.authorizer.decide(account, verb, check)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.account).finish()
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.authorizer, &other.authorizer) && self.account == other.account
    }
}

opaque!(
    /// Somebody who may or may not do things.
    AuthorizerValue(Subject),
    "kubernetes.authorization.Authorizer"
);
opaque!(
    /// A question about a path.
    PathCheck((Subject, Arc<Check>)),
    "kubernetes.authorization.PathCheck"
);
opaque!(
    /// A question about the resources of a group.
    GroupCheck((Subject, Arc<str>)),
    "kubernetes.authorization.GroupCheck"
);
opaque!(
    /// A question about objects.
    ResourceCheck((Subject, Arc<Check>)),
    "kubernetes.authorization.ResourceCheck"
);
opaque!(
    /// An answer.
    DecisionValue(Decision),
    "kubernetes.authorization.Decision"
);

impl AuthorizerValue {
    /// Asks about the user of the request.
    pub(in crate::expression) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Subject { authorizer, account: None })
    }
}

impl ResourceCheck {
    /// Asks about the user of the request and these objects.
    pub(in crate::expression) fn new(authorizer: Arc<dyn Authorizer>, check: Check) -> Self {
        Self((Subject { authorizer, account: None }, Arc::new(check)))
    }
}

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let authorizer = || AuthorizerValue::cel_type().to_owned();
    let resource = || ResourceCheck::cel_type().to_owned();
    env.add_member_overload("path", "authorizer_path", authorizer(), vec![STRING_TYPE], |arguments| {
        let path = filled("path", text(&arguments, 1)?)?;
        let subject = argument::<AuthorizerValue>(&arguments, 0)?.0.clone();
        Ok(CowVal::owned(PathCheck((subject, Arc::new(Check::Path(path))))))
    })?;
    env.add_member_overload("group", "authorizer_group", authorizer(), vec![STRING_TYPE], |arguments| {
        let subject = argument::<AuthorizerValue>(&arguments, 0)?.0.clone();
        Ok(CowVal::owned(GroupCheck((subject, text(&arguments, 1)?.into()))))
    })?;
    let account = vec![STRING_TYPE, STRING_TYPE];
    env.add_member_overload("serviceAccount", "authorizer_serviceaccount", authorizer(), account, |arguments| {
        let (namespace, name) = (text(&arguments, 1)?, text(&arguments, 2)?);
        if !validate::dns_subdomain(name).is_empty() {
            return Err(wrong("Invalid service account name"));
        }
        if !validate::dns_label(namespace).is_empty() {
            return Err(wrong("Invalid service account namespace"));
        }
        let authorizer = Arc::clone(&argument::<AuthorizerValue>(&arguments, 0)?.0.authorizer);
        let account = Some(Arc::new((namespace.to_owned(), name.to_owned())));
        Ok(CowVal::owned(AuthorizerValue(Subject { authorizer, account })))
    })?;
    let group = GroupCheck::cel_type().to_owned();
    env.add_member_overload("resource", "groupcheck_resource", group, vec![STRING_TYPE], |arguments| {
        let resource = filled("resource", text(&arguments, 1)?)?;
        let (subject, group) = argument::<GroupCheck>(&arguments, 0)?.0.clone();
        let [subresource, namespace, name] = [const { String::new() }; 3];
        let check = Check::Resource { group: (*group).to_owned(), resource, subresource, namespace, name };
        Ok(CowVal::owned(ResourceCheck((subject, Arc::new(check)))))
    })?;
    /// Declares the methods that set a field of a question about objects, each a function without captures.
    macro_rules! setters {
        ($($method:literal $id:literal $field:ident),*) => {$(
            env.add_member_overload($method, $id, resource(), vec![STRING_TYPE], |arguments| {
                let (subject, mut check) = argument::<ResourceCheck>(&arguments, 0)?.0.clone();
                if let Check::Resource { $field, .. } = Arc::make_mut(&mut check) {
                    *$field = text(&arguments, 1)?.to_owned();
                }
                Ok(CowVal::owned(ResourceCheck((subject, check))))
            })?;
        )*};
    }
    setters!(
        "subresource" "resourcecheck_subresource" subresource,
        "namespace" "resourcecheck_namespace" namespace,
        "name" "resourcecheck_name" name
    );
    // Roles know no selectors: what may be done to all objects may be done to some of them.
    env.add_member_overload("fieldSelector", "authorizer_fieldselector", resource(), vec![STRING_TYPE], unselected)?;
    env.add_member_overload("labelSelector", "authorizer_labelselector", resource(), vec![STRING_TYPE], unselected)?;
    let path = PathCheck::cel_type().to_owned();
    env.add_member_overload("check", "pathcheck_check", path, vec![STRING_TYPE], |arguments| {
        let (subject, check) = &argument::<PathCheck>(&arguments, 0)?.0;
        Ok(CowVal::owned(DecisionValue(subject.decide(text(&arguments, 1)?, check))))
    })?;
    env.add_member_overload("check", "resourcecheck_check", resource(), vec![STRING_TYPE], |arguments| {
        let (subject, check) = &argument::<ResourceCheck>(&arguments, 0)?.0;
        Ok(CowVal::owned(DecisionValue(subject.decide(text(&arguments, 1)?, check))))
    })?;
    let decision = || DecisionValue::cel_type().to_owned();
    env.add_member_overload("allowed", "decision_allowed", decision(), vec![], |arguments| {
        flag(argument::<DecisionValue>(&arguments, 0)?.0.allowed)
    })?;
    env.add_member_overload("reason", "decision_reason", decision(), vec![], |arguments| {
        written(argument::<DecisionValue>(&arguments, 0)?.0.reason.clone())
    })?;
    // Who answers from memory has no errors to tell.
    env.add_member_overload("errored", "decision_errored", decision(), vec![], |_| flag(false))?;
    env.add_member_overload("error", "decision_error", decision(), vec![], |_| written(""))
}

fn unselected<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> super::Answer<'b, 'v> {
    text(&arguments, 1)?;
    Ok(arguments.swap_remove(0))
}

fn filled(what: &str, value: &str) -> Result<String, ExecutionError> {
    if value.trim().is_empty() { Err(wrong(format!("{what} must not be empty"))) } else { Ok(value.to_owned()) }
}
