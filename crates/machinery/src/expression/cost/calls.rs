//! What calls cost. Upstream: `functionCost` in cel-go `checker/cost.go` for the language's own functions, `EstimateCallCost`
//! in `staging/src/k8s.io/apiserver/pkg/cel/library/cost.go` for those that Kubernetes adds.

use cel::common::ast::operators;

use super::super::types::Type;
use super::{Estimate, Part, Place, Size, by_factor};

/// What it takes to match a character of a regular expression. Upstream: `common.RegexStringLengthCostFactor`.
const REGEX: f64 = 0.25;

/// The longest regular expression of a named format. Upstream: `MaxNameFormatRegexSize`.
const FORMAT_REGEX: u64 = 128;

/// The longest named format. Upstream: `MaxFormatSize`.
const FORMAT_MAX: u64 = 64;

/// The bytes of an address at most.
const ADDRESS: Size = Size { min: 4, max: 16 };

/// What a call costs with all that it takes (`base` is what the target and the arguments cost), and the size of what it
/// gives, where that is known.
pub(super) fn cost<'a>(
    name: &str,
    target: Option<&Estimate<'a>>,
    args: &[Estimate<'a>],
    base: u64,
    root: Place<'a>,
) -> (u64, Option<Size>) {
    let plus = |own: u64| base.saturating_add(own);
    match (name, target, args) {
        // What need not be evaluated is counted all the same, but for one of the branches.
        (operators::LOGICAL_AND | operators::LOGICAL_OR, _, _) => (base, None),
        (operators::CONDITIONAL, _, [condition, yes, no]) => {
            (condition.cost.saturating_add(yes.cost.max(no.cost)), Some(yes.size.union(no.size)))
        }
        (operators::EQUALS, _, [left, right]) => (plus(equal(left, right)), None),
        (operators::NOT_EQUALS, _, [left, right]) => (plus(compared(left, right)), None),
        (
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
            _,
            [left, right],
        ) => {
            let own = match (is_text(left) || is_text(right), is_number(left) || is_number(right)) {
                (true, _) => compared(left, right),
                (false, true) => 1,
                (false, false) => compared(left, right).max(1),
            };
            (plus(own), None)
        }
        (operators::ADD, _, [left, right]) => {
            let size = left.size.plus(right.size);
            match (&left.kind, &right.kind) {
                (Type::List(_), _) | (_, Type::List(_)) => (plus(1), Some(size)),
                _ if is_text(left) || is_text(right) => (plus(size.traversal()), Some(size)),
                _ if is_open(left) && is_open(right) => (plus(size.traversal().max(1)), Some(size)),
                _ => (plus(1), None),
            }
        }
        (operators::IN, _, [_, range]) => {
            let own = if matches!(range.kind, Type::Map(..)) { 1 } else { range.size.max };
            (plus(own), None)
        }
        _ => match target {
            Some(target) => method(name, target, args, base, root),
            None => function(name, args, base),
        },
    }
}

fn function(name: &str, args: &[Estimate<'_>], base: u64) -> (u64, Option<Size>) {
    let plus = |own: u64| base.saturating_add(own);
    match (name, args) {
        ("url", [text]) => (plus(text.size.traversal()), Some(text.size)),
        ("ip" | "isIP" | "cidr" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver", [text, ..]) => {
            (plus(text.size.traversal()), None)
        }
        ("ip.isCanonical", [text]) => (plus(twice(text.size)), None),
        ("bytes", [text]) if is_text(text) => {
            (plus(text.size.traversal()), Some(text.size.times(Size { min: 1, max: 4 })))
        }
        ("string", [bytes]) if matches!(bytes.kind, Type::Bytes) => {
            (plus(bytes.size.traversal()), Some(Size { min: bytes.size.min / 4, max: bytes.size.max }))
        }
        ("strings.quote", [text]) => {
            let escaped = text.size.times(Size { min: 1, max: 2 }).plus(Size::exactly(2));
            (plus(text.size.traversal()), Some(escaped))
        }
        // cel-go `ext/sets.go`: each item is compared with each; both ways where the sets are to be the same.
        ("sets.contains" | "sets.intersects", [left, right]) => (plus(pairs(left, right).saturating_add(1)), None),
        ("sets.equivalent", [left, right]) => (plus(pairs(left, right).saturating_mul(2).saturating_add(1)), None),
        ("lists.range", [length]) => made(base, 1.0, Size::exactly(length.number.unwrap_or(u64::MAX))),
        _ => (plus(1), None),
    }
}

fn method<'a>(
    name: &str,
    target: &Estimate<'a>,
    args: &[Estimate<'a>],
    base: u64,
    root: Place<'a>,
) -> (u64, Option<Size>) {
    let plus = |own: u64| base.saturating_add(own);
    let size = target.size;
    match (name, args) {
        ("startsWith" | "endsWith", [part]) => (plus(part.size.traversal()), None),
        ("contains", [part]) => (plus(size.traversal().saturating_mul(part.size.traversal())), None),
        ("matches", [pattern]) => (plus(matched(size, pattern)), None),
        ("find" | "findAll", [pattern, ..]) => (plus(matched(size, pattern)), Some(Size::at_most(size.max))),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", _) => (plus(size.traversal()), Some(size)),
        ("replace", [replaced, replacement, ..]) => {
            (plus(twice(size)), Some(replaced_size(size, replaced.size, replacement.size)))
        }
        ("split", _) => {
            let parts = args.get(1).and_then(|count| count.number).unwrap_or(size.max);
            (plus(twice(size)), Some(Size::at_most(parts)))
        }
        ("join", _) => {
            let mut joined = size.times(item(target, root).map_or(Size::exactly(0), |(_, size)| size));
            if let [separator, ..] = args {
                let between = Size { min: size.min.saturating_sub(1), max: size.max.saturating_sub(1) };
                joined = joined.plus(separator.size.times(between));
            }
            (plus(joined.traversal()), Some(joined))
        }
        ("format", _) => (plus(size.traversal()), None),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", _) => {
            let own = match item(target, root) {
                Some((Type::String | Type::Bytes, item)) => size.max.saturating_mul(1 + item.traversal()),
                Some(_) => size.max,
                None => size.traversal(),
            };
            (plus(own), None)
        }
        ("distinct", []) => made(base, 2.0, size.times(size)),
        ("sort", []) => sorted(base, target),
        ("@sortByAssociatedKeys", [keys]) => sorted(base, keys),
        ("slice", [start, end]) => {
            let length = end.number.unwrap_or(size.max).saturating_sub(start.number.unwrap_or(0));
            made(base, 1.0, Size::exactly(length))
        }
        ("flatten", []) => made(base, 1.0, size),
        ("flatten", [depth]) => {
            let times = depth.number.unwrap_or(u64::MAX);
            (made(base, 0.0, size).0.saturating_add(size.max.saturating_mul(times)), Some(size))
        }
        ("reverse", []) if matches!(target.kind, Type::List(_)) => made(base, 1.0, size),
        ("containsIP", [other]) => (plus(compared_addresses(0, other)), None),
        ("containsCIDR", [other]) => (plus(compared_addresses(ADDRESS.traversal() + 1, other)), None),
        ("validate", [text]) => {
            let regex = by_factor(FORMAT_REGEX, REGEX);
            (plus(text.size.traversal().saturating_mul(regex)), None)
        }
        ("orValue" | "or", [other]) => (plus(1), Some(size.union(other.size))),
        _ => (plus(1), None),
    }
}

