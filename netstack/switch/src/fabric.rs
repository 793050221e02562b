//! Where a frame goes: a learning switch whose links can be made bad.
//!
//! Pure: frames and time in, frames out; the caller moves the bytes. Link conditions are directional, because a one-way cut
//! is the fault that protocols handle worst.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::MacAddress;

/// A port of the switch. The gateway is a port like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub usize);

/// What a link does to the frames that cross it in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCondition {
    /// Nothing passes.
    pub cut: bool,
    /// Every frame is late by this much.
    pub delay: Duration,
    /// Of a thousand frames, how many are lost.
    pub loss_per_mille: u16,
    /// Of a thousand frames, how many arrive twice.
    pub duplicate_per_mille: u16,
}

/// The most addresses that are remembered; a VM that invents addresses must not grow the table without end.
const ADDRESSES_MAX: usize = 4096;

/// A learning Ethernet switch with link conditions.
#[derive(Debug)]
pub struct Fabric {
    ports: usize,
    learned: BTreeMap<MacAddress, PortId>,
    conditions: BTreeMap<(PortId, PortId), LinkCondition>,
    late: BTreeMap<(Duration, u64), (PortId, Vec<u8>)>,
    sequence: u64,
    random: u64,
}

impl Fabric {
    /// A switch with `ports` ports, all links good. `seed` decides which frames a lossy link loses.
    #[must_use]
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            ports,
            learned: BTreeMap::new(),
            conditions: BTreeMap::new(),
            late: BTreeMap::new(),
            sequence: 0,
            random: seed,
        }
    }

    /// Sets what happens to frames from one port to another, in that direction only.
    pub fn set_condition(&mut self, from: PortId, to: PortId, condition: LinkCondition) {
        if condition == LinkCondition::default() {
            self.conditions.remove(&(from, to));
        } else {
            self.conditions.insert((from, to), condition);
        }
    }

    /// Takes a frame that came in by `from` and puts what leaves now into `out`. Frames that are no Ethernet are dropped.
    pub fn receive(
        &mut self,
        now: Duration,
        from: PortId,
        frame: &[u8],
        out: &mut Vec<(PortId, Vec<u8>)>,
    ) {
        let Some((destination, source)) = addresses(frame) else { return };
        let known = self.learned.contains_key(&source) || self.learned.len() < ADDRESSES_MAX;
        if known && !is_group(source) {
            self.learned.insert(source, from);
        }
        match self.learned.get(&destination).filter(|_| !is_group(destination)) {
            Some(&to) if to != from => self.cross(now, from, to, frame, out),
            Some(_) => {}
            None => {
                for to in (0..self.ports).map(PortId).filter(|to| *to != from) {
                    self.cross(now, from, to, frame, out);
                }
            }
        }
    }

    /// Puts the frames whose delay has passed into `out`, earliest first.
    pub fn release(&mut self, now: Duration, out: &mut Vec<(PortId, Vec<u8>)>) {
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now {
                break;
            }
            out.push(entry.remove());
        }
    }

    /// When [`Fabric::release`] has something to do next.
    #[must_use]
    pub fn next_release(&self) -> Option<Duration> {
        self.late.first_key_value().map(|((due, _), _)| *due)
    }

    fn cross(
        &mut self,
        now: Duration,
        from: PortId,
        to: PortId,
        frame: &[u8],
        out: &mut Vec<(PortId, Vec<u8>)>,
    ) {
        let condition = self.conditions.get(&(from, to)).copied().unwrap_or_default();
        if condition.cut || self.happens(condition.loss_per_mille) {
            return;
        }
        let copies = if self.happens(condition.duplicate_per_mille) { 2 } else { 1 };
        for _ in 0..copies {
            if condition.delay.is_zero() {
                out.push((to, frame.to_vec()));
            } else {
                self.sequence += 1;
                self.late.insert((now + condition.delay, self.sequence), (to, frame.to_vec()));
            }
        }
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        if per_mille == 0 {
            return false;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): every seed is a good seed.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 1000 < u64::from(per_mille)
    }
}

fn addresses(frame: &[u8]) -> Option<(MacAddress, MacAddress)> {
    let destination = frame.get(0..6)?.try_into().ok()?;
    let source = frame.get(6..12)?.try_into().ok()?;
    frame.get(12..14)?;
    Some((MacAddress(destination), MacAddress(source)))
}

