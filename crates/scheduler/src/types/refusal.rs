//! The answer of a filter that lets a pod not onto a node.

use std::borrow::Cow;

/// Why a plugin refuses a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reasons, in the words that upstream uses: people search for them.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether the node could take the pod if other pods left it.
    pub resolvable: bool,
}

impl Refusal {
    /// A refusal that pods leaving the node would end.
    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// A refusal that stands whatever runs on the node.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}
