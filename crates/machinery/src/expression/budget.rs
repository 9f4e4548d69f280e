//! A rule cannot run for ever: what takes time is charged to a budget.
//!
//! The interpreter has no such thing, so that calls which charge are written into an expression once it is compiled: around
//! what is iterated over, by how often and how much is evaluated for each item, and around what makes, keeps or reads texts,
//! by their length. Comparisons are calls of our own too, since lists from JSON are compared as their schema says, and so is
//! what can make much out of little, or compares everything with everything: it is charged before it is done.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBytes, CelInt, CelList, CelMap, CelString, Kind, Type};
use cel::common::value::{StaticVal, Val};

use super::comprehensions::MAP_INSERT;
use super::signatures;
use super::value::references;

/// The name of the budget among the variables, which no expression can write.
pub(super) const BUDGET: &str = "@budget";

pub(super) const CHARGE: &str = "@charge";
pub(super) const EACH: &str = "@each";
pub(super) const EQUAL: &str = "@equal";
pub(super) const DIFFERENT: &str = "@different";
pub(super) const WITHIN: &str = "@within";
pub(super) const MATCHES: &str = "@matches";
pub(super) const ADD: &str = "@add";
pub(super) const FIND: &str = "@find";
pub(super) const FIND_ALL: &str = "@findAll";
pub(super) const REPLACE: &str = "@replace";
pub(super) const RANGE: &str = "@lists.range";
pub(super) const JOIN: &str = "@join";
pub(super) const SETS_CONTAINS: &str = "@sets.contains";
pub(super) const SETS_EQUIVALENT: &str = "@sets.equivalent";
pub(super) const SETS_INTERSECTS: &str = "@sets.intersects";
/// Charges for a text, and next to nothing for anything else.
pub(super) const TEXT: &str = "@text";
/// Charges for comparing all items with each other.
pub(super) const SQUARE: &str = "@square";

/// What it costs to ask what somebody may do (`staging/src/k8s.io/apiserver/pkg/cel/library/cost.go`, `AuthzCost`).
const AUTHORIZATION_COST: i64 = 350_000;

/// What is left to spend.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicI64>);

impl Budget {
    pub(super) fn new(amount: i64) -> Self {
        Self(Arc::new(AtomicI64::new(amount)))
    }

    /// Spends; whether there was enough.
    pub(super) fn spend(&self, amount: u64) -> bool {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX / 2);
        let before = self.0.load(Ordering::Relaxed);
        let left = before.saturating_sub(amount);
        self.0.store(left, Ordering::Relaxed);
        left >= 0
    }

    pub(super) fn left(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The type of the budget as a value.
pub(super) static BUDGET_TYPE: Type = Type::new_unspecified_type("budget");

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &BUDGET_TYPE
    }

    fn cel_type() -> &'static Type {
        &BUDGET_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// The size of a value: a tenth of the length of a text, as upstream has it, or how many items there are.
pub(super) fn size(value: &dyn Val) -> u64 {
    match value.downcast_ref::<CelString>() {
        Some(text) => text.inner().len() as u64 / 10 + 1,
        None => value.as_sizer().map_or(1, |sizer| u64::try_from(*sizer.size().inner()).unwrap_or(0) + 1),
    }
}

/// What reading or making a value costs with the texts in it.
pub(super) fn reading(value: &dyn Val) -> u64 {
    match references(value) {
        Some(items) if value.get_type().kind() == Kind::List => {
            items.iter().fold(1, |sum: u64, item| sum.saturating_add(text_size(*item)))
        }
        _ => size(value),
    }
}

/// What copying or converting a value costs: that of a text's length, or of a few bytes.
pub(super) fn text_size(value: &dyn Val) -> u64 {
    match value.downcast_ref::<CelBytes>() {
        Some(bytes) => bytes.inner().len() as u64 / 10 + 1,
        None if value.downcast_ref::<CelString>().is_some() => size(value),
        None => copied(value),
    }
}

