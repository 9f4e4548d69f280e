//! JSONPath of printer columns: a line with the path, and the object.

use machinery::json_path::JsonPath;
use serde_json::Value;

/// What a column may visit here.
const BUDGET: usize = 10_000;

/// Looks for the value of a column.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([path, object]) = crate::lines(data) else { return };
    let Some(path) = JsonPath::parse(path) else { return };
    let Some(object) = crate::object(object) else { return };
    let mut left = BUDGET;
    let found = path.first(&object, &mut left);
    assert!(left <= BUDGET, "the budget has grown");
    if let Some(found) = found {
        assert!(holds(&object, found), "the value is of another object");
    }
    let used = BUDGET - left;
    if left > 0 {
        // Not a value more is visited when there is more to spend, and all that is visited is counted.
        let mut plenty = 2 * BUDGET;
        assert_eq!((path.first(&object, &mut plenty), 2 * BUDGET - plenty), (found, used));
        let mut exact = used;
        assert_eq!((path.first(&object, &mut exact), exact), (found, 0));
    }
}

/// Whether `part` is the value itself or one within it.
fn holds(value: &Value, part: &Value) -> bool {
    std::ptr::eq(value, part)
        || match value {
            Value::Object(fields) => fields.values().any(|value| holds(value, part)),
            Value::Array(items) => items.iter().any(|value| holds(value, part)),
            _ => false,
        }
}
