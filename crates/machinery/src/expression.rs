//! The Common Expression Language, as the rules of custom resources and the conditions of admission are written in it.
//!
//! The parser and the interpreter are those of the crate `cel`. Here is what makes it upstream's language: values from JSON
//! under a schema ([`value`]), names of properties ([`names`]), a check of names and types before anything is evaluated
//! ([`check`]), the libraries ([`library`]), comprehensions with two variables ([`comprehensions`]), variables that are expressions
//! themselves ([`composition`]), what those of admission are about ([`admission`]), the objects that they make ([`mutation`]), an
//! estimate of what one may cost ([`cost`]), and a budget while it is evaluated ([`budget`]).

pub mod admission;
mod budget;
mod check;
mod composition;
mod comprehensions;
mod cost;
mod library;
mod mutation;
mod names;
mod signatures;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};
use cel::common::types::{CelBool, CelNull, CelOptional, CelString};
use cel::{Context, Env, ExecutionError};
use serde_json::Value as Json;

use crate::api_types::ApiType;
use crate::schema::Schema;
use budget::Budget;
pub(crate) use cost::cardinality;

pub use composition::{Compiler, Evaluation, Variables};
pub use library::{Authorizer, Check, Decision};
pub use names::is_identifier;

/// What one evaluation may cost, in upstream's units: about a tenth of a second.
pub const CALL_LIMIT: i64 = 1_000_000;

/// What all evaluations for one object may cost together.
pub const TOTAL_LIMIT: i64 = 10_000_000;

/// What the evaluation of all match conditions may cost together
/// (`staging/src/k8s.io/apiserver/pkg/apis/cel/config.go`, `RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_CONDITIONS_LIMIT: i64 = 2_500_000;

/// How long an expression may be, in characters (cel-go `parser/parser.go`, `expressionSizeCodePointLimit`). Every message
/// about it quotes the line, and parsing takes a second for each 100 kB.
const LENGTH_MAX: usize = 100_000;

/// How long all expressions of one object may be together, in characters as [`length`] counts them: compiling them takes about
/// two seconds. Upstream has no such limit.
pub const TOGETHER_MAX: usize = 2 * LENGTH_MAX;

/// What the shortest expression counts for: its variables are declared as for any other.
const LENGTH_MIN: usize = 40;

/// How deep an expression may be nested.
const DEPTH_MAX: usize = 200;

/// How deep it may be nested to be evaluated on the stack of whoever asks: the interpreter takes much of it for each level.
const SHALLOW: usize = 8;

/// The stack for what is nested deeper. Only what is used of it takes memory.
const LARGE_STACK: usize = 64 << 20;

/// What an expression counts for among others, in characters.
#[must_use]
pub fn length(text: &str) -> usize {
    text.chars().count().max(LENGTH_MIN)
}

/// Why expressions that are longer than [`TOGETHER_MAX`] are refused.
#[must_use]
pub fn too_long(what: &str) -> String {
    format!(
        "{what} together must not be longer than {TOGETHER_MAX} characters, where each counts for {LENGTH_MIN} at least"
    )
}

/// A duration as Go writes them (`1m30s`), unless it is negative.
#[must_use]
pub fn duration(text: &str) -> Option<std::time::Duration> {
    types::duration(text)?.to_std().ok()
}