/// What copying a list or a map costs. Those that an expression makes are copied with all that is in them; values from JSON are
/// shared.
fn copied(value: &dyn Val) -> u64 {
    if let Some(list) = value.downcast_ref::<CelList>() {
        return list.inner().iter().fold(1, |sum: u64, item| sum.saturating_add(text_size(item.as_ref())));
    }
    match value.downcast_ref::<CelMap>() {
        Some(map) => map.inner().values().fold(1, |sum: u64, item| sum.saturating_add(text_size(item.as_ref()))),
        None => 1,
    }
}

/// Methods on texts and lists that read all of them.
const READS: [&str; 22] = [
    "contains",
    "startsWith",
    "endsWith",
    "split",
    "lowerAscii",
    "upperAscii",
    "trim",
    "reverse",
    "substring",
    "indexOf",
    "lastIndexOf",
    "format",
    "charAt",
    "validate",
    "isSorted",
    "sum",
    "min",
    "max",
    "sort",
    "@sortByAssociatedKeys",
    "flatten",
    "slice",
];

/// Functions that read the text which they are given, or are methods of it.
const CONVERTS: [&str; 21] = [
    "size",
    "string",
    "bytes",
    "bool",
    "int",
    "uint",
    "double",
    "timestamp",
    "duration",
    "url",
    "isURL",
    "ip",
    "isIP",
    "cidr",
    "isCIDR",
    "quantity",
    "isQuantity",
    "semver",
    "isSemver",
    "quote",
    "escapeKey",
];

/// Operators that compare texts, to the end of the shorter one at most.
const ORDERS: [&str; 4] = [operators::LESS, operators::LESS_EQUALS, operators::GREATER, operators::GREATER_EQUALS];

/// Our own form of a call that is charged before it is carried out.
fn charged_first(call: &CallExpr) -> Option<&'static str> {
    let space = call.target.as_ref().and_then(|target| match &target.expr {
        Expr::Ident(name) => Some(name.as_str()),
        _ => None,
    });
    // The sums of comprehensions themselves, which grow by what is charged already, are told by how they are written.
    let gathers =
        matches!(call.args.first(), Some(first) if matches!(&first.expr, Expr::Ident(name) if name == "@result"));
    Some(match (call.func_name.as_str(), call.args.len(), &call.target) {
        (operators::ADD, 2, None) if !gathers => ADD,
        (operators::EQUALS, 2, None) => EQUAL,
        (operators::NOT_EQUALS, 2, None) => DIFFERENT,
        (operators::IN, 2, None) => WITHIN,
        ("matches", 2, None) | ("matches", 1, Some(_)) => MATCHES,
        ("find", 1, Some(_)) => FIND,
        ("findAll", 1 | 2, Some(_)) => FIND_ALL,
        ("replace", 2.., Some(_)) => REPLACE,
        ("join", 0 | 1, Some(_)) => JOIN,
        ("range", 1, Some(_)) if space == Some("lists") => RANGE,
        ("contains", 2, Some(_)) if space == Some("sets") => SETS_CONTAINS,
        ("equivalent", 2, Some(_)) if space == Some("sets") => SETS_EQUIVALENT,
        ("intersects", 2, Some(_)) if space == Some("sets") => SETS_INTERSECTS,
        _ => return None,
    })
}

