//! Nodes that beat over a network of cardboard, and a leader that judges them. Time is virtual, in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podium_types::k8s::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
use proptest::prelude::*;

use super::{Health, Hearing, Life, Timings};
use crate::node_lifecycle::taint::UNREACHABLE;

/// [`Timings::beat`] in milliseconds.
const BEAT: u64 = 300;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(index: usize) -> String {
    format!("n{index}")
}

fn node(name: &str, ready: &str, expelled: bool) -> Node {
    let taint = Taint { key: UNREACHABLE.into(), effect: "NoExecute".into(), ..Taint::default() };
    let condition =
        NodeCondition { type_: "Ready".into(), status: ready.into(), ..NodeCondition::default() };
    let mut node = Node {
        spec: Some(NodeSpec { taints: expelled.then(|| vec![taint]), ..NodeSpec::default() }),
        status: Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() }),
        ..Node::default()
    };
    node.metadata.name = Some(name.into());
    node
}

/// What goes from one node to another.
struct Message {
    at: u64,
    from: usize,
    to: usize,
    /// The answer to a beat, which is heard but is none.
    is_answer: bool,
}

/// Whether the network brings a message to its end.
type Weather = Box<dyn FnMut(Message) -> bool>;

/// `nodes` machines, of which the first `voters` are voters and the very first leads.
struct Room {
    voters: usize,
    hearings: Vec<Hearing>,
    health: Health,
    /// Off: neither beats nor hears.
    off: BTreeSet<usize>,
    /// The leader does nothing.
    stopped: bool,
    arrives: Weather,
    now: u64,
    /// Every change of a life.
    log: Vec<(u64, String, Life)>,
    lives: BTreeMap<String, Life>,
    /// How many of them were deaths that cost a node its pods.
    falls: usize,
}

impl Room {
    fn new(nodes: usize, voters: usize) -> Self {
        let now = 10_000;
        let mut health = Health::new(Timings::default(), &name(0), ms(now));
        for index in 0..nodes {
            health.observe(&name(index), Some(&node(&name(index), "True", false)), ms(now));
        }
        Self {
            voters,
            hearings: (0..nodes).map(|_| Hearing::new(Timings::default())).collect(),
            health,
            off: BTreeSet::new(),
            stopped: false,
            arrives: Box::new(|_| true),
            now,
            log: Vec::new(),
            lives: BTreeMap::new(),
            falls: 0,
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 10;
            for from in 0..self.hearings.len() {
                let phase = (from as u64 * 70) / 10 * 10;
                let beats = (self.now + phase).is_multiple_of(BEAT);
                if beats && self.runs(from) {
                    self.beat(from);
                }
            }
            let due = self.health.next_look().is_some_and(|at| at <= ms(self.now));
            if due && !self.stopped {
                self.look();
            }
        }
    }

    fn runs(&self, index: usize) -> bool {
        !self.off.contains(&index) && (index != 0 || !self.stopped)
    }

    fn beat(&mut self, from: usize) {
        let now = ms(self.now);
        let beat = self.hearings[from].beat(&name(from), true, now);
        for to in (0..self.voters).filter(|to| *to != from) {
            let beats = Message { at: self.now, from, to, is_answer: false };
            if self.runs(to) && (self.arrives)(beats) {
                self.hearings[to].hear(&name(from), now);
                if to == 0 {
                    self.health.hear(beat.clone(), now);
                }
                let answers = Message { at: self.now, from: to, to: from, is_answer: true };
                if (self.arrives)(answers) {
                    self.hearings[from].hear(&name(to), now);
                }
            }
        }
    }

    fn look(&mut self) {
        for name in self.health.look(ms(self.now)) {
            let life = self.life(&name);
            let before = self.lives.insert(name.clone(), life).unwrap_or(Life::Alive);
            self.falls += usize::from(life == Life::Dead && before != Life::Returning);
            if before != life {
                self.log.push((self.now, name, life));
            }
        }
    }

    fn life(&self, name: &str) -> Life {
        self.health.judgement(name).expect("known").life
    }

    fn died(&self) -> Vec<&str> {
        let deaths = self.log.iter().filter(|(_, _, life)| *life == Life::Dead);
        deaths.map(|(_, name, _)| name.as_str()).collect()
    }
}

/// A sequence of numbers that looks random.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

