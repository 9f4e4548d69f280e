//! v1 Binding: a pod and the node it is to run on. A create of one is that of the subresource `binding` of the pod.

use k8s_openapi::api::core::v1::Binding as Object;
use machinery::Verb;
use machinery::field::ErrorList;
use registry::kind::{Descriptor, Kind, Subresource};

/// Bindings.
pub(super) struct Binding;

impl Kind for Binding {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        verbs: &[Verb::Create],
        stands_for: Some(("pods", Subresource::Binding)),
        ..Descriptor::namespaced("", "v1", "Binding", "bindings")
    };

    /// What is wrong with a Binding is found where it is used: it has the name of a pod.
    fn validate(_object: &Object) -> ErrorList {
        ErrorList::new()
    }
}
