//! Generated names: `generateName` and the five characters at the end of a pod's name.

use rand::RngExt;

/// The letters of generated names: no vowels and none that look alike, so that no words and no doubts come up.
pub const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The longest generated name, in bytes.
pub const GENERATED_MAX: usize = 63;

/// The number of random characters after a `generateName`.
pub const SUFFIX_LENGTH: usize = 5;

/// Random characters of the [`ALPHABET`].
pub fn generate_suffix(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

/// A name for an object with this `generateName`; a base that is too long is cut, as upstream does.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED_MAX - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], generate_suffix(SUFFIX_LENGTH))
}

/// Maps every byte of `text` into the [`ALPHABET`]: upstream's encoding of hashes in names.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        for base in ["", "web-", &"x".repeat(80), &"é".repeat(40)] {
            let name = generate_name(base);
            assert!(name.len() <= GENERATED_MAX, "{name}");
            let suffix = &name[name.len() - SUFFIX_LENGTH..];
            assert!(suffix.bytes().all(|byte| ALPHABET.contains(&byte)), "{name}");
        }
        assert!(generate_name("web-").starts_with("web-"));
        assert_ne!(generate_suffix(20), generate_suffix(20));
    }

    #[test]
    fn encoded_as_upstream_does() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
