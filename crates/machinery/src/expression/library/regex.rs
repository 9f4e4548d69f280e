//! Regular expressions: `find`, `findAll`, and what `matches` is made of.

use std::collections::HashMap;
use std::sync::LazyLock;

use ::regex::Regex;
use cel::common::types::{CelInt, CelString, INT_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use parking_lot::Mutex;

use super::{argument, text, written, wrong};
use crate::expression::value::List;
use crate::schema::pattern;

/// How many expressions are kept compiled.
const KEPT: usize = 1000;

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_member_overload("find", "string_find_string", STRING_TYPE, vec![STRING_TYPE], |arguments| {
        let found = compiled(text(&arguments, 1)?)?;
        written(found.find(text(&arguments, 0)?).map_or("", |found| found.as_str()))
    })?;
    env.add_member_overload("findAll", "string_find_all_string", STRING_TYPE, vec![STRING_TYPE], |arguments| {
        Ok(CowVal::owned(all(text(&arguments, 0)?, text(&arguments, 1)?, -1)?))
    })?;
    let limited = vec![STRING_TYPE, INT_TYPE];
    env.add_member_overload("findAll", "string_find_all_string_int", STRING_TYPE, limited, |arguments| {
        let limit = *argument::<CelInt>(&arguments, 2)?.inner();
        Ok(CowVal::owned(all(text(&arguments, 0)?, text(&arguments, 1)?, limit)?))
    })
}

fn all(subject: &str, pattern: &str, limit: i64) -> Result<List, ExecutionError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = compiled(pattern)?;
    let found = found.find_iter(subject).take(limit);
    Ok(List::atomic(found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val>).collect()))
}

/// An expression as Go reads it, compiled once.
pub(super) fn compiled(text: &str) -> Result<Regex, ExecutionError> {
    static COMPILED: LazyLock<Mutex<HashMap<Box<str>, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = COMPILED.lock();
    if let Some(regex) = known.get(text) {
        return Ok(regex.clone());
    }
    let regex = pattern::compile(text).map_err(|error| wrong(format!("error parsing regexp: {error}")))?;
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(text.into(), regex.clone());
    Ok(regex)
}
