//! Steps 2 to 8 of an update, whatever it is made of: a body, a patch, a configuration, a number of replicas.

use std::sync::Arc;

use jiff::Timestamp;
use machinery::status::{ApiError, MODIFIED};
use store::Entry;

use super::commit::{Attempt, Change, Outcome};
use super::owners::Writer;
use super::{check_preconditions, is_finalized, refuse_invalid};
use crate::Registry;
use crate::admission::{Attributes, Operation};
use crate::escalation::WriteAttributes;
use crate::kind::{Reservation, Subresource};
use crate::meta;
use crate::ops::Object;
use crate::request::{Target, WriteOptions};

/// An update.
pub(crate) struct Revision<'a> {
    target: &'a Target,
    subresource: Option<Subresource>,
    options: &'a WriteOptions,
    attempts: usize,
    now: Timestamp,
}

impl<'a> Revision<'a> {
    /// An update of `target`, or what one of its subresources is for, tried so often.
    pub(crate) fn new(
        target: &'a Target,
        subresource: Option<Subresource>,
        options: &'a WriteOptions,
        attempts: usize,
    ) -> Self {
        Self { target, subresource, options, attempts, now: Timestamp::now() }
    }

    /// The subresource whose hooks run: a new number of replicas is an update of the workload itself.
    fn hooks(&self) -> Option<Subresource> {
        self.subresource.filter(|subresource| *subresource != Subresource::Scale)
    }

    pub(crate) fn attributes(&self) -> Attributes<'_> {
        let Self { target, subresource, options, .. } = *self;
        Attributes::new(target, subresource, Operation::Update, &options.user, options.dry_run)
    }

    /// Takes from the old object what the write cannot change.
    fn prepare(&self, registry: &Registry, new: &mut dyn Object, old: &dyn Object) -> Result<(), ApiError> {
        let Self { target, options, now, .. } = *self;
        match self.hooks() {
            None => meta::prepare_update(new.meta_mut(), old.meta()),
            Some(subresource) => {
                let reset = target.resource.info().metadata_reset(subresource);
                meta::prepare_subresource(new.meta_mut(), old.meta(), reset);
            }
        }
        let context = registry.context(target, options, now);
        target.resource.strategy().prepare(new, Some(old), self.hooks(), &context)
    }

    /// How often it is tried.
    pub(crate) const fn attempts(&self) -> usize {
        self.attempts
    }

    /// 409: somebody else was faster each time.
    pub(crate) fn overtaken(&self) -> ApiError {
        ApiError::conflict(&self.target.resource.info().group_resource, &self.target.name, MODIFIED)
    }

    pub(super) fn writer(&self) -> Writer<'_> {
        let Self { target, subresource, options, now, .. } = *self;
        Writer { resource: target.resource.as_ref(), subresource, options, now }
    }
}

/// What an update makes of an object.
pub(crate) struct Draft {
    /// The object wished for.
    pub(crate) new: Box<dyn Object>,
    /// Its `managedFields`, where the update has settled them.
    pub(crate) owners: Option<String>,
}

impl Registry {
    /// Reads the stored object, has `propose` say what is to take its place, and commits that; again, as often as the
    /// revision says, when somebody else wrote to the object meanwhile.
    pub(crate) async fn revise(
        &self,
        revision: &Revision<'_>,
        warnings: &mut Vec<String>,
        mut propose: impl FnMut(&Entry, &dyn Object, &mut Vec<String>) -> Result<Draft, ApiError>,
    ) -> Result<Outcome, ApiError> {
        let attributes = revision.attributes();
        for _ in 0..revision.attempts {
            let (entry, old) = self.load(revision.target)?;
            let old = old.as_ref();
            let draft = propose(&entry, old, warnings)?;
            let Draft { mut new, owners } = self.shape(revision, draft, &entry, old)?;
            self.limit(&attributes, new.as_mut(), Some(old));
            let validate = |new: &mut dyn Object, changed, warnings: &mut Vec<String>| {
                if changed {
                    revision.prepare(self, new, old)?;
                }
                self.check(revision, new, old, warnings)
            };
            self.admit(&attributes, &mut new, Some(old), warnings, validate).await?;
            match self.replace(revision, &entry, old, Draft { new, owners }).await? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Conflict => {}
            }
        }
        Err(revision.overtaken())
    }

    /// Steps 6 to 8: commits an object that has been admitted.
    pub(crate) async fn replace(
        &self,
        revision: &Revision<'_>,
        entry: &Arc<Entry>,
        old: &dyn Object,
        draft: Draft,
    ) -> Result<Attempt, ApiError> {
        let Revision { target, options, .. } = *revision;
        let _naming = self.naming(target.resource.info()).await;
        let change = self.settle(revision, draft.new, old, draft.owners)?;
        let attributes = revision.attributes();
        self.apply(target.resource.as_ref(), entry, change, Some((&attributes, old)), options.dry_run).await
    }

    /// Steps 2 to 4: the object that is to take the place of the stored one, and who owns its fields.
    pub(crate) fn shape(
        &self,
        revision: &Revision<'_>,
        draft: Draft,
        entry: &Entry,
        old: &dyn Object,
    ) -> Result<Draft, ApiError> {
        let resource = &revision.target.resource;
        let Draft { mut new, owners } = draft;
        check_preconditions(resource.info(), new.as_ref(), old, entry)?;
        resource.strategy().default(new.as_mut())?;
        let owners = match owners {
            Some(owners) => Some(owners),
            None => revision.writer().updated(&entry.value, new.as_mut())?,
        };
        revision.prepare(self, new.as_mut(), old)?;
        Ok(Draft { new, owners })
    }

    /// Step 5: whether it may.
    pub(crate) fn check(
        &self,
        revision: &Revision<'_>,
        new: &dyn Object,
        old: &dyn Object,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let Revision { target, options, .. } = *revision;
        let (resource, info) = (&target.resource, target.resource.info());
        let mut errors = meta::validate(new.meta(), info);
        errors.extend(meta::validate_update(new.meta(), old.meta()));
        let findings = resource.strategy().validate(new, Some(old), revision.hooks())?;
        errors.extend(findings.errors);
        refuse_invalid(info, new, &errors)?;
        warnings.extend(findings.warnings);
        self.check_escalation(&WriteAttributes {
            user: &options.user,
            target,
            subresource: revision.hooks(),
            new: Some(new),
            old: Some(old),
        })
    }

    /// Step 6, or the end of an object that nothing keeps any longer.
    fn settle(
        &self,
        revision: &Revision<'_>,
        mut new: Box<dyn Object>,
        old: &dyn Object,
        owners: Option<String>,
    ) -> Result<Change, ApiError> {
        let Revision { target, options, now, .. } = *revision;
        if is_finalized(&target.resource, new.as_ref())? {
            return Ok(Change::Remove { last: new });
        }
        let context = self.context(target, options, now);
        let reservation = match revision.hooks() {
            None => target.resource.strategy().allocate(new.as_mut(), Some(old), &context)?,
            Some(_) => Reservation::none(),
        };
        Ok(Change::Put { new, reservation, owners })
    }
}
