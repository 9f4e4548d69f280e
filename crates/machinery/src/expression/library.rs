//! The functions that upstream adds to the language, besides its string and list extensions.
//!
//! Each is in the table of [`super::signatures`] as well.

mod authorizer;
mod core;
mod formats;
mod lists;
mod net;
mod pairs;
mod quantity;
mod regex;
mod semver;

use cel::common::types::{CelBool, CelString};
use cel::common::value::{CowVal, FromVal, Val};
use cel::{DeclarationError, Env, ExecutionError, extensions};

pub(super) use self::regex::{Pattern, check_pattern, compile_patterns};
pub use authorizer::{Authorizer, Check, Decision};
pub(super) use authorizer::{AuthorizerValue, DecisionValue, GroupCheck, PathCheck, ResourceCheck};
pub(super) use formats::Format;
pub(super) use net::{Cidr, Ip, Url};
pub(super) use quantity::Quantity;
pub(super) use semver::Semver;

/// What a function answers.
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Adds all of them to an environment that has the standard ones.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    authorizer::register(env)?;
    core::register(env)?;
    formats::register(env)?;
    lists::register(env)?;
    net::register(env)?;
    pairs::register(env)?;
    quantity::register(env)?;
    semver::register(env)
}

/// An argument, as the type that its overload was declared for.
fn argument<'a, 'b, 'v, T>(arguments: &'a [CowVal<'b, 'v>], index: usize) -> Result<&'a T, ExecutionError>
where
    T: FromVal<'a, 'v>,
{
    let value: Option<&'a (dyn Val + 'v)> = arguments.get(index).map(CowVal::as_ref);
    value.and_then(|value| T::from_val(value)).ok_or_else(|| wrong("argument is of another type"))
}

/// A text among the arguments.
fn text<'a>(arguments: &'a [CowVal<'_, '_>], index: usize) -> Result<&'a str, ExecutionError> {
    argument::<CelString<'_>>(arguments, index).map(CelString::inner)
}

fn flag<'b, 'v>(value: bool) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(value)))
}

fn written<'b, 'v>(value: impl Into<String>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelString::from(value.into())))
}

pub(super) fn wrong(why: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError { function: String::new(), message: why.into() }
}

/// A type of value that only its own functions know.
macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident($inner:ty), $cel:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub(in crate::expression) struct $name($inner);

        impl cel::common::value::Val for $name {
            fn get_type(&self) -> &cel::common::types::Type {
                <Self as cel::common::value::Val>::cel_type()
            }

            fn cel_type() -> &'static cel::common::types::Type {
                static KIND: cel::common::types::Type = cel::common::types::Type::new_unspecified_type($cel);
                &KIND
            }

            fn equals(&self, other: &dyn cel::common::value::Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn cel::common::value::Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }
        }

        impl cel::common::value::StaticVal for $name {}
    };
}

use opaque;
