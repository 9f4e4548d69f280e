//! Stable hashes of objects, for names such as that of a ReplicaSet.
//!
//! The hash is over the object's JSON with sorted keys, so it stays the same across restarts, builds and field order.

use serde::Serialize;
use serde_json::Value;

use crate::names::safe_encode;

/// FNV-1a with 32 bits, fed piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32a {
    /// Feeds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// The hash so far.
    pub const fn finish(self) -> u32 {
        self.0
    }
}

/// FNV-1a with 32 bits.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    let mut hash = Fnv32a::default();
    hash.write(bytes);
    hash.finish()
}

/// The hash of any object, from its JSON with sorted keys.
pub fn object_hash(object: &impl Serialize) -> u32 {
    let mut hash = Fnv32a::default();
    // What cannot be written as JSON cannot have come through the API.
    feed(&serde_json::to_value(object).unwrap_or(Value::Null), &mut hash);
    hash.finish()
}

/// The `pod-template-hash` of a template: 32 bits in the safe alphabet. `collisions` is the Deployment's `collisionCount`.
pub fn pod_template_hash(template: &impl Serialize, collisions: Option<i32>) -> String {
    let mut hash = Fnv32a(object_hash(template));
    if let Some(count) = collisions {
        hash.write(&count.to_le_bytes());
        hash.write(&[0; 4]);
    }
    encode(hash.finish())
}

/// A hash in the safe alphabet, as names carry it.
pub fn encode(hash: u32) -> String {
    safe_encode(&hash.to_string())
}

fn feed(value: &Value, hash: &mut Fnv32a) {
    match value {
        Value::Array(items) => {
            hash.write(b"[");
            for item in items {
                feed(item, hash);
                hash.write(b",");
            }
            hash.write(b"]");
        }
        Value::Object(fields) => {
            // Sorted here: whether serde_json keeps the order of keys depends on the features of the whole build.
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            hash.write(b"{");
            for (key, value) in sorted {
                hash.write(Value::from(key.as_str()).to_string().as_bytes());
                hash.write(b":");
                feed(value, hash);
                hash.write(b",");
            }
            hash.write(b"}");
        }
        scalar => hash.write(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fnv_vectors() {
        for (text, expect) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv32a(text.as_bytes()), expect);
        }
    }

    #[test]
    fn stable_for_ever() {
        // These values are part of the names of users' ReplicaSets: a change here would roll out every Deployment anew.
        let template = json!({"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}});
        let same: Value =
            serde_json::from_str(r#"{"spec":{"containers":[{"image":"nginx:latest","name":"nginx"}]},"metadata":{"labels":{"app":"nginx"}}}"#).unwrap();
        assert_eq!(pod_template_hash(&template, None), pod_template_hash(&same, None));
        assert_ne!(pod_template_hash(&template, None), pod_template_hash(&template, Some(0)));
        assert_ne!(pod_template_hash(&template, Some(1)), pod_template_hash(&template, Some(2)));
        assert_eq!(pod_template_hash(&template, None), "578cc4b968");
        assert_eq!(pod_template_hash(&template, Some(1)), "679bcc454f");
        assert_eq!(encode(1_234_567_890), "56789bcdf4");
    }

    #[test]
    fn neighbours_differ() {
        for (left, right) in [
            (json!(["a", "b"]), json!(["ab"])),
            (json!({"a": "b"}), json!(["a", "b"])),
            (json!([[], []]), json!([[[]]])),
            (json!(1), json!("1")),
        ] {
            assert_ne!(object_hash(&left), object_hash(&right), "{left} {right}");
        }
    }
}
