//! Files of the machine that pods or users can write, name, exchange, move or mount something below; and private files.
//!
//! Reads are bounded, take regular files only and never wait; removal works on descriptors, stays on one mount and needs
//! a fixed number of descriptors however deep a tree is; so does an archive, of which a tree that is too deep is refused. All functions block. The crate knows neither pods nor volumes.

mod archive;
mod beneath;
mod private;
mod read;
mod recorded;
mod remove;
mod usage;

pub use archive::{Archiver, unarchive, unarchive_files};
pub use beneath::open_beneath;
pub use private::write_private;
pub use read::{has_content, read, read_beneath, read_head, read_tail};
pub use recorded::is_another_folder;
pub use remove::remove_tree;
pub use usage::{Usage, usage};
