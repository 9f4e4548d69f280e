//! Quantities: one, or two with a space between them.

use machinery::Quantity;

/// Reads quantities, writes them and calculates with them.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once(' ').unwrap_or((text, "1"));
    let (Some(a), Some(b)) = (quantity(first), quantity(second)) else { return };
    assert_eq!(a + b, b + a, "{a} and {b}");
    assert_eq!(-(-a), a);
    assert_eq!((a + -a).value(), 0, "{a}");
    assert_eq!(a < b, -b < -a, "{a} and {b}");
    if a < b {
        assert!(
            a.value() <= b.value() && a.milli_value() <= b.milli_value() && a.as_f64() <= b.as_f64(),
            "{a} and {b}"
        );
    }
}

/// A quantity, which has one canonical form that is read as the same.
fn quantity(text: &str) -> Option<Quantity> {
    let quantity: Quantity = text.parse().ok()?;
    let written = quantity.to_string();
    let again: Quantity = written.parse().unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, quantity, "{text} is written as {written}");
    assert_eq!(again.to_string(), written, "{text}");
    assert_eq!(quantity.is_zero(), written == "0", "{text}");
    assert_eq!(quantity.is_negative(), written.starts_with('-'), "{text}");
    Some(quantity)
}
