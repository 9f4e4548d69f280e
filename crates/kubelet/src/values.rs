//! Values that a specification refers to by a name: `$(NAME)`, `fieldRef`, `resourceFieldRef`. For environments, volumes and
//! statuses alike.

mod expand;
pub(crate) mod fields;
pub(crate) mod resources;

pub(crate) use expand::expand;
