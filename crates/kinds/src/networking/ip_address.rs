//! networking.k8s.io/v1 IPAddress.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IPAddress as Object;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, NameRule, cell_age, cell_name};
use serde_json::Value;

use crate::check::{Report, dns_subdomain, immutable};
use crate::common::{blank, text};

/// IPAddresses.
pub(crate) struct IPAddress;

impl Kind for IPAddress {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ip"],
        names: NameRule::PathSegment,
        ..Descriptor::cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
    };

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = text(&object.metadata.name);
        if name.parse::<IpAddr>().is_ok_and(|address| address.to_string() != name) {
            errors.invalid(&Path::new("metadata").child("name"), name, "must be a canonical format IP address");
        } else {
            errors.messages(&Path::new("metadata").child("name"), name, validate::ip(name));
        }
        let (path, parent) = (Path::new("spec").child("parentRef"), &object.spec.parent_ref);
        if !blank(&parent.group) {
            dns_subdomain(&mut errors, &path.child("group"), text(&parent.group));
        }
        for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
            if value.is_empty() {
                errors.required(&path.child(field), "");
            } else {
                errors.messages(&path.child(field), value, validate::path_segment(value));
            }
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("parentRef");
        immutable(&mut errors, &path, &new.spec.parent_ref, &old.spec.parent_ref);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("ParentRef", "What has the address."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let parent = &object.spec.parent_ref;
        let mut words = vec![parent.resource.to_lowercase()];
        if !blank(&parent.group) {
            words[0] = format!("{}.{}", words[0], text(&parent.group));
        }
        words.extend(parent.namespace.clone().filter(|namespace| !namespace.is_empty()));
        words.push(parent.name.clone());
        vec![cell_name(&object.metadata), words.join("/").into(), cell_age(&object.metadata, now)]
    }
}
