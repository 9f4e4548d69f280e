//! Where a value is: a list of steps that lives on the stack of the recursion and is written only for an error.

use std::fmt;

/// A way from the root of an object to a value.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The object itself.
    Root,
    /// A field.
    Field(&'a Place<'a>, &'a str),
    /// A value of a map, which some messages write in brackets.
    Key(&'a Place<'a>, &'a str),
    /// An item of a list.
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    /// The path, or what upstream writes where there is none.
    pub(super) fn or_nil(&self) -> String {
        match self {
            Self::Root => "<nil>".to_owned(),
            place => place.to_string(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Key(parent, name) => write!(f, "{parent}[{name}]"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
