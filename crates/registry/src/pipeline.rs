//! The write pipeline: the one way in which a request that changes something, or opens a connection, goes through.
//!
//! [`Registry::run`] reads as the steps, each of which is a file of its name. Which of them a request takes is in
//! [`TABLE`]; what only one kind of request does (where its object comes from, what a DELETE makes of an object) is its
//! [`Proposal`].

mod apply;
pub(crate) mod authorize;
mod charge;
pub(crate) mod commit;
pub(crate) mod decode;
mod default;
pub(crate) mod managed_fields;
mod mutate;
mod patch;
mod prepare;
mod validate;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use machinery::status::{ApiError, MODIFIED};
use store::Entry;

use crate::Registry;
use crate::admission::{self, Attributes, Codec};
use crate::apart;
use crate::kind::{Context, Subresource};
use crate::meta;
use crate::object::{Object, cast_into};
use crate::request::{Target, WriteOptions, Written};
use crate::table::{Resource, ResourceInfo};
use commit::Committed;

pub use apply::check_manager;
pub(crate) use apply::{apply, fields_of_replicas, read_config};
pub(crate) use commit::encode;
pub(crate) use patch::Patch;

/// How often an unconditional update, or a create in a namespace that is being changed, is tried.
pub(crate) const ATTEMPTS: usize = 100;

/// How often a patch is applied again when somebody was faster
/// (`staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`, `MaxRetryWhenPatchConflicts`).
pub(crate) const PATCH_ATTEMPTS: usize = 5;

/// How often a name is made up before the client is told that none was free
/// (`staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go`, `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;

/// What a request does, as far as the steps differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A POST of an object, or an apply or PUT that creates it.
    Create,
    /// A PUT, patch or apply of an object or of its `scale`.
    Update,
    /// The same of a subresource that takes the whole object: `status`, `approval`, `finalize`, `resize`, `ephemeralcontainers`.
    UpdateSubresource,
    /// A DELETE, of one object or of each of a collection.
    Delete,
    /// The DELETE of a pod that an Eviction leads to.
    DeleteEvicted,
    /// A POST of a Binding.
    Bind,
    /// A POST of an Eviction.
    Evict,
    /// A POST of a TokenRequest.
    RequestToken,
    /// A POST of a review of `authentication.k8s.io` or `authorization.k8s.io`.
    Review,
    /// `exec`, `attach`, `portforward` and `proxy`.
    Connect,
    /// What the server writes on its own account: the pod that a Binding is about, the budget that an Eviction spends.
    Own,
}

/// A step of the pipeline that not every request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Default,
    Prepare,
    Mutate,
    Validate,
    AuthorizeEscalation,
    ValidatingAdmission,
    Allocate,
    Charge,
    Commit,
}

/// The steps that each request takes. All are decoded.
const TABLE: [(Action, &[Step]); 11] = {
    use Step::{
        Allocate, AuthorizeEscalation, Charge, Commit, Default, Mutate, Prepare, Validate, ValidatingAdmission,
    };
    const ALL: &[Step] =
        &[Default, Prepare, Mutate, Validate, AuthorizeEscalation, ValidatingAdmission, Allocate, Charge, Commit];
    [
        (Action::Create, ALL),
        (Action::Update, ALL),
        (Action::UpdateSubresource, ALL),
        // There is no new object to complete or to find wrong.
        (Action::Delete, &[Mutate, AuthorizeEscalation, ValidatingAdmission, Charge, Commit]),
        // Upstream (`pkg/registry/core/pod/storage/eviction.go`): who may evict has been asked, and is not asked once more
        // as a DELETE.
        (Action::DeleteEvicted, &[AuthorizeEscalation, Charge, Commit]),
        // What is created is not stored; the pod is then written as `Own`.
        (Action::Bind, &[Mutate, AuthorizeEscalation, ValidatingAdmission]),
        (Action::Evict, &[Mutate, AuthorizeEscalation, ValidatingAdmission]),
        (Action::RequestToken, &[Mutate, AuthorizeEscalation, ValidatingAdmission]),
        // Nothing is written, by which rights could grow: upstream checks the storage of roles and bindings alone
        // (`pkg/registry/rbac/rest/storage_rbac.go`).
        (Action::Review, &[Mutate, ValidatingAdmission]),
        (Action::Connect, &[Mutate, ValidatingAdmission]),
        // Whoever asked for it has been admitted with what they sent.
        (Action::Own, &[Commit]),
    ]
};

