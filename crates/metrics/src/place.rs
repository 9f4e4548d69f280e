//! What a request is about.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Uri;
use machinery::selector::{FieldSelector, LabelSelector};
use machinery::status::ApiError;
use percent_encoding::percent_decode_str;

/// `/apis/GROUP/VERSION/[namespaces/N/]RESOURCE[/NAME[/SUBRESOURCE]]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for cluster scope and all namespaces.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    /// Empty for a list.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl Place {
    /// Reads a path; `None` when it has not this shape.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decode = |segment: &str| percent_decode_str(segment).decode_utf8().ok().map(Cow::into_owned);
        let segments: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
        let mut segments = segments?.into_iter();
        if segments.next()? != "apis" {
            return None;
        }
        let mut place = Self { group: segments.next()?, version: segments.next()?, ..Self::default() };
        let mut rest: Vec<String> = segments.collect();
        if rest.len() >= 3 && rest[0] == "namespaces" {
            place.namespace = rest[1].clone();
            rest.drain(..2);
        }
        let mut rest = rest.into_iter();
        place.resource = rest.next()?;
        place.name = rest.next().unwrap_or_default();
        place.subresource = rest.next().unwrap_or_default();
        (rest.next().is_none() && !place.resource.is_empty()).then_some(place)
    }

    /// `GROUP/VERSION`.
    pub(crate) fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    /// Of a parameter given twice the last value counts.
    pub(crate) fn of(uri: &Uri) -> Self {
        Self(url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// `labelSelector`, or another parameter of its form.
    pub(crate) fn labels(&self, name: &str) -> Result<LabelSelector, ApiError> {
        let text = self.0.get(name).map_or("", String::as_str);
        LabelSelector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// `fieldSelector`.
    pub(crate) fn fields(&self) -> Result<FieldSelector, ApiError> {
        let text = self.0.get("fieldSelector").map_or("", String::as_str);
        FieldSelector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// Whether the client wants to be told of changes, which nothing here does.
    pub(crate) fn watch(&self) -> bool {
        self.0.get("watch").is_some_and(|value| value != "false" && value != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expected: Option<[&str; 6]>| {
            let found = Place::parse(path);
            let found = found.as_ref().map(|place| {
                [&place.group, &place.version, &place.namespace, &place.resource, &place.name, &place.subresource]
                    .map(String::as_str)
            });
            assert_eq!(found, expected, "{path}");
        };
        check("/apis/metrics.k8s.io/v1beta1/pods", Some(["metrics.k8s.io", "v1beta1", "", "pods", "", ""]));
        check("/apis/g/v/namespaces/n/pods/", Some(["g", "v", "n", "pods", "", ""]));
        check("/apis/g/v/namespaces/n/pods/*/q", Some(["g", "v", "n", "pods", "*", "q"]));
        check("/apis/g/v/namespaces/n/pods/%2A/q", Some(["g", "v", "n", "pods", "*", "q"]));
        check("/apis/g/v/namespaces/n/metrics/q", Some(["g", "v", "n", "metrics", "q", ""]));
        check("/apis/g/v/nodes/n/q", Some(["g", "v", "", "nodes", "n", "q"]));
        check("/apis/g/v", None);
        check("/apis/g/v/a/b/c/d", None);
        check("/api/v1/pods", None);
    }
}
