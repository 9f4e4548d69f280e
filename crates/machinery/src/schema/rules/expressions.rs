//! Whether the rules of a schema can be evaluated, and whether that may cost too much.

mod budget;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use self::budget::{Total, over};
use super::{additional, items};
use crate::api_types::ListType;
use crate::expression;
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Schema;
use crate::schema::expressions::{Error, Rule};

/// Adds what is wrong with the rules of a schema, which has been compiled; with what they cost, if that is `limited`.
pub(super) fn check(props: &JSONSchemaProps, schema: &Schema, path: &Path, limited: bool, errors: &mut ErrorList) {
    let mut total = limited.then(Total::default);
    walk(props, schema, path, Around { uncorrelated: None, cardinality: Some(1) }, &mut total, errors);
    if let Some(total) = total {
        total.refuse(path, errors);
    }
}

/// What the schemas around a schema say about its values.
#[derive(Clone, Copy)]
struct Around<'p> {
    /// The list or map within which nothing says which value was which before.
    uncorrelated: Option<&'p Path>,
    /// How many values there may be in one object; none where a list or map around them is unbounded. Upstream:
    /// `CELSchemaContext.MaxCardinality`.
    cardinality: Option<u64>,
}

impl<'p> Around<'p> {
    /// Of what is in a list or map at `path`, of so many items at most. `correlated` says whether an item is known again.
    fn within(self, path: &'p Path, correlated: bool, max: Option<u64>) -> Self {
        Self {
            uncorrelated: self.uncorrelated.or(Some(path).filter(|_| !correlated)),
            cardinality: self.cardinality.zip(max).map(|(outer, inner)| outer.saturating_mul(inner)),
        }
    }
}

fn walk(
    props: &JSONSchemaProps,
    schema: &Schema,
    path: &Path,
    around: Around<'_>,
    total: &mut Option<Total>,
    errors: &mut ErrorList,
) {
    if !schema.ruled {
        return;
    }
    for (index, rule) in schema.rules.iter().enumerate() {
        check_rule(rule, props, index, path, around.uncorrelated, errors);
    }
    if let Some(total) = total {
        estimate(schema, path, around.cardinality, total, errors);
    }
    if let (Some(props), Some(items)) = (items(props), schema.items()) {
        let around = around.within(path, schema.list_type == ListType::Map, schema.max_items());
        walk(props, items, &path.child("items"), around, total, errors);
    }
    if let (Some(props), Some(values)) = (additional(props), schema.additional_schema()) {
        let around = around.within(path, !schema.map_atomic, schema.max_properties());
        walk(props, values, &path.child("additionalProperties"), around, total, errors);
    }
    let around = around.within(path, !schema.map_atomic, Some(1));
    for (name, props) in props.properties.iter().flatten() {
        if let Some(schema) = schema.declared(name) {
            walk(props, schema, &path.child("properties").key(name), around, total, errors);
        }
    }
}

/// Adds the rules that may cost too much, with those that make messages, and counts them all.
fn estimate(schema: &Schema, path: &Path, cardinality: Option<u64>, total: &mut Total, errors: &mut ErrorList) {
    let times = || cardinality.unwrap_or_else(|| expression::cardinality(schema));
    for (index, rule) in schema.rules.iter().enumerate() {
        let Ok(program) = &rule.program else { continue };
        let path = path.child("x-kubernetes-validations").index(index);
        let mut observe = |field: &'static str, name: &str, cost: u64| {
            let path = path.child(field);
            if let Some(why) = over(name, cost, budget::RULE_LIMIT) {
                errors.push(FieldError::forbidden(&path, why));
            }
            total.observe(path, cost);
        };
        observe("rule", "estimated rule cost", program.estimated_cost().saturating_mul(times()));
        if let Some(Ok(message)) = &rule.message {
            // A message is made for what is wrong, which upstream takes to be one value.
            observe("messageExpression", "estimated messageExpression cost", message.estimated_cost());
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
