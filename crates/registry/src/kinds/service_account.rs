//! core/v1 ServiceAccount.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount as Object;
use machinery::field::ErrorList;
use serde_json::Value;

use super::common::list;
use crate::kind::{Column, Descriptor, Kind, Subresource, cell_age, cell_name};

/// ServiceAccounts.
pub(crate) struct ServiceAccount;

impl Kind for ServiceAccount {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["sa"],
        subresources: &[Subresource::Token],
        ..Descriptor::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
    };

    fn validate(_object: &Object) -> ErrorList {
        ErrorList::new()
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Secrets", "How many secrets pods of the account may mount."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), list(&object.secrets).len().into(), cell_age(&object.metadata, now)]
    }
}
