//! What every part of coracle knows about Kubernetes objects as such: names and kinds, validation messages and field
//! paths, the errors of the API, selectors, quantities, the protobuf form, and the three kinds of patch.
//!
//! Everything here is a pure function on values: no input or output, no clock, no tasks. Where upstream has a message or
//! a canonical form that clients see, it is the same one here, byte for byte.
//!
//! | module | subject |
//! |---|---|
//! | [`gvk`] | group, version, kind and resource, and how they are written |
//! | [`field`] | paths into an object and what is wrong there |
//! | [`status`] | the one error of the API and its `Status` |
//! | [`validate`] | the rules for names, labels, keys and ports |
//! | [`names`] | generated names |
//! | [`selector`] | label and field selectors |
//! | [`phase`] | the phases of pods and the statuses of conditions |
//! | [`placement`] | which nodes a pod may run on |
//! | [`depth`] | how deep objects may be nested |
//! | [`quantity`] | `100m`, `1536Mi`, `2e3` |
//! | [`int_or_string`] | counts that may be percentages |
//! | [`patch`] | JSON patch, merge patch, strategic merge patch |
//! | [`api_types`] | upstream's types: field numbers, merge keys and list types |
//! | [`protobuf`] | the protobuf form of the built-in kinds |
//! | [`schema`] | structural schemas: validation, pruning and defaults of custom resources |
//! | [`expression`] | the Common Expression Language with upstream's libraries, checked and with a budget |
//! | [`json_path`] | the JSONPath of printer columns |
//! | [`managed`] | who owns which fields: server-side apply |
//! | [`ephemeral`] | ephemeral containers as the containers they are |
//! | [`references`] | what a pod refers to by name |
//! | [`resources`] | what pods ask for and nodes offer |
//! | [`quota`] | what ResourceQuotas count |
//! | [`rbac`] | what the rules of roles allow, and whom bindings name |
//! | [`hash`] | stable hashes for generated names |
//! | [`cron`] | when a schedule is due |
//! | [`changes`] | what differs between two versions of an object |
//! | [`certificates`] | certificate signing requests, and the key usages they ask for |
//! | [`age`] | durations as people read them |
//! | [`verb`] | what a request wants to do |
//! | [`yaml`] | YAML documents as JSON |
//! | [`well_known`] | labels, annotations and names that crates share |

pub mod age;
pub mod api_types;
pub mod certificates;
pub mod changes;
pub mod cron;
pub mod depth;
pub mod ephemeral;
pub mod expression;
pub mod field;
pub mod gvk;
pub mod hash;
pub mod int_or_string;
pub mod json_path;
pub mod managed;
pub mod names;
pub mod patch;
pub mod phase;
pub mod placement;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod references;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod validate;
pub mod verb;
pub mod well_known;
pub mod yaml;

pub use field::{ErrorList, FieldError, Path};
pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::ApiError;
pub use verb::Verb;
