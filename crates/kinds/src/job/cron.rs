//! batch/v1 CronJob.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob as Object, CronJobSpec, CronJobStatus, JobSpec};
use machinery::age::since;
use machinery::cron::Schedule;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, Subresource, cell_age, cell_name, spec_and_status};
use serde_json::Value;

use super::{default_parts, validation};
use crate::check::{Report, non_negative, one_of};
use crate::common::{
    container_cells, container_columns, default_text, format_selector, list, or_none, template_containers, text,
};
use crate::pod::template_warnings;

/// The longest name: its Jobs are called `NAME-TIME`, with a time of ten digits, and that must be a label.
const LONGEST_NAME: usize = 52;

/// CronJobs.
pub(crate) struct CronJob;

impl Kind for CronJob {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        ..Descriptor::namespaced("batch", "v1", "CronJob", "cronjobs")
    };

    fn default(object: &mut Object) {
        let spec = &mut object.spec;
        default_text(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        spec.job_template.metadata.get_or_insert_default();
        default_parts(spec.job_template.spec.get_or_insert_default());
    }

    spec_and_status!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let no_job = JobSpec::default();
        let spec = &object.spec;
        let path = Path::new("spec");
        let name = text(&object.metadata.name);
        if name.len() > LONGEST_NAME {
            errors.invalid(
                &Path::new("metadata").child("name"),
                name,
                format!("must be no more than {LONGEST_NAME} characters"),
            );
        }
        validate_schedule(&mut errors, &path, spec);
        if let Some(seconds) = spec.starting_deadline_seconds {
            non_negative(&mut errors, &path.child("startingDeadlineSeconds"), seconds);
        }
        one_of(
            &mut errors,
            &path.child("concurrencyPolicy"),
            text(&spec.concurrency_policy),
            &["Allow", "Forbid", "Replace"],
        );
        for (name, limit) in [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ] {
            non_negative(&mut errors, &path.child(name), limit.unwrap_or_default());
        }
        let job = spec.job_template.spec.as_ref().unwrap_or(&no_job);
        let path = path.child("jobTemplate").child("spec");
        validation::validate(&mut errors, &path, job);
        if job.manual_selector == Some(true) {
            errors.not_supported(&path.child("manualSelector"), "true", &["nil", "false"]);
        }
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.job_template.spec.as_ref().map(|job| &job.template);
        template_warnings(new, old, true, &["spec", "jobTemplate", "spec", "template"], template)
    }

    fn columns() -> Vec<Column> {
        let [containers, images] = container_columns();
        vec![
            Column::name(),
            Column::string("Schedule", "When Jobs are made, as in a crontab."),
            Column::string("Timezone", "Time zone of the schedule."),
            Column { kind: "boolean".to_owned(), ..Column::string("Suspend", "Whether it rests.") },
            Column::integer("Active", "Jobs that are running."),
            Column::string("Last Schedule", "Time since a Job was made last."),
            Column::age(),
            containers,
            images,
            Column::wide("Selector", "Selector of the pods."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_status, no_job) = (CronJobStatus::default(), JobSpec::default());
        let spec = &object.spec;
        let status = object.status.as_ref().unwrap_or(&no_status);
        let job = spec.job_template.spec.as_ref().unwrap_or(&no_job);
        let [names, images] = container_cells(template_containers(&job.template));
        let last = match &status.last_schedule_time {
            None => "<none>".to_owned(),
            time => since(time.as_ref(), now),
        };
        vec![
            cell_name(&object.metadata),
            spec.schedule.clone().into(),
            or_none(text(&spec.time_zone)),
            match spec.suspend {
                None => "<unset>",
                Some(true) => "True",
                Some(false) => "False",
            }
            .into(),
            list(&status.active).len().into(),
            last.into(),
            cell_age(&object.metadata, now),
            names,
            images,
            or_none(&job.selector.as_ref().map(format_selector).unwrap_or_default()),
        ]
    }
}

fn validate_schedule(errors: &mut ErrorList, path: &Path, spec: &CronJobSpec) {
    let field = path.child("schedule");
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        errors.required(&field, "");
    } else if schedule.contains("TZ") {
        errors.invalid(&field, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(why) = Schedule::parse(schedule) {
        errors.invalid(&field, schedule, why);
    }
    let Some(zone) = &spec.time_zone else { return };
    let field = path.child("timeZone");
    if zone.is_empty() {
        errors.invalid(&field, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("Local") {
        errors.invalid(
            &field,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if TimeZone::get(zone).is_err() {
        errors.invalid(&field, zone, format!("unknown time zone {zone}"));
    }
}
