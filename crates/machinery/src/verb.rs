//! What a request wants to do, as authorizers are asked, policies allow and discovery lists it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A verb of the API.
///
/// Requests for objects have the first eight, requests for other paths their HTTP method in lower case
/// (apiserver `pkg/endpoints/request/requestinfo.go`); rights beyond what a request does have names of their own. Policies and
/// reviews may hold any word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb<'a> {
    /// `get`.
    Get,
    /// `list`.
    List,
    /// `watch`.
    Watch,
    /// `create`.
    Create,
    /// `update`.
    Update,
    /// `patch`.
    Patch,
    /// `delete`.
    Delete,
    /// `deletecollection`.
    DeleteCollection,
    /// `head`, of a path.
    Head,
    /// `post`, of a path.
    Post,
    /// `put`, of a path.
    Put,
    /// `options`, of a path.
    Options,
    /// `impersonate`: to act as a user, group or service account.
    Impersonate,
    /// `bind`: to give a role that one does not have.
    Bind,
    /// `escalate`: to write a role that gives more than one has.
    Escalate,
    /// Any other word: `use`, `approve`, `sign`.
    Other(&'a str),
}

/// The verbs that have a name.
const NAMED: [Verb<'static>; 15] = [
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Head,
    Verb::Post,
    Verb::Put,
    Verb::Options,
    Verb::Impersonate,
    Verb::Bind,
    Verb::Escalate,
];

impl Verb<'static> {
    /// The verb that has this name; `None` for any other word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        NAMED.into_iter().find(|verb| verb.as_str() == word)
    }
}

impl<'a> Verb<'a> {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Head => "head",
            Self::Post => "post",
            Self::Put => "put",
            Self::Options => "options",
            Self::Impersonate => "impersonate",
            Self::Bind => "bind",
            Self::Escalate => "escalate",
            Self::Other(word) => word,
        }
    }

    /// Whether it only reads objects.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl<'a> From<&'a str> for Verb<'a> {
    fn from(word: &'a str) -> Self {
        Verb::named(word).unwrap_or(Self::Other(word))
    }
}

impl fmt::Display for Verb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Verb<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_verb_that_writes_it() {
        for verb in NAMED {
            assert_eq!(Verb::from(verb.as_str()), verb);
        }
        assert_eq!(Verb::from("approve"), Verb::Other("approve"));
        // Words are compared as they are written.
        assert_eq!(Verb::from("Get"), Verb::Other("Get"));
    }
}
