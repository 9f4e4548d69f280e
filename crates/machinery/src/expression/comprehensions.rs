//! Comprehensions with two variables: `all`, `exists`, `existsOne`, `transformList`, `transformMap` and `transformMapEntry` over the
//! indexes and items of a list, or the keys and values of a map (cel-go's `ext/comprehensions.go`).
//!
//! The interpreter knows comprehensions with one variable. The macros keep both, for the checker; once an expression is checked,
//! [`lower`] makes it iterate over pairs, and each mention of a variable an index into the pair.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators,
};
use cel::common::types::CelInt;
use cel::parser::{Macro, MacroExprHelper, ParseError};
use cel::{DeclarationError, Env};

/// The function that adds an entry, or the entries of a map, to a map.
pub(super) const MAP_INSERT: &str = "cel.@mapInsert";

/// The function that makes pairs of a list or map.
pub(super) const PAIRS: &str = "@pairs";

/// What has been gathered so far, as the macros of the crate `cel` name it.
const RESULT: &str = "@result";

/// A macro of this module, its two variables taken off its arguments.
#[derive(Clone, Copy)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

/// Adds the macros to an environment.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    for (name, arguments, quantifier) in [
        ("all", 3, Quantifier::All),
        ("exists", 3, Quantifier::Exists),
        ("existsOne", 3, Quantifier::ExistsOne),
        ("exists_one", 3, Quantifier::ExistsOne),
        ("transformList", 3, Quantifier::TransformList),
        ("transformList", 4, Quantifier::TransformList),
        ("transformMap", 3, Quantifier::TransformMap),
        ("transformMap", 4, Quantifier::TransformMap),
        ("transformMapEntry", 3, Quantifier::TransformMapEntry),
        ("transformMapEntry", 4, Quantifier::TransformMapEntry),
    ] {
        env.add_macro(Macro::receiver(name, arguments, move |helper, target, arguments| {
            let Some(range) = target.take() else { return Ok(None) };
            expand(helper, quantifier, range, std::mem::take(arguments)).map(Some)
        }))?;
    }
    Ok(())
}

fn expand(
    helper: &mut MacroExprHelper<'_>,
    quantifier: Quantifier,
    range: IdedExpr,
    arguments: Vec<IdedExpr>,
) -> Result<IdedExpr, ParseError> {
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().unwrap_or_default();
    let (first, second) = (next(), next());
    let second_id = second.id;
    let (first, second) = (variable(helper, first)?, variable(helper, second)?);
    if first == second {
        return Err(helper.new_error(second_id, format!("duplicate variable name: {first}")));
    }
    let (filter, body) = match (next(), arguments.next()) {
        (body, None) => (None, body),
        (filter, Some(body)) => (Some(filter), body),
    };
    let mut make = Maker(helper);
    let (init, condition, step, result) = match quantifier {
        Quantifier::All => {
            let result = make.result();
            let condition = make.call(operators::NOT_STRICTLY_FALSE, vec![result]);
            let arguments = vec![make.result(), body];
            (make.flag(true), condition, make.call(operators::LOGICAL_AND, arguments), make.result())
        }
        Quantifier::Exists => {
            let result = make.result();
            let none = make.call(operators::LOGICAL_NOT, vec![result]);
            let condition = make.call(operators::NOT_STRICTLY_FALSE, vec![none]);
            let arguments = vec![make.result(), body];
            (make.flag(false), condition, make.call(operators::LOGICAL_OR, arguments), make.result())
        }
        Quantifier::ExistsOne => {
            let arguments = vec![make.result(), make.number(1)];
            let more = make.call(operators::ADD, arguments);
            let arguments = vec![body, more, make.result()];
            let step = make.call(operators::CONDITIONAL, arguments);
            let arguments = vec![make.result(), make.number(1)];
            (make.number(0), make.flag(true), step, make.call(operators::EQUALS, arguments))
        }
        Quantifier::TransformList => {
            let item = make.expr(Expr::List(ListExpr::new(vec![body])));
            let arguments = vec![make.result(), item];
            let step = make.call(operators::ADD, arguments);
            let init = make.expr(Expr::List(ListExpr::new(Vec::new())));
            (init, make.flag(true), make.filtered(filter, step), make.result())
        }
        Quantifier::TransformMap | Quantifier::TransformMapEntry => {
            let mut arguments = vec![make.result()];
            if matches!(quantifier, Quantifier::TransformMap) {
                arguments.push(make.expr(Expr::Ident(first.clone())));
            }
            arguments.push(body);
            let step = make.call(MAP_INSERT, arguments);
            let init = make.expr(Expr::Map(MapExpr { entries: Vec::new() }));
            (init, make.flag(true), make.filtered(filter, step), make.result())
        }
    };
    Ok(make.expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: range,
        iter_var: first,
        iter_var2: Some(second),
        accu_var: RESULT.to_owned(),
        accu_init: init,
        loop_cond: condition,
        loop_step: step,
        result,
    }))))
}

