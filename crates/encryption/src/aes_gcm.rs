//! The provider `aesgcm`: AES in Galois/Counter mode with a random nonce for each value.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/storage/value/encrypt/aes/aes.go`. A value on disk is
//! `k8s:enc:aesgcm:v1:NAME:`, the nonce (12 bytes), and what is encrypted with its tag (16 bytes) behind it.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// A key, and the prefix of what it encrypts.
#[derive(Debug)]
pub(crate) struct AesGcmKey {
    /// `k8s:enc:aesgcm:v1:NAME:`.
    prefix: Vec<u8>,
    key: LessSafeKey,
    random: SystemRandom,
}

impl AesGcmKey {
    /// The key of this name; `None` when the secret is not 16 or 32 bytes long.
    pub(crate) fn new(name: &str, secret: &[u8]) -> Option<Self> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, secret).ok()?);
        Some(Self { prefix: format!("k8s:enc:aesgcm:v1:{name}:").into_bytes(), key, random: SystemRandom::new() })
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Encrypts a value, bound to `path`.
    pub(crate) fn encrypt(&self, path: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| "the system has no random numbers".to_owned())?;
        let mut sealed = value.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(path), &mut sealed)
            .map_err(|_| "the value cannot be encrypted".to_owned())?;
        Ok([&self.prefix, &nonce[..], &sealed].concat())
    }

    /// Decrypts a value that was encrypted with this key, for this path; `None` when it was not.
    pub(crate) fn decrypt(&self, path: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = stored.strip_prefix(&*self.prefix)?.split_at_checked(NONCE_LEN)?;
        let mut value = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.key.open_in_place(nonce, Aad::from(path), &mut value).ok()?.len();
        value.truncate(length);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bound_to_its_key_and_to_its_place() {
        let key = AesGcmKey::new("key1", &[7; 32]).unwrap();
        let stored = key.encrypt(b"/registry/core/secrets/a/b", b"value").unwrap();
        assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:key1:") && !stored.windows(5).any(|w| w == b"value"));
        assert_eq!(key.decrypt(b"/registry/core/secrets/a/b", &stored).as_deref(), Some(&b"value"[..]));
        assert_eq!(key.decrypt(b"/registry/core/secrets/a/c", &stored), None, "moved to another Secret");
        let other = AesGcmKey::new("key1", &[8; 32]).unwrap();
        assert_eq!(other.decrypt(b"/registry/core/secrets/a/b", &stored), None);
        for at in [stored.len() - 1, stored.len() - 17, b"k8s:enc:aesgcm:v1:key1:".len()] {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            assert_eq!(key.decrypt(b"/registry/core/secrets/a/b", &damaged), None, "{at}");
        }
        assert_eq!(key.decrypt(b"", b"k8s:enc:aesgcm:v1:key1:short"), None);
        let again = key.encrypt(b"/registry/core/secrets/a/b", b"value").unwrap();
        assert_ne!(again, stored, "no two values have the same nonce");
        assert!(AesGcmKey::new("key1", &[7; 24]).is_none() && AesGcmKey::new("key1", &[]).is_none());
    }
}
