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

/// Major, minor and patch; and what comes before a release.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::expression) struct Version([u32; 3], Vec<String>);

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
    env.add_member_overload("major", "semver_major", semver(), vec![], |arguments| number(&arguments, 0))?;
    env.add_member_overload("minor", "semver_minor", semver(), vec![], |arguments| number(&arguments, 1))?;
    env.add_member_overload("patch", "semver_patch", semver(), vec![], |arguments| number(&arguments, 2))?;
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
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
    let whole = |text: &str| text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    let mut parts = core.split('.');
    let mut next = || parts.next().filter(|part| whole(part))?.parse::<u32>().ok();
    let numbers = [next()?, next()?, next()?];
    let fine = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some()
        || build.is_some_and(|build| !build.split('.').all(fine))
        || before.is_some_and(|before| !before.split('.').all(|part| fine(part) && (!numeric(part) || whole(part))))
    {
        return None;
    }
    Some(Version(numbers, before.into_iter().flat_map(|before| before.split('.')).map(str::to_owned).collect()))
}

fn number<'b, 'v>(arguments: &[CowVal<'_, '_>], index: usize) -> super::Answer<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(i64::from(argument::<Semver>(arguments, 0)?.0.0[index]))))
}

/// A release comes after what comes before it; numbers come before words.
fn order(arguments: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError> {
    let (left, right) = (&argument::<Semver>(arguments, 0)?.0, &argument::<Semver>(arguments, 1)?.0);
    let by_part = |(left, right): (&String, &String)| match (left.parse::<u64>(), right.parse::<u64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => left.cmp(right),
    };
    let before = || match (left.1.is_empty(), right.1.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let first = left.1.iter().zip(&right.1).map(by_part).find(|order| order.is_ne());
            first.unwrap_or_else(|| left.1.len().cmp(&right.1.len()))
        }
    };
    Ok(left.0.cmp(&right.0).then_with(before))
}
