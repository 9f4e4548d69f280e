//! Versions as semver.org has them.

use std::cmp::Ordering;

use cel::common::types::{BOOL_TYPE, CelBool, CelInt, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{argument, flag, opaque, text, wrong};

opaque!(
    /// A version.
    Semver(Version),
    "kubernetes.Semver"
);

/// A version, which is equal to one that differs in its build metadata alone.
#[derive(Debug, Clone)]
pub(in crate::expression) struct Version(semver::Version);

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.0.cmp_precedence(&other.0).is_eq()
    }
}

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let semver = || Semver::cel_type().to_owned();
    env.add_overload("isSemver", "is_semver_string", vec![STRING_TYPE], |arguments| {
        flag(parse(text(&arguments, 0)?).is_some())
    })?;
    env.add_overload("isSemver", "is_semver_string_bool", vec![STRING_TYPE, BOOL_TYPE], |arguments| {
        flag(read(&arguments)?.is_some())
    })?;
    env.add_overload("semver", "string_to_semver", vec![STRING_TYPE], |arguments| made(parse(text(&arguments, 0)?)))?;
    env.add_overload("semver", "string_bool_to_semver", vec![STRING_TYPE, BOOL_TYPE], |arguments| {
        made(read(&arguments)?)
    })?;
    env.add_member_overload("major", "semver_major", semver(), vec![], |arguments| {
        number(&arguments, |version| version.major)
    })?;
    env.add_member_overload("minor", "semver_minor", semver(), vec![], |arguments| {
        number(&arguments, |version| version.minor)
    })?;
    env.add_member_overload("patch", "semver_patch", semver(), vec![], |arguments| {
        number(&arguments, |version| version.patch)
    })?;
    env.add_member_overload("isGreaterThan", "semver_is_greater_than", semver(), vec![semver()], |arguments| {
        flag(order(&arguments)? == Ordering::Greater)
    })?;
    env.add_member_overload("isLessThan", "semver_is_less_than", semver(), vec![semver()], |arguments| {
        flag(order(&arguments)? == Ordering::Less)
    })?;
    env.add_member_overload("compareTo", "semver_compare_to", semver(), vec![semver()], |arguments| {
        Ok(CowVal::owned(CelInt::from(order(&arguments)? as i64)))
    })
}

fn made<'b, 'v>(version: Option<Version>) -> super::Answer<'b, 'v> {
    Ok(CowVal::owned(Semver(version.ok_or_else(|| wrong("No Major.Minor.Patch elements found"))?)))
}

/// A version that may be written loosely: `v1.2`.
fn read(arguments: &[CowVal<'_, '_>]) -> Result<Option<Version>, ExecutionError> {
    let (text, loosely) = (text(arguments, 0)?, *argument::<CelBool>(arguments, 1)?.inner());
    if !loosely {
        return Ok(parse(text));
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let trimmed = core.split('.').map(|part| {
        let short = part.trim_start_matches('0');
        if short.is_empty() && !part.is_empty() { "0" } else { short }
    });
    let mut parts: Vec<&str> = trimmed.collect();
    if rest.is_empty() {
        while parts.len() < 3 {
            parts.push("0");
        }
    }
    Ok(parse(&format!("{}{rest}", parts.join("."))))
}

fn parse(text: &str) -> Option<Version> {
    semver::Version::parse(text).ok().map(Version)
}

/// A number of a version. Beyond CEL's integers it wraps, as upstream's does.
fn number<'b, 'v>(arguments: &[CowVal<'_, '_>], part: fn(&semver::Version) -> u64) -> super::Answer<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(part(&argument::<Semver>(arguments, 0)?.0.0).cast_signed())))
}

fn order(arguments: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError> {
    let (left, right) = (&argument::<Semver>(arguments, 0)?.0, &argument::<Semver>(arguments, 1)?.0);
    Ok(left.0.cmp_precedence(&right.0))
}
