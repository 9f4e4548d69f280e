//! The key that signs tokens, and the tokens as such: JSON between dots (RFC 7515), ES256 and nothing else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What comes before the point in a P-256 public key as X.509 encodes it (RFC 5480).
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Signs tokens and knows its own.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// As upstream derives it: the hash of the public key.
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl TokenKey {
    /// The key in PKCS#8 DER; `None` when that is no P-256 key.
    #[must_use]
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).ok()?;
        let spki = [&SPKI_P256, pair.public_key().as_ref()].concat();
        let id = BASE64.encode(Sha256::digest(spki));
        Some(Self { pair, random, id })
    }

    /// A signed token; `None` when the system has no random numbers.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header = Header { alg: "ES256".to_owned(), kid: self.id.clone() };
        let part = |json: Vec<u8>| BASE64.encode(json);
        let mut token = part(serde_json::to_vec(&header).ok()?);
        token.push('.');
        token.push_str(&part(serde_json::to_vec(claims).ok()?));
        let signature = self.pair.sign(&self.random, token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        Some(token)
    }

    /// The claims of a token, if this key has signed it.
    pub(crate) fn open<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header.alg != "ES256" || header.kid != self.id {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        public.verify(signed.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Value {
        // Uncompressed: a byte that says so, then 32 for each coordinate.
        let point = self.pair.public_key().as_ref();
        let coordinate = |range: std::ops::Range<usize>| point.get(range).map(|part| BASE64.encode(part));
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65),
        }] })
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        let pair = rcgen::KeyPair::generate().unwrap();
        TokenKey::from_pkcs8(&pair.serialize_der()).unwrap()
    }

    #[test]
    fn only_its_own_tokens_are_opened() {
        let key = key();
        let token = key.sign(&json!({ "sub": "x" })).unwrap();
        assert_eq!(key.open::<Value>(&token), Some(json!({ "sub": "x" })));
        assert_eq!(self::key().open::<Value>(&token), None, "of another key");
        let (header, rest) = token.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        let other = BASE64.encode(r#"{"sub":"y"}"#);
        let none = BASE64.encode(r#"{"alg":"none"}"#);
        for forged in [
            format!("{header}.{other}.{signature}"),
            format!("{none}.{claims}."),
            format!("{none}.{claims}.{signature}"),
            format!("{header}.{claims}."),
            format!("{header}.{claims}"),
            "x".to_owned(),
            String::new(),
        ] {
            assert_eq!(key.open::<Value>(&forged), None, "{forged}");
        }
    }

    #[test]
    fn the_public_key_is_complete() {
        let set = key().key_set();
        let key = &set["keys"][0];
        for coordinate in ["x", "y"] {
            assert_eq!(BASE64.decode(key[coordinate].as_str().unwrap()).unwrap().len(), 32);
        }
        assert_eq!(key["kid"].as_str().unwrap().len(), 43);
    }
}
