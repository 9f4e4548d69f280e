//! How validation reports what it finds, and the checks that many kinds share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::expression::{self, TOGETHER_MAX};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use serde::Serialize;

use super::common::{entries, list};

/// Of a value that must be above zero.
pub(crate) const POSITIVE: &str = "must be greater than zero";
pub(crate) use machinery::validate::{IMMUTABLE, NEGATIVE};

/// Of the mode bits of a file.
pub(crate) const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Adds one finding to a list. The texts are upstream's.
pub(crate) trait Report {
    /// A field that must be set is not.
    fn required(&mut self, path: &Path, detail: &str);
    /// A field has a value that is not legal.
    fn invalid(&mut self, path: &Path, value: impl Serialize, detail: impl Into<String>);
    /// A field has a value outside a closed set, which upstream lists in this order.
    fn not_supported(&mut self, path: &Path, value: &str, valid: &[&str]);
    /// A value stands twice where it may stand once.
    fn duplicate(&mut self, path: &Path, value: impl Serialize);
    /// A field may not be set, or not be changed, here.
    fn forbidden(&mut self, path: &Path, detail: impl Into<String>);
    /// A name refers to nothing.
    fn not_found(&mut self, path: &Path, value: impl Serialize);
    /// Each message on its own, about the same value.
    fn messages(&mut self, path: &Path, value: impl Serialize + Copy, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, message);
        }
    }
}

impl Report for ErrorList {
    fn required(&mut self, path: &Path, detail: &str) {
        self.push(FieldError::required(path, detail));
    }

    fn invalid(&mut self, path: &Path, value: impl Serialize, detail: impl Into<String>) {
        self.push(FieldError::invalid(path, value, detail));
    }

    fn not_supported(&mut self, path: &Path, value: &str, valid: &[&str]) {
        self.push(FieldError::not_supported(path, value, valid));
    }

    fn duplicate(&mut self, path: &Path, value: impl Serialize) {
        self.push(FieldError::duplicate(path, value));
    }

    fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.push(FieldError::forbidden(path, detail));
    }

    fn not_found(&mut self, path: &Path, value: impl Serialize) {
        self.push(FieldError::not_found(path, value));
    }
}

/// A number that may not be negative.
pub(crate) fn non_negative(errors: &mut ErrorList, path: &Path, value: impl Into<i64>) {
    let value = value.into();
    if value < 0 {
        errors.invalid(path, value, NEGATIVE);
    }
}

/// A value from a closed set; an empty one is missing.
pub(crate) fn one_of(errors: &mut ErrorList, path: &Path, value: &str, valid: &[&str]) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !valid.contains(&value) {
        errors.not_supported(path, value, valid);
    }
}

/// An optional value from a closed set; absent is fine, empty is not.
pub(crate) fn optional_one_of(errors: &mut ErrorList, path: &Path, value: &Option<String>, valid: &[&str]) {
    if let Some(value) = value
        && !valid.contains(&value.as_str())
    {
        errors.not_supported(path, value, valid);
    }
}

/// A field that may not change.
pub(crate) fn immutable<T: PartialEq + Serialize>(errors: &mut ErrorList, path: &Path, new: &T, old: &T) {
    if new != old {
        errors.invalid(path, new, IMMUTABLE);
    }
}

/// Labels, of an object or in an equality selector.
pub(crate) fn labels(errors: &mut ErrorList, path: &Path, labels: &Option<BTreeMap<String, String>>) {
    for (key, value) in entries(labels) {
        errors.messages(path, key, validate::qualified_name(key));
        errors.messages(path, value, validate::label_value(value));
    }
}

/// A label name on its own.
pub(crate) fn label_name(errors: &mut ErrorList, path: &Path, name: &str) {
    errors.messages(path, name, validate::qualified_name(name));
}

/// An RFC 1123 label.
pub(crate) fn dns_label(errors: &mut ErrorList, path: &Path, value: &str) {
    errors.messages(path, value, validate::dns_label(value));
}

/// An RFC 1123 subdomain.
pub(crate) fn dns_subdomain(errors: &mut ErrorList, path: &Path, value: &str) {
    errors.messages(path, value, validate::dns_subdomain(value));
}

