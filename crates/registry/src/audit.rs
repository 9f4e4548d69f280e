//! What whoever looks at a request has to add to its audit event: upstream's `audit.AddAuditAnnotation`, which finds the event in
//! the context of the request. The context of a request is here the task that answers it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;

tokio::task_local! {
    static ANNOTATIONS: Annotations;
}

/// The annotations of one audit event. Copies are the same.
#[derive(Debug, Clone, Default)]
pub struct Annotations(Arc<Mutex<BTreeMap<Key, String>>>);

/// The key of an annotation, which is mostly a constant.
pub type Key = Cow<'static, str>;

impl Annotations {
    /// Answers a request whose event these annotations are for.
    pub async fn scope<F: Future>(&self, request: F) -> F::Output {
        ANNOTATIONS.scope(self.clone(), request).await
    }

    /// The annotations so far.
    #[must_use]
    pub fn get(&self) -> BTreeMap<Key, String> {
        self.0.lock().clone()
    }
}

/// Whether there is an event for the request at hand, so that annotations are of any use.
#[must_use]
pub fn is_audited() -> bool {
    ANNOTATIONS.try_with(|_| ()).is_ok()
}

/// Annotates the event of the request at hand, if there is one. What has been said once under a key stays, as upstream has it.
pub fn annotate(key: impl Into<Key>, value: impl FnOnce() -> String) {
    // Outside of a request that is audited there is nothing to be annotated.
    let _ = ANNOTATIONS.try_with(|annotations| {
        annotations.0.lock().entry(key.into()).or_insert_with(value);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_value_of_a_key_stays_and_nothing_is_made_for_nobody() {
        annotate("a", || unreachable!("nobody asks for it"));
        assert!(!is_audited());
        let annotations = Annotations::default();
        annotations
            .scope(async {
                assert!(is_audited());
                annotate("a", || "1".to_owned());
                annotate("a", || "2".to_owned());
            })
            .await;
        assert_eq!(annotations.get(), BTreeMap::from([("a".into(), "1".to_owned())]));
        assert!(!is_audited());
    }
}
