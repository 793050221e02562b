//! Names of signals, as images and specs give them.

/// SIGTERM.
pub(crate) const TERM: i32 = 15;
/// SIGKILL.
pub(crate) const KILL: i32 = 9;

/// The number of a signal that is named with or without `SIG`, or given as a number.
pub(crate) fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let realtime = |base: &str, sign: i32, from: i32| {
        let rest = full.strip_prefix(base)?;
        if rest.is_empty() {
            return Some(from);
        }
        let distance: i32 = rest.get(1..)?.parse().ok()?;
        Some(from + sign * distance).filter(|number| (34..=64).contains(number))
    };
    full.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
        .or_else(|| realtime("SIGRTMIN", 1, 34))
        .or_else(|| realtime("SIGRTMAX", -1, 64))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let cases = [
            ("SIGTERM", 15),
            ("term", 15),
            ("QUIT", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ];
        for (name, expected) in cases {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("SIGNONSENSE"), None);
        assert_eq!(number("99"), None);
    }
}