/// The type of a variable.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// Anything; found out when it is evaluated.
    Any,
    /// A value under a schema; whether it is a whole object of the API.
    Typed(&'a Schema, bool),
    /// As [`Kind::Typed`], if there is one.
    Optional(&'a Schema, bool),
    /// A custom resource under its schema, with all its metadata.
    Custom(&'a Schema),
    /// An object of a built-in kind.
    Builtin(&'static ApiType),
    /// Who says what a user may do.
    Authorizer,
    /// The same about the objects of a request.
    ResourceCheck,
}

/// What an expression must evaluate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A condition.
    Bool,
    /// A text.
    String,
    /// A text, or nothing.
    StringOrNull,
    /// An apply configuration, in an expression that may make one ([`Compiler::mutating`]).
    Object,
    /// A list of the operations of a JSON patch, likewise.
    JsonPatch,
    /// Whatever it is.
    Any,
}

impl Wanted {
    /// The word of the language for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::String => "string",
            Self::StringOrNull => "one of [string null_type]",
            Self::Object => mutation::OBJECT,
            Self::JsonPatch => "list(JSONPatch)",
            Self::Any => "dyn",
        }
    }

    /// Whether an expression of this type is one. Upstream: of this very type, and none that is found out when it is evaluated.
    fn accepts(self, found: &types::Type<'_>) -> bool {
        use types::Type;
        let is_named = |found: &Type<'_>, name: &str| matches!(found, Type::Message(known) if **known == *name);
        match self {
            Self::Bool => matches!(found, Type::Bool),
            Self::String => matches!(found, Type::String),
            Self::StringOrNull => matches!(found, Type::String | Type::Null),
            Self::Object => is_named(found, mutation::OBJECT),
            Self::JsonPatch => matches!(found, Type::List(item) if is_named(item, mutation::JSON_PATCH)),
            Self::Any => true,
        }
    }
}

/// An expression, parsed and checked.
#[derive(Debug)]
pub struct Program {
    expression: IdedExpr,
    depth: usize,
    estimated_cost: u64,
    /// The regular expressions that are written in it, by the names of the variables that stand for them.
    patterns: Vec<(String, library::Pattern)>,
}

/// Why an expression did not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It makes no sense: what the compiler says, with a line for each place.
    #[error("compilation failed: {0}")]
    Invalid(String),
    /// It makes sense and is of another type than wanted.
    #[error("must evaluate to {wanted} but got {found}")]
    Type {
        /// The word of the language for what is wanted.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The budget was spent.
    #[error("operation cancelled: actual cost limit exceeded")]
    Expensive,
    /// The budget of several expressions was spent.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Exhausted,
    /// What upstream's interpreter says: `no such key: x`, `division by zero`.
    #[error("{0}")]
    Evaluation(String),
}

/// A value to evaluate with. Copies share it.
#[derive(Debug, Clone)]
pub struct Value(value::Boxed);

impl Value {
    /// JSON as it is.
    #[must_use]
    pub fn plain(json: &Json) -> Self {
        Self(value::plain(json))
    }

    /// JSON as a schema says, which it must fit.
    #[must_use]
    pub fn typed(json: &Json, schema: &Schema, resource: bool) -> Self {
        Self(value::typed(json, schema, resource))
    }

    /// An object of the API whose version, kind and metadata (`around`) are kept beside the rest of it.
    #[must_use]
    pub fn whole(body: &Json, schema: &Schema, around: &[(&str, Json)]) -> Self {
        Self(value::whole(body, schema, around))
    }

    /// A value that may be missing.
    #[must_use]
    pub fn optional(value: Option<Self>) -> Self {
        Self(Box::new(value.map_or_else(CelOptional::none, |value| CelOptional::of(value.0))))
    }

    /// Who says what the user of a request may do.
    #[must_use]
    pub fn authorizer(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Box::new(library::AuthorizerValue::new(authorizer)))
    }

    /// The same about the objects of a request.
    #[must_use]
    pub fn resource_check(authorizer: Arc<dyn Authorizer>, check: Check) -> Self {
        Self(Box::new(library::ResourceCheck::new(authorizer, check)))
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.downcast_ref::<CelNull>().is_some()
    }

    /// The name of its type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.0.get_type().name()
    }

    /// The condition that it is.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        self.0.downcast_ref::<CelBool>().map(|flag| *flag.inner())
    }

    /// The text that it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.0.downcast_ref::<CelString>().map(CelString::inner)
    }

    /// The apply configuration that it is, as JSON without its version and kind.
    ///
    /// # Errors
    /// Why it is none, or has no JSON form.
    pub fn to_configuration(&self) -> Result<Json, String> {
        on_large_stack(|| mutation::configuration(self.0.as_ref()))
    }

    /// The JSON patch that it is.
    ///
    /// # Errors
    /// Why it is none, or has no JSON form.
    pub fn to_json_patch(&self) -> Result<Json, String> {
        on_large_stack(|| mutation::patch(self.0.as_ref()))
    }
}

