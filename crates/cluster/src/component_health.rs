//! How the components are, for `kubectl get componentstatuses`: upstream's names, and no probes, since all is in this process.

use registry::Registry;
use store::Health;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Lets the store, the scheduler and the controller manager say how they are.
pub(crate) fn register(registry: &Registry, scheduler: Vec<AbortHandle>, controllers: Vec<AbortHandle>) {
    let store = registry.store().watch_health();
    registry.add_component("etcd-0", Box::new(move || store_works(&store)));
    registry.add_component("scheduler", Box::new(move || all_run(&scheduler)));
    registry.add_component("controller-manager", Box::new(move || all_run(&controllers)));
}

fn store_works(health: &watch::Receiver<Health>) -> Result<(), String> {
    match &*health.borrow() {
        Health::Healthy => Ok(()),
        Health::DiskFull(why) => Err(format!("the disk is full, only deletes are accepted: {why}")),
        Health::ReadOnly(why) => Err(format!("the store cannot write: {why}")),
    }
}

/// Tasks that end only with the component.
fn all_run(tasks: &[AbortHandle]) -> Result<(), String> {
    let ended = tasks.iter().filter(|task| task.is_finished()).count();
    if ended == 0 { Ok(()) } else { Err(format!("{ended} of {} tasks ended; the log says why", tasks.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_works_while_its_tasks_run() {
        let forever = tokio::spawn(std::future::pending::<()>());
        assert_eq!(all_run(&[forever.abort_handle()]), Ok(()));
        let over = tokio::spawn(async {});
        let handles = [forever.abort_handle(), over.abort_handle()];
        over.await.expect("an end");
        assert_eq!(all_run(&handles), Err("1 of 2 tasks ended; the log says why".to_owned()));
        forever.abort();
    }

    #[test]
    fn the_store_works_while_it_takes_writes() {
        let (tell, health) = watch::channel(Health::Healthy);
        assert_eq!(store_works(&health), Ok(()));
        tell.send_replace(Health::DiskFull("3 MiB are free".into()));
        assert!(store_works(&health).is_err_and(|why| why.ends_with("3 MiB are free")));
        tell.send_replace(Health::ReadOnly("Input/output error".into()));
        assert!(store_works(&health).is_err_and(|why| why.ends_with("Input/output error")));
    }
}