/// A label name with an optional prefix.
pub(crate) fn qualified_name(errors: &mut ErrorList, path: &Path, value: &str) {
    errors.messages(path, value, validate::qualified_name(value));
}

/// A label selector in its structured form.
pub(crate) fn label_selector(errors: &mut ErrorList, path: &Path, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    labels(errors, &path.child("matchLabels"), &selector.match_labels);
    let expressions = path.child("matchExpressions");
    for (index, requirement) in list(&selector.match_expressions).iter().enumerate() {
        let path = expressions.index(index);
        let values = list(&requirement.values);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors
                .forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        label_name(errors, &path.child("key"), &requirement.key);
        for (index, value) in values.iter().enumerate() {
            errors.messages(&path.child("values").index(index), value, validate::label_value(value));
        }
    }
}

/// Whether a selector selects everything because it says nothing.
pub(crate) fn selector_is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && list(&selector.match_expressions).is_empty()
}

/// A port number.
pub(crate) fn port(errors: &mut ErrorList, path: &Path, port: i32) {
    errors.messages(path, port, validate::port_number(port.into()));
}

/// A port by number or by name.
pub(crate) fn port_or_name(errors: &mut ErrorList, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => port(errors, path, *number),
        IntOrString::String(name) => errors.messages(path, name, validate::port_name(name)),
    }
}

/// A transport protocol.
pub(crate) fn protocol(errors: &mut ErrorList, path: &Path, protocol: &str) {
    one_of(errors, path, protocol, &["SCTP", "TCP", "UDP"]);
}

/// Mode bits of a file, if given.
pub(crate) fn file_mode(errors: &mut ErrorList, path: &Path, mode: Option<i32>) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        errors.invalid(path, mode, FILE_MODE);
    }
}

/// An IP address.
pub(crate) fn ip(errors: &mut ErrorList, path: &Path, value: &str) {
    errors.messages(path, value, validate::ip(value));
}

/// An address block.
pub(crate) fn cidr(errors: &mut ErrorList, path: &Path, value: &str) {
    errors.messages(path, value, validate::cidr(value));
}

/// An address that can be an endpoint: upstream refuses what means "here" or "this link".
pub(crate) fn ordinary_ip(errors: &mut ErrorList, path: &Path, value: &str) {
    let Ok(address) = value.parse::<IpAddr>() else {
        errors.invalid(path, value, "must be a valid IP address");
        return;
    };
    if address.is_unspecified() {
        errors.invalid(path, value, format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        errors.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (unicast, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if unicast {
        errors.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A path that must stay inside the place it is relative to.
pub(crate) fn descending_path(errors: &mut ErrorList, path: &Path, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(errors, path, value);
}

/// As [`descending_path`], and free of the names the volume writer keeps for itself.
pub(crate) fn unreserved_path(errors: &mut ErrorList, path: &Path, value: &str) {
    descending_path(errors, path, value);
    if value.starts_with("..") && !has_backsteps(value) {
        errors.invalid(path, value, "must not start with '..'");
    }
}

/// A path without `..` as an element.
pub(crate) fn no_backsteps(errors: &mut ErrorList, path: &Path, value: &str) {
    if has_backsteps(value) {
        errors.invalid(path, value, "must not contain '..'");
    }
}

/// Whether a path has `..` as an element.
pub(crate) fn has_backsteps(value: &str) -> bool {
    value.split('/').any(|element| element == "..")
}

/// A field of an object that was declared immutable; `same` says whether it was left alone.
pub(crate) fn frozen(errors: &mut ErrorList, field: &'static str, same: bool) {
    if !same {
        errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
    }
}

/// Whether all expressions of an object (`what` says whose) are short enough together to be compiled; says so if not.
pub(crate) fn short_together<'a>(
    errors: &mut ErrorList,
    path: &Path,
    what: &str,
    texts: impl IntoIterator<Item = &'a str>,
) -> bool {
    let length: usize = texts.into_iter().filter(|text| !text.is_empty()).map(expression::length).sum();
    if length > TOGETHER_MAX {
        errors.forbidden(path, expression::too_long(what));
    }
    length <= TOGETHER_MAX
}
