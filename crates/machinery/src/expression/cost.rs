//! Static cost estimation: what an expression costs at most, before it is ever evaluated.
//!
//! The units and the rules are upstream's, since they decide which definitions are accepted: cel-go `checker/cost.go` for the
//! language itself, `staging/src/k8s.io/apiserver/pkg/cel/library/cost.go` for the functions that Kubernetes adds ([`calls`]),
//! and how long values are from `staging/src/k8s.io/apiserver/pkg/cel/common/schemas.go` ([`sizes`]). Only the maximum is
//! kept: nothing is decided by the least that an expression may cost.
//!
//! One difference: what is read through an optional (`self.?name`) is as long as its schema says. Upstream forgets it there,
//! and assumes the longest value of all.

mod calls;
mod sizes;

use std::collections::HashMap;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::names::unescape;
use super::types::{self, Type};
use crate::schema::Schema;
pub(crate) use sizes::cardinality;
use sizes::max_elements;

/// What it takes to read a variable or to select a field. Upstream: `common.SelectAndIdentCost`.
const SELECT: u64 = 1;

/// What it takes to make a list. Upstream: `common.ListCreateBaseCost`.
const LIST: u64 = 10;

/// What it takes to make a map. Upstream: `common.MapCreateBaseCost`.
const MAP: u64 = 30;

/// What it takes to make an object. Upstream: `common.StructCreateBaseCost`.
const STRUCT: u64 = 40;

/// What it takes to read a character of a text. Upstream: `common.StringTraversalCostFactor`.
const TRAVERSAL: f64 = 0.1;

/// The types that the checker has found, by the id of the expression.
pub(super) type Types<'a> = HashMap<u64, Type<'a>>;

/// Estimates what an expression costs whose variables are values under `root`, if there is a schema for them.
pub(super) fn estimate(expression: &IdedExpr, types: &Types<'_>, root: Option<(&Schema, bool)>) -> u64 {
    let root = root.map_or(Place::Unknown, |(schema, resource)| Place::Value(schema, resource));
    Coster { types, root, scopes: Vec::new() }.cost(expression).cost
}

/// How many characters, items or entries a value has: at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    min: u64,
    max: u64,
}

impl Size {
    /// Of what nothing is known about.
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    const fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }

    const fn at_most(max: u64) -> Self {
        Self { min: 0, max }
    }

    const fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    const fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// What it costs to read all of a text of this size.
    fn traversal(self) -> u64 {
        by_factor(self.max, TRAVERSAL)
    }
}

/// A cost multiplied by a factor, rounded up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "upstream computes in 64-bit floats as well; a cast saturates"
)]
fn by_factor(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// Where in the schema the value of an expression is from: upstream's path.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// It is computed.
    Computed,
    /// It is from the schema's values, and the schema says nothing about it.
    Unknown,
    /// It is a value under a schema; whether that is a whole object of the API.
    Value(&'a Schema, bool),
    /// It is a text that no schema bounds: `apiVersion`, `kind`.
    Text,
    /// It is the key of a map, which upstream takes to be empty.
    Key,
}

/// How a value is part of another.
#[derive(Clone, Copy)]
enum Part<'n> {
    Field(&'n str),
    /// An item of a list, or a value of a map.
    Item,
    /// A key of a map.
    Key,
}

impl<'a> Place<'a> {
    fn part(self, part: Part<'_>, root: Self) -> Self {
        match (self, part) {
            // Upstream's paths begin with the name of a variable, which is always cut off.
            (Place::Computed, _) => root,
            (Place::Value(_, true), Part::Field("apiVersion" | "kind")) => Place::Text,
            (Place::Value(_, true), Part::Field("metadata")) => Place::Value(types::metadata(), false),
            (Place::Value(schema, _), Part::Field(name)) => {
                schema.declared(&unescape(name)).map_or(Place::Unknown, Self::of)
            }
            (Place::Value(schema, _), Part::Item) => {
                schema.items().or_else(|| schema.values()).map_or(Place::Unknown, Self::of)
            }
            (Place::Value(schema, _), Part::Key) if schema.values().is_some() => Place::Key,
            _ => Place::Unknown,
        }
    }

    fn of(schema: &'a Schema) -> Self {
        Place::Value(schema, schema.is_embedded_resource())
    }

    /// How long what is there may be; nothing when that is not known.
    fn size(self) -> Option<Size> {
        match self {
            Place::Computed | Place::Unknown => None,
            Place::Value(schema, _) => Some(Size::at_most(max_elements(schema))),
            Place::Text => Some(Size::at_most(sizes::TEXT_MAX)),
            Place::Key => Some(Size::at_most(0)),
        }
    }
}

/// What is known of an expression.
#[derive(Clone)]
struct Estimate<'a> {
    cost: u64,
    size: Size,
    place: Place<'a>,
    kind: Type<'a>,
    /// The number that is written out, if it is one.
    number: Option<u64>,
}

