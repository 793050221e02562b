//! How fast machines speak, and how long they wait.

use std::time::Duration;

/// Intervals and limits. A machine in an emulator multiplies all of them.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two hellos, and two announcements.
    pub hello: Duration,
    /// A machine that was silent for longer is not seen; a connection on which something is due for longer is broken.
    /// Four hellos: one may be lost with its retransmission.
    pub patience: Duration,
    /// For a connection and its proof. A handshake takes some ten milliseconds; a lost SYN is repeated after a second.
    pub connect: Duration,
    /// The first wait after an address did not answer; it doubles.
    pub retry_min: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(1),
            patience: Duration::from_secs(4),
            connect: Duration::from_secs(3),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// Slower by a factor, except the hellos: more of them would not be lost on a slow machine.
    #[must_use]
    pub fn slower(self, factor: u32) -> Self {
        Self { patience: self.patience * factor, connect: self.connect * factor, ..self }
    }
}
