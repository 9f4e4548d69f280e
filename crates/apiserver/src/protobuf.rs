//! Protobuf bodies of requests and responses: the form of objects is [`machinery::protobuf`]'s, that of long lists, which
//! are sent as they are encoded, [`list`]'s.

mod list;

pub(crate) use list::{List, Portions};
pub(crate) use machinery::protobuf::{DecodeError, Kind, Message, any_to_json, encode, to_json, watch_event};

/// The media type of these bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
