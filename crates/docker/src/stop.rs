//! Ending all containers of a profile at once, and keeping them: what a node's shutdown is upstream.

use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures::stream::{self, StreamExt, TryStreamExt};
use runtime::Error;
use tokio::time::{Instant, sleep};

use crate::pods::is_sandbox;
use crate::{Docker, REMOVALS};

/// How often it is looked whether the containers have ended. One list is cheaper than a request that waits for each.
const POLL: Duration = Duration::from_millis(100);

impl Docker {
    /// Stops all containers of the profile that run, and keeps them: those of pods are signalled and have `grace` together,
    /// what is left is killed, and the sandboxes end last. Answers how many containers of pods ran. What belongs to a
    /// profile of the same name in another home goes on.
    ///
    /// # Errors
    /// The first one met; containers may still run then.
    pub async fn stop_profile(&self, grace: Duration) -> Result<usize, Error> {
        let running = self.running().await?;
        let pods: Vec<&ContainerSummary> = running.iter().filter(|found| !is_sandbox(found)).collect();
        let count = pods.len();
        let signalled = pods.into_iter().filter_map(|found| found.id.clone());
        each(signalled, async |id| self.ask_to_end(&id).await).await?;
        let deadline = Instant::now() + grace;
        let mut left = self.running().await?;
        while left.iter().any(|found| !is_sandbox(found)) && Instant::now() < deadline {
            sleep(POLL).await;
            left = self.running().await?;
        }
        // A container loses its network when its sandbox ends.
        let (sandboxes, late): (Vec<_>, Vec<_>) = left.into_iter().partition(is_sandbox);
        for all in [late, sandboxes] {
            each(all.into_iter().filter_map(|found| found.id), async |id| self.kill(&id).await).await?;
        }
        Ok(count)
    }

    /// How many containers of the profile's pods run, on all of its nodes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn count_running(&self) -> Result<usize, Error> {
        Ok(self.running().await?.iter().filter(|found| !is_sandbox(found)).count())
    }

    /// The containers of this profile, and of no namesake, that have processes.
    pub(crate) async fn running(&self) -> Result<Vec<ContainerSummary>, Error> {
        let mut found = self.list(vec![self.profile_label()]).await?;
        found.retain(|found| has_processes(found) && self.namesake(found.labels.as_ref()).is_none());
        Ok(found)
    }
}

/// Does the same to all, a few at a time.
async fn each(ids: impl Iterator<Item = String>, act: impl AsyncFn(String) -> Result<(), Error>) -> Result<(), Error> {
    stream::iter(ids).map(Ok).try_for_each_concurrent(REMOVALS, |id| act(id)).await
}

fn has_processes(found: &ContainerSummary) -> bool {
    use ContainerSummaryStateEnum::{PAUSED, RESTARTING, RUNNING};
    found.state.is_some_and(|state| [PAUSED, RESTARTING, RUNNING].contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_processes_is_stopped() {
        use ContainerSummaryStateEnum::{CREATED, EXITED, PAUSED, RUNNING};
        for (state, expected) in [(RUNNING, true), (PAUSED, true), (CREATED, false), (EXITED, false)] {
            let found = ContainerSummary { state: Some(state), ..ContainerSummary::default() };
            assert_eq!(has_processes(&found), expected, "{state}");
        }
        assert!(!has_processes(&ContainerSummary::default()));
    }
}
