//! Which addon a CustomResourceDefinition belongs to.
//!
//! LeaderWorkerSet, RoleBasedGroup, PodGroup and Queue are kinds of other projects, and what is built in for them acts only
//! where its addon installed the definition. One that somebody else installed has, as a rule, somebody else's controller,
//! webhook and scheduler beside it: two of a kind would undo what the other does for ever.

use std::collections::BTreeMap;

/// The label of a definition that an addon installed; its value is the addon's name.
pub const LABEL: &str = "coracle.dev/addon";

/// The addon of PodGroups and Queues.
pub const GANG: &str = "gang";
/// The addon of LeaderWorkerSets.
pub const LWS: &str = "lws";
/// The addon of RoleBasedGroups.
pub const RBG: &str = "rbg";

/// Whether a definition with these labels was installed by the addon of that name.
#[must_use]
pub fn installed(labels: Option<&BTreeMap<String, String>>, addon: &str) -> bool {
    labels.and_then(|labels| labels.get(LABEL)).is_some_and(|name| name == addon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_tells_whose_a_definition_is() {
        let check = |labels: &[(&str, &str)], expected: bool| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(installed(Some(&labels), LWS), expected, "{labels:?}");
        };
        check(&[], false);
        check(&[("app.kubernetes.io/name", "lws")], false);
        check(&[(LABEL, "rbg")], false);
        check(&[(LABEL, "lws"), ("app.kubernetes.io/name", "lws")], true);
        assert!(!installed(None, LWS));
    }
}
