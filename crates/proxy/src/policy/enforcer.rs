//! The kernel's side of policies: what is in it, and how to change it.

use std::sync::Arc;

use super::compile::Model;
use super::table::{FORWARD, PolicyTable};
use crate::nft::Failure;
use crate::tools::NetworkTools;
use crate::{nft, table};

/// What is known of the table.
#[derive(Debug, PartialEq, Eq)]
enum KernelState {
    /// Nothing: an earlier process may have left one, whose rules hold until they are replaced.
    Unknown,
    /// There is none.
    Nothing,
    /// It is there, with these rules.
    Rules(Model),
}

/// Puts policies in force.
pub(super) struct Enforcer {
    table: PolicyTable,
    tools: Arc<dyn NetworkTools>,
    state: KernelState,
}

impl Enforcer {
    pub(super) fn new(table: PolicyTable, tools: Arc<dyn NetworkTools>) -> Self {
        Self { table, tools, state: KernelState::Unknown }
    }

    /// Whether there are rules in the kernel.
    pub(super) fn has_rules(&self) -> bool {
        matches!(self.state, KernelState::Rules(_))
    }

    /// Brings the kernel to this model, at once for all pods. `false`: it was there.
    pub(super) async fn apply(&mut self, model: Model) -> Result<bool, Failure> {
        let same = match &self.state {
            KernelState::Unknown => model.is_empty() && !self.is_there().await,
            KernelState::Nothing => model.is_empty(),
            KernelState::Rules(rules) => *rules == model,
        };
        let script = if model.is_empty() { table::removal(&self.table.name) } else { self.table.transaction(&model) };
        if !same {
            // Where it is refused, what was there still holds.
            nft::run(&*self.tools, &script).await?;
        }
        self.state = if model.is_empty() { KernelState::Nothing } else { KernelState::Rules(model) };
        Ok(!same)
    }

    /// Looks whether somebody removed the table: then the next model is put in force whatever it was before.
    pub(super) async fn check(&mut self) {
        if self.has_rules() && !self.is_there().await {
            self.state = KernelState::Unknown;
        }
    }

    async fn is_there(&self) -> bool {
        nft::has(&*self.tools, &self.table.name, FORWARD).await
    }

    /// Removes the table, there or not.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        if self.state == KernelState::Nothing {
            return Ok(());
        }
        nft::run(&*self.tools, &table::removal(&self.table.name)).await
    }
}
