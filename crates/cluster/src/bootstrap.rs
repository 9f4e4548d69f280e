//! What every cluster has, written at each start: namespaces, roles, whose certificates are believed, the Services `kubernetes`
//! and `kube-dns` and where they are served.
//!
//! A start on a full disk goes on without what cannot be written, since there is no way to make space without the API. It is
//! written once the store takes writes again.

use std::net::SocketAddr;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, authz};
use machinery::status::ApiError;
use registry::Registry;
use store::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{addons, ingress};

/// How soon it is tried again when the store takes writes, and one was refused nevertheless.
const RETRY: Duration = Duration::from_secs(5);

/// Writes the objects that every cluster has, and removes those that it has no longer. The API is served on `port`, and for
/// pods at `for_pods`.
pub(crate) async fn write(
    registry: &Registry,
    server: &ApiServer,
    pki: &Pki,
    port: u16,
    for_pods: Option<SocketAddr>,
) -> Result<(), ApiError> {
    kinds::bootstrap(registry, port).await?;
    ingress::ensure_class(registry).await?;
    authz::bootstrap(registry, &addons::policies()).await?;
    server.publish_authentication(pki).await?;
    if let Some(address) = for_pods {
        server.publish_endpoints(address).await?;
    }
    Ok(())
}

/// What could not be written at the start, and is tried again until it is.
pub(crate) struct Outstanding {
    health: watch::Receiver<Health>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Outstanding {
    /// Of a store with this health. Nothing is tried any more once `cancel` is triggered.
    pub(crate) fn new(health: watch::Receiver<Health>, cancel: CancellationToken) -> Self {
        Self { health, cancel, tasks: JoinSet::new() }
    }

    /// Writes `what` as soon as the store takes writes; again, as long as it is refused.
    pub(crate) fn add<W, F>(&mut self, what: &'static str, write: W)
    where
        W: Fn() -> F + Send + 'static,
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let (health, cancel) = (self.health.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(until_written(health, what, write)).await;
        });
    }

    /// Waits until nothing is tried any more, after the cancellation.
    pub(crate) async fn ended(mut self) {
        // They fail only if they panicked, and then there is nothing left to end.
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn until_written<F>(mut health: watch::Receiver<Health>, what: &str, write: impl Fn() -> F)
where
    F: Future<Output = Result<(), ApiError>>,
{
    // A store that is gone is being shut down.
    while health.wait_for(|health| *health == Health::Healthy).await.is_ok() {
        match write().await {
            Ok(()) => {
                info!(what, "written, now that the store takes writes");
                return;
            }
            Err(error) => warn!(%error, what, "refused again by the store"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_written_once_the_store_takes_writes() {
        let health = watch::Sender::new(Health::DiskFull("full".into()));
        let cancel = CancellationToken::new();
        let mut outstanding = Outstanding::new(health.subscribe(), cancel.clone());
        let tried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tried);
        outstanding.add("it", move || {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            async move { if nth == 0 { Err(ApiError::internal("refused")) } else { Ok(()) } }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(tried.load(Ordering::SeqCst), 0, "the disk is full");
        health.send_replace(Health::Healthy);
        tokio::time::sleep(RETRY / 2).await;
        assert_eq!(tried.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(tried.load(Ordering::SeqCst), 2, "it was written the second time");
        outstanding.ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_after_the_end() {
        let health = watch::Sender::new(Health::DiskFull("full".into()));
        let cancel = CancellationToken::new();
        let mut outstanding = Outstanding::new(health.subscribe(), cancel.clone());
        outstanding.add("it", || async { Err(ApiError::internal("it is over")) });
        cancel.cancel();
        outstanding.ended().await;
    }
}