/// Two values are compared up to the end of the shorter one.
fn compared(left: &Estimate<'_>, right: &Estimate<'_>) -> u64 {
    Size::at_most(left.size.max.min(right.size.max)).traversal()
}

/// What it takes to know whether two values are equal. Those of the libraries are small, but for the longest.
fn equal(left: &Estimate<'_>, right: &Estimate<'_>) -> u64 {
    match (&left.kind, &right.kind) {
        (Type::Library("kubernetes.NamedFormat"), Type::Library("kubernetes.NamedFormat")) => {
            Size::at_most(FORMAT_MAX).traversal()
        }
        (Type::Library(left), Type::Library(right)) if left == right && *left != "kubernetes.URL" => 1,
        _ => compared(left, right),
    }
}

/// A call that makes a list, which takes `factor` for each item (cel-go `ext/lists.go`).
fn made(base: u64, factor: f64, size: Size) -> (u64, Option<Size>) {
    (base.saturating_add(by_factor(size.max, factor)).saturating_add(1 + super::LIST), Some(size))
}

/// A list that is sorted by `keys`: each is compared with each.
fn sorted(base: u64, keys: &Estimate<'_>) -> (u64, Option<Size>) {
    let is_text = matches!(&keys.kind, Type::List(item) if matches!(**item, Type::String | Type::Bytes));
    made(base, if is_text { 2.0 + super::TRAVERSAL } else { 2.0 }, keys.size.times(keys.size))
}

/// What it takes to search a text of a size for a regular expression. Both count, even where the text is empty.
fn matched(size: Size, pattern: &Estimate<'_>) -> u64 {
    let text = size.plus(Size::exactly(1)).traversal();
    text.saturating_mul(by_factor(pattern.size.max, REGEX))
}

/// A text is read, and another one is made.
fn twice(size: Size) -> u64 {
    by_factor(size.max, 2.0 * super::TRAVERSAL)
}

fn pairs(left: &Estimate<'_>, right: &Estimate<'_>) -> u64 {
    left.size.max.saturating_mul(right.size.max)
}

/// An address given as a text is read first.
fn compared_addresses(more: u64, other: &Estimate<'_>) -> u64 {
    let read = if is_text(other) { other.size.traversal() } else { 0 };
    ADDRESS.plus(ADDRESS).traversal().saturating_add(more).saturating_add(read)
}

/// The type and size of the items of a list.
fn item<'a>(list: &Estimate<'a>, root: Place<'a>) -> Option<(Type<'a>, Size)> {
    let Type::List(kind) = &list.kind else { return None };
    let size = match list.place {
        Place::Computed => None,
        place => place.part(Part::Item, root).size(),
    };
    Some(((**kind).clone(), size.unwrap_or(Size::UNKNOWN)))
}

/// How long a text is once parts of it were replaced: at most with the longest replacement for the shortest parts.
fn replaced_size(text: Size, replaced: Size, replacement: Size) -> Size {
    let (count, kept) = match replaced.min {
        // What is empty is found around every character.
        0 => (text.max.saturating_add(1), text.max),
        _ if replacement.max <= replaced.min => (0, text.max),
        shortest => (text.max.div_ceil(shortest), 0),
    };
    let (least, least_kept) = match replaced.max {
        0 => (text.min.saturating_add(1), text.min),
        _ if replaced.max <= replacement.min => (0, text.min),
        longest => (text.min.div_ceil(longest), 0),
    };
    Size { min: least, max: count }.times(replacement).plus(Size { min: least_kept, max: kept })
}

fn is_text(estimate: &Estimate<'_>) -> bool {
    matches!(estimate.kind, Type::String | Type::Bytes)
}

fn is_open(estimate: &Estimate<'_>) -> bool {
    estimate.kind.is_open()
}

fn is_number(estimate: &Estimate<'_>) -> bool {
    matches!(estimate.kind, Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration | Type::Bool)
}