/// Writes the charges into an expression.
pub(super) fn instrument(expression: &mut IdedExpr) {
    let id = expression.id;
    match &mut expression.expr {
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| instrument(target));
            call.args.iter_mut().for_each(instrument);
            // What stands before the dot may be a namespace, which is no value.
            let on_value = !call.target.as_ref().is_some_and(|target| {
                matches!(&target.expr, Expr::Ident(space) if signatures::of(&format!("{space}.{}", call.func_name)).is_some())
            });
            if let Some(name) = charged_first(call) {
                let mut arguments = vec![variable(id)];
                // A namespace is no value.
                let target = call.target.take().filter(|_| !name.contains('.'));
                arguments.extend(target.map(|target| *target));
                arguments.append(&mut call.args);
                *call = CallExpr { func_name: name.to_owned(), target: None, args: arguments };
            } else if call.func_name == MAP_INSERT {
                wrap(expression, CHARGE, None);
            } else if call.func_name == "check" && call.target.is_some() && call.args.len() == 1 {
                wrap(expression, EACH, Some(AUTHORIZATION_COST));
            } else if ORDERS.contains(&call.func_name.as_str()) {
                call.args.first_mut().into_iter().for_each(charge_text);
            } else if CONVERTS.contains(&call.func_name.as_str()) {
                call.target.iter_mut().filter(|_| on_value).for_each(|target| charge_text(target));
                call.args.iter_mut().for_each(charge_text);
            } else if call.func_name == "distinct" {
                call.target.iter_mut().for_each(|target| wrap(target, SQUARE, None));
            } else if READS.contains(&call.func_name.as_str())
                && let Some(target) = &mut call.target
            {
                if on_value {
                    wrap(target, CHARGE, None);
                }
                wrap(expression, CHARGE, None);
            }
        }
        Expr::Select(select) => instrument(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| {
            instrument(element);
            charge_text(element);
        }),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                match &mut entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        instrument(&mut entry.key);
                        instrument(&mut entry.value);
                        charge_text(&mut entry.key);
                        charge_text(&mut entry.value);
                    }
                    EntryExpr::StructField(field) => instrument(&mut field.value),
                }
            }
        }
        Expr::Comprehension(comprehension) => {
            let weight = nodes(&comprehension.loop_step);
            instrument(&mut comprehension.iter_range);
            instrument(&mut comprehension.accu_init);
            instrument(&mut comprehension.loop_step);
            instrument(&mut comprehension.result);
            wrap(&mut comprehension.iter_range, EACH, Some(weight));
        }
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Charges for a text that is copied, converted or compared, unless it is written in the expression itself, or a condition.
fn charge_text(expression: &mut IdedExpr) {
    let is_known = match &expression.expr {
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => true,
        // A namespace, as in `ip.isCanonical`, is no value; neither is what is charged already a second time.
        Expr::Call(call) => [EQUAL, DIFFERENT, WITHIN, MATCHES, CHARGE, TEXT].contains(&call.func_name.as_str()),
        _ => false,
    };
    if !is_known {
        wrap(expression, TEXT, None);
    }
}

fn variable(id: u64) -> IdedExpr {
    IdedExpr { id, expr: Expr::Ident(BUDGET.to_owned()) }
}

/// Makes `x` a call `name(budget, x)`.
fn wrap(expression: &mut IdedExpr, name: &str, weight: Option<i64>) {
    let id = expression.id;
    let inner = std::mem::take(expression);
    let mut args = vec![variable(id), inner];
    args.extend(weight.map(|weight| IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(CelInt::from(weight))) }));
    *expression = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) };
}

/// How much there is to evaluate, without what is iterated within, which is charged by itself.
fn nodes(expression: &IdedExpr) -> i64 {
    1 + match &expression.expr {
        Expr::Call(call) => call.target.iter().map(|target| nodes(target)).sum::<i64>() + all(&call.args),
        Expr::Select(select) => nodes(&select.operand),
        Expr::List(list) => all(&list.elements),
        Expr::Comprehension(comprehension) => nodes(&comprehension.iter_range),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                // A key that is written out costs nothing besides its value.
                EntryExpr::MapEntry(entry) => nodes(&entry.key) - 1 + nodes(&entry.value),
                EntryExpr::StructField(field) => nodes(&field.value),
            })
            .sum(),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn all(expressions: &[IdedExpr]) -> i64 {
    expressions.iter().map(nodes).sum()
}
