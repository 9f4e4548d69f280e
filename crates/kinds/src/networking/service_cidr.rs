//! networking.k8s.io/v1 ServiceCIDR.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{ServiceCIDR as Object, ServiceCIDRStatus};
use machinery::field::{ErrorList, FieldError, Path};
use registry::kind::{
    Column, Context, Descriptor, Kind, MetadataReset, Subresource, cell_age, cell_name, status_apart,
};
use serde_json::Value;

use crate::check::{Report, cidr};
use crate::common::list;

/// ServiceCIDRs.
pub(crate) struct ServiceCIDR;

impl Kind for ServiceCIDR {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        subresources: &[Subresource::Status],
        status_reset: MetadataReset::Everything,
        ..Descriptor::cluster("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
    };

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(ServiceCIDRStatus::default());
    }

    status_apart!();

    fn warnings(_new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let what = "cluster IPs come from the service range that the cluster was started with";
        vec![format!("ServiceCIDRs are not used: {what}")]
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("cidrs");
        let cidrs = ranges(object);
        if cidrs.is_empty() {
            errors.required(&path, "at least one CIDR required");
            return errors;
        }
        if cidrs.len() > 2 {
            let mut error = FieldError::too_many(&path, cidrs.len(), 2);
            error.value = serde_json::to_value(cidrs).ok();
            errors.push(error);
            return errors;
        }
        if let [one, other] = cidrs
            && one.contains(':') == other.contains(':')
        {
            errors.invalid(
                &path,
                cidrs,
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
            );
        }
        for (index, value) in cidrs.iter().enumerate() {
            cidr(&mut errors, &path.index(index), value);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (path, new, old) = (Path::new("spec").child("cidrs"), ranges(new), ranges(old));
        // The step from one family to both is the one change there may be.
        let grows = old.len() == 1 && new.len() == 2 && new.first() == old.first();
        if new != old && !grows {
            errors.invalid(&path, new, "field is immutable");
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("CIDRs", "Ranges of cluster IPs."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), ranges(object).join(",").into(), cell_age(&object.metadata, now)]
    }
}

fn ranges(object: &Object) -> &[String] {
    object.spec.as_ref().map_or(&[], |spec| list(&spec.cidrs))
}
