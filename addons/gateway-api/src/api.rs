//! gateway.networking.k8s.io: `apis/v1` in kubernetes-sigs/gateway-api, as far as its standard channel has it.
//!
//! The types say what is stored, and nobody decodes with them: whoever follows these objects has to bear definitions that
//! somebody else installed, in another version.

pub mod conditions;
pub mod filters;
pub mod gateway;
pub mod gateway_class;
pub mod http_route;
pub mod names;
pub mod reference_grant;
pub mod references;
mod rules;
