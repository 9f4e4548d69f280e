//! The status of ValidatingAdmissionPolicies: what their expressions cannot mean, given the kinds that they are about
//! (`pkg/controller/validatingadmissionpolicystatus/controller.go`).
//!
//! Watches ValidatingAdmissionPolicies; owns their status. A policy that nobody has looked at yet is asked all the same: type
//! checking only warns.

use std::collections::BTreeSet;
use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
    ValidatingAdmissionPolicyStatus,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Patch, PatchParams};
use machinery::api_types::ApiType;
use machinery::expression::{CompileError, Compiler, Kind, Wanted, admission};
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::schema::Schema;
use serde_json::json;

use crate::client::{Api, Error, code, ok_if_not_found};
use crate::controller::{Context, Controller};

/// With how many types the expressions of a policy are checked at most; upstream's figure
/// (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`).
const MAX_TYPES: usize = 10;

/// What is known of the objects of a kind.
#[derive(Debug)]
pub(crate) enum Type {
    Builtin(&'static ApiType),
    Custom(Box<Schema>),
}

impl Type {
    fn kind(&self) -> Kind<'_> {
        match self {
            Self::Builtin(api_type) => Kind::Builtin(api_type),
            Self::Custom(schema) => Kind::Custom(schema),
        }
    }
}

/// The status of a policy whose expressions are about these types, and its parameters of that one.
pub(crate) fn plan(
    policy: &ValidatingAdmissionPolicy,
    types: &[(GroupVersionKind, Type)],
    params: Option<&Type>,
) -> ValidatingAdmissionPolicyStatus {
    let empty = ValidatingAdmissionPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&empty);
    let compilers: Vec<_> = types.iter().map(|(gvk, of)| (gvk, compiler(spec, of, params))).collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        for (field, expression) in [
            ("expression", Some(&validation.expression)),
            ("messageExpression", validation.message_expression.as_ref()),
        ] {
            let found = expression.filter(|text| !text.is_empty()).map(|text| check(text, &compilers));
            if let Some(warning) = found.filter(|found| !found.is_empty()) {
                let field_ref = format!("spec.validations[{index}].{field}");
                warnings.push(ExpressionWarning { field_ref, warning });
            }
        }
    }
    let expression_warnings = (!warnings.is_empty()).then_some(warnings);
    ValidatingAdmissionPolicyStatus {
        observed_generation: policy.metadata.generation,
        type_checking: Some(TypeChecking { expression_warnings }),
        conditions: None,
    }
}

/// A compiler of the expressions of a policy about objects of a type, with its variables.
fn compiler<'t>(spec: &ValidatingAdmissionPolicySpec, of: &'t Type, params: Option<&'t Type>) -> Compiler<'t> {
    // Parameters whose type is not known may be anything.
    let params = spec.param_kind.as_ref().map(|_| params.map_or(Kind::Any, Type::kind));
    let mut compiler = admission::compiler(of.kind(), params).composing();
    for variable in spec.variables.iter().flatten() {
        // Where one makes no sense, whatever uses it may be anything.
        let _ = compiler.declare(&variable.name, &variable.expression);
    }
    compiler
}

