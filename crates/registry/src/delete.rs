//! Delete: at once, gracefully, or when the last finalizer has gone.
//!
//! [`plan`] decides, without IO, what a DELETE makes of an object; it is committed like any other change.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use machinery::gvk::GroupResource;
use machinery::status::ApiError;
use serde_json::json;

use crate::Registry;
use crate::meta::{self, FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use crate::object::Object;
use crate::pipeline::{Action, Change, Outcome, Proposal, Proposed, Stored, Write};
use crate::request::{DeleteRequest, Deleted, ListPage, ListRequest, Propagation, Target};
use crate::table::{Resource, ResourceInfo};

/// How many objects of a collection are deleted at a time; the store syncs once for all that wait.
const CONCURRENT: usize = 32;

impl Registry {
    /// Deletes an object, or notes in it that it is to go.
    ///
    /// # Errors
    /// 404 when it does not exist, 409 when a precondition does not hold, 422 for options that contradict each other.
    pub async fn delete(&self, target: &Target, request: &DeleteRequest) -> Result<Deleted, ApiError> {
        request.check()?;
        self.delete_as(Action::Delete, target, request).await
    }

    /// Deletes an object, by a DELETE or what stands for one.
    pub(crate) async fn delete_as(
        &self,
        action: Action,
        target: &Target,
        request: &DeleteRequest,
    ) -> Result<Deleted, ApiError> {
        let (resource, info) = (&target.resource, target.resource.info());
        let options = request.write_options();
        let write = Write::new(self, action, target, None, &options);
        let mut deletion = ProposedDeletion { target, request, now: write.now, uid: None };
        let completed = self.run(&write, &mut deletion).await?;
        let (stored, _) = completed.stored()?;
        let gone = matches!(completed.outcome, Outcome::Removed(_));
        let body = if gone && !info.returns_deleted_object {
            success(info, &target.name, deletion.uid.as_deref())
        } else {
            resource.served(&stored).map_err(ApiError::internal)?
        };
        // Upstream: 202 only for the older way of asking for a foreground deletion.
        let accepted = !gone && request.orphan_dependents == Some(false);
        Ok(Deleted { body, gone, accepted, warnings: completed.warnings })
    }

    /// Deletes all objects of a collection that are selected; answers with the list of them.
    ///
    /// # Errors
    /// As [`Registry::list`] and [`Registry::delete`]; the first error ends it, except that objects which are gone
    /// meanwhile are passed over.
    pub async fn delete_collection(
        &self,
        target: &Target,
        selected: &ListRequest,
        request: &DeleteRequest,
    ) -> Result<Bytes, ApiError> {
        request.check()?;
        let resource = &target.resource;
        let page = self.list(target, selected).await?;
        let revision = page.revision;
        let entries: Vec<_> = stream::iter(page.entries)
            .map(|entry| async move {
                let object = Target::object(resource, &*entry.key.namespace, &*entry.key.name);
                match self.delete(&object, request).await {
                    Ok(_) => Ok(Some(entry)),
                    Err(error) if error.code == 404 => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(CONCURRENT)
            .try_filter_map(|deleted| async move { Ok::<_, ApiError>(deleted) })
            .try_collect()
            .await?;
        let list = ListPage { entries, revision, continue_token: None, remaining: None };
        self.list_body(resource, &list)
    }
}

/// What a DELETE does in the pipeline.
struct ProposedDeletion<'a> {
    target: &'a Target,
    request: &'a DeleteRequest,
    now: Timestamp,
    /// That of the object, once it has been read.
    uid: Option<String>,
}

impl Proposal for ProposedDeletion<'_> {
    fn decode(&mut self, old: Option<&Stored>, _warnings: &mut Vec<String>) -> Result<Proposed, ApiError> {
        self.uid = old.and_then(|old| old.object.meta().uid.clone());
        Ok(Proposed { object: None, managed_fields: None })
    }

    fn validate(&mut self, _proposed: &mut Proposed, old: Option<&Stored>) -> Result<(), ApiError> {
        let Stored { entry, object } = old.ok_or_else(nothing)?;
        let (resource, info) = (&self.target.resource, self.target.resource.info());
        check_preconditions(info, object.meta(), &entry.revision.to_string(), self.request)?;
        match resource.strategy().deletion(object.as_ref(), None)?.refusal {
            Some(why) => Err(ApiError::forbidden(&info.group_resource, &self.target.name, why)),
            None => Ok(()),
        }
    }

    fn change(&mut self, _proposed: &mut Proposed, old: Option<&Stored>) -> Result<Change, ApiError> {
        let old = old.ok_or_else(nothing)?.object.boxed_clone();
        plan(&self.target.resource, old, self.request, self.now)
    }
}

fn nothing() -> ApiError {
    ApiError::internal("there is nothing to delete")
}

/// What a DELETE makes of an object.
fn plan(
    resource: &Resource,
    mut object: Box<dyn Object>,
    request: &DeleteRequest,
    now: Timestamp,
) -> Result<Change, ApiError> {
    // Upstream: a negative grace period means a second.
    let requested = request.grace_period.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let strategy = resource.strategy();
    let grace = strategy.deletion(object.as_ref(), requested)?.grace_period;
    let meta = object.meta_mut();
    let deleting = meta.deletion_timestamp.clone();
    match (&deleting, grace, meta.deletion_grace_period_seconds) {
        // The object is already ending in good order: that may only be made shorter.
        (Some(ends), Some(_), Some(current)) => match requested {
            Some(shorter) if shorter < current => {
                meta.deletion_timestamp = Some(moved(ends, shorter - current));
                meta.deletion_grace_period_seconds = Some(shorter);
            }
            _ => return Ok(Change::Keep),
        },
        (Some(_), _, _) => {
            meta.finalizers = finalizers(meta, request, resource.info());
        }
        (None, grace, _) => {
            meta.finalizers = finalizers(meta, request, resource.info());
            let seconds = grace.unwrap_or_default();
            meta.deletion_timestamp = Some(moved(&meta::time(now), seconds));
            meta.deletion_grace_period_seconds = Some(seconds);
            // Upstream: who acts on an object must act differently now, so this counts as a change of what is desired.
            if let Some(generation) = meta.generation.as_mut().filter(|generation| **generation > 0) {
                *generation += 1;
            }
            strategy.mark_deleted(object.as_mut())?;
            if strategy.has_other_finalizers(object.as_ref())? {
                object.meta_mut().deletion_grace_period_seconds = None;
            }
        }
    }
    Ok(Change::Put(object))
}

fn moved(time: &Time, seconds: i64) -> Time {
    let moved = time.0.checked_add(SignedDuration::from_secs(seconds));
    Time(moved.unwrap_or(Timestamp::MAX))
}

/// The finalizers of an object once the garbage collector has been told what to do about its dependents.
fn finalizers(meta: &ObjectMeta, request: &DeleteRequest, info: &ResourceInfo) -> Option<Vec<String>> {
    let present = meta.finalizers.as_deref().unwrap_or_default();
    let has = |name: &str| present.iter().any(|finalizer| finalizer == name);
    // What the request says goes before what the object says, and that before the kind's default.
    let policy = match (request.orphan_dependents, request.propagation) {
        (Some(true), _) => Propagation::Orphan,
        (Some(false), _) => Propagation::Background,
        (None, Some(asked)) => asked,
        (None, None) if has(FINALIZER_ORPHAN) => Propagation::Orphan,
        (None, None) if has(FINALIZER_FOREGROUND) => Propagation::Foreground,
        (None, None) if info.orphan_by_default => Propagation::Orphan,
        (None, None) => Propagation::Background,
    };
    let ours = |name: &String| name == FINALIZER_ORPHAN || name == FINALIZER_FOREGROUND;
    let mut finalizers: Vec<String> = present.iter().filter(|name| !ours(name)).cloned().collect();
    match policy {
        Propagation::Orphan => finalizers.push(FINALIZER_ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FINALIZER_FOREGROUND.into()),
        Propagation::Background => {}
    }
    (!finalizers.is_empty()).then_some(finalizers)
}

fn check_preconditions(
    info: &ResourceInfo,
    meta: &ObjectMeta,
    version: &str,
    request: &DeleteRequest,
) -> Result<(), ApiError> {
    let name = meta.name.as_deref().unwrap_or_default();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let (field, asked, found, what) = match (&request.uid, &request.resource_version) {
        (Some(asked), _) if asked != uid => ("UID", asked, uid, "deleted and then recreated"),
        (_, Some(asked)) if asked != version => ("ResourceVersion", asked, version, "modified"),
        _ => return Ok(()),
    };
    let the = |whose: &str, value: &str| format!("the {field} in {whose} ({value})");
    let (asked, found) = (the("the precondition", asked), the("record", found));
    let why = format!("{asked} does not match {found}. The object might have been {what}");
    // Upstream names the kind in place of the resource (`BeforeDelete` in apiserver `pkg/registry/rest/delete.go`).
    let kind = GroupResource { resource: info.kind.clone().into(), ..info.group_resource.clone() };
    Err(ApiError::conflict(&kind, name, why))
}

/// The `Status` that answers a DELETE of an object which is gone.
fn success(info: &ResourceInfo, name: &str, uid: Option<&str>) -> Bytes {
    let mut details = json!({ "name": name, "kind": info.plural, "uid": uid });
    if !info.group.is_empty() {
        details["group"] = info.group.as_str().into();
    }
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    status.to_string().into()
}
