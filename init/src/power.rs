//! The power button, and the watchdog that resets a machine whose PID 1 is stuck.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

/// `struct input_event` on 64-bit machines: two times of 8 bytes, type, code, value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// Watchdogs bite after 30 seconds or more.
const PAT_EVERY: Duration = Duration::from_secs(5);

/// An input device that has a power key. A hypervisor's request to power off comes this way too.
#[derive(Debug)]
pub(crate) struct Button {
    device: File,
}

impl Button {
    /// All that are there.
    pub(crate) fn find() -> Vec<Self> {
        let folders = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
        folders
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("event"))
            .filter(|name| {
                let label = fs::read_to_string(format!("/sys/class/input/{name}/device/name"))
                    .unwrap_or_default();
                label.trim() == "Power Button"
            })
            .filter_map(|name| {
                let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
                File::options()
                    .read(true)
                    .custom_flags(flags)
                    .open(format!("/dev/input/{name}"))
                    .ok()
            })
            .map(|device| Self { device })
            .collect()
    }

    /// Whether the key went down since the last call.
    pub(crate) fn pressed(&mut self) -> bool {
        let mut buffer = [0u8; EVENT_BYTES * 16];
        let mut pressed = false;
        while let Ok(count) = self.device.read(&mut buffer) {
            if count == 0 {
                break;
            }
            let events = buffer.get(..count).unwrap_or_default();
            pressed |= events.chunks_exact(EVENT_BYTES).any(is_power_down);
        }
        pressed
    }
}

impl AsFd for Button {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn is_power_down(event: &[u8]) -> bool {
    let short = |at: usize| {
        event.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
    };
    let value = event.get(20..24).and_then(|bytes| bytes.try_into().ok()).map(i32::from_le_bytes);
    short(16) == Some(EV_KEY) && short(18) == Some(KEY_POWER) && value == Some(1)
}

/// An open watchdog bites unless it is patted.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    next: Duration,
}

impl Watchdog {
    /// The machine's watchdog, if it has one.
    pub(crate) fn open(now: Duration) -> Option<Self> {
        let device = File::options().write(true).open("/dev/watchdog").ok()?;
        Some(Self { device, next: now })
    }

    /// When it must be patted.
    pub(crate) fn next_wake(&self) -> Duration {
        self.next
    }

    /// Pats it if it is time.
    pub(crate) fn tick(&mut self, now: Duration) {
        if now >= self.next {
            let _ = self.device.write_all(&[0]);
            self.next = now + PAT_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0u8; 16];
        bytes.extend(kind.to_le_bytes());
        bytes.extend(code.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        assert!(is_power_down(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_power_down(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_power_down(&event(EV_KEY, 30, 1)));
        assert!(!is_power_down(&[1, 0]));
    }
}
