//! Who made a change: what the store's log keeps of a write beside the object.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pipeline::Write;

/// Who made a change, and how, as the log keeps it. Unlike `metadata.managedFields` it is there for every write, and is not the
/// writer's own word but for the program's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author<'a> {
    /// The user's name.
    #[serde(borrow, rename = "u")]
    pub user: Cow<'a, str>,
    /// The field manager that the request names, else the program by its `User-Agent`; may be empty.
    #[serde(borrow, rename = "p", default, skip_serializing_if = "str::is_empty")]
    pub program: Cow<'a, str>,
    /// The verb: `create`, `update`, `patch`, `apply`, `delete`, `bind` or `evict`.
    #[serde(borrow, rename = "v")]
    pub verb: Cow<'a, str>,
    /// The subresource that was written to; empty for the object itself.
    #[serde(borrow, rename = "s", default, skip_serializing_if = "str::is_empty")]
    pub subresource: Cow<'a, str>,
}

impl<'a> Author<'a> {
    /// Who makes a write.
    pub(crate) fn of(write: &Write<'a>) -> Self {
        Self {
            user: write.options.user.name.as_str().into(),
            program: write.options.field_manager.as_str().into(),
            verb: write.verb.into(),
            subresource: write.subresource().map_or("", |subresource| subresource.name()).into(),
        }
    }

    /// What the log keeps.
    pub(crate) fn text(&self) -> Option<Arc<str>> {
        serde_json::to_string(self).ok().map(Arc::from)
    }

    /// Reads what the log has kept; none where it is empty, or nothing that this version wrote.
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_keeps_is_read_back() {
        for (author, text) in [
            (
                Author { user: "a \"b\"".into(), program: "kubectl".into(), verb: "patch".into(), ..Author::default() },
                r#"{"u":"a \"b\"","p":"kubectl","v":"patch"}"#,
            ),
            (
                Author { user: "c".into(), verb: "update".into(), subresource: "status".into(), ..Author::default() },
                r#"{"u":"c","v":"update","s":"status"}"#,
            ),
        ] {
            assert_eq!(author.text().as_deref(), Some(text));
            assert_eq!(Author::parse(text), Some(author));
        }
        for bad in ["", "x", "{}", "[]"] {
            assert_eq!(Author::parse(bad), None, "{bad}");
        }
    }
}
