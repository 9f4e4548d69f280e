//! Lists: `isSorted`, `sum`, `min`, `max` and `indexOf`. Lists as sets are in [`super::core`].

use std::cmp::Ordering;

use cel::common::types::{CelInt, DYN_TYPE, Kind, LIST_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{Answer, flag, wrong};
use crate::expression::value::{count, equal, owned, references};

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_member_overload("isSorted", "list_is_sorted", LIST_TYPE, vec![], |arguments| {
        let items = items(&arguments, 0);
        for pair in items.windows(2) {
            if compare(pair[0], pair[1])? == Ordering::Greater {
                return flag(false);
            }
        }
        flag(true)
    })?;
    env.add_member_overload("sum", "list_sum", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "list_min", LIST_TYPE, vec![], |arguments| {
        extreme(&items(&arguments, 0), Ordering::Less, "min")
    })?;
    env.add_member_overload("max", "list_max", LIST_TYPE, vec![], |arguments| {
        extreme(&items(&arguments, 0), Ordering::Greater, "max")
    })?;
    env.add_member_overload("indexOf", "list_index_of", LIST_TYPE, vec![DYN_TYPE], |arguments| {
        place(items(&arguments, 0).iter().position(|item| is(*item, arguments[1].as_ref())))
    })?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", LIST_TYPE, vec![DYN_TYPE], |arguments| {
        place(items(&arguments, 0).iter().rposition(|item| is(*item, arguments[1].as_ref())))
    })
}

fn items<'b, 'v>(arguments: &'b [CowVal<'b, 'v>], index: usize) -> Vec<&'b (dyn Val + 'v)> {
    arguments.get(index).and_then(|list| references(list.as_ref())).unwrap_or_default()
}

fn is(item: &dyn Val, other: &dyn Val) -> bool {
    equal(item, other, &mut 0)
}

fn place<'b, 'v>(found: Option<usize>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(found.map_or_else(|| CelInt::from(-1), count)))
}

fn compare(left: &dyn Val, right: &dyn Val) -> Result<Ordering, ExecutionError> {
    let no_overload = || {
        let types = [left, right].map(|value| value.get_type().name().to_owned());
        ExecutionError::no_such_overload("_<_", types.to_vec())
    };
    left.as_comparer().ok_or_else(no_overload)?.compare(right)
}

fn sum<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    let mut items = items(&arguments, 0).into_iter();
    // Upstream: nothing adds up to 0.
    let Some(mut total) = items.next().map(owned) else { return Ok(CowVal::owned(CelInt::from(0))) };
    // As upstream has it; texts and lists would be copied with each item.
    if !matches!(total.get_type().kind(), Kind::Int | Kind::UInt | Kind::Double | Kind::Duration) {
        return Err(ExecutionError::no_such_overload("sum", vec![total.get_type().name().to_owned()]));
    }
    for item in items {
        let adder = total.as_adder().ok_or_else(|| ExecutionError::no_such_overload("_+_", Vec::new()))?;
        let next = owned(adder.add(item)?.as_ref());
        total = next;
    }
    Ok(CowVal::Owned(total))
}

fn extreme<'b, 'v>(items: &[&dyn Val], wanted: Ordering, name: &str) -> Answer<'b, 'v> {
    let Some((first, rest)) = items.split_first() else {
        return Err(wrong(format!("{name} called on empty list")));
    };
    let mut best = first;
    for item in rest {
        if compare(*item, *best)? == wanted {
            best = item;
        }
    }
    Ok(CowVal::Owned(owned(*best)))
}
