//! What the compiler writes into expressions: charges and comparisons.

use ::regex::Regex;
use cel::common::types::{CelBool, CelInt, CelString, DYN_TYPE, INT_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{Answer, argument, flag, regex, text, written, wrong};
use crate::expression::budget::{
    ADD, BUDGET_TYPE, Budget, CHARGE, DIFFERENT, EACH, EQUAL, FIND, FIND_ALL, JOIN, MATCHES, RANGE, REPLACE,
    SETS_CONTAINS, SETS_EQUIVALENT, SETS_INTERSECTS, SQUARE, TEXT, WITHIN, reading, size, text_size,
};
use crate::expression::value::{List, equal, references};

/// A value in a list.
type Item<'b, 'v> = &'b (dyn Val + 'v);

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let budget = || BUDGET_TYPE.to_owned();
    env.add_overload(CHARGE, CHARGE, vec![budget(), DYN_TYPE], |arguments| {
        let [budget, value] = pair(arguments)?;
        spend(&budget, reading(value.as_ref()))?;
        Ok(value)
    })?;
    env.add_overload(TEXT, TEXT, vec![budget(), DYN_TYPE], |arguments| {
        let [budget, value] = pair(arguments)?;
        spend(&budget, text_size(value.as_ref()))?;
        Ok(value)
    })?;
    env.add_overload(SQUARE, SQUARE, vec![budget(), DYN_TYPE], |arguments| {
        let [budget, value] = pair(arguments)?;
        let size = size(value.as_ref());
        spend(&budget, size.saturating_mul(size))?;
        Ok(value)
    })?;
    env.add_overload(EACH, EACH, vec![budget(), DYN_TYPE, INT_TYPE], |mut arguments| {
        let weight = u64::try_from(*argument::<CelInt>(&arguments, 2)?.inner()).unwrap_or(1);
        arguments.truncate(2);
        let [budget, range] = pair(arguments)?;
        spend(&budget, size(range.as_ref()).saturating_mul(weight))?;
        Ok(range)
    })?;
    env.add_overload(EQUAL, EQUAL, vec![budget(), DYN_TYPE, DYN_TYPE], |arguments| flag(same(&arguments)?))?;
    env.add_overload(DIFFERENT, DIFFERENT, vec![budget(), DYN_TYPE, DYN_TYPE], |arguments| flag(!same(&arguments)?))?;
    env.add_overload(WITHIN, WITHIN, vec![budget(), DYN_TYPE, DYN_TYPE], |arguments| {
        let [budget, value, range] = arguments.as_slice() else { return Err(wrong("argument is missing")) };
        spend(budget, 0)?;
        if let Some(container) =
            range.as_container().filter(|_| range.get_type().kind() != cel::common::types::Kind::List)
        {
            spend(budget, 1)?;
            return flag(container.contains(value.as_ref())?);
        }
        let Some(items) = range.as_iterable() else {
            let types = [value, range].map(|argument| argument.get_type().name().to_owned());
            return Err(ExecutionError::no_such_overload("@in", types.to_vec()));
        };
        let (mut items, mut compared) = (items.iter(), 0);
        while let Some(item) = items.next() {
            if equal(item, value.as_ref(), &mut compared) {
                spend(budget, compared)?;
                return flag(true);
            }
        }
        spend(budget, compared)?;
        flag(false)
    })?;
    env.add_overload(MATCHES, MATCHES, vec![budget(), DYN_TYPE, DYN_TYPE], |arguments| {
        let (subject, regex) = searched(&arguments, "matches")?;
        Ok(CowVal::owned(CelBool::from(regex.is_match(subject))))
    })?;
    env.add_overload(ADD, ADD, with_budget(2), add)?;
    env.add_overload(FIND, FIND, with_budget(2), |arguments| {
        let (subject, regex) = searched(&arguments, "find")?;
        written(regex.find(subject).map_or("", |found| found.as_str()))
    })?;
    for (id, count) in [("@findAll_string", 2), ("@findAll_string_int", 3)] {
        env.add_overload(FIND_ALL, id, with_budget(count), |arguments| {
            let (subject, regex) = searched(&arguments, "findAll")?;
            Ok(CowVal::owned(regex::all(subject, &regex, limit(&arguments, 3)?)))
        })?;
    }
    for (id, count) in [("@replace_string", 3), ("@replace_string_int", 4)] {
        env.add_overload(REPLACE, id, with_budget(count), replace)?;
    }
    for (id, count) in [("@join_list", 1), ("@join_list_string", 2)] {
        env.add_overload(JOIN, id, with_budget(count), join)?;
    }
    env.add_overload(RANGE, RANGE, vec![budget(), INT_TYPE], |arguments| {
        let end = *argument::<CelInt>(&arguments, 1)?.inner();
        let length = u64::try_from(end).map_err(|_| wrong(format!("size must be non-negative, got {end}")))?;
        spend(&arguments[0], length.saturating_add(1))?;
        Ok(CowVal::owned(List::atomic((0..end).map(|n| Box::new(CelInt::from(n)) as Box<dyn Val>).collect())))
    })?;
    env.add_overload(SETS_CONTAINS, SETS_CONTAINS, with_budget(2), |arguments| {
        let [left, right] = sets(&arguments)?;
        flag(within(&arguments[0], &right, &left)?)
    })?;
    env.add_overload(SETS_EQUIVALENT, SETS_EQUIVALENT, with_budget(2), |arguments| {
        let [left, right] = sets(&arguments)?;
        flag(within(&arguments[0], &left, &right)? && within(&arguments[0], &right, &left)?)
    })?;
    env.add_overload(SETS_INTERSECTS, SETS_INTERSECTS, with_budget(2), |arguments| {
        let [left, right] = sets(&arguments)?;
        for item in left {
            if holds(&arguments[0], &right, item)? {
                return flag(true);
            }
        }
        flag(false)
    })
}