/// Broadcast and multicast addresses have the lowest bit of the first byte set (IEEE 802.3, 3.2.3).
fn is_group(address: MacAddress) -> bool {
    address.0[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x08, 0x00];
        if to == 0xff {
            bytes[..6].fill(0xff);
        }
        bytes
    }

    fn receive(fabric: &mut Fabric, from: usize, bytes: &[u8]) -> Vec<usize> {
        let mut out = Vec::new();
        fabric.receive(NOW, PortId(from), bytes, &mut out);
        out.into_iter().map(|(port, _)| port.0).collect()
    }

    #[test]
    fn an_unknown_address_is_flooded_but_never_back() {
        let mut fabric = Fabric::new(4, 7);
        assert_eq!(receive(&mut fabric, 1, &frame(9, 1)), [0, 2, 3]);
    }

    #[test]
    fn a_learned_address_gets_its_frames_alone() {
        let mut fabric = Fabric::new(4, 7);
        receive(&mut fabric, 2, &frame(0xff, 5));
        assert_eq!(receive(&mut fabric, 0, &frame(5, 1)), [2]);
    }

    #[test]
    fn a_machine_that_moves_is_found_at_its_new_port() {
        let mut fabric = Fabric::new(3, 7);
        receive(&mut fabric, 1, &frame(0xff, 5));
        receive(&mut fabric, 2, &frame(0xff, 5));
        assert_eq!(receive(&mut fabric, 0, &frame(5, 1)), [2]);
    }

    #[test]
    fn a_group_address_is_never_learned() {
        let mut fabric = Fabric::new(3, 7);
        let mut forged = frame(9, 1);
        forged[6..12].fill(0xff);
        receive(&mut fabric, 1, &forged);
        assert_eq!(receive(&mut fabric, 0, &frame(0xff, 2)), [1, 2]);
    }

    #[test]
    fn a_cut_is_one_way() {
        let mut fabric = Fabric::new(2, 7);
        let cut = LinkCondition { cut: true, ..LinkCondition::default() };
        fabric.set_condition(PortId(0), PortId(1), cut);
        assert!(receive(&mut fabric, 0, &frame(0xff, 1)).is_empty());
        assert_eq!(receive(&mut fabric, 1, &frame(0xff, 2)), [0]);
        fabric.set_condition(PortId(0), PortId(1), LinkCondition::default());
        assert_eq!(receive(&mut fabric, 0, &frame(0xff, 1)), [1]);
    }

    #[test]
    fn delayed_frames_leave_in_order_and_on_time() {
        let mut fabric = Fabric::new(2, 7);
        let slow = LinkCondition { delay: Duration::from_millis(50), ..LinkCondition::default() };
        fabric.set_condition(PortId(0), PortId(1), slow);
        assert!(receive(&mut fabric, 0, &frame(2, 1)).is_empty());
        assert!(receive(&mut fabric, 0, &frame(3, 1)).is_empty());
        let due = NOW + Duration::from_millis(50);
        assert_eq!(fabric.next_release(), Some(due));
        let mut out = Vec::new();
        fabric.release(due - Duration::from_nanos(1), &mut out);
        assert!(out.is_empty());
        fabric.release(due, &mut out);
        let last_bytes: Vec<u8> = out.iter().map(|(_, bytes)| bytes[5]).collect();
        assert_eq!(last_bytes, [2, 3]);
    }

    #[test]
    fn loss_is_near_its_rate_and_repeats_with_its_seed() {
        let lost = |seed| {
            let mut fabric = Fabric::new(2, seed);
            let lossy = LinkCondition { loss_per_mille: 200, ..LinkCondition::default() };
            fabric.set_condition(PortId(0), PortId(1), lossy);
            (0..10_000)
                .map(|_| receive(&mut fabric, 0, &frame(2, 1)).is_empty())
                .collect::<Vec<bool>>()
        };
        let count = lost(42).into_iter().filter(|lost| *lost).count();
        assert!((1_700..2_300).contains(&count), "{count} of 10,000 lost at 200 per mille");
        assert!(lost(42) == lost(42), "one seed gave two patterns");
        assert!(lost(42) != lost(43), "two seeds gave one pattern");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_send_a_frame_back(
            frames in proptest::collection::vec((0usize..3, proptest::collection::vec(0u8..4, 0..20)), 0..40)
        ) {
            let mut fabric = Fabric::new(3, 1);
            for (from, bytes) in frames {
                proptest::prop_assert!(!receive(&mut fabric, from, &bytes).contains(&from));
            }
        }
    }
}