impl Action {
    /// Whether the request takes a step.
    pub(crate) fn takes(self, step: Step) -> bool {
        TABLE.iter().any(|(action, steps)| *action == self && steps.contains(&step))
    }

    /// Whether it is about an object that must be there.
    const fn reads_stored(self) -> bool {
        matches!(self, Self::Update | Self::UpdateSubresource | Self::Delete | Self::DeleteEvicted | Self::Own)
    }
}

/// A request on its way through the pipeline.
pub(crate) struct Write<'a> {
    pub(crate) action: Action,
    /// The object, or for a create the collection; absent in a review, whose resource is not in the table.
    pub(crate) target: Option<&'a Target>,
    /// Upstream's `admission.Attributes`, but for the stored object.
    pub(crate) attributes: Attributes<'a>,
    pub(crate) options: &'a WriteOptions,
    /// What the log calls it.
    pub(crate) verb: &'static str,
    /// How often it is tried when somebody else was faster.
    pub(crate) attempts: usize,
    pub(crate) now: Timestamp,
}

impl<'a> Write<'a> {
    /// A request about an object of `target`'s resource, or about what `subresource` of it is for.
    pub(crate) fn new(
        registry: &'a Registry,
        action: Action,
        target: &'a Target,
        subresource: Option<Subresource>,
        options: &'a WriteOptions,
    ) -> Self {
        let operation = match action {
            Action::Create | Action::Bind | Action::Evict | Action::RequestToken | Action::Review => {
                admission::Operation::Create
            }
            Action::Update | Action::UpdateSubresource | Action::Own => admission::Operation::Update,
            Action::Delete | Action::DeleteEvicted => admission::Operation::Delete,
            Action::Connect => admission::Operation::Connect,
        };
        let attributes = Attributes {
            registry,
            info: target.resource.info(),
            namespace: &target.namespace,
            name: &target.name,
            subresource,
            operation,
            user: &options.user,
            dry_run: options.dry_run,
            codec: &target.resource,
            old: None,
        };
        let verb = match action {
            Action::Delete => "delete",
            Action::DeleteEvicted | Action::Evict => "evict",
            Action::Bind => "bind",
            Action::Update | Action::UpdateSubresource | Action::Own => "update",
            Action::Create | Action::RequestToken | Action::Review | Action::Connect => "create",
        };
        let (target, now) = (Some(target), Timestamp::now());
        Self { action, target, attributes, options, verb, attempts: ATTEMPTS, now }
    }

    /// A review, whose resource is not in the table.
    pub(crate) fn review(
        registry: &'a Registry,
        info: &'a ResourceInfo,
        namespace: &'a str,
        codec: &'a dyn Codec,
        options: &'a WriteOptions,
    ) -> Self {
        let attributes = Attributes {
            registry,
            info,
            namespace,
            name: "",
            subresource: None,
            operation: admission::Operation::Create,
            user: &options.user,
            dry_run: options.dry_run,
            codec,
            old: None,
        };
        let (action, verb, now) = (Action::Review, "create", Timestamp::now());
        Self { action, target: None, attributes, options, verb, attempts: 1, now }
    }

    /// The same, of an object that is none of the resource itself.
    pub(crate) fn shown_as(mut self, codec: &'a dyn Codec) -> Self {
        self.attributes.codec = codec;
        self
    }

    /// The same, tried so often.
    pub(crate) fn tried(self, attempts: usize) -> Self {
        Self { attempts, ..self }
    }

