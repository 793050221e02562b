//! Amounts of resources: `resource.Quantity` of Kubernetes.
//!
//! A quantity is a number with at most nine decimal places and a suffix: binary (`Ki` … `Ei`), decimal (`n`, `u`, `m`,
//! none, `k` … `E`) or a decimal exponent (`e3`). It is held exactly, in billionths; finer parts are rounded away from zero,
//! and what is beyond ±(2⁶³−1) is cut to it, as in Kubernetes. It is printed in canonical form: the largest suffix of its
//! own family that leaves no fraction.

mod parse;
mod print;

use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde_json::Value;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// The largest magnitude, in billionths.
const LIMIT: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes that a quantity was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m k M G T P E`
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`, `E-6`
    DecimalExponent,
}

/// An exact amount. Equality and order are those of the amount; the format only matters in print.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form of a quantity.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Form,
    /// The number in front of the suffix cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Reads any well-formed quantity.
    ///
    /// # Errors
    /// When the text is not one; the message is Kubernetes'.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::parse(text)
    }

    /// A whole number, in decimal format.
    #[must_use]
    pub fn from_value(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// A number of thousandths (of a processor, usually), in decimal format.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: (i128::from(milli) * (NANO / 1000)).clamp(-LIMIT, LIMIT),
            format: Format::DecimalSi,
        }
    }

    /// A number of bytes, in binary format.
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// The amount as a whole number, rounded up (away from zero).
    #[must_use]
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded up (away from zero); cut to the range of the type.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below nothing.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The amount with at most three decimal places, rounded up (away from zero).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let unit = NANO / 1000;
        let nanos = (self.nanos.abs() + unit - 1) / unit * unit * self.nanos.signum();
        Self { nanos: nanos.clamp(-LIMIT, LIMIT), ..self }
    }

    /// The family of suffixes it is printed with.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    fn scaled(self, unit: i128) -> i64 {
        let rounded = (self.nanos.abs() + unit - 1) / unit * self.nanos.signum();
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }
}

/// The quantity in a field: a string, or a bare number as YAML writes it.
#[must_use]
pub fn of(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
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

/// A sum has the format of its first part, unless that is zero.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, format: other.format }
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

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Quantity, QuantityError};

    #[test]
    fn quantities_are_printed_in_canonical_form() {
        let cases = [
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("100m", "100m"),
            ("0", "0"),
            ("0Gi", "0"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1000k", "1M"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("12e-3", "12e-3"),
            ("+5", "5"),
            ("-1.5", "-1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1E", "1E"),
            ("0.5", "500m"),
            ("512Ki", "512Ki"),
            ("1.1Ki", "1126400m"),
            ("9223372036854775807", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("00.10", "100m"),
            ("1e20", "9223372036854775807"),
        ];
        for (text, canonical) in cases {
            assert_eq!(
                Quantity::parse(text).map(|quantity| quantity.to_string()).as_deref(),
                Ok(canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn texts_that_are_no_quantities_are_refused() {
        for text in [
            "", "a", "1.2.3", "1 Gi", "Gi", "1gi", "1KI", "--1", "1Kii", "1e1.5", ".", "+", "1k1",
            "０",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Quantity::parse("abc"), Err(QuantityError::Form));
    }

    #[test]
    fn whole_and_milli_values_round_up() {
        let quantity = |text| Quantity::parse(text).expect("a quantity");
        assert_eq!(quantity("100m").value(), 1);
        assert_eq!(quantity("1.0001").milli_value(), 1001);
        assert_eq!(quantity("-1.5").value(), -2);
        assert_eq!(quantity("64Mi").value(), 64 * 1024 * 1024);
        assert_eq!(quantity("8E").milli_value(), i64::MAX);
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("1"), quantity("1000m"));
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_amount_back(number in -1_000_000_000i64..1_000_000_000, suffix in "(n|u|m||k|M|G|Ki|Mi|Gi|e-3|e3|E2)") {
            let quantity = Quantity::parse(&format!("{number}{suffix}")).expect("a quantity");
            let printed = quantity.to_string();
            let again = Quantity::parse(&printed).expect("what we print");
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), printed);
        }

        #[test]
        fn sums_are_exact(a in -1_000_000_000_000i64..1_000_000_000_000, b in -1_000_000_000_000i64..1_000_000_000_000) {
            let (x, y) = (Quantity::from_milli(a), Quantity::from_milli(b));
            prop_assert_eq!((x + y).milli_value(), a + b);
            prop_assert_eq!(x + y - y, x);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,24}", near in "[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,4}") {
            let _ = Quantity::parse(&text);
            if let Ok(quantity) = Quantity::parse(&near) {
                prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
            }
        }
    }
}
