//! What a link does to the frames that cross it in one direction.
//!
//! Conditions are directional, because a one-way cut is the fault that protocols handle worst. Every link has dice of its own,
//! from the switch's seed and its two ends: what one link loses does not depend on what passes another.

use std::time::Duration;

use super::PortId;

/// What a link does to the frames that cross it in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCondition {
    /// Nothing passes.
    pub cut: bool,
    /// Every frame is late by this much.
    pub delay: Duration,
    /// And by up to this much more, each frame by an amount of its own; frames overtake each other if they come closer than
    /// that.
    pub jitter: Duration,
    /// Of a thousand frames, how many are lost.
    pub loss_per_mille: u16,
    /// Of a thousand frames, how many arrive twice.
    pub duplicate_per_mille: u16,
    /// Of a thousand frames, how many are held back until later ones have overtaken them.
    pub reorder_per_mille: u16,
}

/// How long a reordered frame is held back. An emulated machine answers within 2 to 6 ms, so several frames of a conversation
/// overtake it; TCP's first retransmission comes after 200 ms.
const HELD_BACK: Duration = Duration::from_millis(20);

/// One direction between two ports.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) condition: LinkCondition,
    dice: u64,
}

impl Link {
    pub(super) fn new(seed: u64, from: PortId, to: PortId) -> Self {
        let ends = ((from.0 as u64) << 32) | to.0 as u64;
        Self { condition: LinkCondition::default(), dice: mix(seed ^ mix(ends)) }
    }

    /// How late each copy of the next frame is; without copies the frame is lost.
    pub(super) fn copies(&mut self) -> [Option<Duration>; 2] {
        let condition = self.condition;
        if condition.cut || self.happens(condition.loss_per_mille) {
            return [None, None];
        }
        let twice = self.happens(condition.duplicate_per_mille);
        [Some(self.delay()), twice.then(|| self.delay())]
    }

    fn delay(&mut self) -> Duration {
        let LinkCondition { delay, jitter, reorder_per_mille, .. } = self.condition;
        let mut late = delay;
        if !jitter.is_zero() {
            let nanoseconds = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
            late += Duration::from_nanos(self.roll() % nanoseconds.saturating_add(1));
        }
        if self.happens(reorder_per_mille) {
            late += HELD_BACK;
        }
        late
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        per_mille != 0 && self.roll() % 1000 < u64::from(per_mille)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): every seed is a good seed.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.dice)
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
