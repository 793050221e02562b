//! Reading quantities.

use super::{Format, LIMIT, Quantity, QuantityError};

/// More digits than this in front of the point, counted in billionths, are above the limit whatever they are.
const MAXIMUM_EXPONENT: u32 = 36;

pub(super) fn parse(text: &str) -> Result<Quantity, QuantityError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err(QuantityError::Form),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if number.is_empty() || !suffix_form(suffix) {
        return Err(QuantityError::Form);
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Number);
    }
    let (format, scale) = parse_suffix(suffix)?;
    let nanos = magnitude(whole, fraction, scale);
    Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn suffix_form(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Result<(Format, Scale), QuantityError> {
    let decimal = |exponent| (Format::DecimalSi, Scale::Ten(exponent));
    let binary = |bits| (Format::BinarySi, Scale::Two(bits));
    Ok(match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            (Format::DecimalExponent, Scale::Ten(exponent))
        }
    })
}

/// Billionths of `whole.fraction × scale`: rounded up, cut to the limit.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let mut digits: Vec<u8> =
        whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    if digits.is_empty() {
        return 0;
    }
    // The amount is 0.d₁d₂d₃… × 10^point, times the scale, in billionths.
    let point = i64::try_from(digits.len()).unwrap_or(i64::MAX)
        - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let (ten, two) = match scale {
        Scale::Ten(exponent) => (i64::from(exponent), 0),
        Scale::Two(bits) => (0, bits),
    };
    let point = point + ten + 9;
    if point > i64::from(MAXIMUM_EXPONENT) {
        return LIMIT;
    }
    if two > 0 {
        return binary_magnitude(&digits, point, two);
    }
    let kept = usize::try_from(point.max(0)).unwrap_or(0).min(digits.len());
    let mut nanos = digits[..kept].iter().fold(0, |sum, digit| sum * 10 + i128::from(*digit));
    let missing = point - i64::try_from(kept).unwrap_or(i64::MAX);
    for _ in 0..missing.max(0) {
        nanos = nanos.saturating_mul(10);
    }
    let rest = digits[kept..].iter().any(|digit| *digit != 0);
    (nanos + i128::from(rest)).min(LIMIT)
}

/// As [`magnitude`], for a power of two: exact as long as the fraction has no more than some 18 digits.
fn binary_magnitude(digits: &[u8], point: i64, bits: u32) -> i128 {
    let mut whole: i128 = 0;
    let mut fraction: i128 = 0;
    let mut unit: i128 = 1;
    for (index, digit) in digits.iter().enumerate() {
        if i64::try_from(index).unwrap_or(i64::MAX) < point {
            whole = whole * 10 + i128::from(*digit);
        } else if unit < 1_000_000_000_000_000_000 {
            fraction = fraction * 10 + i128::from(*digit);
            unit *= 10;
        }
    }
    for _ in i64::try_from(digits.len()).unwrap_or(i64::MAX)..point {
        whole = whole.saturating_mul(10);
    }
    for _ in point..0 {
        unit = unit.saturating_mul(10);
    }
    if whole > LIMIT >> bits {
        return LIMIT;
    }
    let power = 1i128 << bits;
    let part = fraction
        .checked_mul(power)
        .map_or(0, |product| product.div_euclid(unit) + i128::from(product % unit != 0));
    (whole * power + part).min(LIMIT)
}
