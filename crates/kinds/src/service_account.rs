//! core/v1 ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount as Object;
use machinery::field::ErrorList;
use registry::kind::{Descriptor, Kind, Subresource};

/// ServiceAccounts. Their table has had no column of secrets since upstream's 1.35.
pub(crate) struct ServiceAccount;

impl Kind for ServiceAccount {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["sa"],
        subresources: &[Subresource::Token],
        returns_deleted_object: true,
        ..Descriptor::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
    };

    fn validate(_object: &Object) -> ErrorList {
        ErrorList::new()
    }
}