fn register(env: &mut Env) -> Result<(), cel::DeclarationError> {
    library::register(env)?;
    mutation::register(env)?;
    comprehensions::register(env)
}

/// The language with all its libraries.
fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        if let Err(error) = register(&mut env) {
            // Two functions or macros of one name: a test would have told.
            debug_assert!(false, "{error}");
        }
        Arc::new(env)
    });
    &ENVIRONMENT
}

impl Program {
    /// Compiles an expression over variables.
    ///
    /// # Errors
    /// When it cannot be parsed, speaks of what is not there, or is of another type than wanted.
    pub fn compile(text: &str, variables: &[(&str, Kind<'_>)], wanted: Wanted) -> Result<Self, CompileError> {
        Compiler::new(variables).compile(text, wanted)
    }

    /// Of the variable that is `divided` only fields can be used. It needs a large stack.
    fn compile_typed<'a>(
        text: &str,
        scope: check::Scope<'a>,
        root: Option<(&'a Schema, bool)>,
        wanted: Wanted,
        divided: Option<&str>,
    ) -> Result<(Self, types::Type<'a>), CompileError> {
        let length = text.chars().count();
        if length > LENGTH_MAX {
            let what = format!("expression code point size exceeds limit: size: {length}, limit {LENGTH_MAX}");
            return Err(CompileError::Invalid(format!("ERROR: <input>:-1:0: {what}")));
        }
        let parsed = environment().parser().enable_ident_escape_syntax(true).parse_with_source_info(text);
        let (mut expression, source) = parsed.map_err(|errors| {
            let lines: Vec<String> = errors
                .errors
                .iter()
                .map(|error| {
                    let (line, column) = error.pos;
                    let before: usize = text
                        .split('\n')
                        .take(usize::try_from(line - 1).unwrap_or(0))
                        .map(|line| line.chars().count() + 1)
                        .sum();
                    let offset = before + usize::try_from(column - 1).unwrap_or(0);
                    check::mark(text, offset, &format!("Syntax error: {}", error.msg))
                })
                .collect();
            CompileError::Invalid(lines.join("\n"))
        })?;
        if depth(&expression) > DEPTH_MAX {
            let what = format!("expression recursion limit exceeded: {DEPTH_MAX}");
            return Err(CompileError::Invalid(check::mark(text, 0, &what)));
        }
        let (found, types) = check::check(&expression, &source, scope).map_err(CompileError::Invalid)?;
        if let Some(name) = divided
            && let Some(id) = used_whole(&expression, name)
        {
            let offset = source.offset_for(id).map_or(0, |(start, _)| start as usize);
            let what = format!("'{name}' cannot be used as a whole in a variable (must be field selection)");
            return Err(CompileError::Invalid(check::mark(text, offset, &what)));
        }
        if !wanted.accepts(&found) {
            return Err(CompileError::Type { wanted: wanted.name(), found: found.to_string() });
        }
        let estimated_cost = cost::estimate(&expression, &types, root);
        comprehensions::lower(&mut expression);
        mutation::lower(&mut expression);
        let depth = depth(&expression);
        budget::instrument(&mut expression);
        let patterns = library::compile_patterns(&mut expression);
        Ok((Self { expression, depth, estimated_cost, patterns }, found))
    }

    /// What one evaluation costs at most, in upstream's units: with the longest values that the schema of the variables
    /// allows.
    #[must_use]
    pub fn estimated_cost(&self) -> u64 {
        self.estimated_cost
    }

    /// Whether an expression speaks of a variable.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        mentions(&self.expression, name)
    }

    /// Evaluates the expression, and takes what that costs from what is `left`.
    ///
    /// # Errors
    /// When there is no value, or it costs too much; then nothing is left.
    pub fn run(&self, variables: &[(&str, Value)], left: &mut i64) -> Result<Value, Failure> {
        let mut context = Context::with_env(Arc::clone(environment()));
        for (name, value) in variables {
            context.add_variable_as_val(*name, value.0.clone());
        }
        for (name, pattern) in &self.patterns {
            context.add_variable_as_val(name, Box::new(pattern.clone()));
        }
        let limit = CALL_LIMIT.min(*left);
        let budget = Budget::new(limit);
        budget.spend(1);
        context.add_variable_as_val(budget::BUDGET, Box::new(budget.clone()));
        let evaluate = || cel::Value::resolve_val(&self.expression, &context).map(|found| value::owned(found.as_ref()));
        let found = if self.depth <= SHALLOW { evaluate() } else { on_large_stack(evaluate) };
        *left -= limit - budget.left();
        if budget.left() < 0 {
            *left = -1;
            return Err(Failure::Expensive);
        }
        found.map(Value).map_err(|error| Failure::Evaluation(explain(&error)))
    }
}

/// Runs something that recurses deeply.
fn on_large_stack<T>(run: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LARGE_STACK / 2, LARGE_STACK, run)
}

