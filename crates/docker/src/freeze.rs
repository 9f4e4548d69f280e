//! Holding the processes of all pods for a moment, so that what they write to disk stays as it is.

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures::stream::{self, StreamExt, TryStreamExt};
use runtime::Error;

use crate::pods::is_sandbox;
use crate::{CALL_TIMEOUT, Docker, REMOVALS};

impl Docker {
    /// The containers of the profile's pods that run, on all of its nodes, and are not held by somebody already.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn freezable(&self) -> Result<Vec<String>, Error> {
        let is_freezable =
            |found: &ContainerSummary| found.state == Some(ContainerSummaryStateEnum::RUNNING) && !is_sandbox(found);
        Ok(self.running().await?.into_iter().filter(is_freezable).filter_map(|found| found.id).collect())
    }

    /// Holds all processes of these containers; those that have ended meanwhile are left out.
    ///
    /// # Errors
    /// The first one met; some of them are held then.
    pub async fn freeze(&self, containers: &[String]) -> Result<(), Error> {
        stream::iter(containers.iter().cloned())
            .map(Ok)
            .try_for_each_concurrent(REMOVALS, |id| async move {
                held(self.call(CALL_TIMEOUT, self.client().pause_container(&id)).await)
            })
            .await
    }

    /// Lets the processes of these containers go on; those that are not held, or gone, are left as they are.
    ///
    /// # Errors
    /// The first one met, once all were tried.
    pub async fn thaw(&self, containers: &[String]) -> Result<(), Error> {
        let thawed = stream::iter(containers.iter().cloned())
            .map(|id| async move { held(self.call(CALL_TIMEOUT, self.client().unpause_container(&id)).await) });
        let results: Vec<Result<(), Error>> = thawed.buffer_unordered(REMOVALS).collect().await;
        results.into_iter().collect()
    }
}

/// What is to be held or let go and cannot is in another state already: Docker answers 409, or 500 and these words.
fn held(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
        Err(Error::Other(message)) if message.contains("is not paused") || message.contains("is not running") => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_that_state_already_is_no_failure() {
        let other = |message: &str| Err(Error::Other(message.to_owned()));
        for fine in [
            Ok(()),
            Err(Error::Conflict(String::new())),
            other("Container 1 is not paused"),
            Err(Error::NotFound(String::new())),
        ] {
            assert!(held(fine).is_ok());
        }
        for failure in [other("cannot freeze: no such cgroup"), Err(Error::Timeout("late".to_owned()))] {
            assert!(held(failure).is_err());
        }
    }
}
