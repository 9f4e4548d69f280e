//! Regular expressions: what `matches`, `find` and `findAll` are made of, which are charged for in [`super::core`].
//!
//! Those that are written in an expression are compiled with it, as cel-go does (`cel.OptimizeRegex`), and shared by all
//! expressions in which they are written. Those that are known only when they are used are compiled then, and kept while there is
//! room; compiling is charged for, kept or not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use ::regex::Regex;
use cel::ExecutionError;
use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use cel::common::types::CelString;
use cel::common::value::Val;
use parking_lot::Mutex;

use super::{opaque, wrong};
use crate::expression::budget::{FIND, FIND_ALL, MATCHES};
use crate::expression::comprehensions::parts_mut;
use crate::expression::value::List;
use crate::schema::pattern;

/// How many of those known only when they are used are kept compiled.
const KEPT: usize = 256;

/// The largest one that is kept, in bytes as it is compiled. All together may have some tens of MiB.
const LARGEST_KEPT: usize = 128 << 10;

/// The largest one that is compiled when it is used: that takes about 10 ms.
const LARGEST_COMPILED: usize = 1 << 20;

/// How many bytes all that are written in expressions may have together. Further ones are compiled when they are used.
const WRITTEN_MAX: usize = 64 << 20;

/// The largest one that is written in an expression: the limit of the crate `regex` itself.
const LARGEST_WRITTEN: usize = 10 << 20;

/// What compiling one costs for each ten bytes of its text, in upstream's units: for those that [`LARGEST_KEPT`] is enough for.
const COMPILE_COST: u64 = 1000;

/// What compiling a larger one costs besides: 10 ms, given that [`CALL_LIMIT`](crate::expression::CALL_LIMIT) is a tenth of a second.
const LARGE_COST: u64 = 100_000;

/// What `findAll` finds, of which so many are wanted.
pub(super) fn all(subject: &str, regex: &Regex, limit: usize) -> List {
    let found = regex.find_iter(subject).take(limit);
    List::atomic(found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val>).collect())
}

/// An expression as Go reads it, once what compiling it costs is spent.
pub(super) fn compiled(text: &str, spend: impl Fn(u64) -> Result<(), ExecutionError>) -> Result<Regex, ExecutionError> {
    spend((text.len() as u64 / 10 + 1).saturating_mul(COMPILE_COST))?;
    if let Some(regex) = kept(text) {
        return Ok(regex);
    }
    spend(LARGE_COST)?;
    pattern::compile_within(text, LARGEST_COMPILED).map_err(|error| wrong(format!("error parsing regexp: {error}")))
}

/// An expression that is small enough to be kept.
fn kept(text: &str) -> Option<Regex> {
    static COMPILED: LazyLock<Mutex<HashMap<Box<str>, Regex>>> = LazyLock::new(Mutex::default);
    if let Some(regex) = COMPILED.lock().get(text) {
        return Some(regex.clone());
    }
    // Nobody else waits for this.
    let regex = pattern::compile_within(text, LARGEST_KEPT).ok()?;
    let mut known = COMPILED.lock();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(text.into(), regex.clone());
    Some(regex)
}

/// What is wrong with an expression that is written in another one.
pub(in crate::expression) fn check_pattern(text: &str) -> Result<(), String> {
    match pattern::compile_within(text, LARGEST_WRITTEN) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = error.to_string();
            Err(why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
        }
    }
}

opaque!(
    /// A regular expression that is written in an expression, compiled. Copies share it.
    Pattern(Arc<Written>),
    "regex"
);