struct Coster<'a, 't> {
    types: &'t Types<'a>,
    root: Place<'a>,
    /// The variables of comprehensions, with what is known of their values.
    scopes: Vec<(String, Place<'a>, Option<Size>)>,
}

impl<'a> Coster<'a, '_> {
    fn cost(&mut self, expression: &IdedExpr) -> Estimate<'a> {
        let kind = self.types.get(&expression.id).cloned().unwrap_or(Type::Dyn);
        match &expression.expr {
            Expr::Literal(literal) => literal_of(literal, kind),
            Expr::Ident(name) => {
                let local = self.scopes.iter().rev().find(|(local, ..)| local == name);
                let (place, size) = local.map_or((self.root, None), |(_, place, size)| (*place, *size));
                self.found(SELECT, place, kind, size)
            }
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                // `has()` is free. Upstream: `checker.PresenceTestHasCost(false)`.
                if select.test {
                    return self.found(operand.cost, Place::Computed, Type::Bool, None);
                }
                let selects = matches!(operand.kind, Type::Map(..) | Type::Object(..) | Type::Free);
                let cost = operand.cost.saturating_add(if selects { SELECT } else { 0 });
                self.found(cost, operand.place.part(Part::Field(&select.field), self.root), kind, None)
            }
            Expr::Call(call) => self.call(call, kind),
            Expr::List(list) => self.literal(LIST, list.elements.iter(), list.elements.len(), kind),
            Expr::Map(map) => {
                let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                    EntryExpr::StructField(field) => [Some(&field.value), None],
                });
                self.literal(MAP, parts.flatten(), map.entries.len(), kind)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, kind),
            Expr::Struct(literal) => {
                self.literal(STRUCT, super::parts(expression).into_iter(), literal.entries.len(), kind)
            }
            // The checker has refused it.
            Expr::Unspecified => self.found(0, Place::Computed, kind, None),
        }
    }

    /// What is known of a value by where it is from, else by its type, else by what was said.
    fn found(&self, cost: u64, place: Place<'a>, kind: Type<'a>, said: Option<Size>) -> Estimate<'a> {
        let size = place.size().or_else(|| scalar(&kind)).or(said).unwrap_or(Size::UNKNOWN);
        Estimate { cost, size, place, kind, number: None }
    }

    fn literal<'e>(
        &mut self,
        base: u64,
        parts: impl Iterator<Item = &'e IdedExpr>,
        length: usize,
        kind: Type<'a>,
    ) -> Estimate<'a> {
        let cost = parts.fold(base, |sum, part| sum.saturating_add(self.cost(part).cost));
        Estimate { cost, size: Size::exactly(length as u64), place: Place::Computed, kind, number: None }
    }

    fn call(&mut self, call: &CallExpr, kind: Type<'a>) -> Estimate<'a> {
        // The parser leaves the sign of a number to a call.
        if call.func_name == operators::NEGATE
            && let [IdedExpr { expr: Expr::Literal(literal), .. }] = call.args.as_slice()
        {
            return Estimate { number: None, ..literal_of(literal, kind) };
        }
        let mut name = call.func_name.trim_start_matches('.').to_owned();
        let mut target = None;
        if let Some(space) = &call.target {
            match super::check::namespaced(space, &call.func_name) {
                Some(namespaced) => name = namespaced,
                None => target = Some(self.cost(space)),
            }
        }
        let args: Vec<Estimate<'a>> = call.args.iter().map(|argument| self.cost(argument)).collect();
        let base = target.iter().chain(&args).fold(0u64, |sum, part| sum.saturating_add(part.cost));
        let operand = target.as_ref().or(args.first());
        if let ("value" | "dyn", Some(operand)) = (name.as_str(), operand) {
            return Estimate { cost: base.saturating_add(1), kind, ..operand.clone() };
        }
        let place = match (name.as_str(), call.args.get(1).map(|field| &field.expr)) {
            (operators::INDEX | operators::OPT_INDEX, _) => {
                operand.map(|operand| operand.place.part(Part::Item, self.root))
            }
            (operators::OPT_SELECT, Some(Expr::Literal(LiteralValue::String(field)))) => {
                operand.map(|operand| operand.place.part(Part::Field(field.inner()), self.root))
            }
            _ => None,
        };
        match place {
            Some(place) => self.found(base.saturating_add(1), place, kind, None),
            None => {
                let (cost, size) = calls::cost(&name, target.as_ref(), &args, base, self.root);
                let estimate = self.found(cost, Place::Computed, kind, None);
                Estimate { size: size.unwrap_or(estimate.size), ..estimate }
            }
        }
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr, kind: Type<'a>) -> Estimate<'a> {
        let range = self.cost(&comprehension.iter_range);
        let init = self.cost(&comprehension.accu_init);
        let depth = self.scopes.len();
        self.scopes.push((comprehension.accu_var.clone(), Place::Computed, Some(init.size)));
        let is_map = matches!(range.kind, Type::Map(..));
        let first = match &comprehension.iter_var2 {
            // The index of a list is a number, whatever the schema.
            Some(_) if !is_map => Place::Unknown,
            _ => range.place.part(if is_map { Part::Key } else { Part::Item }, self.root),
        };
        self.scopes.push((comprehension.iter_var.clone(), first, None));
        if let Some(second) = &comprehension.iter_var2 {
            self.scopes.push((second.clone(), range.place.part(Part::Item, self.root), None));
        }
        let each = self.cost(&comprehension.loop_cond).cost.saturating_add(self.cost(&comprehension.loop_step).cost);
        self.scopes.truncate(depth + 1);
        let result = self.cost(&comprehension.result).cost;
        self.scopes.truncate(depth);
        let loops = range.size.max.saturating_mul(each);
        let cost = [range.cost, init.cost, loops, result].into_iter().fold(0, u64::saturating_add);
        let size = match &comprehension.accu_init.expr {
            Expr::List(_) | Expr::Map(_) => range.size,
            _ => init.size,
        };
        Estimate { cost, size, place: Place::Computed, kind, number: None }
    }
}

/// A literal is free.
fn literal_of<'a>(literal: &LiteralValue, kind: Type<'a>) -> Estimate<'a> {
    let (size, number) = match literal {
        LiteralValue::String(text) => (text.inner().chars().count() as u64, None),
        LiteralValue::Bytes(bytes) => (bytes.inner().len() as u64, None),
        LiteralValue::Int(number) => (1, u64::try_from(*number.inner()).ok()),
        LiteralValue::Boolean(_) | LiteralValue::Double(_) | LiteralValue::Null | LiteralValue::UInt(_) => (1, None),
    };
    Estimate { cost: 0, size: Size::exactly(size), place: Place::Computed, kind, number }
}

/// The size of values that all have the same.
fn scalar(kind: &Type<'_>) -> Option<Size> {
    match kind {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => Some(Size::exactly(1)),
        Type::Optional(value) => scalar(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
