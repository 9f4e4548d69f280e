//! What the compiler writes into expressions: charges and comparisons.

use cel::common::types::{CelBool, CelInt, DYN_TYPE, INT_TYPE};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use super::{argument, flag, regex, text, wrong};
use crate::expression::budget::{BUDGET_TYPE, Budget, CHARGE, DIFFERENT, EACH, EQUAL, MATCHES, WITHIN, size};
use crate::expression::value::equal;

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let budget = || BUDGET_TYPE.to_owned();
    env.add_overload(CHARGE, CHARGE, vec![budget(), DYN_TYPE], |arguments| {
        let [budget, value] = pair(arguments)?;
        spend(&budget, size(value.as_ref()))?;
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
        let (Ok(subject), Ok(pattern)) = (text(&arguments, 1), text(&arguments, 2)) else {
            return Err(ExecutionError::no_such_overload("matches", Vec::new()));
        };
        // Upstream: the length of the text times that of the expression.
        let cost = (subject.len() as u64 / 10 + 1).saturating_mul(pattern.len() as u64 / 4 + 1);
        spend(&arguments[0], cost)?;
        let found = regex::compiled(pattern)?.is_match(subject);
        Ok(CowVal::owned(CelBool::from(found)))
    })
}

fn pair<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<[CowVal<'b, 'v>; 2], ExecutionError> {
    <[CowVal<'b, 'v>; 2]>::try_from(arguments).map_err(|_| wrong("argument is missing"))
}

fn spend(budget: &CowVal<'_, '_>, amount: u64) -> Result<(), ExecutionError> {
    let enough = budget.downcast_ref::<Budget>().is_some_and(|budget| budget.spend(amount));
    if enough { Ok(()) } else { Err(wrong("operation cancelled: actual cost limit exceeded")) }
}

fn same(arguments: &[CowVal<'_, '_>]) -> Result<bool, ExecutionError> {
    let [budget, left, right] = arguments else { return Err(wrong("argument is missing")) };
    let mut compared = 0;
    let same = equal(left.as_ref(), right.as_ref(), &mut compared);
    spend(budget, compared)?;
    Ok(same)
}
