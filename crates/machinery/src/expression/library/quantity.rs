//! Quantities: `100m`, `1536Mi`.

use cel::common::types::{CelBool, CelDouble, CelInt, INT_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{argument, flag, opaque, text, wrong};
use crate::quantity::{Format, Quantity as Amount};

opaque!(
    /// A quantity.
    Quantity(Amount),
    "kubernetes.Quantity"
);

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    let quantity = || Quantity::cel_type().to_owned();
    env.add_overload("isQuantity", "is_quantity_string", vec![STRING_TYPE], |arguments| {
        flag(text(&arguments, 0)?.parse::<Amount>().is_ok())
    })?;
    env.add_overload("quantity", "string_to_quantity", vec![STRING_TYPE], |arguments| {
        let amount = text(&arguments, 0)?.parse::<Amount>();
        Ok(CowVal::owned(Quantity(amount.map_err(|error| wrong(error.to_string()))?)))
    })?;
    env.add_member_overload("sign", "quantity_sign", quantity(), vec![], |arguments| {
        let amount = amount(&arguments, 0)?;
        let sign = if amount.is_zero() { 0 } else { 1 - 2 * i64::from(amount.is_negative()) };
        Ok(CowVal::owned(CelInt::from(sign)))
    })?;
    env.add_member_overload("isInteger", "quantity_is_integer", quantity(), vec![], |arguments| {
        flag(amount(&arguments, 0)?.is_whole())
    })?;
    env.add_member_overload("asInteger", "quantity_as_integer", quantity(), vec![], |arguments| {
        let amount = amount(&arguments, 0)?;
        if !amount.is_whole() {
            return Err(wrong("cannot convert value to integer"));
        }
        Ok(CowVal::owned(CelInt::from(amount.value())))
    })?;
    env.add_member_overload("asApproximateFloat", "quantity_as_float", quantity(), vec![], |arguments| {
        Ok(CowVal::owned(CelDouble::from(amount(&arguments, 0)?.as_f64())))
    })?;
    env.add_member_overload("isGreaterThan", "quantity_is_greater_than", quantity(), vec![quantity()], |arguments| {
        Ok(CowVal::owned(CelBool::from(amount(&arguments, 0)? > amount(&arguments, 1)?)))
    })?;
    env.add_member_overload("isLessThan", "quantity_is_less_than", quantity(), vec![quantity()], |arguments| {
        flag(amount(&arguments, 0)? < amount(&arguments, 1)?)
    })?;
    env.add_member_overload("compareTo", "quantity_compare_to", quantity(), vec![quantity()], |arguments| {
        let order = amount(&arguments, 0)?.cmp(&amount(&arguments, 1)?);
        Ok(CowVal::owned(CelInt::from(order as i64)))
    })?;
    env.add_member_overload("add", "quantity_add", quantity(), vec![quantity()], |arguments| {
        Ok(CowVal::owned(Quantity(amount(&arguments, 0)? + amount(&arguments, 1)?)))
    })?;
    env.add_member_overload("sub", "quantity_sub", quantity(), vec![quantity()], |arguments| {
        Ok(CowVal::owned(Quantity(amount(&arguments, 0)? - amount(&arguments, 1)?)))
    })?;
    env.add_member_overload("add", "quantity_add_int", quantity(), vec![INT_TYPE], |arguments| {
        Ok(CowVal::owned(Quantity(amount(&arguments, 0)? + units(&arguments)?)))
    })?;
    env.add_member_overload("sub", "quantity_sub_int", quantity(), vec![INT_TYPE], |arguments| {
        Ok(CowVal::owned(Quantity(amount(&arguments, 0)? - units(&arguments)?)))
    })
}

fn amount(arguments: &[CowVal<'_, '_>], index: usize) -> Result<Amount, ExecutionError> {
    Ok(argument::<Quantity>(arguments, index)?.0)
}

fn units(arguments: &[CowVal<'_, '_>]) -> Result<Amount, ExecutionError> {
    Ok(Amount::from_units(*argument::<CelInt>(arguments, 1)?.inner(), Format::DecimalSi))
}
