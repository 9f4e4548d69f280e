//! How controllers read the answers of the API server.

use std::time::Duration;

use informer::Action;
use kube::core::Status;

/// Why a reconciliation did not come to its end. It is tried again after a back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// A request did not reach the API server or its answer could not be read.
    #[error("request failed")]
    Request(#[source] Box<kube::Error>),
    /// An object could not be encoded.
    #[error("cannot encode an object")]
    Encode(#[from] serde_json::Error),
    /// A selector of an object means nothing.
    #[error("invalid selector")]
    Selector(#[from] machinery::selector::LabelSelectorError),
    /// An owner reference names a kind that no API serves.
    #[error("no API serves {kind} of {api_version}")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            error => Self::Request(Box::new(error)),
        }
    }
}

impl Error {
    /// What the API server said, if it was the API server that refused.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the object is not there, or not even its kind: of that an API server says no more than the code.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether an object of that name is there already.
    pub(crate) fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// Whether the object changed meanwhile, or another one has its name now.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// Whether the namespace is going away, so that nothing can be created in it.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        let mut causes = details.into_iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// The answer, or nothing if the object is not there: then there is nothing left to do to it.
pub(crate) fn ok_if_not_found<T>(answer: kube::Result<T>) -> Result<Option<T>, Error> {
    match answer.map_err(Error::from) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The time after which something is tried again that changed under the controller's hands.
const AFTER_CONFLICT: Duration = Duration::from_millis(5);

/// What becomes of a key after a reconciliation with this result. A conflict is nothing to report: somebody else was
/// faster, and what they did is looked at in a moment.
pub(crate) fn requeue_on_conflict(result: Result<Action, Error>) -> Result<Action, Error> {
    match result {
        Err(error) if error.is_conflict() => Ok(Action::RequeueAfter(AFTER_CONFLICT)),
        result => result,
    }
}
