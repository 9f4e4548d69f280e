//! What an object is called: resource, namespace and name, and how that is written on disk.

use std::fmt;
use std::sync::Arc;

/// Everything the store keeps lies below this prefix, as it does in etcd.
const ROOT: &str = "/registry/";

/// The name of one object.
///
/// On disk it is `/registry/GROUP/RESOURCE/NAMESPACE/NAME`; the namespace of a cluster-scoped object is empty, and its
/// key has two slashes in a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `GROUP/RESOURCE`, for example `core/pods` or `apps/deployments`.
    pub resource: Arc<str>,
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl Key {
    /// Names an object. Whether the parts are acceptable is checked at commit.
    pub fn new(resource: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Says what keeps this key from being written, if anything does.
    ///
    /// Only what would make two objects share one key on disk is refused; what a name may look like is the API's affair.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let resource = self.resource.split_once('/');
        if !resource.is_some_and(|(g, r)| !g.is_empty() && !r.is_empty() && !r.contains('/')) {
            return Some("a resource is GROUP/RESOURCE");
        }
        if self.namespace.contains('/') {
            return Some("a namespace has no slash");
        }
        if self.name.is_empty() || self.name.contains('/') {
            return Some("a name is not empty and has no slash");
        }
        None
    }

    /// Appends the key as it is written on disk.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        for part in [ROOT, &*self.resource, "/", &*self.namespace, "/", &*self.name] {
            into.extend_from_slice(part.as_bytes());
        }
    }

    /// Reads a key as it is written on disk.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?)
    }

    /// Reads a key as it is displayed, which is how it is written on disk; none of what is no object's.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(ROOT)?;
        let (rest, name) = rest.rsplit_once('/')?;
        let (resource, namespace) = rest.rsplit_once('/')?;
        let key = Self::new(resource, namespace, name);
        key.fault().is_none().then_some(key)
    }

    /// What all keys of a resource begin with on disk.
    pub(crate) fn prefix(resource: &str) -> Vec<u8> {
        format!("{ROOT}{resource}/").into_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}/{}/{}", self.resource, self.namespace, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_disk() {
        for (resource, namespace, name, path) in [
            ("core/pods", "default", "nginx", "/registry/core/pods/default/nginx"),
            ("core/nodes", "", "coracle", "/registry/core/nodes//coracle"),
            (
                "rbac.authorization.k8s.io/clusterroles",
                "",
                "system:node",
                "/registry/rbac.authorization.k8s.io/clusterroles//system:node",
            ),
        ] {
            let key = Key::new(resource, namespace, name);
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes), path);
            assert_eq!(key.to_string(), path);
            assert_eq!(Key::decode(&bytes), Some(key));
            assert!(bytes.starts_with(&Key::prefix(resource)));
        }
    }

    #[test]
    fn a_key_that_could_be_mistaken_for_another_is_refused() {
        for (resource, namespace, name) in [
            ("pods", "default", "a"),
            ("core/", "default", "a"),
            ("/pods", "default", "a"),
            ("core/pods/status", "default", "a"),
            ("core/pods", "a/b", "c"),
            ("core/pods", "a", "b/c"),
            ("core/pods", "a", ""),
        ] {
            let key = Key::new(resource, namespace, name);
            assert!(key.fault().is_some(), "{key}");
        }
        for bytes in [&b"/registry/core/pods/default"[..], b"", b"/other/core/pods/a/b", b"/registry/core/pods/\xff/b"]
        {
            assert_eq!(Key::decode(bytes), None);
        }
    }
}
