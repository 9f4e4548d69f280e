//! Fuzz targets: what reads input from outside, and the laws that hold for whatever it is given.
//!
//! A target is a function of bytes that panics when a law is broken. It is called twice: by libFuzzer, which looks for inputs
//! (`cargo xtask fuzz`; a program for each in `fuzz_targets/`, behind the feature `libfuzzer`), and by an ordinary test, which
//! gives it the inputs in `seeds/`. What was found once goes there and stays found.
//!
//! | target | reads | and holds |
//! |---|---|---|
//! | [`protobuf`] | bodies of every built-in kind | decoded and encoded again it is the same object |
//! | [`patches`] | the three kinds of patch | bounds; a merge patch is RFC 7386's, and twice is once |
//! | [`managed_fields`] | sets of fields, server-side apply | the algebra of sets; applied twice is once |
//! | [`selectors`] | label and field selectors | written and read again they select the same |
//! | [`json_path`] | columns of custom resources | the budget; more of it changes no value |
//! | [`expressions`] | CEL | the budget; the same value and cost each time |
//! | [`custom_resources`] | structural schemas and objects under them | pruned and defaulted twice is once |
//! | [`quantities`] | quantities | one canonical form; the arithmetic's laws |
//! | [`schedules`] | schedules of CronJobs | nothing is due between a time and the next |
//! | [`documents`] | YAML | written and read again it is the same document |
//! | [`spdy`] | what a client sends after an upgrade to SPDY | it ends; whole frames come back |
//! | [`websocket`] | the same over WebSocket | it ends; whole frames come back; input arrives as it was sent |
//! | [`dns`] | messages and connections | answers are whole and within bounds, and the same either way |

pub mod custom_resources;
pub mod dns;
pub mod documents;
pub mod expressions;
pub mod json_path;
pub mod managed_fields;
pub mod patches;
pub mod protobuf;
pub mod quantities;
pub mod schedules;
pub mod selectors;
pub mod spdy;
pub mod websocket;

mod connection;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use machinery::depth;
use serde_json::Value;

/// What a target does with its input; it panics when a law is broken.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of the program and of the folder of its seeds.
pub const TARGETS: [(&str, Target); 13] = [
    ("custom_resources", custom_resources::run),
    ("dns", dns::run),
    ("documents", documents::run),
    ("expressions", expressions::run),
    ("json_path", json_path::run),
    ("managed_fields", managed_fields::run),
    ("patches", patches::run),
    ("protobuf", protobuf::run),
    ("quantities", quantities::run),
    ("schedules", schedules::run),
    ("selectors", selectors::run),
    ("spdy", spdy::run),
    ("websocket", websocket::run),
];

/// The first lines of a text, and all that is behind them.
fn lines<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut lines = std::str::from_utf8(data).ok()?.splitn(N, '\n');
    let mut found = [""; N];
    for place in &mut found {
        *place = lines.next()?;
    }
    Some(found)
}

/// JSON as the API lets it in.
fn object(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|value| depth::check(value).is_ok())
}

/// A schema as a definition has it.
fn schema(value: Value) -> Option<JSONSchemaProps> {
    depth::with_room_for_all(|| serde_json::from_value(value)).ok()
}
