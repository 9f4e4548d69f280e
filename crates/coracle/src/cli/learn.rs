//! `coracle learn`.

use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use crate::complete;
use crate::course::Language;

/// `coracle learn`.
#[derive(Debug, Args)]
pub(crate) struct Learn {
    /// The lesson's number. Without: list the lessons
    #[arg(value_name = "N", add = ArgValueCandidates::new(complete::lessons))]
    pub(crate) lesson: Option<String>,
    /// The language of the pages [default: that of the locale, if there are pages in it, else en]
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    pub(crate) lang: Option<Language>,
}
