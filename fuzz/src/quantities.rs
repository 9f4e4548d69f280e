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

/// A quantity, which has one canonical form that is read as the same amount. In the same family of suffixes it is the same
/// form, too; but a binary amount that is no multiple of 1024 is written without a suffix, as upstream does, and then it is
/// read as a decimal one.
fn quantity(text: &str) -> Option<Quantity> {
    let quantity: Quantity = text.parse().ok()?;
    let written = quantity.to_string();
    let again: Quantity = written.parse().unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, quantity, "{text} is written as {written}");
    let settled = again.to_string();
    assert!(settled == written || again.format() != quantity.format(), "{text} is {written}, and then {settled}");
    let last: Quantity = settled.parse().unwrap_or_else(|error| panic!("{error}: {settled}"));
    assert_eq!((last, last.to_string()), (quantity, settled), "{text}");
    assert_eq!(quantity.is_zero(), written == "0", "{text}");
    assert_eq!(quantity.is_negative(), written.starts_with('-'), "{text}");
    Some(quantity)
}
