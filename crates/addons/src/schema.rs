//! Schemas of fields that Rust types do not tell: types for `#[schemars(with = "Option<...>")]`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident: $schema:tt,)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*
    };
}

schemas! {
    /// Anything: who works with it knows what it is. For pod templates, as the published definitions of RoleBasedGroups have
    /// them: written out, the schema of a pod is most of a megabyte.
    Anything: { "type": "object", "x-kubernetes-preserve-unknown-fields": true },

    /// A number or a percentage: `k8s.io/apimachinery/pkg/util/intstr`.
    IntOrPercent: { "x-kubernetes-int-or-string": true },

    /// Quantities by the names of resources: `v1.ResourceList`.
    ResourceList: {
        "type": "object",
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        },
    },

    /// The conditions of a status: `metav1.Condition`, by type.
    Conditions: {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": { "type": "string" },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string" },
                "message": { "type": "string" },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            },
        },
    },
}
