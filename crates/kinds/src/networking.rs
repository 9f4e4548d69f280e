//! The kinds of networking.k8s.io. They are stored, validated and served; who acts on them is a controller of the user's
//! choice.

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

#[cfg(test)]
mod tests;

pub(crate) use ingress::CLASS_ANNOTATION;

use registry::ops::Typed;
use registry::table::Resource;

/// The rows of the group.
pub(super) fn all() -> [Resource; 5] {
    [
        Typed::<ingress_class::IngressClass>::shared(),
        Typed::<ingress::Ingress>::shared(),
        Typed::<ip_address::IPAddress>::shared(),
        Typed::<network_policy::NetworkPolicy>::shared(),
        Typed::<service_cidr::ServiceCIDR>::shared(),
    ]
}
