//! Fields that hold a number or a text: ports by number or name, and amounts as a number or a percentage.

use serde_json::Value;

/// Which way a percentage that gives a fraction is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Up, as `maxSurge` is: a percentage above nothing always allows one.
    Up,
    /// Down, as `maxUnavailable` is.
    Down,
}

/// The amount that a number or a percentage of `total` stands for; `None` when it is neither.
#[must_use]
pub fn resolve(value: &Value, total: i64, rounding: Rounding) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let part = percentage(value)?.checked_mul(total)?;
    Some(match rounding {
        Rounding::Up => part.div_euclid(100) + i64::from(part.rem_euclid(100) != 0),
        Rounding::Down => part.div_euclid(100),
    })
}

/// The `N` of `"N%"`.
#[must_use]
pub fn percentage(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Rounding, resolve};

    #[test]
    fn percentages_round_towards_progress_for_surge_and_safety_for_unavailability() {
        assert_eq!(resolve(&json!("25%"), 3, Rounding::Up), Some(1));
        assert_eq!(resolve(&json!("25%"), 3, Rounding::Down), Some(0));
        assert_eq!(resolve(&json!("100%"), 7, Rounding::Down), Some(7));
        assert_eq!(resolve(&json!("25%"), 8, Rounding::Up), Some(2));
        assert_eq!(resolve(&json!(4), 3, Rounding::Up), Some(4));
        assert_eq!(resolve(&json!("0%"), 3, Rounding::Up), Some(0));
        for bad in [
            json!("25"),
            json!("%"),
            json!("-5%"),
            json!(null),
            json!("99999999999999999999%"),
            json!("9000000000000000000%"),
        ] {
            assert_eq!(resolve(&bad, 3, Rounding::Up), None, "{bad}");
        }
    }
}
