//! Group, version, kind and resource: the coordinates of everything the API serves.
//!
//! The core group is the empty string, as on the wire. All types hold `Cow<'static, str>`, so that those of the built-in
//! kinds can be constants and those of custom kinds come from strings.

use std::borrow::Cow;
use std::fmt;

/// A string that is usually a constant.
pub type Text = Cow<'static, str>;

/// An API group and one of its versions: `apps/v1`, or `v1` for the core group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// The group; empty for the core group.
    pub group: Text,
    /// The version within the group.
    pub version: Text,
}

/// An `apiVersion` with more than one `/`, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unexpected GroupVersion string: {0}")]
pub struct UnexpectedGroupVersion(pub String);

/// A kind in one version of its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// The group; empty for the core group.
    pub group: Text,
    /// The version within the group.
    pub version: Text,
    /// The kind, in camel case: `Deployment`.
    pub kind: Text,
}

/// A resource in one version of its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// The group; empty for the core group.
    pub group: Text,
    /// The version within the group.
    pub version: Text,
    /// The resource, in lower-case plural: `deployments`.
    pub resource: Text,
}

/// A kind without its version, displayed as `Deployment.apps` or `Pod`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// The group; empty for the core group.
    pub group: Text,
    /// The kind, in camel case.
    pub kind: Text,
}

/// A resource without its version, displayed as `deployments.apps` or `pods`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The group; empty for the core group.
    pub group: Text,
    /// The resource, in lower-case plural.
    pub resource: Text,
}

impl GroupVersion {
    /// Builds from parts.
    pub fn new(group: impl Into<Text>, version: impl Into<Text>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Builds a constant.
    pub const fn from_static(group: &'static str, version: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version) }
    }

    /// Reads an `apiVersion`: `v1` or `apps/v1`. As upstream, only a second `/` makes it unreadable: group and version
    /// may each be empty, and whoever needs them asks (apimachinery `pkg/runtime/schema/group_version.go`).
    ///
    /// # Errors
    /// When there is more than one `/`.
    pub fn parse(api_version: &str) -> Result<Self, UnexpectedGroupVersion> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.contains('/') {
            return Err(UnexpectedGroupVersion(api_version.to_owned()));
        }
        Ok(Self::new(group.to_owned(), version.to_owned()))
    }

    /// The kind `kind` of this group version.
    pub fn kind(&self, kind: impl Into<Text>) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: kind.into() }
    }

    /// The resource `resource` of this group version.
    pub fn resource(&self, resource: impl Into<Text>) -> GroupVersionResource {
        GroupVersionResource { group: self.group.clone(), version: self.version.clone(), resource: resource.into() }
    }
}

impl GroupVersionKind {
    /// Builds from parts.
    pub fn new(group: impl Into<Text>, version: impl Into<Text>, kind: impl Into<Text>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// Builds a constant.
    pub const fn from_static(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    /// The group version: what an object's `apiVersion` says.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// The kind without the version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl GroupVersionResource {
    /// Builds from parts.
    pub fn new(group: impl Into<Text>, version: impl Into<Text>, resource: impl Into<Text>) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// The group version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// The resource without the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

impl GroupKind {
    /// Builds from parts.
    pub fn new(group: impl Into<Text>, kind: impl Into<Text>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// Builds a constant.
    pub const fn from_static(group: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), kind: Cow::Borrowed(kind) }
    }
}

impl GroupResource {
    /// Builds from parts.
    pub fn new(group: impl Into<Text>, resource: impl Into<Text>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }

    /// Builds a constant.
    pub const fn from_static(group: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions() {
        for (text, expect) in [
            ("v1", Some(("", "v1"))),
            ("apps/v1", Some(("apps", "v1"))),
            ("events.k8s.io/v1", Some(("events.k8s.io", "v1"))),
            ("", Some(("", ""))),
            ("/", Some(("", ""))),
            ("/v1", Some(("", "v1"))),
            ("apps/", Some(("apps", ""))),
            ("a/b/c", None),
            ("a//b", None),
        ] {
            let parsed = GroupVersion::parse(text);
            let wanted = expect.map(|(group, version)| GroupVersion::from_static(group, version));
            assert_eq!(parsed, wanted.ok_or_else(|| UnexpectedGroupVersion(text.to_owned())), "{text:?}");
        }
        let error = GroupVersion::parse("a/b/c").unwrap_err();
        assert_eq!(error.to_string(), "unexpected GroupVersion string: a/b/c");
    }

    #[test]
    fn displayed_as_upstream_does() {
        assert_eq!(GroupResource::from_static("apps", "deployments").to_string(), "deployments.apps");
        assert_eq!(GroupResource::from_static("", "pods").to_string(), "pods");
        assert_eq!(GroupKind::from_static("apps", "Deployment").to_string(), "Deployment.apps");
        assert_eq!(GroupVersionKind::from_static("", "v1", "Pod").to_string(), "/v1, Kind=Pod");
    }
}
