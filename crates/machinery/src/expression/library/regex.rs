//! Regular expressions: what `matches`, `find` and `findAll` are made of, which are charged for in [`super::core`].

use std::collections::HashMap;
use std::sync::LazyLock;

use ::regex::Regex;
use cel::ExecutionError;
use cel::common::types::CelString;
use cel::common::value::Val;
use parking_lot::Mutex;

use super::wrong;
use crate::expression::value::List;
use crate::schema::pattern;

/// How many expressions are kept compiled.
const KEPT: usize = 256;

/// The largest one that is kept, in bytes as it is compiled. All together may have some tens of MiB.
const LARGEST_KEPT: usize = 128 << 10;

/// What `findAll` finds, of which so many are wanted.
pub(super) fn all(subject: &str, pattern: &str, limit: usize) -> Result<List, ExecutionError> {
    let found = compiled(pattern)?;
    let found = found.find_iter(subject).take(limit);
    Ok(List::atomic(found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val>).collect()))
}

/// An expression as Go reads it, compiled once unless it is large.
pub(super) fn compiled(text: &str) -> Result<Regex, ExecutionError> {
    static COMPILED: LazyLock<Mutex<HashMap<Box<str>, Regex>>> = LazyLock::new(Mutex::default);
    if let Some(regex) = COMPILED.lock().get(text) {
        return Ok(regex.clone());
    }
    // Nobody else waits for this.
    let Ok(regex) = pattern::compile_within(text, LARGEST_KEPT) else {
        return pattern::compile(text).map_err(|error| wrong(format!("error parsing regexp: {error}")));
    };
    let mut known = COMPILED.lock();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(text.into(), regex.clone());
    Ok(regex)
}