/// The types of a call with so many arguments behind the budget; what they are is checked when the expression is compiled.
fn with_budget(count: usize) -> Vec<Type> {
    std::iter::once(BUDGET_TYPE.to_owned()).chain((0..count).map(|_| DYN_TYPE)).collect()
}

/// A text and the regular expression that is looked for in it, charged as upstream does: the length of the one times that of
/// the other. One that was not compiled before is charged for besides.
fn searched<'a>(arguments: &'a [CowVal<'_, '_>], name: &str) -> Result<(&'a str, Regex), ExecutionError> {
    let no_overload = || ExecutionError::no_such_overload(name, Vec::new());
    let subject = text(arguments, 1).map_err(|_| no_overload())?;
    let search = |length: usize| {
        let cost = (subject.len() as u64 / 10 + 1).saturating_mul(length as u64 / 4 + 1);
        spend(&arguments[0], cost)
    };
    if let Some(pattern) = arguments.get(2).and_then(|pattern| pattern.downcast_ref::<regex::Pattern>()) {
        search(pattern.text().len())?;
        return Ok((subject, pattern.regex()));
    }
    let pattern = text(arguments, 2).map_err(|_| no_overload())?;
    search(pattern.len())?;
    Ok((subject, regex::compiled(pattern, |cost| spend(&arguments[0], cost))?))
}

/// How many are wanted at most: an argument that may be left out, or below zero for all.
fn limit(arguments: &[CowVal<'_, '_>], index: usize) -> Result<usize, ExecutionError> {
    match arguments.get(index) {
        None => Ok(usize::MAX),
        Some(_) => Ok(usize::try_from(*argument::<CelInt>(arguments, index)?.inner()).unwrap_or(usize::MAX)),
    }
}

/// `left + right`; uniting sets compares everything with everything.
fn add<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let [budget, left, right] = arguments.as_slice() else { return Err(wrong("argument is missing")) };
    spend(budget, 0)?;
    let united = left.downcast_ref::<List>().is_some_and(|list| !list.is_atomic());
    let compared = if united { size(left.as_ref()).saturating_mul(size(right.as_ref())) } else { 0 };
    spend(budget, compared.saturating_add(reading(left.as_ref())).saturating_add(reading(right.as_ref())) / 2)?;
    let no_overload = || {
        let types = [left, right].map(|value| value.get_type().name().to_owned());
        ExecutionError::no_such_overload("_+_", types.to_vec())
    };
    let sum = left.as_adder().ok_or_else(no_overload)?.add(right.as_ref())?;
    Ok(CowVal::Owned(sum.into_owned()))
}

