//! `coracle timeline`: what happened, and why.

use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::duration;
use crate::complete;

/// `coracle timeline`.
#[derive(Debug, Args)]
pub(crate) struct Timeline {
    /// The object: with it come all that it owns, and what is about these. Without: everything of the last minute
    #[arg(value_name = "KIND/NAME", add = ArgValueCompleter::new(complete::objects))]
    pub(crate) object: Option<String>,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Begin so long ago, such as 5m [default: with what is remembered of the object]
    #[arg(long, value_parser = duration)]
    since: Option<Duration>,
    /// Go on with what happens, until interrupted
    #[arg(short, long, conflicts_with = "output")]
    pub(crate) follow: bool,
    /// The output format: json has all changes; otlp is a trace that Jaeger and others read
    #[arg(short, long, value_enum, default_value_t = TimelineFormat::Text)]
    pub(crate) output: TimelineFormat,
}

/// The form of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimelineFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// OpenTelemetry's JSON of a trace.
    Otlp,
}

/// So much is told of everything.
const EVERYTHING: Duration = Duration::from_secs(60);

impl Timeline {
    /// How far it reaches back; as far as possible if it is none.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.since.or_else(|| self.object.is_none().then_some(EVERYTHING))
    }
}
