//! A pod may follow on the heels of its namespace, whose account `default` a controller makes a moment later: such a
//! pod waits for it.
//!
//! upstream: the admission plugin ServiceAccount looks ten times, for a second or two, before it refuses.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use store::Key;

use crate::Registry;
use crate::kinds::account;
use crate::ops::Object;
use crate::request::Target;

/// How long a pod waits.
const PATIENCE: Duration = Duration::from_secs(2);

impl Registry {
    /// Waits until the account `default` is there, if `object` is a pod that needs it; not for ever.
    pub(super) async fn await_account(&self, target: &Target, object: &dyn Object) {
        let Some(pod) = object.as_any().downcast_ref::<Pod>() else { return };
        let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default();
        if !["", account::DEFAULT].contains(&named) {
            return;
        }
        let key = Key::new(account::ACCOUNTS, target.namespace.as_str(), account::DEFAULT);
        let store = self.store();
        let namespace = Key::new("core/namespaces", "", target.namespace.as_str());
        if store.get(&key).is_some() || store.get(&namespace).is_none() {
            return;
        }
        let Ok(mut watcher) = store.watch(account::ACCOUNTS, store.revision()) else { return };
        let comes = async { while store.get(&key).is_none() && watcher.next().await.is_ok() {} };
        // Without it the admission says what is missing.
        let _ = tokio::time::timeout(PATIENCE, comes).await;
    }
}
