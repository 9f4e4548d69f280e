//! Steps 2 to 8 of an update, whatever it is made of: a body, a patch, a configuration, a number of replicas.

use jiff::Timestamp;
use machinery::field::ErrorList;
use machinery::status::{ApiError, MODIFIED};
use store::Entry;

use super::commit::{Attempt, Change, Outcome};
use super::owners::Writer;
use super::{check_preconditions, may_go, refuse_invalid};
use crate::Registry;
use crate::gate;
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
        let Revision { target, options, .. } = *revision;
        for _ in 0..revision.attempts {
            let (entry, old) = self.load(target)?;
            let draft = propose(&entry, old.as_ref(), warnings)?;
            let change = self.settle(revision, draft, &entry, old.as_ref(), warnings)?;
            match self.apply(target.resource.as_ref(), &entry, change, options.dry_run).await? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Conflict => {}
            }
        }
        Err(ApiError::conflict(&target.resource.info().group_resource, &target.name, MODIFIED))
    }

    /// Steps 2 to 6: what becomes of the stored object.
    fn settle(
        &self,
        revision: &Revision<'_>,
        draft: Draft,
        entry: &Entry,
        old: &dyn Object,
        warnings: &mut Vec<String>,
    ) -> Result<Change, ApiError> {
        let Revision { target, options, now, .. } = *revision;
        let (resource, info) = (&target.resource, target.resource.info());
        let Draft { mut new, owners } = draft;
        check_preconditions(info, new.as_ref(), old, entry)?;
        resource.default(new.as_mut());
        let owners = match owners {
            Some(owners) => Some(owners),
            None => revision.writer().updated(&entry.value, new.as_mut())?,
        };
        meta::prepare_update(new.meta_mut(), old.meta());
        let mut errors = ErrorList::new();
        match revision.hooks() {
            None => {
                resource.prepare_update(new.as_mut(), old);
                errors.extend(meta::validate(new.meta(), info));
                errors.extend(meta::validate_update(new.meta(), old.meta()));
                errors.extend(resource.validate_change(new.as_ref(), old));
            }
            Some(subresource) => {
                *new.meta_mut() = old.meta().clone();
                resource.prepare_subresource(subresource, new.as_mut(), old);
                errors.extend(match subresource {
                    Subresource::Status => resource.validate_status(new.as_ref(), old),
                    other => resource.validate_subresource(other, new.as_ref(), old),
                });
            }
        }
        refuse_invalid(info, new.as_ref(), &errors)?;
        warnings.extend(resource.warnings(new.as_ref(), Some(old)));
        self.pass_gate(gate::Attempt {
            user: &options.user,
            target,
            subresource: revision.hooks(),
            new: Some(new.as_ref()),
            old: Some(old),
        })?;
        if may_go(resource, new.as_ref()) {
            return Ok(Change::Remove { last: new });
        }
        let context = self.context(target, options, now);
        let reservation = match revision.hooks() {
            None => resource.allocate(new.as_mut(), Some(old), &context)?,
            Some(_) => Reservation::none(),
        };
        Ok(Change::Put { new, reservation, owners })
    }
}
