//! CEL: a line with a schema for `self` (or none), one with the value, and the expression.

use machinery::expression::{CALL_LIMIT, Failure, Kind, Program, Value, Wanted};
use machinery::field::Path;
use machinery::schema::Schema;
use machinery::schema::rules::{self, Costs};

/// Compiles and evaluates an expression.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([schema, value, text]) = crate::lines(data) else { return };
    let Some(value) = crate::object(value) else { return };
    let schema = crate::object(schema)
        .and_then(crate::schema)
        .filter(|props| rules::check(props, &Path::new("schema"), Costs::Accepted).is_empty())
        .map(|props| Schema::parse(&props))
        // A value is looked at only when it has passed the schema.
        .filter(|schema| schema.validate(&value, None).is_empty());
    let (kind, own) = match &schema {
        Some(schema) => (Kind::Typed(schema, true), Value::typed(&value, schema, true)),
        None => (Kind::Any, Value::plain(&value)),
    };
    for wanted in [Wanted::Bool, Wanted::String, Wanted::Any] {
        let Ok(program) = Program::compile(text, &[("self", kind)], wanted) else { continue };
        let outcome = evaluated(&program, &own);
        assert_eq!(outcome, evaluated(&program, &own), "not the same again");
        let mut little = 10;
        let cheap = program.run(&[("self", own.clone())], &mut little);
        if matches!(outcome, (_, Ok(_))) && little < 0 {
            assert_eq!(cheap.err(), Some(Failure::Expensive));
        }
    }
}

/// The condition and the text that a value is.
type Found = (Option<bool>, Option<String>);

/// What an expression costs and evaluates to, as far as that can be compared.
fn evaluated(program: &Program, own: &Value) -> (i64, Result<Found, Failure>) {
    let mut left = CALL_LIMIT;
    let found = program.run(&[("self", own.clone())], &mut left);
    assert!(left < CALL_LIMIT, "an evaluation costs nothing");
    assert!(left >= -1, "more is spent than there is");
    (left, found.map(|value| (value.as_bool(), value.as_str().map(str::to_owned))))
}