/// The name that an argument is.
fn variable(helper: &MacroExprHelper<'_>, argument: IdedExpr) -> Result<String, ParseError> {
    match argument.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(helper.new_error(argument.id, "argument must be a simple name")),
    }
}

/// Makes the nodes of an expansion.
struct Maker<'h, 'p>(&'h mut MacroExprHelper<'p>);

impl Maker<'_, '_> {
    fn expr(&mut self, expr: Expr) -> IdedExpr {
        self.0.next_expr(expr)
    }

    fn result(&mut self) -> IdedExpr {
        self.expr(Expr::Ident(RESULT.to_owned()))
    }

    fn flag(&mut self, value: bool) -> IdedExpr {
        self.expr(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn number(&mut self, value: i64) -> IdedExpr {
        self.expr(Expr::Literal(LiteralValue::Int(CelInt::from(value))))
    }

    fn call(&mut self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
    }

    /// The step where the filter holds; nothing more where it does not.
    fn filtered(&mut self, filter: Option<IdedExpr>, step: IdedExpr) -> IdedExpr {
        match filter {
            None => step,
            Some(filter) => {
                let arguments = vec![filter, step, self.result()];
                self.call(operators::CONDITIONAL, arguments)
            }
        }
    }
}

/// Makes all comprehensions of an expression those with one variable.
pub(super) fn lower(expression: &mut IdedExpr) {
    parts_mut(expression).into_iter().for_each(lower);
    let id = expression.id;
    let Expr::Comprehension(comprehension) = &mut expression.expr else { return };
    let Some(second) = comprehension.iter_var2.take() else { return };
    // Each pair has a name of its own, as one comprehension may be within another.
    let pair = format!("@pair{id}");
    let first = std::mem::replace(&mut comprehension.iter_var, pair.clone());
    for part in [&mut comprehension.loop_cond, &mut comprehension.loop_step] {
        replace(part, &first, &pair, 0);
        replace(part, &second, &pair, 1);
    }
    let range = std::mem::take(&mut comprehension.iter_range);
    comprehension.iter_range = call(id, PAIRS, vec![range]);
}

/// Makes each mention of a variable an index into a pair.
fn replace(expression: &mut IdedExpr, name: &str, pair: &str, index: i64) {
    let id = expression.id;
    match &mut expression.expr {
        Expr::Ident(found) if found == name => {
            let pair = IdedExpr { id, expr: Expr::Ident(pair.to_owned()) };
            let index = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(CelInt::from(index))) };
            *expression = call(id, operators::INDEX, vec![pair, index]);
        }
        Expr::Comprehension(inner) => {
            for outside in [&mut inner.iter_range, &mut inner.accu_init] {
                replace(outside, name, pair, index);
            }
            // Within it, the name may be another variable.
            if inner.iter_var != name && inner.accu_var != name {
                for inside in [&mut inner.loop_cond, &mut inner.loop_step] {
                    replace(inside, name, pair, index);
                }
            }
            if inner.accu_var != name {
                replace(&mut inner.result, name, pair, index);
            }
        }
        _ => parts_mut(expression).into_iter().for_each(|part| replace(part, name, pair, index)),
    }
}

fn call(id: u64, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

/// What an expression is made of.
pub(super) fn parts_mut(expression: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut expression.expr {
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter_mut().map(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => [Some(&mut entry.key), Some(&mut entry.value)],
                EntryExpr::StructField(field) => [Some(&mut field.value), None],
            });
            entries.flatten().flatten().collect()
        }
        Expr::Comprehension(comprehension) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = &mut **comprehension;
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
        Expr::Struct(literal) => {
            let fields = literal.entries.iter_mut().map(|entry| match &mut entry.expr {
                EntryExpr::StructField(field) => &mut field.value,
                EntryExpr::MapEntry(entry) => &mut entry.value,
            });
            fields.collect()
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}
