//! Counts that may be given as percentages, such as `maxSurge`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Why a text is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage: {0:?}")]
pub struct NotAPercentage(
    /// The text.
    pub String,
);

/// The percentage that a text such as `25%` states.
pub fn percentage(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i32>().ok().map(i64::from)
}

/// The number itself, or the percentage of `total`, rounded up or down.
///
/// Of a rolling update's bounds the surge is rounded up and the unavailable down.
///
/// # Errors
/// When the text is no percentage.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Result<i32, NotAPercentage> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = percentage(text).ok_or_else(|| NotAPercentage(text.clone()))?;
            let product = percent * i64::from(total);
            let share = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            Ok(i32::try_from(share).unwrap_or(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surge_up_unavailable_down() {
        for (text, total, up, down) in [
            ("25%", 10, 3, 2),
            ("25%", 4, 1, 1),
            ("25%", 1, 1, 0),
            ("0%", 7, 0, 0),
            ("100%", 7, 7, 7),
            ("200%", 3, 6, 6),
            ("2147483647%", i32::MAX, i32::MAX, i32::MAX),
        ] {
            let value = IntOrString::String(text.into());
            assert_eq!(
                (scaled(&value, total, true), scaled(&value, total, false)),
                (Ok(up), Ok(down)),
                "{text} of {total}"
            );
        }
        assert_eq!(scaled(&IntOrString::Int(5), 1, true), Ok(5));
        for text in ["", "%", "5", "-5%", "5.5%", "99999999999%"] {
            assert!(scaled(&IntOrString::String(text.into()), 10, true).is_err(), "{text}");
        }
    }
}