#[test]
fn dead_node_is_found_within_four_and_a_quarter_seconds() {
    for (nodes, voters) in [(2, 1), (3, 3), (5, 3), (7, 5)] {
        for phase in (0..300).step_by(10) {
            let mut room = Room::new(nodes, voters);
            room.run(10_000 + phase);
            room.off.insert(1);
            let died_at = room.now;
            room.run(4_250);
            assert_eq!(room.died(), ["n1"], "{nodes} nodes, {voters} voters, phase {phase}");
            assert!(room.log[0].0 - died_at >= 3_000);
        }
    }
}

#[test]
fn new_leader_waits_one_silence_before_it_calls_anyone_dead() {
    let mut room = Room::new(5, 3);
    room.off.insert(4);
    room.run(3_400);
    assert_eq!(room.died(), <[&str; 0]>::default());
    room.run(900);
    assert_eq!(room.died(), ["n4"]);
}

#[test]
fn leader_that_was_stopped_forgets_whom_it_did_not_hear() {
    let mut room = Room::new(5, 3);
    room.run(10_000);
    room.stopped = true;
    room.run(30_000);
    room.stopped = false;
    room.run(20_000);
    assert_eq!(room.log, []);
}

#[test]
fn node_that_only_the_leader_does_not_hear_lives() {
    let mut room = Room::new(3, 3);
    room.run(5_000);
    room.arrives = Box::new(|it| (it.from, it.to) != (1, 0));
    room.run(60_000);
    assert_eq!(room.log, []);
}

#[test]
fn node_that_was_stopped_testifies_against_nobody() {
    let mut room = Room::new(3, 3);
    room.run(5_000);
    // n2 is stopped for a minute, and then n1 is silent for 2 s: n2's old table must not confirm that.
    room.off.insert(2);
    room.run(60_000);
    room.off.remove(&2);
    room.log.clear();
    let from = room.now;
    room.arrives = Box::new(move |it| it.from != 1 || it.at > from + 2_000);
    room.run(20_000);
    assert_eq!(room.died(), <[&str; 0]>::default());
}

#[test]
fn more_than_half_silent_at_once_kills_nobody_and_those_who_stay_away_die_after_it() {
    let mut room = Room::new(10, 3);
    room.run(10_000);
    for index in 4..10 {
        room.off.insert(index);
        room.run(170);
    }
    room.run(60_000);
    assert_eq!(room.died(), <[&str; 0]>::default());
    assert_eq!(room.life("n5"), Life::Doubted);
    room.off.retain(|index| *index >= 7);
    room.run(3_000);
    assert_eq!((room.life("n5"), room.life("n8")), (Life::Alive, Life::Doubted));
    room.run(3_000);
    assert_eq!(room.died(), ["n7", "n8", "n9"], "a silence after the storm");
}

#[test]
fn exactly_half_silent_is_no_storm() {
    let mut room = Room::new(4, 3);
    room.run(5_000);
    room.off.extend([1, 3]);
    room.run(5_000);
    assert_eq!(room.died(), ["n1", "n3"]);
}

#[test]
fn node_that_returns_is_on_probation_and_longer_each_time() {
    let mut room = Room::new(3, 3);
    let mut probations = Vec::new();
    for _ in 0..4 {
        room.run(10_000);
        room.off.insert(1);
        room.run(10_000);
        room.off.remove(&1);
        room.log.clear();
        room.run(30_000);
        let at = |wanted| {
            let entry = room.log.iter().find(|(_, _, life)| *life == wanted);
            entry.map(|(at, _, _)| *at).expect("it came so far")
        };
        probations.push((at(Life::Alive) - at(Life::Returning)) / 1000);
    }
    assert_eq!(probations, [2, 4, 8, 16]);
}

#[test]
fn beat_that_slips_through_is_no_return() {
    let mut room = Room::new(3, 3);
    room.run(5_000);
    room.arrives = Box::new(|it| it.from != 1 || (it.at + 70).is_multiple_of(2_400));
    room.run(120_000);
    assert_eq!(room.life("n1"), Life::Alive, "one beat in 2.4 s is enough to live");
    room.arrives = Box::new(|it| it.from != 1 || (it.at + 70).is_multiple_of(6_000));
    room.run(60_000);
    assert!(!room.log.iter().any(|(_, _, life)| *life == Life::Alive), "{:?}", room.log);
}