/// A regular expression and the text it was compiled from.
#[derive(Debug)]
struct Written {
    text: Box<str>,
    regex: Regex,
    size: usize,
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Those that are written in expressions, by their texts.
static WRITTEN: LazyLock<Mutex<HashMap<Box<str>, Weak<Written>>>> = LazyLock::new(Mutex::default);

/// How many bytes they have together at most.
static WRITTEN_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Drop for Written {
    fn drop(&mut self) {
        WRITTEN_BYTES.fetch_sub(self.size, Ordering::Relaxed);
        let mut written = WRITTEN.lock();
        // Somebody may have written it anew since.
        if written.get(&self.text).is_some_and(|known| known.strong_count() == 0) {
            written.remove(&self.text);
        }
    }
}

impl Pattern {
    /// Compiles an expression, where there is room for it.
    fn written(text: &str) -> Option<Self> {
        let known = WRITTEN.lock().get(text).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Some(Self(known));
        }
        // How large it is nobody says, but whether a limit is enough.
        let sizes = [LARGEST_KEPT / 8, LARGEST_KEPT, LARGEST_COMPILED, LARGEST_WRITTEN];
        let (size, regex) =
            sizes.into_iter().find_map(|size| Some((size, pattern::compile_within(text, size).ok()?)))?;
        let room = WRITTEN_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
            bytes.checked_add(size).filter(|bytes| *bytes <= WRITTEN_MAX)
        });
        room.ok()?;
        let written = Arc::new(Written { text: text.into(), regex, size });
        WRITTEN.lock().insert(text.into(), Arc::downgrade(&written));
        Some(Self(written))
    }

    /// The text it was compiled from.
    pub(super) fn text(&self) -> &str {
        &self.0.text
    }

    pub(super) fn regex(&self) -> Regex {
        self.0.regex.clone()
    }
}

/// Compiles the regular expressions that are written in an expression, and puts variables in their places; returns the variables.
/// No expression can write their names.
pub(in crate::expression) fn compile_patterns(expression: &mut IdedExpr) -> Vec<(String, Pattern)> {
    let mut patterns = Vec::new();
    replace(expression, &mut patterns);
    patterns
}

fn replace(expression: &mut IdedExpr, patterns: &mut Vec<(String, Pattern)>) {
    if let Expr::Call(call) = &mut expression.expr
        && [MATCHES, FIND, FIND_ALL].contains(&call.func_name.as_str())
        && let Some(argument) = call.args.get_mut(2)
        && let Expr::Literal(LiteralValue::String(text)) = &argument.expr
        && let Some(pattern) = Pattern::written(text.inner())
    {
        let name = match patterns.iter().find(|(_, known)| *known == pattern) {
            Some((name, _)) => name.clone(),
            None => {
                let name = format!("@pattern{}", patterns.len());
                patterns.push((name.clone(), pattern));
                name
            }
        };
        argument.expr = Expr::Ident(name);
    }
    parts_mut(expression).into_iter().for_each(|part| replace(part, patterns));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expression::{CALL_LIMIT, Failure, Kind, Program, Value, Wanted};

    fn compile(text: &str) -> Program {
        Program::compile(text, &[("self", Kind::Any)], Wanted::Bool).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// What evaluating an expression about a text costs.
    fn cost(program: &Program, text: &str) -> Result<i64, Failure> {
        let mut left = CALL_LIMIT;
        program.run(&[("self", Value::plain(&json!({ "text": text, "pattern": text })))], &mut left)?;
        Ok(CALL_LIMIT - left)
    }

    #[test]
    fn what_is_written_is_compiled_once_and_charged_by_its_length() {
        let large = r"self.text.matches('^[\\pL\\pN]{20}$') || self.text.find('^[\\pL\\pN]{20}$') == ''";
        let (one, other) = (compile(large), compile(large));
        assert_eq!(one.patterns.len(), 1, "each once");
        assert!(Arc::ptr_eq(&one.patterns[0].1.0, &other.patterns[0].1.0), "shared");
        assert!(cost(&one, "a").unwrap() < 100);
        let text: Box<str> = one.patterns[0].1.text().into();
        drop((one, other));
        assert!(!WRITTEN.lock().contains_key(&text), "gone with the last expression");
    }

    #[test]
    fn what_is_known_late_is_charged_for_being_compiled() {
        let late = compile("'x'.matches(self.pattern) || true");
        assert!(late.patterns.is_empty());
        let small = cost(&late, "^a+$").unwrap();
        assert!((1000..3000).contains(&small), "{small}");
        assert_eq!(cost(&late, "^a+$"), Ok(small), "kept or not");
        let large = cost(&late, r"^[\pL\pN]{5}$").unwrap();
        assert!(large > 100_000, "{large}");
        let many = compile("[1,2,3,4,5,6,7,8,9,10,11,12].all(n, 'x'.matches(self.pattern) || true)");
        assert_eq!(cost(&many, r"^[\pL\pN]{5}$"), Err(Failure::Expensive));
        let huge = compile("'x'.matches(self.pattern)");
        let why = cost(&huge, r"^[\pL\pN]{5000}$").unwrap_err().to_string();
        assert!(why.contains("error parsing regexp"), "{why}");
    }
}
