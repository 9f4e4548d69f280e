//! Quantities: exact decimal amounts with a suffix, such as `100m`, `1536Mi` or `2e3`.
//!
//! As upstream, a quantity never has more than nine decimal places (more are rounded away from zero), keeps the family of
//! suffixes it was written in, and has one canonical form in which it is served.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Billionths in a unit.
const NANO: i128 = 1_000_000_000;
/// The most units a quantity holds; larger ones are capped, as upstream does.
const MAX_UNITS: i128 = i64::MAX as i128;

/// Which family of suffixes a quantity is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `n u m k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// An exact amount. Comparison and equality look at the amount alone, not at how it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity. The messages are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It has not the shape of a quantity at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// It ends in an unknown suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1_000), format: Format::DecimalSi }
    }

    /// Bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self::from_units(bytes, Format::BinarySi)
    }

    /// The family of suffixes it is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whole units, rounded away from zero; capped to what fits.
    pub fn value(&self) -> i64 {
        round_away(self.nanos, NANO)
    }

    /// Thousandths, rounded away from zero; capped to what fits.
    pub fn milli_value(&self) -> i64 {
        round_away(self.nanos, NANO / 1_000)
    }

    /// The amount as a floating-point number, for ratios.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    fn combine(self, other: Self, nanos: i128) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos, format }
    }
}

fn round_away(nanos: i128, unit: i128) -> i64 {
    let (whole, rest) = (nanos / unit, nanos % unit);
    let rounded = whole + rest.signum();
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (base, exponent, format) = parse_suffix(suffix)?;
        let magnitude = scale(whole, fraction, base, exponent);
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

#[derive(Clone, Copy)]
enum Base {
    Two,
    Ten,
}

fn parse_suffix(suffix: &str) -> Result<(Base, i32, Format), QuantityError> {
    Ok(match suffix {
        "" => (Base::Ten, 0, Format::DecimalSi),
        "n" => (Base::Ten, -9, Format::DecimalSi),
        "u" => (Base::Ten, -6, Format::DecimalSi),
        "m" => (Base::Ten, -3, Format::DecimalSi),
        "k" => (Base::Ten, 3, Format::DecimalSi),
        "M" => (Base::Ten, 6, Format::DecimalSi),
        "G" => (Base::Ten, 9, Format::DecimalSi),
        "T" => (Base::Ten, 12, Format::DecimalSi),
        "P" => (Base::Ten, 15, Format::DecimalSi),
        "E" => (Base::Ten, 18, Format::DecimalSi),
        "Ki" => (Base::Two, 10, Format::BinarySi),
        "Mi" => (Base::Two, 20, Format::BinarySi),
        "Gi" => (Base::Two, 30, Format::BinarySi),
        "Ti" => (Base::Two, 40, Format::BinarySi),
        "Pi" => (Base::Two, 50, Format::BinarySi),
        "Ei" => (Base::Two, 60, Format::BinarySi),
        _ => {
            let Some(exponent) = suffix.strip_prefix(['e', 'E']) else {
                let shape = |c: char| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c);
                return Err(if suffix.chars().all(shape) { QuantityError::Suffix } else { QuantityError::Format });
            };
            let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            (Base::Ten, exponent, Format::DecimalExponent)
        }
    })
}

/// The number in billionths, rounded up, capped.
///
/// Works on digits, so that neither a long number nor a huge exponent can overflow anything.
fn scale(whole: &str, fraction: &str, base: Base, exponent: i32) -> i128 {
    const CAP: i128 = MAX_UNITS * NANO;
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').skip_while(|&d| d == 0).collect();
    if digits.is_empty() {
        return 0;
    }
    let (shift, factor) = match base {
        Base::Ten => (i64::from(exponent), 1),
        Base::Two => (0, 1_i128 << exponent.clamp(0, 60)),
    };
    // The decimal places to move: the value is 0.DIGITS × 10^point.
    let point = digits.len() as i64 - fraction.len() as i64 + shift + 9;
    if point > 28 {
        return CAP;
    }
    let high = digits_between(&digits, 0, point);
    let (value, rest) = if factor > 1 {
        // A binary suffix multiplies what would be cut off, so the next places count too: as many as fit.
        let ten19: i128 = 10_i128.pow(19);
        let low = digits_between(&digits, point, point + 19) * factor;
        let rest = low % ten19 != 0 || any_after(&digits, point + 19);
        (high.saturating_mul(factor).saturating_add(low / ten19), rest)
    } else {
        (high, any_after(&digits, point))
    };
    value.saturating_add(i128::from(rest)).min(CAP)
}

