//! How much of what has been is remembered.

use std::time::Duration;

use machinery::quantity::Quantity;

/// The most bytes that a history of some time takes on the disk; and what keeps one of some size from being cut by its age.
const MOST_BYTES: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A bound for the history of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// So long, and 1 GiB at most.
    Age(Duration),
    /// So many bytes, uncompressed.
    Bytes(u64),
}

impl History {
    /// The bound of a number of bytes as a quantity, `1Gi`; also `1GiB`.
    #[must_use]
    pub fn of_bytes(text: &str) -> Option<Self> {
        // A number alone is a time.
        let text = match text.strip_suffix('B') {
            Some(bytes) => bytes,
            None if text.ends_with(|letter: char| letter.is_ascii_digit()) => return None,
            None => text,
        };
        let bytes = text.parse::<Quantity>().ok()?.as_f64();
        // Up to there every whole number is one of floating point.
        let fits = (1_048_576.0..9.0e15).contains(&bytes);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it fits, and is above zero")]
        fits.then_some(Self::Bytes(bytes as u64))
    }

    pub(crate) fn set(self, options: &mut store::Options) {
        options.retain_revisions = u64::MAX;
        match self {
            Self::Age(age) => {
                options.retain_age = age;
                options.retain_bytes = options.retain_bytes.max(MOST_BYTES);
            }
            Self::Bytes(bytes) => {
                options.retain_age = LONG;
                options.retain_bytes = bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(History::of_bytes("1Gi"), Some(History::Bytes(1 << 30)));
        assert_eq!(History::of_bytes("512MiB"), Some(History::Bytes(512 << 20)));
        assert_eq!(History::of_bytes("1048576B"), Some(History::Bytes(1 << 20)));
        for bad in ["", "B", "1", "99999999", "-1Gi", "1h"] {
            assert_eq!(History::of_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_bound_counts() {
        let set = |history: History| {
            let mut options = store::Options::new("/nowhere");
            history.set(&mut options);
            (options.retain_age, options.retain_bytes, options.retain_revisions)
        };
        assert_eq!(set(History::Age(Duration::from_secs(3600))), (Duration::from_secs(3600), 1 << 30, u64::MAX));
        assert_eq!(set(History::Bytes(5 << 20)), (LONG, 5 << 20, u64::MAX));
    }
}
