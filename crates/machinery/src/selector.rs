//! Label and field selectors: parsing, matching, and writing them back.

mod field;
mod label;

pub use field::{FieldRequirement, FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError, Operator, Requirement};