    /// The same under another verb.
    pub(crate) fn called(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    fn takes(&self, step: Step) -> bool {
        self.action.takes(step)
    }

    pub(crate) fn subresource(&self) -> Option<Subresource> {
        self.attributes.subresource
    }

    /// The object it is about, or for a create the collection.
    fn target(&self) -> Result<&'a Target, ApiError> {
        self.target.ok_or_else(|| ApiError::internal("a review has no resource of its own"))
    }

    fn resource(&self) -> Result<&'a Resource, ApiError> {
        self.target().map(|target| &target.resource)
    }

    /// What the hooks of a kind may know.
    fn context(&self) -> Context<'a> {
        let Attributes { registry, namespace, user, dry_run, .. } = self.attributes;
        let (allocators, store) = (registry.allocators(), registry.store());
        Context { now: self.now, user, namespace, dry_run, allocators, store }
    }

    /// The field manager of the write.
    pub(crate) fn writer(&self) -> Result<managed_fields::Writer<'a>, ApiError> {
        let (resource, subresource) = (self.resource()?.as_ref(), self.subresource());
        Ok(managed_fields::Writer { resource, subresource, options: self.options, now: self.now })
    }

    /// What the client is told when somebody else was faster each time.
    fn exhausted(&self) -> ApiError {
        let resource = &self.attributes.info.group_resource;
        match self.action {
            Action::Create => ApiError::server_timeout(resource, "create", 1),
            _ => ApiError::conflict(resource, self.attributes.name, MODIFIED),
        }
    }
}

/// A stored object.
pub(crate) struct Stored {
    pub(crate) entry: Arc<Entry>,
    /// The object in it, without its `managedFields`.
    pub(crate) object: Box<dyn Object>,
}

/// What a request proposes.
pub(crate) struct Proposed {
    /// The object that is admitted; absent in a DELETE.
    pub(crate) object: Option<Box<dyn Object>>,
    /// Its `managedFields`, where they change.
    pub(crate) managed_fields: Option<String>,
}

impl Proposed {
    /// An object whose `managedFields` follow from who writes it.
    pub(crate) fn new(object: Box<dyn Object>) -> Self {
        Self { object: Some(object), managed_fields: None }
    }

    fn object_mut(&mut self) -> Result<&mut Box<dyn Object>, ApiError> {
        self.object.as_mut().ok_or_else(|| ApiError::internal("the request brings no object"))
    }
}

/// What becomes of the stored object.
pub(crate) enum Change {
    /// It stays as it is.
    Keep,
    /// Another state takes its place, or it is created.
    Put(Box<dyn Object>),
    /// It goes. Its last state, as watchers see it.
    Remove(Box<dyn Object>),
}

/// What only one kind of request does.
pub(crate) trait Proposal: Send {
    /// Of step 1: what is proposed in the place of the stored object. Called again for each attempt.
    fn decode(&mut self, old: Option<&Stored>, warnings: &mut Vec<String>) -> Result<Proposed, ApiError>;

    /// Of step 5: what the kind does not know to check.
    fn validate(&mut self, _proposed: &mut Proposed, _old: Option<&Stored>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Before step 7: what becomes of the stored object. One that nothing keeps any longer is then removed.
    fn change(&mut self, proposed: &mut Proposed, _old: Option<&Stored>) -> Result<Change, ApiError> {
        proposed.object.take().map(Change::Put).ok_or_else(|| ApiError::internal("there is nothing to store"))
    }
}

/// A [`Proposal`] that brings an object and stores it.
pub(crate) struct Propose<F>(pub(crate) F);

impl<F> Proposal for Propose<F>
where
    F: FnMut(Option<&Stored>, &mut Vec<String>) -> Result<Proposed, ApiError> + Send,
{
    fn decode(&mut self, old: Option<&Stored>, warnings: &mut Vec<String>) -> Result<Proposed, ApiError> {
        (self.0)(old, warnings)
    }
}

/// How a request ended.
pub(crate) struct Completed {
    pub(crate) outcome: Outcome,
    /// What to tell the client.
    pub(crate) warnings: Vec<String>,
}

/// What a request led to.
pub(crate) enum Outcome {
    /// Nothing is stored: the object as it was admitted.
    Admitted(Box<dyn Object>),
    /// The object as it is stored, or would be.
    Stored {
        bytes: Bytes,
        /// Whether it is new.
        created: bool,
    },
    /// The object is gone: its last state.
    Removed(Bytes),
}

impl Completed {
    /// The answer to a create or an update.
    pub(crate) fn written(self, resource: &Resource) -> Result<Written, ApiError> {
        let (stored, created) = self.stored()?;
        let body = resource.served(&stored).map_err(ApiError::internal)?;
        Ok(Written { body, stored, created, warnings: self.warnings })
    }

