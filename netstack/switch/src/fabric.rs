//! Where a frame goes: a learning switch whose links can be made bad.
//!
//! Pure: frames and time in, frames out; the caller moves the bytes. What a link does to a frame is [`link`]'s.
//!
//! Every directed pair of ports is a link of its own, for unicast and for the copies of a flooded frame alike, so machines can
//! be cut off from each other pair by pair: A may see B and B see C while A does not see C.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::MacAddress;

mod link;

use link::Link;
pub use link::LinkCondition;

/// A port of the switch. The gateway is a port like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub usize);

/// A frame that leaves the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The port that it came in by.
    pub from: PortId,
    /// The port that it leaves by.
    pub to: PortId,
    /// The frame, from the destination's address on.
    pub frame: Vec<u8>,
}

/// The most addresses that are remembered; a VM that invents addresses must not grow the table without end.
const ADDRESSES_MAX: usize = 4096;

/// A learning Ethernet switch with link conditions.
#[derive(Debug)]
pub struct Fabric {
    ports: usize,
    seed: u64,
    learned: BTreeMap<MacAddress, PortId>,
    links: BTreeMap<(PortId, PortId), Link>,
    late: BTreeMap<(Duration, u64), Delivery>,
    sequence: u64,
}

impl Fabric {
    /// A switch with `ports` ports, all links good. `seed` decides which frames a lossy link loses.
    #[must_use]
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            ports,
            seed,
            learned: BTreeMap::new(),
            links: BTreeMap::new(),
            late: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Sets what happens to frames from one port to another, in that direction only. Frames that a link delays are in it, and
    /// a cut loses them.
    pub fn set_condition(&mut self, from: PortId, to: PortId, condition: LinkCondition) {
        // A link that was ever bad stays, so that its dice go on where they stopped.
        let seed = self.seed;
        self.links.entry((from, to)).or_insert_with(|| Link::new(seed, from, to)).condition =
            condition;
        if condition.cut {
            self.late.retain(|_, late| (late.from, late.to) != (from, to));
        }
    }

    /// Takes a frame that came in by `from` and puts what leaves now into `out`. Frames that are no Ethernet are dropped.
    pub fn receive(&mut self, now: Duration, from: PortId, frame: &[u8], out: &mut Vec<Delivery>) {
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
    pub fn release(&mut self, now: Duration, out: &mut Vec<Delivery>) {
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
        out: &mut Vec<Delivery>,
    ) {
        let copies = match self.links.get_mut(&(from, to)) {
            Some(link) => link.copies(),
            None => [Some(Duration::ZERO), None],
        };
        for delay in copies.into_iter().flatten() {
            let delivery = Delivery { from, to, frame: frame.to_vec() };
            if delay.is_zero() {
                out.push(delivery);
            } else {
                self.sequence += 1;
                self.late.insert((now + delay, self.sequence), delivery);
            }
        }
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
mod tests;
