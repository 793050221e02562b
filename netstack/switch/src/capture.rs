//! What crosses the switch, kept for somebody to look at.
//!
//! A capture holds the frames that leave the switch, after what the links did to them; a flooded frame counts once for every
//! port that it leaves by. It is bounded: past the bound frames are counted and not kept, so a claim about what is *not* in a
//! capture must look at [`Capture::missed`] as well.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::fabric::{Delivery, PortId};

/// Twenty seconds of what emulated machines can move, or an hour of an idle cluster.
const BYTES_MAX: usize = 256 << 20;
/// libpcap's file header for nanosecond times, little endian (draft-ietf-opsawg-pcap, 4).
const PCAP_MAGIC: u32 = 0xa1b2_3c4d;
const PCAP_SNAP_BYTES: u32 = 256 << 10;
const PCAP_ETHERNET: u32 = 1;

/// A frame that crossed a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When it left the switch.
    pub at: SystemTime,
    /// The port that it came in by.
    pub from: PortId,
    /// The port that it left by.
    pub to: PortId,
    /// The frame.
    pub frame: Vec<u8>,
}

#[derive(Debug, Default)]
struct Recorded {
    frames: Vec<Captured>,
    bytes: usize,
    missed: u64,
}

/// What has been captured so far. Dropping it ends the capture.
#[derive(Debug)]
pub struct Capture(Arc<Mutex<Recorded>>);

impl Capture {
    /// The frames so far, in the order in which they left the switch.
    #[must_use]
    pub fn frames(&self) -> Vec<Captured> {
        lock(&self.0).frames.clone()
    }

    /// How many frames there was no room for.
    #[must_use]
    pub fn missed(&self) -> u64 {
        lock(&self.0).missed
    }

    /// The frames in which `marker` stands in clear.
    #[must_use]
    pub fn with(&self, marker: &[u8]) -> Vec<Captured> {
        let holds = |it: &&Captured| it.frame.windows(marker.len().max(1)).any(|it| it == marker);
        lock(&self.0).frames.iter().filter(holds).cloned().collect()
    }

    /// Writes what there is as a libpcap file, for tcpdump and Wireshark.
    ///
    /// # Errors
    /// `out` does not take it.
    pub fn write_pcap(&self, out: &mut impl Write) -> io::Result<()> {
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&PCAP_MAGIC.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&4u16.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&PCAP_SNAP_BYTES.to_le_bytes());
        header.extend_from_slice(&PCAP_ETHERNET.to_le_bytes());
        out.write_all(&header)?;
        for captured in self.frames() {
            let at = captured.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
            let length = u32::try_from(captured.frame.len()).unwrap_or(u32::MAX);
            for field in [seconds, at.subsec_nanos(), length, length] {
                out.write_all(&field.to_le_bytes())?;
            }
            out.write_all(&captured.frame)?;
        }
        Ok(())
    }
}

/// The switch's side of a [`Capture`].
#[derive(Debug)]
pub(crate) struct Recorder {
    between: BTreeSet<PortId>,
    started: SystemTime,
    recorded: Arc<Mutex<Recorded>>,
}

impl Recorder {
    /// Records what passes between two of `between`; times count from `started`.
    pub(crate) fn new(between: BTreeSet<PortId>, started: SystemTime) -> (Self, Capture) {
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let capture = Capture(Arc::clone(&recorded));
        (Self { between, started, recorded }, capture)
    }

    /// `false`: nobody looks any more.
    pub(crate) fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.recorded) > 1
    }

    pub(crate) fn record(&self, now: Duration, delivery: &Delivery) {
        if !self.between.contains(&delivery.from) || !self.between.contains(&delivery.to) {
            return;
        }
        let mut recorded = lock(&self.recorded);
        if recorded.bytes + delivery.frame.len() > BYTES_MAX {
            recorded.missed += 1;
            return;
        }
        recorded.bytes += delivery.frame.len();
        recorded.frames.push(Captured {
            at: self.started + now,
            from: delivery.from,
            to: delivery.to,
            frame: delivery.frame.clone(),
        });
    }
}

/// Whoever panicked while it looked has changed nothing.
fn lock(recorded: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(from: usize, to: usize, bytes: &[u8]) -> Delivery {
        Delivery { from: PortId(from), to: PortId(to), frame: bytes.to_vec() }
    }

    fn recorder() -> (Recorder, Capture) {
        Recorder::new([PortId(0), PortId(1)].into(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn only_what_passes_between_the_named_ports_is_kept() {
        let (recorder, capture) = recorder();
        recorder.record(Duration::ZERO, &delivery(0, 1, b"a secret"));
        recorder.record(Duration::ZERO, &delivery(0, 2, b"a secret"));
        recorder.record(Duration::ZERO, &delivery(1, 0, b"nothing"));
        assert_eq!(capture.frames().len(), 2);
        assert_eq!(capture.with(b"secret").len(), 1);
        assert!(capture.with(b"Secret").is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let (recorder, capture) = recorder();
        let large = vec![0; BYTES_MAX];
        recorder.record(Duration::ZERO, &delivery(0, 1, &large));
        recorder.record(Duration::ZERO, &delivery(0, 1, b"x"));
        assert_eq!((capture.frames().len(), capture.missed()), (1, 1));
    }

    #[test]
    fn a_dropped_capture_ends() {
        let (recorder, capture) = recorder();
        assert!(recorder.is_wanted());
        drop(capture);
        assert!(!recorder.is_wanted());
    }

    #[test]
    fn a_pcap_file_has_its_header_and_each_frame_its_own() {
        let (recorder, capture) = recorder();
        recorder.record(Duration::new(3, 7), &delivery(0, 1, b"frame"));
        let mut file = Vec::new();
        capture.write_pcap(&mut file).expect("a vector takes all");
        assert_eq!(file.len(), 24 + 16 + 5);
        assert_eq!(file[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
        assert_eq!(file[20..24], [1, 0, 0, 0]);
        assert_eq!(file[24..32], [3, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(file[40..], *b"frame");
    }
}