    /// The bytes that are stored, or were last, and whether the object is new.
    pub(crate) fn stored(&self) -> Result<(Bytes, bool), ApiError> {
        match &self.outcome {
            Outcome::Stored { bytes, created } => Ok((bytes.clone(), *created)),
            Outcome::Removed(bytes) => Ok((bytes.clone(), false)),
            Outcome::Admitted(_) => Err(ApiError::internal("nothing was stored")),
        }
    }

    /// The object of a request that stores none, and the warnings.
    pub(crate) fn admitted<T: 'static>(self) -> Result<(T, Vec<String>), ApiError> {
        match self.outcome {
            Outcome::Admitted(object) => Ok((cast_into(object)?, self.warnings)),
            _ => Err(ApiError::internal("the request was stored")),
        }
    }
}

impl Registry {
    /// Takes a request through the steps.
    ///
    /// # Errors
    /// That of the step which refuses it; 409 (504 for a create) when somebody else was faster each time.
    pub(crate) async fn run(&self, write: &Write<'_>, proposal: &mut dyn Proposal) -> Result<Completed, ApiError> {
        let mut warnings = Vec::new();
        match self.take_steps(write, proposal, &mut warnings).await {
            Ok(outcome) => Ok(Completed { outcome, warnings }),
            // Upstream warns of what is noticed before a request is refused.
            Err(error) => Err(ApiError { warnings, ..error }),
        }
    }

    /// As [`Registry::run`]. What the client is to be warned about is in `warnings`, whatever the outcome.
    async fn take_steps(
        &self,
        write: &Write<'_>,
        proposal: &mut dyn Proposal,
        warnings: &mut Vec<String>,
    ) -> Result<Outcome, ApiError> {
        for attempt in 0..write.attempts {
            let stored = if write.action.reads_stored() { Some(self.load(write.target()?)?) } else { None };
            let stored = stored.as_ref();
            let old = stored.map(|stored| stored.object.as_ref());
            let attributes = &Attributes { old, ..write.attributes };
            warnings.clear();
            // 1. Decode.
            let mut proposed = decode::proposed(write, proposal, stored, warnings)?;
            // 2. Default.
            if write.takes(Step::Default) {
                default::run(write, &mut proposed, stored)?;
            }
            // 3. Prepare.
            let generated = write.action == Action::Create
                && proposed.object.as_ref().is_some_and(|object| meta::wants_generated_name(object.meta()));
            if write.takes(Step::Prepare) {
                prepare::first(write, proposed.object_mut()?.as_mut(), old)?;
            }
            // 4. Mutate.
            // A deletion has nothing that could have become another one: it is asked for once, as upstream does.
            if write.takes(Step::Mutate) && (attempt == 0 || write.action != Action::Delete) {
                mutate::run(write, attributes, &mut proposed, warnings).await?;
            }
            // 5. Validate.
            proposal.validate(&mut proposed, stored)?;
            // Nothing in a status or its like is compiled.
            if write.takes(Step::Validate) && write.attributes.info.compiles && write.subresource().is_none() {
                let _turn = self.0.turns.wait().await;
                apart::compute(|| validate::object(write, &proposed, old, warnings))?;
            } else if write.takes(Step::Validate) {
                validate::object(write, &proposed, old, warnings)?;
            }
            // 6. Authorize escalation, then run the plugins that may only refuse.
            if write.takes(Step::AuthorizeEscalation) {
                authorize::run(write, &proposed, old)?;
            }
            if write.takes(Step::ValidatingAdmission) {
                validate::admission(attributes, &proposed, warnings).await?;
            }
            if !write.takes(Step::Commit) {
                let object = proposed.object.ok_or_else(|| ApiError::internal("the request brings no object"))?;
                return Ok(Outcome::Admitted(object));
            }
            let mut change = match proposal.change(&mut proposed, stored)? {
                Change::Put(last) if old.is_some() && is_finalized(write.resource()?, last.as_ref())? => {
                    Change::Remove(last)
                }
                change => change,
            };
            let mut names = 1;
            // A create whose generated name was taken, or whose namespace or quotas changed, is not admitted once more.
            for _ in 0..ATTEMPTS {
                // 7. Allocate and charge.
                let charged = charge::run(write, attributes, change, &proposed, stored).await?;
                // 8. Commit.
                match commit::run(write, charged, stored).await? {
                    Committed::Done(outcome) => return Ok(outcome),
                    Committed::NameTaken(mut object, _) if generated && names < NAME_ATTEMPTS => {
                        names += 1;
                        meta::generate_name(object.meta_mut());
                        change = Change::Put(object);
                    }
                    Committed::NameTaken(object, terminating) => {
                        return Err(commit::name_taken(write.attributes.info, object.as_ref(), generated, terminating));
                    }
                    Committed::Retry(Some(object)) if write.action == Action::Create => change = Change::Put(object),
                    Committed::Retry(_) => break,
                }
            }
        }
        Err(write.exhausted())
    }