/// What an expression cannot mean, for each type.
fn check(expression: &str, types: &[(&GroupVersionKind, Compiler<'_>)]) -> String {
    let wrong = types.iter().filter_map(|(gvk, compiler)| {
        let issues = match compiler.compile(expression, Wanted::Any) {
            Ok(_) => return None,
            Err(CompileError::Invalid(issues)) => issues,
            Err(other) => other.to_string(),
        };
        Some(format!("{gvk}: {issues}\n"))
    });
    wrong.collect::<Vec<_>>().join("\n")
}

/// The groups, versions and resources that a rule names.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    groups: BTreeSet<String>,
    versions: BTreeSet<String>,
    resources: BTreeSet<String>,
}

/// What a rule names; what it only has a pattern for is not looked at.
fn named(rule: &NamedRuleWithOperations) -> Option<Named> {
    let sorted = |values: &Option<Vec<String>>| values.iter().flatten().cloned().collect::<BTreeSet<_>>();
    let (groups, versions) = (sorted(&rule.api_groups), sorted(&rule.api_versions));
    if groups.iter().chain(&versions).any(|value| value.contains('*')) {
        return None;
    }
    let mut resources = sorted(&rule.resources);
    resources.retain(|resource| !resource.contains(['*', '/']));
    (!resources.is_empty()).then_some(Named { groups, versions, resources })
}

/// The controller of the status of ValidatingAdmissionPolicies.
pub(crate) struct PolicyStatus {
    client: Client,
    policies: Informer<ValidatingAdmissionPolicy>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for PolicyStatus {
    const NAME: &'static str = "validatingadmissionpolicy-status";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self { client: context.client.clone(), policies: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.policies.on_change(move |change| {
            if change.new.as_ref().is_some_and(|policy| !is_observed(policy)) {
                queue.add_changed(change);
            }
        });
    }

    async fn synced(&self) {
        self.policies.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(policy) = self.policies.get(key) else {
            return Ok(Action::AwaitChange.because("the policy is gone"));
        };
        if is_observed(&policy) {
            return Ok(Action::AwaitChange);
        }
        let (types, params) = self.types(&policy).await?;
        // To compile takes time that nobody else shall wait for.
        let judged = Arc::clone(&policy);
        let planned = tokio::task::spawn_blocking(move || plan(&judged, &types, params.as_ref())).await;
        let Ok(status) = planned else { return Ok(Action::AwaitChange.because("the policy cannot be checked")) };
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": key.name, "resourceVersion": policy.metadata.resource_version }, "status": status,
        });
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let params = PatchParams::apply(Self::NAME).force();
        ok_if_not_found(api.patch_status(&key.name, &params, &Patch::Apply(patch)).await)?;
        Ok(Action::AwaitChange)
    }
}

/// Whether the status is that of the specification as it is.
fn is_observed(policy: &ValidatingAdmissionPolicy) -> bool {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation);
    observed.unwrap_or_default() >= policy.metadata.generation.unwrap_or_default()
}

impl PolicyStatus {
    /// The types of the objects that a policy is about, and that of its parameters, as far as they are known.
    async fn types(
        &self,
        policy: &ValidatingAdmissionPolicy,
    ) -> Result<(Vec<(GroupVersionKind, Type)>, Option<Type>), Error> {
        let Some(spec) = &policy.spec else { return Ok((Vec::new(), None)) };
        let rules = spec.match_constraints.iter().flat_map(|constraints| constraints.resource_rules.iter().flatten());
        let rules: Vec<Named> = rules.filter_map(named).collect();
        let mut types = Vec::new();
        for (gvk, resource) in self.kinds(&rules).await? {
            types.extend(self.of_kind(&gvk, &resource).await?.map(|of| (gvk, of)));
        }
        let Some(kind) = &spec.param_kind else { return Ok((types, None)) };
        let asked = kind.api_version.as_deref().unwrap_or_default();
        let (group, version) = asked.split_once('/').unwrap_or(("", asked));
        let name = kind.kind.clone().unwrap_or_default();
        let served = self.served(asked).await?;
        let Some((resource, _)) = served.into_iter().find(|(_, kind)| *kind == name) else { return Ok((types, None)) };
        let gvk = GroupVersionKind::new(group.to_owned(), version.to_owned(), name);
        let params = self.of_kind(&gvk, &resource).await?;
        Ok((types, params))
    }

    /// The kinds that rules name, each with its resource, as far as they are served. What is named may be much more than there is.
    async fn kinds(&self, rules: &[Named]) -> Result<BTreeSet<(GroupVersionKind, String)>, Error> {
        let mut kinds = BTreeSet::new();
        if rules.is_empty() {
            return Ok(kinds);
        }
        for served in self.group_versions().await? {
            let is_about =
                |rule: &&Named| rule.groups.contains(&*served.group) && rule.versions.contains(&*served.version);
            let about: Vec<&Named> = rules.iter().filter(is_about).collect();
            if about.is_empty() {
                continue;
            }
            for (resource, kind) in self.served(&served.to_string()).await? {
                if kinds.len() >= MAX_TYPES {
                    return Ok(kinds);
                }
                if about.iter().any(|rule| rule.resources.contains(&resource)) {
                    kinds.insert((served.kind(kind), resource));
                }
            }
        }
        Ok(kinds)
    }