/// The number that the digits from place `from` up to place `to` form; places outside hold zeros.
fn digits_between(digits: &[u8], from: i64, to: i64) -> i128 {
    (from..to).fold(0, |value: i128, place| {
        let digit = usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
        value * 10 + i128::from(digit)
    })
}

/// Whether anything but zeros stands at or after this place.
fn any_after(digits: &[u8], place: i64) -> bool {
    digits.iter().skip(usize::try_from(place).unwrap_or(0)).any(|&digit| digit != 0)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        match self.format {
            Format::BinarySi if !small && self.is_whole() => {
                let (mut amount, mut power) = (self.nanos / NANO, 0);
                while amount % 1024 == 0 && power < 6 {
                    amount /= 1024;
                    power += 1;
                }
                write!(f, "{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
            }
            format => {
                let (mut amount, mut power) = (self.nanos, 0);
                while amount % 1000 == 0 && power < 9 {
                    amount /= 1000;
                    power += 1;
                }
                match (format, power) {
                    (_, 3) => write!(f, "{amount}"),
                    (Format::DecimalExponent, _) => {
                        write!(f, "{amount}e{}", (power as i32 - 3) * 3)
                    }
                    _ => write!(f, "{amount}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
                }
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, QuantityError> {
        quantity.0.trim().parse()
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a string, or from a plain number as people write it in YAML.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.trim().to_owned(),
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err(serde::de::Error::custom(QuantityError::Format)),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, expect) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("12345678", "12345678"),
            ("5000000", "5M"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("10e3", "10e3"),
            ("1e-3", "1e-3"),
            ("123Mi", "123Mi"),
            ("1024Ki", "1Mi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1Ki", "1Ki"),
            ("1500Ki", "1500Ki"),
            ("1023", "1023"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("100k", "100k"),
            ("2E", "2E"),
            ("8Ei", "9223372036854775807"),
            ("1e90", "9223372036854775807"),
            ("1e-90", "1e-9"),
            ("-5Gi", "-5Gi"),
            ("7Ei", "7Ei"),
            ("0.0000000000000000000000000001Gi", "1n"),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let canonical = quantity.to_string();
            assert_eq!(canonical, expect, "{text}");
            let again: Quantity = canonical.parse().unwrap();
            assert_eq!((again, again.to_string()), (quantity, canonical), "{text}");
        }
    }

    #[test]
    fn errors() {
        for (text, expect) in [
            ("", QuantityError::Format),
            ("m", QuantityError::Format),
            ("-", QuantityError::Format),
            (".", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1é", QuantityError::Format),
            ("1Kib", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1KMi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e99999999999", QuantityError::Suffix),
            ("1m5", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(expect), "{text:?}");
        }
    }

    #[test]
    fn values_round_up() {
        let check = |text: &str, value: i64, milli: i64| {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
        };
        check("1500m", 2, 1500);
        check("-1500m", -2, -1500);
        check("1Gi", 1 << 30, 1000 << 30);
        check("1n", 1, 1);
        check("9E", 9_000_000_000_000_000_000, i64::MAX);
    }

    #[test]
    fn sums_keep_the_format() {
        let sum: Quantity = ["1Gi", "512Mi"].iter().map(|text| text.parse::<Quantity>().unwrap()).sum();
        assert_eq!(sum.to_string(), "1536Mi");
        let difference = "2".parse::<Quantity>().unwrap() - "100m".parse().unwrap();
        assert_eq!(difference.to_string(), "1900m");
        assert!("1024Mi".parse::<Quantity>().unwrap() == "1Gi".parse().unwrap());
        assert!("999m".parse::<Quantity>().unwrap() < "1".parse().unwrap());
    }

    #[test]
    fn json() {
        for (json, expect) in [("\"1000m\"", "\"1\""), ("2", "\"2\""), ("0.5", "\"500m\""), ("\" 1Ki \"", "\"1Ki\"")] {
            let quantity: Quantity = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&quantity).unwrap(), expect);
        }
        assert!(serde_json::from_str::<Quantity>("true").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn round_trip(text in "[+-]?[0-9]{1,30}(\\.[0-9]{0,30})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]{1,3}|e-[0-9]{1,3})?") {
            let quantity: Quantity = text.parse().unwrap();
            let canonical = quantity.to_string();
            let again: Quantity = canonical.parse().unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), canonical);
        }

        #[test]
        fn decimals_are_exact(units in 0_i64..1_000_000, milli in 0_i64..1000) {
            let quantity: Quantity = format!("{units}.{milli:03}").parse().unwrap();
            prop_assert_eq!(quantity.milli_value(), units * 1000 + milli);
        }
    }
}
