//! What the operator sees: one line per fact, with the time since the kernel started in front.
//!
//! A console that does not take text (a serial line nobody reads) must not stop the machine, so errors are ignored.

use std::io::Write as _;
use std::time::Duration;

/// Since the kernel started; goes on while the machine is suspended.
pub(crate) fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Prints one line.
pub(crate) fn say(text: &str) {
    let now = uptime().as_secs_f64();
    // One write per line: programs that share the console do not cut into it.
    let line = format!("[{now:8.3}] {text}\r\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Prints one line that asks for attention.
pub(crate) fn warn(text: &str) {
    say(&format!("!! {text}"));
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
