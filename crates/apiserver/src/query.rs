//! The query of a request.

use std::borrow::Cow;
use std::time::Duration;

use machinery::status::ApiError;

/// The parameters of a query, in order. Of a parameter given twice the first value counts, as upstream has it.
#[derive(Debug, Default)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(query: Option<&'a str>) -> Self {
        match query {
            None | Some("") => Self::default(),
            Some(query) => Self(url::form_urlencoded::parse(query.as_bytes()).collect()),
        }
    }

    /// The value of a parameter; `None` when it is not there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter, empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// All values of a parameter.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// Upstream's rule: whatever is there and is not `false` or `0` is true, the empty value too.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// As [`Query::flag`], and `None` when it is not there.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|_| self.flag(name))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        value.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: {why}"))
        })
    }

    /// How long the client waits for its answer at most.
    ///
    /// # Errors
    /// 400 when it is no duration as Go writes them.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let Some(value) = self.get("timeout").filter(|value| !value.is_empty()) else { return Ok(None) };
        let negative = value.strip_prefix('-');
        let timeout = machinery::expression::duration(negative.unwrap_or(value)).ok_or_else(|| {
            let why = format!("time: invalid duration {value:?}");
            ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}"))
        })?;
        // To upstream, too, no time at all says nothing, and neither does less than that.
        Ok(Some(timeout).filter(|timeout| negative.is_none() && !timeout.is_zero()))
    }

    /// Whether nothing is to be stored.
    ///
    /// # Errors
    /// 422 for any value but `All`, about `options` (the kind of the options: `CreateOptions`).
    pub(crate) fn dry_run(&self, options: &'static str) -> Result<bool, ApiError> {
        registry::request::parse_dry_run(self.all("dryRun"), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let query = Query::parse(Some("limit=5&watch&a=%2Fb+c&follow=false&x=0&a=2&command=ls&command=-l&y=1"));
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert_eq!(query.integer("missing").unwrap(), None);
        assert_eq!(query.text("a"), "/b c");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        for (name, expect) in
            [("watch", Some(true)), ("follow", Some(false)), ("x", Some(false)), ("y", Some(true)), ("z", None)]
        {
            assert_eq!(query.optional_flag(name), expect, "{name}");
        }
    }

    #[test]
    fn complaints() {
        let message = |query: &str| {
            let query = Query::parse(Some(query));
            query.integer("limit").err().or_else(|| query.dry_run("CreateOptions").err()).map(|error| error.to_string())
        };
        for (query, expect) in [
            ("limit=abc", Some(r#"strconv.ParseInt: parsing "abc": invalid syntax"#)),
            (
                "limit=99999999999999999999",
                Some(r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#),
            ),
            ("limit=", None),
            ("dryRun=All", None),
            ("dryRun=All&dryRun=All", None),
            (
                "dryRun=Some",
                Some(
                    r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#,
                ),
            ),
        ] {
            assert_eq!(message(query).as_deref(), expect, "{query}");
        }
    }
}
