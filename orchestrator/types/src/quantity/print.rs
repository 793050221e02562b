//! Printing quantities in canonical form.

use std::fmt;

use super::{Format, NANO, Quantity};

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            // Below 1024, and with a fraction, binary quantities are written as decimal ones.
            Format::BinarySi if self.is_whole() && self.nanos.abs() >= 1024 * NANO => {
                let (number, steps) = reduce(self.nanos / NANO, 1024, BINARY.len() - 1);
                write!(f, "{number}{}", BINARY[steps])
            }
            Format::BinarySi | Format::DecimalSi => {
                let (number, steps) = reduce(self.nanos, 1000, DECIMAL.len() - 1);
                write!(f, "{number}{}", DECIMAL[steps])
            }
            Format::DecimalExponent => {
                let (number, steps) = reduce(self.nanos, 1000, DECIMAL.len() - 1);
                let exponent = 3 * i32::try_from(steps).unwrap_or(i32::MAX) - 9;
                if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") }
            }
        }
    }
}

/// Divides by `base` as long as nothing is left over, at most `limit` times.
fn reduce(mut number: i128, base: i128, limit: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < limit && number % base == 0 {
        number /= base;
        steps += 1;
    }
    (number, steps)
}
