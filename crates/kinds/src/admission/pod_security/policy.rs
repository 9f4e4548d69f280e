//! The policy of a namespace: which Pod Security Standard is asked for, in which version
//! (`staging/src/k8s.io/pod-security-admission/api/helpers.go`).

use std::fmt;

use machinery::field::{ErrorList, Path};

use crate::check::Report;

/// The levels, as a message lists them.
const LEVELS: &str = "must be one of privileged, baseline, restricted";
const VERSIONS: &str = r#"must be "latest" or "v1.x""#;

/// A level of the Pod Security Standards, the least strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everything is allowed.
    Privileged,
    /// Known ways out of the container are not.
    Baseline,
    /// Pods are hardened as is current practice.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// A version of the standards: that of the Kubernetes release `v1.N`, or the newest. One that is not known yet is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(i64),
    Latest,
}

impl Version {
    /// `latest` or `v1.N`, without leading zeros.
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let canonical = minor == "0" || !minor.starts_with('0');
        let digits = canonical && minor.bytes().all(|byte| byte.is_ascii_digit());
        minor.parse().ok().filter(|_| digits).map(Self::Minor)
    }
}

/// A level in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl LevelVersion {
    pub(super) const PRIVILEGED: Self = Self { level: Level::Privileged, version: Version::Latest };
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

/// What is asked of the pods of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// Pods that violate it are refused.
    pub(super) enforce: LevelVersion,
    /// Pods, and templates of pods, that violate it are noted in the audit log.
    pub(super) audit: LevelVersion,
    /// Of pods, and templates of pods, that violate it, the client is warned.
    pub(super) warn: LevelVersion,
}

impl Policy {
    /// The policy where nothing else is said.
    pub(super) const PRIVILEGED: Self =
        Self { enforce: LevelVersion::PRIVILEGED, audit: LevelVersion::PRIVILEGED, warn: LevelVersion::PRIVILEGED };

    /// What a policy consists of, as a configuration names it.
    pub(super) const KEYS: [&str; 6] = ["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"];
    /// The same as labels.
    const LABELS: [&str; 6] = [
        "pod-security.kubernetes.io/enforce",
        "pod-security.kubernetes.io/enforce-version",
        "pod-security.kubernetes.io/audit",
        "pod-security.kubernetes.io/audit-version",
        "pod-security.kubernetes.io/warn",
        "pod-security.kubernetes.io/warn-version",
    ];

    /// The policy that labels ask for, and what is wrong with them.
    pub(super) fn from_labels<'l>(defaults: Self, label: impl Fn(&str) -> Option<&'l str>) -> (Self, ErrorList) {
        let path = |key: usize| Path::new("metadata").child("labels").key(Self::LABELS[key]);
        let said = |key: usize| label(Self::LABELS[key]);
        let (mut policy, errors) = Self::read(defaults, said, path);
        // Templates are refused nothing: who only enforces is warned as well (`policy/helpers.go`, `PolicyToEvaluate`).
        let enforces = said(0).and_then(Level::parse).is_some();
        if enforces && said(4).is_none() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if said(5).is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// The policy that values ask for, each by its place in [`KEYS`](Self::KEYS), and what is wrong with them. Of a level that is
    /// none, pods are held to the strictest; warnings and audit are then left alone, as upstream does.
    pub(super) fn read<'l>(
        defaults: Self,
        value: impl Fn(usize) -> Option<&'l str>,
        path: impl Fn(usize) -> Path,
    ) -> (Self, ErrorList) {
        let (mut policy, mut errors) = (defaults, ErrorList::new());
        for (key, asked, fallback) in [
            (0, &mut policy.enforce, Level::Restricted),
            (2, &mut policy.audit, Level::Privileged),
            (4, &mut policy.warn, Level::Privileged),
        ] {
            if let Some(text) = value(key) {
                asked.level = Level::parse(text).unwrap_or_else(|| {
                    errors.invalid(&path(key), text, LEVELS);
                    fallback
                });
            }
            if let Some(text) = value(key + 1) {
                asked.version = Version::parse(text).unwrap_or_else(|| {
                    errors.invalid(&path(key + 1), text, VERSIONS);
                    Version::Latest
                });
            }
        }
        (policy, errors)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Labels, what is enforced and warned of by them, and what is wrong with them.
    type Case = (&'static [(&'static str, &'static str)], LevelVersion, LevelVersion, &'static str);

    #[test]
    fn labels_say_what_is_asked() {
        let at = |level, version| LevelVersion { level, version };
        let restricted = at(Level::Restricted, Version::Latest);
        let privileged = LevelVersion::PRIVILEGED;
        let cases: [Case; 12] = [
            (&[], privileged, privileged, ""),
            (
                &[("enforce", "baseline")],
                at(Level::Baseline, Version::Latest),
                at(Level::Baseline, Version::Latest),
                "",
            ),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25")],
                at(Level::Restricted, Version::Minor(25)),
                at(Level::Restricted, Version::Minor(25)),
                "",
            ),
            (&[("enforce", "restricted"), ("warn", "privileged")], restricted, privileged, ""),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25"), ("warn", "restricted")],
                at(Level::Restricted, Version::Minor(25)),
                restricted,
                "",
            ),
            (&[("enforce-version", "latest")], privileged, privileged, ""),
            (&[("audit", "restricted"), ("audit-version", "v1.0")], privileged, privileged, ""),
            (
                &[("enforce", "strict"), ("warn", "strict")],
                restricted,
                privileged,
                "[metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, \
                 baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be one \
                 of privileged, baseline, restricted]",
            ),
            (
                &[("audit-version", "v2.0")],
                privileged,
                privileged,
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v2.0\": must be \"latest\" or \
                 \"v1.x\"",
            ),
            (
                &[("warn-version", "v1.01")],
                privileged,
                privileged,
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \
                 \"v1.x\"",
            ),
            (
                &[("warn-version", "v1.+1")],
                privileged,
                privileged,
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.+1\": must be \"latest\" or \
                 \"v1.x\"",
            ),
            (&[("warn-version", "v1.999")], privileged, at(Level::Privileged, Version::Minor(999)), ""),
        ];
        for (labels, enforce, warn, errors) in cases {
            let labels: BTreeMap<String, &str> =
                labels.iter().map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), *value)).collect();
            let (policy, found) = Policy::from_labels(Policy::PRIVILEGED, |key| labels.get(key).copied());
            let found = if found.is_empty() { String::new() } else { found.to_string() };
            let audit = match labels.contains_key("pod-security.kubernetes.io/audit") {
                true => at(Level::Restricted, Version::Minor(0)),
                false => LevelVersion { version: policy.audit.version, ..privileged },
            };
            assert_eq!((policy, found.as_str()), (Policy { enforce, audit, warn }, errors), "{labels:?}");
        }
    }

    #[test]
    fn levels_and_versions_are_ordered() {
        assert!(Level::Privileged < Level::Baseline && Level::Baseline < Level::Restricted);
        assert!(Version::Minor(8) < Version::Minor(25) && Version::Minor(i64::MAX) < Version::Latest);
        let pinned = LevelVersion { level: Level::Restricted, version: Version::Minor(25) };
        assert_eq!(
            (pinned.to_string().as_str(), LevelVersion::PRIVILEGED.to_string().as_str()),
            ("restricted:v1.25", "privileged:latest")
        );
    }
}
