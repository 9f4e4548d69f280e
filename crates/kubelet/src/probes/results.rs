//! What probes have found out, per container.

use std::collections::BTreeMap;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    /// Has it come up? Until then the other probes wait.
    Startup,
    /// Is it alive? Else it is restarted.
    Liveness,
    /// May it get traffic?
    Readiness,
}

impl ProbeKind {
    /// The first word of events about it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// The verdicts on containers, by container id. No verdict yet means: not started, alive, not ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults {
    verdicts: BTreeMap<(String, ProbeKind), bool>,
}

impl ProbeResults {
    /// The last verdict.
    pub(crate) fn get(&self, id: &str, kind: ProbeKind) -> Option<bool> {
        self.verdicts.get(&(id.to_owned(), kind)).copied()
    }

    /// Notes a verdict; answers whether it is news.
    pub(crate) fn set(&mut self, id: &str, kind: ProbeKind, success: bool) -> bool {
        self.verdicts.insert((id.to_owned(), kind), success) != Some(success)
    }

    /// Forgets containers for which `keep` says no.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.verdicts.retain(|(id, _), _| keep(id));
    }
}