/// `subject.replace(old, new)`, whose result may be the product of what it is given.
fn replace<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let (Ok(subject), Ok(old), Ok(new)) = (text(&arguments, 1), text(&arguments, 2), text(&arguments, 3)) else {
        return Err(ExecutionError::no_such_overload("replace", Vec::new()));
    };
    let limit = limit(&arguments, 4)?;
    spend(&arguments[0], subject.len() as u64 / 10)?;
    let count = subject.matches(old).take(limit).count();
    spend(&arguments[0], (subject.len() + count.saturating_mul(new.len())) as u64 / 10 + 1)?;
    written(subject.replacen(old, new, limit))
}

/// `list.join(separator)`, whose result may be the product of what it is given.
fn join<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let no_overload = || ExecutionError::no_such_overload("join", Vec::new());
    spend(&arguments[0], 0)?;
    let separator = if arguments.len() > 2 { text(&arguments, 2)? } else { "" };
    let mut items = arguments.get(1).and_then(|list| list.as_iterable()).ok_or_else(no_overload)?.iter();
    let (mut parts, mut length) = (Vec::new(), 0_usize);
    while let Some(item) = items.next() {
        let part = item.downcast_ref::<CelString>().ok_or_else(no_overload)?.inner();
        length = length.saturating_add(part.len() + separator.len());
        parts.push(part);
    }
    spend(&arguments[0], length as u64 / 10 + parts.len() as u64 + 1)?;
    written(parts.join(separator))
}

/// The items of two lists that are compared as sets.
fn sets<'b, 'v>(arguments: &'b [CowVal<'b, 'v>]) -> Result<[Vec<Item<'b, 'v>>; 2], ExecutionError> {
    spend(&arguments[0], 0)?;
    let list = |index: usize| arguments.get(index).and_then(|list| references(list.as_ref()));
    let (Some(left), Some(right)) = (list(1), list(2)) else { return Err(wrong("argument is of another type")) };
    spend(&arguments[0], (left.len() + right.len()) as u64)?;
    Ok([left, right])
}

/// Whether a list holds an item.
fn holds(budget: &CowVal<'_, '_>, list: &[Item<'_, '_>], item: Item<'_, '_>) -> Result<bool, ExecutionError> {
    let mut compared = 0;
    let found = list.iter().any(|other| equal(item, *other, &mut compared));
    spend(budget, compared)?;
    Ok(found)
}

/// Whether a list holds all items of another one.
fn within(budget: &CowVal<'_, '_>, some: &[Item<'_, '_>], all: &[Item<'_, '_>]) -> Result<bool, ExecutionError> {
    for item in some {
        if !holds(budget, all, *item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The budget, of which something must be left, since even finding out what something costs takes time, and a value.
fn pair<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<[CowVal<'b, 'v>; 2], ExecutionError> {
    let pair = <[CowVal<'b, 'v>; 2]>::try_from(arguments).map_err(|_| wrong("argument is missing"))?;
    spend(&pair[0], 0)?;
    Ok(pair)
}

fn spend(budget: &CowVal<'_, '_>, amount: u64) -> Result<(), ExecutionError> {
    let enough = budget.downcast_ref::<Budget>().is_some_and(|budget| budget.spend(amount));
    if enough { Ok(()) } else { Err(wrong("operation cancelled: actual cost limit exceeded")) }
}

fn same(arguments: &[CowVal<'_, '_>]) -> Result<bool, ExecutionError> {
    let [budget, left, right] = arguments else { return Err(wrong("argument is missing")) };
    spend(budget, 0)?;
    let mut compared = 0;
    let same = equal(left.as_ref(), right.as_ref(), &mut compared);
    spend(budget, compared)?;
    Ok(same)
}
