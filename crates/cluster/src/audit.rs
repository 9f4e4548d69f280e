//! The audit log of a profile.

use std::path::Path;

use apiserver::audit::{Audit, Policy};

use crate::Error;
use crate::cluster::{read_kept, read_yaml};
use crate::profile::Profile;

/// The audit log, if the profile has a policy for it.
pub(crate) fn open(profile: &Profile) -> Result<Option<Audit>, Error> {
    let path = profile.audit_policy();
    let Some(text) = read_kept(&path)? else { return Ok(None) };
    let log = profile.audit_log();
    Audit::open(read(&path, &text)?, &log).map(Some).map_err(|source| Error::file(&log, source))
}

fn read(path: &Path, text: &str) -> Result<Policy, Error> {
    let read = read_yaml(text).and_then(|value| Policy::read(&value));
    read.map_err(|reason| Error::AuditPolicy { path: path.to_owned(), reason })
}

/// Whether a policy can be used, before it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn check_audit_policy(path: &Path, text: &str) -> Result<(), Error> {
    read(path, text).map(|_| ())
}
