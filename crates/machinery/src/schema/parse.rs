//! From what a definition says to what is used.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::expressions::Rule;
use super::format::Format;
use super::pattern::Patterns;
use super::{Additional, Limits, Schema, Type};
use crate::api_types::ListType;

impl Schema {
    /// Compiles a schema. What [`super::rules`] would refuse is left out.
    pub fn parse(props: &JSONSchemaProps) -> Self {
        parse(props, &mut Patterns::default(), Rules::OfResource)
    }

    /// As [`Schema::parse`], for what has nothing to do with rules.
    pub(super) fn without_rules(props: &JSONSchemaProps) -> Self {
        parse(props, &mut Patterns::default(), Rules::LeftOut)
    }
}

/// Whether rules are compiled, and what they are about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    LeftOut,
    OfResource,
    OfValue,
}

impl Rules {
    const fn below(self) -> Self {
        match self {
            Self::LeftOut => Self::LeftOut,
            Self::OfResource | Self::OfValue => Self::OfValue,
        }
    }
}

fn parse(props: &JSONSchemaProps, patterns: &mut Patterns, rules: Rules) -> Schema {
    let kind = props.type_.as_deref().and_then(Type::from_name);
    let list_type = match props.x_kubernetes_list_type.as_deref() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map,
        _ => ListType::Atomic,
    };
    let additional = match &props.additional_properties {
        None => Additional::Unknown,
        Some(JSONSchemaPropsOrBool::Bool(any)) => Additional::Any(*any),
        Some(JSONSchemaPropsOrBool::Schema(schema)) => {
            Additional::Schema(Box::new(parse(schema, patterns, rules.below())))
        }
    };
    let items = match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(Box::new(parse(schema, patterns, rules.below()))),
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
    };
    let properties = props.properties.iter().flatten();
    let mut schema = Schema {
        kind,
        nullable: is_true(props.nullable),
        int_or_string: is_true(props.x_kubernetes_int_or_string),
        preserve: is_true(props.x_kubernetes_preserve_unknown_fields),
        embedded: is_true(props.x_kubernetes_embedded_resource),
        map_atomic: props.x_kubernetes_map_type.as_deref() == Some("atomic"),
        list_type,
        list_map_keys: boxed(props.x_kubernetes_list_map_keys.as_deref()),
        default: props.default.as_ref().map(|JSON(value)| Box::new(value.clone())),
        properties: properties
            .map(|(name, schema)| (name.as_str().into(), parse(schema, patterns, rules.below())))
            .collect(),
        additional,
        items,
        limits: limits(props, patterns).map(Box::new),
        rules: Box::default(),
        ruled: false,
    };
    if rules != Rules::LeftOut {
        let resource = rules == Rules::OfResource || schema.embedded;
        let rules = props.x_kubernetes_validations.iter().flatten();
        schema.rules = rules.map(|rule| Rule::compile(rule, &schema, resource)).collect();
    }
    let below = schema.properties.values().chain(schema.additional_schema()).chain(schema.items());
    schema.ruled = !schema.rules.is_empty() || below.into_iter().any(|schema| schema.ruled);
    schema
}

fn limits(props: &JSONSchemaProps, patterns: &mut Patterns) -> Option<Limits> {
    let mut all = |schemas: &Option<Vec<JSONSchemaProps>>| {
        schemas.iter().flatten().map(|schema| parse(schema, patterns, Rules::LeftOut)).collect::<Box<[Schema]>>()
    };
    let (all_of, any_of, one_of) = (all(&props.all_of), all(&props.any_of), all(&props.one_of));
    let limits = Limits {
        format: props.format.as_deref().and_then(Format::from_name),
        minimum: props.minimum,
        maximum: props.maximum,
        exclusive_minimum: is_true(props.exclusive_minimum),
        exclusive_maximum: is_true(props.exclusive_maximum),
        multiple_of: props.multiple_of.filter(|factor| *factor > 0.0),
        min_length: count(props.min_length),
        max_length: count(props.max_length),
        pattern: props.pattern.as_deref().filter(|text| !text.is_empty()).map(|text| patterns.intern(text)),
        min_items: count(props.min_items),
        max_items: count(props.max_items),
        min_properties: count(props.min_properties),
        max_properties: count(props.max_properties),
        required: boxed(props.required.as_deref()),
        choices: props.enum_.iter().flatten().map(|JSON(value)| value.clone()).collect(),
        all_of,
        any_of,
        one_of,
        not: props.not.as_deref().map(|schema| Box::new(parse(schema, patterns, Rules::LeftOut))),
    };
    (limits != Limits::default()).then_some(limits)
}

pub(super) fn is_true(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn count(limit: Option<i64>) -> Option<u64> {
    limit.map(|limit| u64::try_from(limit).unwrap_or(0))
}

fn boxed(names: Option<&[String]>) -> Box<[Box<str>]> {
    names.unwrap_or_default().iter().map(|name| name.as_str().into()).collect()
}
