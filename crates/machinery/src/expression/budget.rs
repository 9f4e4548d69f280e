//! A rule cannot run for ever: what takes time is charged to a budget.
//!
//! The interpreter has no such thing, so that calls which charge are written into an expression once it is compiled: around
//! what is iterated over, by how often and how much is evaluated for each item, and around what makes or reads texts, by
//! their length. Comparisons are calls of our own too, since lists from JSON are compared as their schema says.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};

use super::comprehensions::MAP_INSERT;
use super::signatures;

/// The name of the budget among the variables, which no expression can write.
pub(super) const BUDGET: &str = "@budget";

pub(super) const CHARGE: &str = "@charge";
pub(super) const EACH: &str = "@each";
pub(super) const EQUAL: &str = "@equal";
pub(super) const DIFFERENT: &str = "@different";
pub(super) const WITHIN: &str = "@within";
pub(super) const MATCHES: &str = "@matches";

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

/// What reading or making a value costs: a tenth of the length of a text, as upstream has it, and its items.
pub(super) fn size(value: &dyn Val) -> u64 {
    match value.downcast_ref::<CelString>() {
        Some(text) => text.inner().len() as u64 / 10 + 1,
        None => value.as_sizer().map_or(1, |sizer| u64::try_from(*sizer.size().inner()).unwrap_or(0) + 1),
    }
}

/// Methods on texts that read all of them.
const READS: [&str; 18] = [
    "contains",
    "startsWith",
    "endsWith",
    "find",
    "findAll",
    "replace",
    "split",
    "lowerAscii",
    "upperAscii",
    "trim",
    "reverse",
    "substring",
    "indexOf",
    "lastIndexOf",
    "format",
    "join",
    "charAt",
    "validate",
];

/// Writes the charges into an expression.
pub(super) fn instrument(expression: &mut IdedExpr) {
    let id = expression.id;
    match &mut expression.expr {
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| instrument(target));
            call.args.iter_mut().for_each(instrument);
            let replaced = match (call.func_name.as_str(), call.args.len(), &call.target) {
                (operators::EQUALS, 2, None) => Some(EQUAL),
                (operators::NOT_EQUALS, 2, None) => Some(DIFFERENT),
                (operators::IN, 2, None) => Some(WITHIN),
                ("matches", 2, None) | ("matches", 1, Some(_)) => Some(MATCHES),
                _ => None,
            };
            if let Some(name) = replaced {
                let mut arguments = vec![variable(id)];
                arguments.extend(call.target.take().map(|target| *target));
                arguments.append(&mut call.args);
                *call = CallExpr { func_name: name.to_owned(), target: None, args: arguments };
            } else if call.func_name == operators::ADD {
                // The sums of comprehensions themselves are told by how they are written.
                let gathers = call
                    .args
                    .first()
                    .is_some_and(|first| matches!(&first.expr, Expr::Ident(name) if name == "@result"));
                if !gathers {
                    wrap(expression, CHARGE, None);
                }
            } else if call.func_name == MAP_INSERT {
                wrap(expression, CHARGE, None);
            } else if call.func_name == "check" && call.target.is_some() && call.args.len() == 1 {
                wrap(expression, EACH, Some(AUTHORIZATION_COST));
            } else if READS.contains(&call.func_name.as_str())
                && let Some(target) = &mut call.target
                && !matches!(&target.expr, Expr::Ident(space) if signatures::of(&format!("{space}.{}", call.func_name)).is_some())
            {
                wrap(target, CHARGE, None);
                wrap(expression, CHARGE, None);
            }
        }
        Expr::Select(select) => instrument(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(instrument),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                match &mut entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        instrument(&mut entry.key);
                        instrument(&mut entry.value);
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
        Expr::Map(map) => map.entries.len().try_into().unwrap_or(i64::MAX / 2),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn all(expressions: &[IdedExpr]) -> i64 {
    expressions.iter().map(nodes).sum()
}
