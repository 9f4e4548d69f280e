//! ReferenceGrants: which objects may refer to those of other namespaces. Pure.

use informer::ObjectKey;

use super::objects::{GROUP, ReferenceGrantSpec, Typed};

/// All grants.
pub(crate) struct Grants<'a>(pub(crate) &'a [Typed<ReferenceGrantSpec>]);

impl Grants<'_> {
    /// Whether an object of this kind of the group, in namespace `from`, may refer to an object of the core group.
    pub(crate) fn permit(&self, from_kind: &str, from: &str, to_kind: &str, to: &ObjectKey) -> bool {
        let granted = |grant: &Typed<ReferenceGrantSpec>| {
            let spec = &grant.spec;
            grant.namespace() == to.namespace
                && spec.from.iter().any(|one| one.group == GROUP && one.kind == from_kind && one.namespace == from)
                && spec.to.iter().any(|one| {
                    let is_named = one.name.as_deref().is_none_or(|name| name.is_empty() || name == to.name);
                    one.group.is_empty() && one.kind == to_kind && is_named
                })
        };
        from == to.namespace || self.0.iter().any(granted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::typed;

    #[test]
    fn what_grants_permit() {
        let from = |kind: &str, namespace: &str| json!({ "group": GROUP, "kind": kind, "namespace": namespace });
        let to = |name: Value| json!({ "group": "", "kind": "Service", "name": name });
        let grant = |from: Value, to: Value| -> Typed<ReferenceGrantSpec> {
            typed(json!({ "metadata": { "namespace": "b", "name": "grant" }, "spec": { "from": [from], "to": [to] } }))
        };
        let check = |grant: &Typed<ReferenceGrantSpec>, from: &str, to: &str, expected: bool| {
            let to = ObjectKey::new("b", to);
            let found = Grants(std::slice::from_ref(grant)).permit("HTTPRoute", from, "Service", &to);
            assert_eq!(found, expected, "{from} {to} {:?}", grant.spec);
        };
        let all = grant(from("HTTPRoute", "a"), to(Value::Null));
        check(&all, "a", "web", true);
        check(&all, "c", "web", false);
        check(&all, "b", "web", true);
        let named = grant(from("HTTPRoute", "a"), to("web".into()));
        check(&named, "a", "web", true);
        check(&named, "a", "other", false);
        check(&grant(from("Gateway", "a"), to(Value::Null)), "a", "web", false);
        let of_secrets = json!({ "group": "", "kind": "Secret" });
        check(&grant(from("HTTPRoute", "a"), of_secrets), "a", "web", false);
        let of_group = json!({ "group": "example.com", "kind": "Service" });
        check(&grant(from("HTTPRoute", "a"), of_group), "a", "web", false);
        let from_group = json!({ "group": "example.com", "kind": "HTTPRoute", "namespace": "a" });
        check(&grant(from_group, to(Value::Null)), "a", "web", false);
        let mut elsewhere = all.clone();
        let mut object = (*elsewhere.object).clone();
        object.metadata.namespace = Some("c".to_owned());
        elsewhere.object = std::sync::Arc::new(object);
        check(&elsewhere, "a", "web", false);
    }
}
