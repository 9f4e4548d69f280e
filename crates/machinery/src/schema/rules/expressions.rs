//! Whether the rules of a schema can be evaluated.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use super::{additional, items};
use crate::api_types::ListType;
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Schema;
use crate::schema::expressions::{Error, Rule};

/// Adds what is wrong with the rules of a schema, which has been compiled, and of those below it. `apart` is the list or map
/// within which nothing says which value was which before.
pub(super) fn check(
    props: &JSONSchemaProps,
    schema: &Schema,
    path: &Path,
    apart: Option<&Path>,
    errors: &mut ErrorList,
) {
    if !schema.ruled {
        return;
    }
    for (index, rule) in schema.rules.iter().enumerate() {
        check_rule(rule, props, index, path, apart, errors);
    }
    if let (Some(props), Some(items)) = (items(props), schema.items()) {
        let apart = apart.or(Some(path).filter(|_| schema.list_type != ListType::Map));
        check(props, items, &path.child("items"), apart, errors);
    }
    let apart = apart.or(Some(path).filter(|_| schema.map_atomic));
    if let (Some(props), Some(schema)) = (additional(props), schema.additional_schema()) {
        check(props, schema, &path.child("additionalProperties"), apart, errors);
    }
    for (name, props) in props.properties.iter().flatten() {
        if let Some(schema) = schema.declared(name) {
            check(props, schema, &path.child("properties").key(name), apart, errors);
        }
    }
}

fn check_rule(
    rule: &Rule,
    props: &JSONSchemaProps,
    index: usize,
    path: &Path,
    apart: Option<&Path>,
    errors: &mut ErrorList,
) {
    let Some(source) = props.x_kubernetes_validations.as_ref().and_then(|rules| rules.get(index)) else { return };
    // What is empty is reported as missing.
    if source.rule.trim().is_empty() {
        return;
    }
    let rules = path.child("x-kubernetes-validations");
    let path = rules.index(index);
    // Upstream shows all of the rule here, in Go's syntax.
    let invalid = |field: &'static str, value: &str, why: &str| FieldError::invalid(&path.child(field), value, why);
    match &rule.program {
        Err(Error::Unsupported(why)) => errors.push(FieldError::internal(&rules, why.as_str())),
        Err(Error::Invalid(why)) => errors.push(invalid("rule", &source.rule, why)),
        Ok(_) if rule.transition => {
            if let Some(apart) = apart {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}");
                errors.push(invalid("rule", &source.rule, &why));
            }
        }
        Ok(_) => {
            if let Some(optional) = source.optional_old_self {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(&path.child("optionalOldSelf"), optional, why));
            }
        }
    }
    if let Some(Err(Error::Invalid(why))) = &rule.message {
        errors.push(invalid("messageExpression", source.message_expression.as_deref().unwrap_or_default(), why));
    }
    if let Err(why) = &rule.field {
        let why = format!("fieldPath must be a valid path: {why}");
        errors.push(invalid("fieldPath", source.field_path.as_deref().unwrap_or_default(), &why));
    }
}
