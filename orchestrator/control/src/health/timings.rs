//! Every default timing of node lifecycle, with its reason.
//!
//! What they add up to, for a machine that dies at the worst moment: 3.5 s of silence, up to 0.3 s until another node's beat says
//! the same, up to 0.25 s until the leader looks, and four commits (taint, eviction, replacement, binding). That is under the
//! 5 s which the simulator holds it to. If the leader died with it, an election (1.5 to 2 s, seldom repeated, and then within 1 s) comes before, and the
//! sum is under 8 s.

use std::time::Duration;

/// How node lifecycle is timed. All of it is monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// A node says this often that it lives. In the 1.5 s that [`Timings::silence`] leaves after a hiccup of 2 s there are five
    /// beats: where one message in five is lost, all five are lost once in 3,000 times, and on the way to a second
    /// node too once in ten million. Ten small messages a second to each voter cost less than the store's own heartbeats.
    pub beat: Duration,
    /// A node that was not heard for this long is taken for dead, if others agree. Long enough for a pause of 2 s (a live
    /// migration, a full disk's flush, a switch that learns its ports) and for an election; short enough that its pods run elsewhere
    /// within 5 s.
    pub silence: Duration,
    /// A leader that has no word of others about a silent node, though some could have heard it, waits this long for one. Three
    /// silences: those who could tell are heard again or dead themselves by then.
    pub alone: Duration,
    /// A node that was not heard for this long counts as silent when it is asked whether many are at once. Half of
    /// [`Timings::silence`]: those who fall silent together are seen as together, whatever their beats' phases.
    pub quiet: Duration,
    /// The leader looks at its table this often. Nothing is sent for it.
    pub look: Duration,
    /// A leader whose look is later than this was itself stopped, and what it did not hear meanwhile says nothing. Shorter than
    /// [`Timings::quiet`], so that its own pause alone never makes anybody silent; longer than a busy machine's scheduling takes.
    pub stall: Duration,
    /// A node that was dead must be heard for this long before pods come to it again: it has finished what it had to
    /// end by then, and one beat that slipped through is no return.
    pub probation: Duration,
    /// Each death within [`Timings::flap_memory`] doubles the probation up to this. Longer would punish a machine that was
    /// rebooted five times by hand.
    pub probation_max: Duration,
    /// A node that lived this long starts again with the shortest probation.
    pub flap_memory: Duration,
    /// A node that is heard, and says that it is not ready, keeps its pods for this long: they mostly run. Kubernetes'
    /// default tolerations give the same 300 s.
    pub unready: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(300),
            silence: Duration::from_millis(3_500),
            alone: Duration::from_millis(10_500),
            quiet: Duration::from_millis(1_750),
            look: Duration::from_millis(250),
            stall: Duration::from_secs(1),
            probation: Duration::from_secs(2),
            probation_max: Duration::from_secs(120),
            flap_memory: Duration::from_secs(600),
            unready: Duration::from_secs(300),
        }
    }
}

impl Timings {
    /// Everything that races a machine's speed, this many times slower: for emulated machines.
    #[must_use]
    pub fn scaled(self, factor: u32) -> Self {
        let factor = factor.max(1);
        Self {
            beat: self.beat * factor,
            silence: self.silence * factor,
            alone: self.alone * factor,
            quiet: self.quiet * factor,
            look: self.look * factor,
            stall: self.stall * factor,
            probation: self.probation * factor,
            probation_max: self.probation_max,
            flap_memory: self.flap_memory,
            unready: self.unready,
        }
    }
}