#[test]
fn what_an_earlier_leader_found_holds_until_the_node_is_heard() {
    let now = ms(50_000);
    let mut health = Health::new(Timings::default(), "n0", now);
    health.observe("n0", Some(&node("n0", "True", false)), now);
    health.observe("n1", Some(&node("n1", "Unknown", true)), now);
    health.observe("n2", Some(&node("n2", "Unknown", false)), now);
    let life = |health: &Health, name| health.judgement(name).expect("known").life;
    assert_eq!((life(&health, "n1"), life(&health, "n2")), (Life::Dead, Life::Doubted));
    health.look(now + ms(250));
    assert_eq!((life(&health, "n1"), life(&health, "n2")), (Life::Dead, Life::Doubted));
    for name in ["n1", "n2"] {
        let beat = Hearing::new(Timings::default()).beat(name, true, now);
        health.hear(beat, now + ms(300));
    }
    health.look(now + ms(500));
    assert_eq!((life(&health, "n1"), life(&health, "n2")), (Life::Returning, Life::Alive));
}

#[test]
fn node_that_says_for_long_that_it_is_not_ready_is_known_for_it() {
    let mut room = Room::new(2, 1);
    room.health.observe("n1", Some(&node("n1", "False", false)), ms(room.now));
    room.run(299_000);
    assert!(!room.health.judgement("n1").expect("known").long_unready);
    room.run(2_000);
    assert!(room.health.judgement("n1").expect("known").long_unready);
}

#[test]
fn cluster_of_one_has_nothing_to_look_after() {
    let room = Room::new(1, 1);
    assert_eq!(room.health.next_look(), None);
}

#[test]
fn removed_node_is_forgotten() {
    let mut room = Room::new(2, 1);
    assert!(room.health.observe("n1", None, ms(room.now)));
    assert_eq!(room.health.judgement("n1"), None);
    assert_eq!(room.health.next_look(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One message in five is lost, and each node is now and then silent for 2 s: nobody dies of it. What chance adds to a silence
    /// is bounded here, because without a bound it would at some seed be as long as a death: no more than nine beats in a row
    /// are lost, and a silence, which takes seven, begins only where at most two are.
    #[test]
    fn loss_and_short_silences_kill_nobody(seed: u64, nodes in 3..8_usize, voters in 2..4_usize) {
        const AT_ONCE: u64 = 9;
        const IN_A_SILENCE: u64 = 2_000_u64.div_ceil(BEAT);
        let mut room = Room::new(nodes, voters);
        let mut draw = random(seed);
        let mut silent_until = vec![0_u64; nodes];
        // Beats in a row that did not come from one to another.
        let mut lost = vec![vec![0_u64; nodes]; nodes];
        room.arrives = Box::new(move |Message { at, from, to, is_answer }| {
            let has_room = lost[from].iter().all(|lost| lost + IN_A_SILENCE <= AT_ONCE);
            if draw().is_multiple_of(100) && silent_until[from] + 4_000 < at && has_room {
                silent_until[from] = at + 2_000;
            }
            let is_silent = at <= silent_until[from];
            let unlucky = draw().is_multiple_of(5);
            if is_answer {
                return !is_silent && !unlucky;
            }
            let lost = &mut lost[from][to];
            let arrives = !is_silent && (!unlucky || *lost == AT_ONCE);
            *lost = if arrives { 0 } else { *lost + 1 };
            arrives
        });
        room.run(600_000);
        prop_assert!(room.died().is_empty(), "{:?}", room.log);
    }

    /// The same, and a node dies: it is found.
    #[test]
    fn death_is_found_despite_loss(seed: u64, nodes in 2..8_usize) {
        let mut room = Room::new(nodes, 3.min(nodes));
        let mut draw = random(seed);
        room.arrives = Box::new(move |_| !draw().is_multiple_of(5));
        room.run(20_000);
        room.off.insert(nodes - 1);
        room.run(7_000);
        prop_assert_eq!(room.died(), [name(nodes - 1)]);
    }

    /// Whoever is silent when, the leader never calls dead more than half of those it did not call dead before, at once.
    #[test]
    fn no_look_kills_more_than_half(seed: u64, nodes in 3..12_usize) {
        let mut room = Room::new(nodes, 3);
        let mut draw = random(seed);
        for _ in 0..60 {
            let which = 1 + usize::try_from(draw()).expect("small") % (nodes - 1);
            if !room.off.remove(&which) {
                room.off.insert(which);
            }
            let end = room.now + 100 + draw() % 3_000;
            while room.now < end {
                let living = (0..nodes).filter(|index| room.life(&name(*index)) != Life::Dead).count();
                room.falls = 0;
                room.run(10);
                prop_assert!(room.falls * 2 <= living, "{:?}", room.log);
            }
        }
    }
}