    /// Writes to an object on the server's own account, as what a request of another `verb` leads to: reads it, has `update` say
    /// what is to take its place, and commits that; again, as long as somebody else is faster. Upstream's `GuaranteedUpdate`.
    pub(crate) async fn guaranteed_update(
        &self,
        target: &Target,
        (verb, options): (&'static str, &WriteOptions),
        mut update: impl FnMut(&Stored, &mut dyn Object) -> Result<(), ApiError> + Send,
    ) -> Result<Bytes, ApiError> {
        let write = Write::new(self, Action::Own, target, None, options).called(verb);
        let mut proposal = Propose(|old: Option<&Stored>, _: &mut Vec<String>| {
            let old = old.ok_or_else(|| ApiError::internal("there is nothing to update"))?;
            let mut new = old.object.boxed_clone();
            update(old, new.as_mut())?;
            Ok(Proposed::new(new))
        });
        Ok(self.run(&write, &mut proposal).await?.stored()?.0)
    }

    /// The object at `target`.
    pub(crate) fn load(&self, target: &Target) -> Result<Stored, ApiError> {
        let entry = self.find(target)?;
        let object = target.resource.load(&managed_fields::split(&entry.value).0).map_err(ApiError::internal)?;
        Ok(Stored { entry, object })
    }
}

/// Whether nothing keeps an object that is being deleted any longer.
fn is_finalized(resource: &Resource, object: &dyn Object) -> Result<bool, ApiError> {
    let meta = object.meta();
    Ok(meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
        && !resource.strategy().has_other_finalizers(object)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_its_row_and_what_is_stored_is_checked() {
        for (action, steps) in TABLE {
            assert_eq!(TABLE.iter().filter(|(other, _)| *other == action).count(), 1, "{action:?}");
            let stored = steps.contains(&Step::Commit) && action != Action::Own;
            assert!(!stored || steps.contains(&Step::AuthorizeEscalation), "{action:?}");
            let halves = [Step::Mutate, Step::ValidatingAdmission].map(|half| steps.contains(&half));
            assert_eq!(halves[0], halves[1], "{action:?}: admission has two halves");
            let exempt = matches!(action, Action::Own | Action::DeleteEvicted);
            assert_eq!(halves[0], !exempt, "{action:?}");
        }
    }
}