impl<'a> Kind<'a> {
    /// What bounds the values of a rule. Expressions of admission have no bounds but those while they are evaluated.
    fn schema(self) -> Option<(&'a Schema, bool)> {
        match self {
            Kind::Typed(schema, resource) | Kind::Optional(schema, resource) => Some((schema, resource)),
            Kind::Any | Kind::Custom(_) | Kind::Builtin(_) | Kind::Authorizer | Kind::ResourceCheck => None,
        }
    }

    fn known(self) -> types::Type<'a> {
        match self {
            Kind::Any => types::Type::Dyn,
            Kind::Typed(schema, resource) => types::of_schema(schema, resource).unwrap_or(types::Type::Dyn),
            Kind::Optional(schema, resource) => {
                types::Type::optional(types::of_schema(schema, resource).unwrap_or(types::Type::Dyn))
            }
            Kind::Custom(schema) => types::of_custom(schema),
            Kind::Builtin(api_type) => types::Type::Api(api_type, true),
            Kind::Authorizer => types::Type::Library("kubernetes.authorization.Authorizer"),
            Kind::ResourceCheck => types::Type::Library("kubernetes.authorization.ResourceCheck"),
        }
    }
}

/// Whether a rule can be about values of a schema: upstream has none about what it leaves open.
#[must_use]
pub fn is_known(schema: &Schema, resource: bool) -> bool {
    types::of_schema(schema, resource).is_some()
}

fn is_variable(expression: &IdedExpr, name: &str) -> bool {
    matches!(&expression.expr, Expr::Ident(found) if found.trim_start_matches('.') == name)
}

/// Where a variable is used otherwise than by one of its fields, `a.b` or `a.?b`.
fn used_whole(expression: &IdedExpr, name: &str) -> Option<u64> {
    match &expression.expr {
        Expr::Ident(_) => is_variable(expression, name).then_some(expression.id),
        Expr::Select(select) if is_variable(&select.operand, name) => None,
        Expr::Call(call)
            if call.func_name == operators::OPT_SELECT
                && call.args.first().is_some_and(|operand| is_variable(operand, name)) =>
        {
            None
        }
        _ => parts(expression).into_iter().find_map(|part| used_whole(part, name)),
    }
}

fn mentions(expression: &IdedExpr, name: &str) -> bool {
    match &expression.expr {
        Expr::Ident(_) => is_variable(expression, name),
        _ => parts(expression).into_iter().any(|part| mentions(part, name)),
    }
}

fn depth(expression: &IdedExpr) -> usize {
    1 + parts(expression).into_iter().map(depth).max().unwrap_or(0)
}

/// What an expression is made of.
fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                EntryExpr::StructField(field) => [Some(&field.value), None],
            });
            entries.flatten().flatten().collect()
        }
        Expr::Comprehension(comprehension) => vec![
            &comprehension.iter_range,
            &comprehension.accu_init,
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ],
        Expr::Struct(literal) => {
            let fields = literal.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => &field.value,
                EntryExpr::MapEntry(entry) => &entry.value,
            });
            fields.collect()
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

/// An error in the words of upstream's interpreter.
fn explain(error: &ExecutionError) -> String {
    let shown = |value: &cel::Value| match value {
        cel::Value::Int(number) => number.to_string(),
        cel::Value::UInt(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::IndexOutOfBounds(index) => format!("index out of bounds: {}", shown(index)),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "return error for overflow".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("no such attribute(s): {name}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedIndex(..) => "no such overload".to_owned(),
        other => other.to_string(),
    }
}