    /// The groups and versions that are served.
    async fn group_versions(&self) -> Result<BTreeSet<GroupVersion>, Error> {
        let core = self.client.list_core_api_versions().await?;
        let mut all: BTreeSet<_> = core.versions.into_iter().map(|version| GroupVersion::new("", version)).collect();
        for group in self.client.list_api_groups().await?.groups {
            let name = group.name;
            all.extend(group.versions.into_iter().map(|served| GroupVersion::new(name.clone(), served.version)));
        }
        Ok(all)
    }

    /// The resources that are served in a group and version, each with its kind; none when it is not served.
    async fn served(&self, api_version: &str) -> Result<Vec<(String, String)>, Error> {
        let listed = if api_version.contains('/') {
            self.client.list_api_group_resources(api_version).await
        } else {
            self.client.list_core_api_resources(api_version).await
        };
        match listed {
            Ok(list) => Ok(list.resources.into_iter().map(|resource| (resource.name, resource.kind)).collect()),
            Err(error) if code(&error) == 404 => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn of_kind(&self, gvk: &GroupVersionKind, resource: &str) -> Result<Option<Type>, Error> {
        if let Some(api_type) = ApiType::of_kind(&gvk.group_version().to_string(), &gvk.kind) {
            return Ok(Some(Type::Builtin(api_type)));
        }
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let Some(crd) = ok_if_not_found(api.get(&format!("{resource}.{}", gvk.group)).await)? else { return Ok(None) };
        let version = crd.spec.versions.into_iter().find(|version| version.name == gvk.version);
        let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
        Ok(schema.map(|schema| Type::Custom(Box::new(Schema::parse(&schema)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(validations: &serde_json::Value) -> ValidatingAdmissionPolicy {
        let object = json!({
            "metadata": { "name": "p", "generation": 3 },
            "spec": {
                "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
                "variables": [{ "name": "spec", "expression": "object.spec" }],
                "validations": validations,
            },
        });
        serde_json::from_value(object).expect("a policy")
    }

    fn builtin(group: &str, kind: &str) -> (GroupVersionKind, Type) {
        let gvk = GroupVersionKind::new(group.to_owned(), "v1", kind.to_owned());
        let of = ApiType::of_kind(&gvk.group_version().to_string(), kind).expect("a built-in kind");
        (gvk, Type::Builtin(of))
    }

    #[test]
    fn expressions_are_checked_with_each_type() {
        let types = [builtin("apps", "Deployment"), builtin("apps", "DaemonSet")];
        let good = policy(&json!([{ "expression": "object.metadata.name != '' && params.data['a'] == 'b'" }]));
        let status = plan(&good, &types, Some(&builtin("", "ConfigMap").1));
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(status.type_checking, Some(TypeChecking::default()));
        let bad = policy(&json!([
            { "expression": "variables.spec.replicas > 1", "messageExpression": "object.nothing" },
            { "expression": "params.other == 1" },
        ]));
        let status = plan(&bad, &types, Some(&builtin("", "ConfigMap").1));
        let warnings = status.type_checking.and_then(|checked| checked.expression_warnings).expect("warnings");
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field_ref.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.validations[0].expression",
                "spec.validations[0].messageExpression",
                "spec.validations[1].expression"
            ]
        );
        assert_eq!(
            warnings[0].warning,
            "apps/v1, Kind=DaemonSet: ERROR: <input>:1:15: undefined field 'replicas'\n | variables.spec.replicas > 1\n | ..............^\n"
        );
        assert_eq!(warnings[1].warning.matches("undefined field 'nothing'").count(), 2);
        // Of parameters that are not known nothing can be said.
        let status = plan(&bad, &types, None);
        assert_eq!(
            status.type_checking.and_then(|checked| checked.expression_warnings).map(|found| found.len()),
            Some(2)
        );
    }

    #[test]
    fn only_what_rules_name_is_looked_at() {
        let rule = |groups: &[&str], resources: &[&str]| {
            let rule = json!({ "apiGroups": groups, "apiVersions": ["v1"], "resources": resources });
            named(&serde_json::from_value(rule).expect("a rule"))
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let pods = Named { groups: set(&["", "apps"]), versions: set(&["v1"]), resources: set(&["pods"]) };
        assert_eq!(rule(&["apps", ""], &["pods", "pods/exec", "*"]), Some(pods));
        assert_eq!(rule(&["*"], &["pods"]), None);
        assert_eq!(rule(&["apps"], &["*/*"]), None);
    }
}
