//! Expressions that share what they are about, and variables composed of it: `variables.NAME` is the value of an expression of its
//! own, evaluated when it is first asked for (`staging/src/k8s.io/apiserver/pkg/admission/plugin/cel/composition.go`).

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer};
use cel::common::types::{CelString, Type as CelType};
use cel::common::value::{CowVal, StaticVal, Val};

use super::check::Scope;
use super::library::wrong;
use super::types::Type;
use super::value::Boxed;
use super::{CALL_LIMIT, CompileError, Failure, Kind, Program, Value, Wanted, on_large_stack};
use crate::schema::Schema;

/// The name of the variable below which the composed ones are.
const VARIABLES: &str = "variables";

/// How deep composed variables may refer to each other: each level takes its part of the stack.
const DEPTH_MAX: usize = 64;

/// Compiles expressions over the same variables.
pub struct Compiler<'a> {
    variables: Vec<(String, Type<'a>)>,
    composed: Option<Arc<BTreeMap<String, Type<'a>>>>,
    makes_objects: bool,
    /// The schema that bounds how long values are, and whether it is that of an object of the API.
    root: Option<(&'a Schema, bool)>,
}

impl<'a> Compiler<'a> {
    /// A compiler of expressions over these variables.
    #[must_use]
    pub fn new(variables: &[(&str, Kind<'a>)]) -> Self {
        let root = variables.iter().find_map(|(_, kind)| kind.schema());
        let variables = variables.iter().map(|(name, kind)| ((*name).to_owned(), kind.known())).collect();
        Self { variables, composed: None, makes_objects: false, root }
    }

    /// The same, of expressions that may also speak of composed variables, of which there are none yet.
    #[must_use]
    pub fn composing(self) -> Self {
        Self { composed: Some(Arc::default()), ..self }
    }

    /// The same with one variable less, and with the composed variables there are.
    #[must_use]
    pub fn without(&self, variable: &str) -> Self {
        let kept = self.variables.iter().filter(|(name, _)| name.split('.').next() != Some(variable));
        Self {
            variables: kept.cloned().collect(),
            composed: self.composed.clone(),
            makes_objects: self.makes_objects,
            root: self.root,
        }
    }

    /// The same, of expressions that may also make objects, with the composed variables there are.
    #[must_use]
    pub fn mutating(&self) -> Self {
        Self {
            variables: self.variables.clone(),
            composed: self.composed.clone(),
            makes_objects: true,
            root: self.root,
        }
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// When it cannot be parsed, speaks of what is not there, or is of another type than wanted.
    pub fn compile(&self, text: &str, wanted: Wanted) -> Result<Program, CompileError> {
        self.compile_typed(text, wanted, None).map(|(program, _)| program)
    }

    /// Compiles the expression of a composed variable, which is there for all that is compiled later; its type is open when it does
    /// not compile. Of those with one name the last one counts.
    ///
    /// Deviation: upstream accepts an expression that speaks of `variables` as a whole. Here only its fields can be selected: a
    /// value that contains all variables, among them itself, would never be freed.
    ///
    /// # Errors
    /// As [`Compiler::compile`], and where it uses the composed variables as a whole.
    pub fn declare(&mut self, name: &str, text: &str) -> Result<Program, CompileError> {
        let (program, kind) = match self.compile_typed(text, Wanted::Any, Some(VARIABLES)) {
            Ok((program, kind)) => (Ok(program), kind),
            Err(error) => (Err(error), Type::Dyn),
        };
        Arc::make_mut(self.composed.get_or_insert_default()).insert(name.to_owned(), kind);
        program
    }

    fn compile_typed(
        &self,
        text: &str,
        wanted: Wanted,
        divided: Option<&str>,
    ) -> Result<(Program, Type<'a>), CompileError> {
        let mut variables = self.variables.clone();
        variables.extend(self.composed.as_ref().map(|all| (VARIABLES.to_owned(), Type::Fields(Arc::clone(all)))));
        // The parser takes tens of kilobytes of the stack for each bracket.
        let scope = Scope { variables, makes_objects: self.makes_objects };
        on_large_stack(|| Program::compile_typed(text, scope, self.root, wanted, divided))
    }
}

/// Composed variables, compiled. Of those with one name the last one counts.
#[derive(Debug, Default)]
pub struct Variables {
    all: Vec<(String, Result<Program, String>)>,
    /// Where each is, by its name.
    places: HashMap<String, usize>,
}

impl FromIterator<(String, Result<Program, String>)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, Result<Program, String>)>>(variables: T) -> Self {
        let all: Vec<(String, Result<Program, String>)> = variables.into_iter().collect();
        let places = all.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
        Self { all, places }
    }
}

/// The evaluation of several expressions over the same values, within one budget.
pub struct Evaluation {
    values: Vec<(&'static str, Value)>,
    composed: Lazy,
}

impl Evaluation {
    /// An evaluation over these values and what is composed of them.
    #[must_use]
    pub fn new(values: Vec<(&'static str, Value)>, variables: Arc<Variables>, budget: i64) -> Self {
        let slots = variables.all.iter().map(|_| Slot::default()).collect();
        let composed = Lazy(Arc::new(Composed {
            variables,
            values: values.clone(),
            slots,
            left: AtomicI64::new(budget),
            depth: AtomicUsize::new(0),
        }));
        Self { values: composed.scope(values), composed }
    }

    /// Evaluates an expression, and takes what it and the variables it asks for cost from the budget.
    ///
    /// # Errors
    /// When there is no value, or it costs too much.
    pub fn run(&self, program: &Program) -> Result<Value, Failure> {
        self.composed.0.run(program, &self.values)
    }
}

/// The variable `variables`. Copies share what has been evaluated.
#[derive(Debug, Clone)]
pub(super) struct Lazy(Arc<Composed>);

#[derive(Debug)]
struct Composed {
    variables: Arc<Variables>,
    values: Vec<(&'static str, Value)>,
    slots: Vec<Slot>,
    left: AtomicI64,
    depth: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    running: AtomicBool,
    value: OnceLock<Result<Boxed, String>>,
}

impl Composed {
    fn run(&self, program: &Program, values: &[(&'static str, Value)]) -> Result<Value, Failure> {
        if self.left.load(Ordering::Relaxed) < 0 {
            return Err(Failure::Exhausted);
        }
        let mut left = CALL_LIMIT;
        let found = program.run(values, &mut left);
        let spent = CALL_LIMIT - left.max(0);
        if self.left.fetch_sub(spent, Ordering::Relaxed) < spent { Err(Failure::Exhausted) } else { found }
    }
}

impl Lazy {
    fn scope(&self, mut values: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
        values.push((VARIABLES, Value(Box::new(self.clone()))));
        values
    }

    fn find(&self, key: &dyn Val) -> Option<usize> {
        let name = key.downcast_ref::<CelString>()?;
        self.0.variables.places.get(name.inner()).copied()
    }

    /// The value of a variable, or why there is none.
    fn value(&self, index: usize) -> Result<&Boxed, ExecutionError> {
        let (slot, (name, program)) = (&self.0.slots[index], &self.0.variables.all[index]);
        let failed = |why: &str| format!("composited variable {name:?} fails to evaluate: {why}");
        if let Some(known) = slot.value.get() {
            return known.as_ref().map_err(|why| wrong(why.as_str()));
        }
        if slot.running.swap(true, Ordering::Relaxed) {
            return Err(wrong(failed("it refers to itself")));
        }
        let found = match program {
            Err(why) => Err(format!("composited variable {name:?} fails to compile: {why}")),
            Ok(_) if self.0.depth.load(Ordering::Relaxed) >= DEPTH_MAX => {
                slot.running.store(false, Ordering::Relaxed);
                return Err(wrong(failed("variables refer to each other too deeply")));
            }
            Ok(program) => {
                self.0.depth.fetch_add(1, Ordering::Relaxed);
                let values = self.scope(self.0.values.clone());
                let found = super::on_large_stack(|| self.0.run(program, &values));
                self.0.depth.fetch_sub(1, Ordering::Relaxed);
                found.map(|value| value.0).map_err(|why| failed(&why.to_string()))
            }
        };
        slot.value.get_or_init(|| found).as_ref().map_err(|why| wrong(why.as_str()))
    }
}

static LAZY_TYPE: CelType = CelType::new_unspecified_type("kubernetes.variables");

impl Val for Lazy {
    fn get_type(&self) -> &CelType {
        &LAZY_TYPE
    }

    fn cel_type() -> &'static CelType {
        &LAZY_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Lazy {}

impl Container for Lazy {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Indexer for Lazy {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.find(key) {
            Some(index) => self.value(index).map(|value| CowVal::Borrowed(value.as_ref() as &(dyn Val + 'v))),
            None => Err(ExecutionError::no_such_key(&super::value::show(key))),
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        self.get(key).map(CowVal::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expression::TOTAL_LIMIT;

    fn compiler() -> Compiler<'static> {
        Compiler::new(&[("object", Kind::Any)]).composing()
    }

    /// Variables by name and expression, each over those before it, and an evaluation over an object.
    fn evaluation(compiler: &mut Compiler<'_>, variables: &[(&str, &str)], budget: i64) -> Evaluation {
        let compiled = variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), compiler.declare(name, text).map_err(|error| error.to_string())));
        let variables = Arc::new(compiled.collect::<Variables>());
        let object = json!({ "n": 2, "items": (0..100).collect::<Vec<i32>>() });
        Evaluation::new(vec![("object", Value::plain(&object))], variables, budget)
    }

    #[test]
    fn variables_are_evaluated_once_and_only_when_they_are_asked_for() {
        let mut compiler = compiler();
        let variables = [("n", "object.n + 1"), ("twice", "variables.n * 2"), ("bad", "object.nothing")];
        let evaluation = evaluation(&mut compiler, &variables, TOTAL_LIMIT);
        let run = |text: &str| {
            let program = compiler.compile(text, Wanted::Any).map_err(|error| error.to_string())?;
            evaluation.run(&program).map_err(|error| error.to_string()).map(|value| value.as_bool())
        };
        assert_eq!(run("variables.twice == 6 && variables.n == 3"), Ok(Some(true)));
        assert_eq!(
            run("variables.bad == 1").unwrap_err(),
            "composited variable \"bad\" fails to evaluate: no such key: nothing"
        );
        assert!(run("variables.other == 1").unwrap_err().contains("undefined field 'other'"));
    }

    #[test]
    fn what_variables_cost_is_of_the_budget_of_all() {
        let mut compiler = compiler();
        let variables = [("many", "object.items.map(a, object.items.map(b, a + b).size())")];
        let evaluation = evaluation(&mut compiler, &variables, 30_000);
        let cheap = compiler.compile("object.n == 2", Wanted::Bool).expect("it compiles");
        let dear = compiler.compile("variables.many.size() > 0", Wanted::Bool).expect("it compiles");
        assert!(evaluation.run(&cheap).is_ok());
        assert_eq!(evaluation.run(&dear).map(|_| ()), Err(Failure::Exhausted));
        assert_eq!(evaluation.run(&cheap).map(|_| ()), Err(Failure::Exhausted));
    }

    /// A value that contains the variables, and so itself, would never be freed.
    #[test]
    fn variables_as_a_whole_are_no_value_of_one() {
        let mut compiler = compiler();
        compiler.declare("a", "1").expect("it compiles");
        for text in ["dyn(variables).a", "[variables].size()", "{'a': [dyn(variables)]}", "variables"] {
            let why = compiler.declare("b", text).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains("'variables' cannot be used as a whole"), "{text}: {why}");
        }
        let why = compiler.declare("b", "1 == dyn(variables)").map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("ERROR: <input>:1:10: "), "{why}");
        for text in ["variables.a + 1", "has(variables.a) && [1].all(n, n == variables.a)", "variables.?a.orValue(2)"] {
            let found = compiler.declare("b", text).map(|_| ());
            assert_eq!(found, Ok(()), "{text}");
        }
        assert!(compiler.compile("dyn(variables).a == 1", Wanted::Bool).is_ok());
    }

    #[test]
    fn the_last_variable_of_a_name_counts() {
        let mut compiler = compiler();
        let evaluation = evaluation(&mut compiler, &[("a", "'text'"), ("b", "2"), ("a", "1")], TOTAL_LIMIT);
        let program = compiler.compile("variables.a + variables.b == 3", Wanted::Bool).expect("it compiles");
        assert_eq!(evaluation.run(&program).map(|value| value.as_bool()), Ok(Some(true)));
    }

    /// What the checker does not see gets an error and no endless recursion.
    #[test]
    fn variables_that_refer_to_each_other_end() {
        let mut compiler = compiler();
        let itself = evaluation(&mut compiler, &[("a", "1"), ("a", "variables.a + 1")], TOTAL_LIMIT);
        let program = compiler.compile("variables.a == 1", Wanted::Bool).expect("it compiles");
        let why = itself.run(&program).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("it refers to itself"), "{why}");
        let names: Vec<String> = (0..500).map(|index| format!("v{index}")).collect();
        let texts: Vec<String> = (0..500)
            .map(|index| if index == 0 { "1".to_owned() } else { format!("variables.v{} + 1", index - 1) })
            .collect();
        let chain: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(name, text)| (&**name, &**text)).collect();
        let mut compiler = self::compiler();
        let deep = evaluation(&mut compiler, &chain, TOTAL_LIMIT);
        let program = compiler.compile("variables.v499 == 500", Wanted::Bool).expect("it compiles");
        let why = deep.run(&program).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("refer to each other too deeply"), "{why}");
    }
}
