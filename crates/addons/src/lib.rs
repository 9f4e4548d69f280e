//! What addons are made with. An addon is a project's kinds of its own, which a cluster does not have from the start and can
//! be given: a crate below `addons/`, with an [`Addon`] for the table of the composition root.
//!
//! An addon is on while its CustomResourceDefinitions are there with the label [`LABEL`]: that is all the state it has.
//! Kinds of other projects have, as a rule, their project's controller, webhook and scheduler beside them where somebody else
//! installed the definition, and two of a kind would undo what the other does for ever. So what is built in for an addon asks
//! [`installed`] first, and leaves alone what was installed under the same names without it.
//!
//! The definitions are derived from Rust types ([`kube::CustomResource`]); [`definition()`] and [`schema`] say what a derive
//! cannot. The crate knows no kind, and not how definitions get into a cluster.

mod definition;
pub mod schema;
pub mod testing;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub use definition::{definition, definition_in_versions, definition_of_versions};

/// The label of a CustomResourceDefinition that an addon installed; its value is the addon's name.
pub const LABEL: &str = "coracle.dev/addon";

/// An addon.
#[derive(Debug, Clone, Copy)]
pub struct Addon {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for, in a line.
    pub about: &'static str,
    /// Makes its CustomResourceDefinitions, without the label.
    pub definitions: fn() -> Vec<CustomResourceDefinition>,
    /// The roles that its controllers need, and to whom they are bound, in the language of `apiserver::authz::bootstrap()`.
    pub policy: &'static str,
    /// What is made whether somebody uses it or not: the definition and the name. These are no user's objects.
    pub makes: &'static [(&'static str, &'static str)],
}

impl Addon {
    /// The CustomResourceDefinitions that make it up, with the label that says so.
    #[must_use]
    pub fn definitions(&self) -> Vec<CustomResourceDefinition> {
        let mut definitions = (self.definitions)();
        for definition in &mut definitions {
            definition.metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), self.name.to_owned());
        }
        definitions
    }
}

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
            assert_eq!(installed(Some(&labels), "lws"), expected, "{labels:?}");
        };
        check(&[], false);
        check(&[("app.kubernetes.io/name", "lws")], false);
        check(&[(LABEL, "rbg")], false);
        check(&[(LABEL, "lws"), ("app.kubernetes.io/name", "lws")], true);
        assert!(!installed(None, "lws"));
    }
}
