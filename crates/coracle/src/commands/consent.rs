//! Whether somebody agrees to what cannot be undone.

use std::io::{self, IsTerminal};

use anyhow::{Result, bail};

use crate::output;

/// What it takes to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// There is nothing to ask, or it was given with the command.
    Given,
    /// Somebody is to be asked this.
    Asked(String),
    /// Nobody can be asked: why nothing is done, and the way out.
    Refused(String),
}

/// Asks if there is somebody to ask; false if they do not agree.
pub(super) fn obtain(consent: impl FnOnce(bool) -> Consent) -> Result<bool> {
    match consent(io::stdin().is_terminal()) {
        Consent::Given => Ok(true),
        Consent::Refused(why) => bail!(why),
        Consent::Asked(question) => {
            let agreed = output::question(&question)?;
            if !agreed {
                output::note("Nothing was changed.");
            }
            Ok(agreed)
        }
    }
}
