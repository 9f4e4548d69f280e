//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use machinery::field::{ErrorList, Path};
use machinery::validate;

use crate::check::{Report, non_negative, one_of, port, port_or_name};
use crate::common::{blank, list, text};

/// Validates the probes and hooks of a container that keeps running.
pub(super) fn validate_running(errors: &mut ErrorList, path: &Path, container: &Container, scope: &Scope<'_>) {
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(errors, &path.child("lifecycle"), lifecycle, scope);
    }
    if let Some(probe) = &container.liveness_probe {
        validate_single_success(errors, &path.child("livenessProbe"), probe);
    }
    if let Some(probe) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        validate_probe(errors, &path, probe);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            errors.invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            );
        }
    }
    if let Some(probe) = &container.startup_probe {
        validate_single_success(errors, &path.child("startupProbe"), probe);
    }
}

/// Refuses probes and hooks on an init container that runs to its end.
pub(super) fn refuse(errors: &mut ErrorList, path: &Path, container: &Container) {
    for (set, name) in [
        (container.lifecycle.is_some(), "lifecycle"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
    ] {
        if set {
            errors.forbidden(&path.child(name), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

/// What the pod around a container says about its hooks.
pub(super) struct Scope<'a> {
    /// `spec.terminationGracePeriodSeconds`.
    pub(super) grace_period: Option<i64>,
    /// `spec.os.name`.
    pub(super) os: &'a str,
}

fn validate_single_success(errors: &mut ErrorList, path: &Path, probe: &Probe) {
    validate_probe(errors, path, probe);
    let threshold = probe.success_threshold.unwrap_or_default();
    if threshold != 1 {
        errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
    }
}

fn validate_probe(errors: &mut ErrorList, path: &Path, probe: &Probe) {
    let mut handlers = Handlers::new(errors, path);
    handlers.exec(probe.exec.as_ref());
    handlers.http_get(probe.http_get.as_ref());
    handlers.tcp_socket(probe.tcp_socket.as_ref());
    if let Some(grpc) = &probe.grpc
        && let Some(path) = handlers.next("grpc")
    {
        port(handlers.errors, &path.child("port"), grpc.port);
    }
    handlers.finish();
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        non_negative(errors, &path.child(name), value.unwrap_or_default());
    }
    if let Some(seconds) = probe.termination_grace_period_seconds
        && seconds <= 0
    {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn validate_lifecycle(errors: &mut ErrorList, path: &Path, lifecycle: &Lifecycle, scope: &Scope<'_>) {
    if let Some(handler) = &lifecycle.post_start {
        validate_hook(errors, &path.child("postStart"), handler, scope);
    }
    if let Some(handler) = &lifecycle.pre_stop {
        validate_hook(errors, &path.child("preStop"), handler, scope);
    }
    if lifecycle.stop_signal.is_some() && scope.os.is_empty() {
        errors.forbidden(&path.child("stopSignal"), "may not be set for containers with an empty `spec.os.name`");
    }
}

fn validate_hook(errors: &mut ErrorList, path: &Path, handler: &LifecycleHandler, scope: &Scope<'_>) {
    let mut handlers = Handlers::new(errors, path);
    handlers.exec(handler.exec.as_ref());
    handlers.http_get(handler.http_get.as_ref());
    handlers.tcp_socket(handler.tcp_socket.as_ref());
    handlers.sleep(handler.sleep.as_ref(), scope.grace_period);
    handlers.finish();
}

/// Counts the handlers of a probe or hook, of which there must be exactly one.
struct Handlers<'a> {
    errors: &'a mut ErrorList,
    path: &'a Path,
    seen: usize,
}

impl<'a> Handlers<'a> {
    fn new(errors: &'a mut ErrorList, path: &'a Path) -> Self {
        Self { errors, path, seen: 0 }
    }

    /// The path of the next handler, if it is the first.
    fn next(&mut self, name: &'static str) -> Option<Path> {
        let path = self.path.child(name);
        self.seen += 1;
        if self.seen == 1 {
            return Some(path);
        }
        self.errors.forbidden(&path, "may not specify more than 1 handler type");
        None
    }

    fn exec(&mut self, action: Option<&ExecAction>) {
        let Some(action) = action else { return };
        let Some(path) = self.next("exec") else { return };
        if list(&action.command).is_empty() {
            self.errors.required(&path.child("command"), "");
        }
    }

    fn http_get(&mut self, action: Option<&HTTPGetAction>) {
        let Some(action) = action else { return };
        let Some(path) = self.next("httpGet") else { return };
        if blank(&action.path) {
            self.errors.required(&path.child("path"), "");
        }
        port_or_name(self.errors, &path.child("port"), &action.port);
        one_of(self.errors, &path.child("scheme"), text(&action.scheme), &["HTTP", "HTTPS"]);
        for header in list(&action.http_headers) {
            self.errors.messages(&path.child("httpHeaders"), &header.name, validate::http_header_name(&header.name));
        }
    }

    fn tcp_socket(&mut self, action: Option<&TCPSocketAction>) {
        let Some(action) = action else { return };
        let Some(path) = self.next("tcpSocket") else { return };
        port_or_name(self.errors, &path.child("port"), &action.port);
    }

    fn sleep(&mut self, action: Option<&SleepAction>, grace_period: Option<i64>) {
        let Some(action) = action else { return };
        let Some(path) = self.next("sleep") else { return };
        if let Some(grace) = grace_period
            && !(0..=grace).contains(&action.seconds)
        {
            self.errors.invalid(
                &path,
                action.seconds,
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
            );
        }
    }

    fn finish(self) {
        if self.seen == 0 {
            self.errors.required(self.path, "must specify a handler type");
        }
    }
}
