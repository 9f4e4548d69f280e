//! Formats by name: `format.dns1123Label().validate(self.name)`.

use cel::common::types::{CelOptional, CelString, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env};

use super::{argument, opaque, text};
use crate::expression::value::List;
use crate::schema::format;
use crate::validate;

opaque!(
    /// A format: its place among the rules.
    Format(usize),
    "kubernetes.NamedFormat"
);

/// What is wrong with a text.
type Rule = fn(&str) -> Vec<String>;

/// A prefix may end in a dash, since something is written behind it.
fn prefix(rule: Rule, text: &str) -> Vec<String> {
    rule(text.strip_suffix('-').filter(|rest| !rest.is_empty()).unwrap_or(text))
}

fn by_name(name: &str, text: &str) -> Vec<String> {
    let fits = format::Format::from_name(name).is_none_or(|format| format.accepts(text));
    if fits { Vec::new() } else { vec![format!("does not match the format {name:?}")] }
}

const RULES: [(&str, Rule); 13] = [
    ("dns1123Label", validate::dns_label),
    ("dns1123Subdomain", validate::dns_subdomain),
    ("dns1035Label", validate::dns1035_label),
    ("qualifiedName", validate::qualified_name),
    ("dns1123LabelPrefix", |text| prefix(validate::dns_label, text)),
    ("dns1123SubdomainPrefix", |text| prefix(validate::dns_subdomain, text)),
    ("dns1035LabelPrefix", |text| prefix(validate::dns1035_label, text)),
    ("labelValue", validate::label_value),
    ("uri", |text| by_name("uri", text)),
    ("uuid", |text| by_name("uuid", text)),
    ("byte", |text| by_name("byte", text)),
    ("date", |text| by_name("date", text)),
    ("datetime", |text| by_name("datetime", text)),
];

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    /// Declares the formats, each a function without captures.
    macro_rules! formats {
        ($($index:literal)*) => {$(
            let name = format!("format.{}", RULES[$index].0);
            env.add_overload(&name, &name, vec![], |_| Ok(CowVal::owned(Format($index))))?;
        )*};
    }
    formats!(0 1 2 3 4 5 6 7 8 9 10 11 12);
    env.add_overload("format.named", "format_named", vec![STRING_TYPE], |arguments| {
        let name = text(&arguments, 0)?;
        let found = RULES.iter().position(|(known, _)| *known == name);
        Ok(CowVal::owned(found.map_or_else(CelOptional::none, |rule| CelOptional::of(Box::new(Format(rule))))))
    })?;
    let kind = Format::cel_type().to_owned();
    env.add_member_overload("validate", "format_validate", kind, vec![STRING_TYPE], |arguments| {
        let (_, rule) = RULES[argument::<Format>(&arguments, 0)?.0];
        let wrong = rule(text(&arguments, 1)?);
        if wrong.is_empty() {
            return Ok(CowVal::owned(CelOptional::none()));
        }
        let wrong = wrong.into_iter().map(|line| Box::new(CelString::from(line)) as Box<dyn Val>);
        Ok(CowVal::owned(CelOptional::of(Box::new(List::atomic(wrong.collect())))))
    })
}
