//! Machines in a model: links that are cut and healed, hellos and proposals that are lost, power cuts, new disks.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(4);

/// One slot: a machine with a disk.
#[derive(Clone, Debug)]
struct Slot {
    machine: Machine,
    /// On the disk.
    standing: Standing,
    /// In memory.
    heard: BTreeMap<Fingerprint, Heard>,
    /// In memory.
    only: Option<BTreeSet<Fingerprint>>,
    on: bool,
}

#[derive(Clone, Debug)]
enum Event {
    /// Everybody decides, with hellos of everybody who is reachable; `lost` counts through what does not arrive.
    Round {
        lost: u8,
    },
    /// One machine decides and acts.
    Turn(usize),
    /// One hello from one to another.
    Hello(usize, usize),
    Cut(usize, usize),
    Heal(usize, usize),
    Off(usize),
    On(usize),
    /// A blank disk in place of the old.
    NewDisk(usize),
    Wait,
}

struct Model {
    expect: u32,
    slots: Vec<Slot>,
    cut: BTreeSet<(usize, usize)>,
    now: Duration,
    ids: u128,
    disks: u64,
    /// Clusters that somebody has initialised, with their sets.
    formed: BTreeMap<ClusterId, MemberSet>,
}

fn machine(number: u64) -> Machine {
    Machine {
        member: number,
        name: format!("n{number}"),
        public_key: number.to_be_bytes().to_vec(),
    }
}

impl Model {
    fn new(count: usize, expect: u32) -> Self {
        let slots = (1..=count as u64)
            .map(|number| Slot {
                machine: machine(number),
                standing: Standing::Blank { accepted: None },
                heard: BTreeMap::new(),
                only: None,
                on: true,
            })
            .collect();
        Self {
            expect,
            slots,
            cut: BTreeSet::new(),
            now: Duration::from_secs(100),
            ids: 0,
            disks: count as u64,
            formed: BTreeMap::new(),
        }
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        a != b && self.slots[a].on && self.slots[b].on && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn decide(&self, at: usize) -> Decision {
        decide(&self.situation(at))
    }

    fn situation(&self, at: usize) -> Situation<'_> {
        let it = &self.slots[at];
        Situation {
            me: &it.machine,
            expect: self.expect,
            only: it.only.as_ref(),
            standing: &it.standing,
            heard: &it.heard,
            now: self.now,
            patience: PATIENCE,
            fresh: ClusterId(self.ids << 96),
        }
    }

    fn hello(&mut self, from: usize, to: usize) {
        if !self.linked(from, to) {
            return;
        }
        let decision = self.decide(from);
        let it = &self.slots[from];
        let hello = Hello {
            machine: it.machine.clone(),
            expect: self.expect,
            standing: it.standing.clone(),
            sees: decision.sees,
            choice: decision.choice,
        };
        let (key, at) = (it.machine.fingerprint(), self.now);
        self.slots[to].heard.insert(key, Heard { hello, at });
    }

    fn turn(&mut self, at: usize) {
        if !self.slots[at].on {
            return;
        }
        self.ids += 1;
        for intent in self.decide(at).intents {
            match intent {
                Intent::Accept(set) => {
                    self.slots[at].standing = Standing::Blank { accepted: Some(set) };
                }
                Intent::Release => self.slots[at].standing = Standing::Blank { accepted: None },
                Intent::Propose(to) => self.propose(at, to),
                Intent::Initialise => {
                    let Standing::Blank { accepted: Some(set) } = &self.slots[at].standing else {
                        panic!("initialise without an accepted set")
                    };
                    let set = set.clone();
                    self.slots[at].standing = Standing::Member(set.cluster);
                    self.formed.insert(set.cluster, set);
                }
                Intent::Join { cluster, .. } => self.slots[at].standing = Standing::Worker(cluster),
            }
        }
    }

    fn propose(&mut self, from: usize, to: Fingerprint) {
        let Some(to) = self.slots.iter().position(|it| it.machine.fingerprint() == to) else {
            return;
        };
        if !self.linked(from, to) {
            return;
        }
        let Standing::Blank { accepted: Some(set) } = self.slots[from].standing.clone() else {
            panic!("a proposal without an accepted set")
        };
        let key = self.slots[from].machine.fingerprint();
        if consider(&self.situation(to), key, &set).is_ok() {
            self.slots[to].standing = Standing::Blank { accepted: Some(set) };
        }
    }

    fn step(&mut self, event: &Event) {
        let count = self.slots.len();
        match *event {
            Event::Round { lost } => {
                self.now += Duration::from_secs(1);
                let mut dice = u32::from(lost);
                for from in 0..count {
                    for to in 0..count {
                        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        if lost == 0 || dice >> 30 != 0 {
                            self.hello(from, to);
                        }
                    }
                }
                for at in 0..count {
                    self.turn(at);
                }
            }
            Event::Turn(at) => self.turn(at % count),
            Event::Hello(from, to) => self.hello(from % count, to % count),
            Event::Cut(a, b) => {
                self.cut.insert(((a % count).min(b % count), (a % count).max(b % count)));
            }
            Event::Heal(a, b) => {
                self.cut.remove(&((a % count).min(b % count), (a % count).max(b % count)));
            }
            Event::Off(at) => {
                self.slots[at % count].on = false;
                self.slots[at % count].heard.clear();
            }
            Event::On(at) => self.slots[at % count].on = true,
            Event::NewDisk(at) => self.new_disk(at % count),
            Event::Wait => self.now += Duration::from_secs(5),
        }
    }

    /// Not the last disk of a cluster: whoever takes that away has no cluster any more.
    fn new_disk(&mut self, at: usize) {
        let last = self.formed.values().any(|set| {
            let left = |(index, it): (usize, &Slot)| {
                index != at && set.machines.contains_key(&it.machine.fingerprint())
            };
            !self.slots.iter().enumerate().any(left)
        });
        if last {
            return;
        }
        self.disks += 1;
        let name = self.slots[at].machine.name.clone();
        self.slots[at] = Slot {
            machine: Machine { name, ..machine(self.disks) },
            standing: Standing::Blank { accepted: None },
            heard: BTreeMap::new(),
            only: None,
            on: self.slots[at].on,
        };
    }

    /// What must hold after every step.
    fn check(&self) {
        let sets: Vec<_> = self.formed.values().collect();
        for (index, one) in sets.iter().enumerate() {
            for other in &sets[index + 1..] {
                let shared = one.machines.keys().any(|key| other.machines.contains_key(key));
                assert!(!shared, "{} and {} share a machine", one.cluster, other.cluster);
            }
            for machine in one.machines.keys() {
                let Some(it) = self.slots.iter().find(|it| it.machine.fingerprint() == *machine)
                else {
                    continue;
                };
                match &it.standing {
                    Standing::Blank { accepted: Some(set) } => assert_eq!(set, *one),
                    Standing::Member(cluster) => assert_eq!(*cluster, one.cluster),
                    Standing::Blank { accepted: None } | Standing::Worker(_) => {
                        panic!("{} was initialised without {machine}", one.cluster)
                    }
                }
            }
        }
        if self.slots.len() == self.expect as usize {
            assert!(sets.len() <= 1, "two clusters of the same machines");
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        for it in &mut self.slots {
            it.on = true;
        }
        for _ in 0..8 {
            self.step(&Event::Round { lost: 0 });
            self.check();
        }
    }
}

fn event(disks: bool) -> impl Strategy<Value = Event> {
    let at = 0..5usize;
    let disk = if disks { 1 } else { 0 };
    prop_oneof![
        6 => any::<u8>().prop_map(|lost| Event::Round { lost }),
        4 => at.clone().prop_map(Event::Turn),
        6 => (at.clone(), at.clone()).prop_map(|(a, b)| Event::Hello(a, b)),
        3 => (at.clone(), at.clone()).prop_map(|(a, b)| Event::Cut(a, b)),
        2 => (at.clone(), at.clone()).prop_map(|(a, b)| Event::Heal(a, b)),
        2 => at.clone().prop_map(Event::Off),
        2 => at.clone().prop_map(Event::On),
        disk => at.prop_map(Event::NewDisk),
        1 => Just(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_two_clusters_whatever_happens_and_one_when_all_is_well_again(
        events in prop::collection::vec(event(false), 0..60),
    ) {
        let mut model = Model::new(3, 3);
        for event in &events {
            model.step(event);
            model.check();
        }
        model.heal();
        prop_assert_eq!(model.formed.len(), 1);
        prop_assert!(model.slots.iter().all(|it| matches!(it.standing, Standing::Member(_))));
    }

    #[test]
    fn replaced_disks_never_form_beside_a_cluster(
        events in prop::collection::vec(event(true), 0..80),
    ) {
        let mut model = Model::new(3, 3);
        for event in &events {
            model.step(event);
            model.check();
        }
        model.heal();
    }

    #[test]
    fn more_machines_than_expected_never_share_two_clusters(
        events in prop::collection::vec(event(true), 0..80),
    ) {
        let mut model = Model::new(5, 3);
        for event in &events {
            model.step(event);
            model.check();
        }
        model.heal();
    }
}

fn rounds(model: &mut Model, count: usize) {
    for _ in 0..count {
        model.step(&Event::Round { lost: 0 });
        model.check();
    }
}

fn reports(model: &Model) -> Vec<String> {
    (0..model.slots.len()).map(|at| model.decide(at).report).collect()
}

/// The index of the machine with the lowest key.
fn lowest(model: &Model) -> usize {
    let keys = model.slots.iter().map(|it| it.machine.fingerprint()).enumerate();
    keys.min_by_key(|(_, key)| *key).map(|(at, _)| at).expect("a machine")
}

#[test]
fn three_blank_machines_form_one_cluster_and_a_fourth_joins_it() {
    let mut model = Model::new(3, 3);
    rounds(&mut model, 5);
    assert_eq!(model.formed.len(), 1);
    let mut fourth = Model::new(4, 3).slots.remove(3);
    fourth.on = true;
    model.slots.push(fourth);
    rounds(&mut model, 2);
    let cluster = *model.formed.keys().next().expect("a cluster");
    assert_eq!(model.slots[3].standing, Standing::Worker(cluster));
}

#[test]
fn only_members_are_asked_for_a_place_while_one_is_heard() {
    let mut model = Model::new(4, 3);
    let cluster = ClusterId(8);
    model.slots[0].standing = Standing::Worker(cluster);
    model.slots[1].standing = Standing::Member(cluster);
    model.step(&Event::Hello(0, 3));
    let key = |at: usize| model.slots[at].machine.fingerprint();
    let (worker, member) = (key(0), key(1));
    assert_eq!(model.decide(3).intents, [Intent::Join { cluster, through: vec![worker] }]);
    model.step(&Event::Hello(1, 3));
    assert_eq!(model.decide(3).intents, [Intent::Join { cluster, through: vec![member] }]);
}

#[test]
fn a_chain_without_its_third_link_never_forms() {
    for middle in 0..3 {
        let mut model = Model::new(3, 3);
        model.step(&Event::Cut((middle + 1) % 3, (middle + 2) % 3));
        rounds(&mut model, 50);
        assert!(model.formed.is_empty());
        let untouched = |it: &Slot| it.standing == Standing::Blank { accepted: None };
        assert!(model.slots.iter().all(untouched));
        model.heal();
        assert_eq!(model.formed.len(), 1);
    }
}

#[test]
fn a_proposer_that_dies_half_way_finishes_when_it_is_back() {
    let mut model = Model::new(3, 3);
    let proposer = lowest(&model);
    let accepted = |it: &Slot| matches!(it.standing, Standing::Blank { accepted: Some(_) });
    let other = (proposer + 2) % 3;
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            model.step(&Event::Hello(from, to));
        }
    }
    // Only the proposal to one of the others arrives.
    model.step(&Event::Turn(proposer));
    model.step(&Event::Cut(proposer, other));
    model.step(&Event::Turn(proposer));
    model.step(&Event::Off(proposer));
    assert_eq!(model.slots.iter().filter(|it| accepted(it)).count(), 2);
    rounds(&mut model, 20);
    assert!(model.formed.is_empty());
    model.heal();
    assert_eq!(model.formed.len(), 1);
}

#[test]
fn two_new_disks_wait_for_the_third_and_then_join_its_cluster() {
    let mut model = Model::new(3, 3);
    rounds(&mut model, 5);
    model.step(&Event::Off(0));
    model.step(&Event::NewDisk(1));
    model.step(&Event::NewDisk(2));
    rounds(&mut model, 20);
    assert_eq!(model.formed.len(), 1);
    assert_eq!(model.decide(1).report, "2 of 3: n2 (me), n3; waiting for 1 more");
    model.heal();
    assert_eq!(model.formed.len(), 1);
    assert!(matches!(model.slots[1].standing, Standing::Worker(_)));
}

#[test]
fn an_acceptance_that_can_never_be_complete_is_let_go() {
    let mut model = Model::new(3, 3);
    let set = MemberSet::new(ClusterId(7), (1..=3).map(machine));
    model.slots[0].standing = Standing::Blank { accepted: Some(set) };
    model.slots[1].standing = Standing::Member(ClusterId(8));
    model.slots[2].on = false;
    rounds(&mut model, 1);
    assert_eq!(model.slots[0].standing, Standing::Blank { accepted: None });
}

#[test]
fn only_a_free_machine_of_the_set_accepts_and_only_from_its_lowest_key() {
    let mut model = Model::new(3, 3);
    rounds(&mut model, 1);
    let set = MemberSet::new(ClusterId(7), (1..=3).map(machine));
    let from = set.proposer().expect("a machine");
    let to = (0..3).find(|at| *at != lowest(&model)).expect("another");
    let judge = |model: &Model, from, set: &MemberSet| consider(&model.situation(to), from, set);
    assert_eq!(judge(&model, from, &set), Ok(()));
    let me = model.slots[to].machine.fingerprint();
    assert_eq!(judge(&model, me, &set), Err(Refusal::NotLowest));
    let two = MemberSet::new(ClusterId(7), (1..=2).map(machine));
    assert_eq!(judge(&model, from, &two), Err(Refusal::Size { expected: 3, proposed: 2 }));
    let mut forged = set.clone();
    forged.machines.get_mut(&from).expect("it").member = 99;
    assert!(matches!(judge(&model, from, &forged), Err(Refusal::Described(_))));
    let strangers = MemberSet::new(ClusterId(7), [1, 2, 9].map(machine));
    assert!(judge(&model, strangers.proposer().expect("it"), &strangers).is_err());
    model.now += Duration::from_secs(5);
    assert!(matches!(judge(&model, from, &set), Err(Refusal::Unseen(_))));
    model.slots[to].standing = Standing::Blank { accepted: Some(two.clone()) };
    assert_eq!(judge(&model, from, &set), Err(Refusal::Accepted(ClusterId(7))));
    assert_eq!(judge(&model, from, &two), Ok(()));
    model.slots[to].standing = Standing::Worker(ClusterId(8));
    assert_eq!(judge(&model, from, &set), Err(Refusal::Belongs(ClusterId(8))));
}

#[test]
fn an_operator_has_fewer_machines_form_a_cluster_and_the_others_join_it() {
    let mut model = Model::new(4, 3);
    model.slots[3].on = false;
    let keys = |model: &Model, of: &[usize]| -> BTreeSet<Fingerprint> {
        of.iter().map(|at| model.slots[*at].machine.fingerprint()).collect()
    };
    let pair = keys(&model, &[0, 1]);
    model.step(&Event::Cut(0, 2));
    model.step(&Event::Cut(1, 2));
    rounds(&mut model, 8);
    assert!(model.formed.is_empty(), "there are too few");
    let narrowed =
        |model: &Model, at: usize, only: &BTreeSet<Fingerprint>| narrow(&model.situation(at), only);
    assert_eq!(narrowed(&model, 2, &pair), Err(Refusal::NotInSet));
    let four = keys(&model, &[0, 1, 2, 3]);
    assert_eq!(narrowed(&model, 0, &four), Err(Refusal::Size { expected: 3, proposed: 4 }));
    assert_eq!(narrowed(&model, 0, &pair), Ok(()));
    model.slots[0].only = Some(pair.clone());
    rounds(&mut model, 8);
    assert!(model.formed.is_empty(), "the other was not told");
    model.slots[1].only = Some(pair.clone());
    rounds(&mut model, 8);
    assert_eq!(model.formed.len(), 1);
    let set = model.formed.values().next().expect("one").clone();
    assert_eq!(set.machines.keys().copied().collect::<BTreeSet<_>>(), pair);
    assert_eq!(narrowed(&model, 0, &pair), Err(Refusal::Belongs(set.cluster)));
    model.step(&Event::Heal(0, 2));
    model.step(&Event::Heal(1, 2));
    rounds(&mut model, 8);
    assert_eq!(model.slots[2].standing, Standing::Worker(set.cluster));
}

#[test]
fn the_console_says_who_is_missing() {
    let mut model = Model::new(3, 3);
    assert_eq!(model.decide(0).report, "1 of 3: n1 (me); waiting for 2 more");
    model.step(&Event::Off(2));
    model.step(&Event::Hello(0, 1));
    model.step(&Event::Hello(1, 0));
    model.step(&Event::Hello(0, 1));
    assert_eq!(
        reports(&model)[..2],
        ["2 of 3: n1 (me), n2; waiting for 1 more", "2 of 3: n2 (me), n1; waiting for 1 more"]
    );
    let mut model = Model::new(3, 3);
    model.step(&Event::Cut(0, 2));
    rounds(&mut model, 3);
    let said = reports(&model);
    assert_eq!(said[0], "2 of 3: n1 (me), n2; n2 sees n3, n1 does not");
    assert!(said[1].starts_with("3 of 3: n2 (me), "), "{}", said[1]);
    assert!(
        said[1].ends_with("; n1 does not see n3") || said[1].ends_with("; n3 does not see n1"),
        "{}",
        said[1]
    );
    model.step(&Event::Wait);
    assert_eq!(model.decide(0).report, "1 of 3: n1 (me); waiting for 2 more");
}

#[test]
fn the_console_says_what_stands_in_the_way() {
    let mut model = Model::new(3, 3);
    model.slots[1].machine.name = "n1".to_owned();
    rounds(&mut model, 3);
    assert!(model.formed.is_empty());
    assert!(model.decide(2).report.contains("; two machines are called n1 (keys "));
    let mut model = Model::new(2, 2);
    rounds(&mut model, 1);
    model.expect = 3;
    model.slots[0].standing = Standing::Blank { accepted: None };
    let heard = model.slots[0].heard.values().next().expect("a hello").hello.expect;
    assert_eq!(heard, 2);
    assert!(model.decide(0).report.ends_with("n2 expects 2 machines, not 3"));
    model.slots[0].standing = Standing::Blank {
        accepted: Some(MemberSet::new(ClusterId(7 << 96), (1..=3).map(machine))),
    };
    let report = model.decide(0).report;
    let key = machine(3).fingerprint();
    assert!(report.starts_with("forming cluster 00000007 of 3: "), "{report}");
    assert!(report.contains(&format!("n3 (key {key}) is not seen")), "{report}");
}

#[test]
fn the_console_says_which_members_a_quorum_lacks() {
    let all = [1, 2, 3].map(machine);
    let voters = all.iter().map(|it| (it.fingerprint(), it.name.clone())).collect();
    let me = all[0].fingerprint();
    let cluster = ClusterId(0x1a2b_3c4d << 96);
    let line = |seen: &[&Machine]| {
        let seen = seen.iter().map(|it| it.fingerprint()).collect();
        quorum(&Quorum { cluster, me, voters: &voters, seen: &seen })
    };
    let missing = line(&[]);
    assert!(
        missing == "waiting for quorum of cluster 1a2b3c4d: n2, n3 missing"
            || missing == "waiting for quorum of cluster 1a2b3c4d: n3, n2 missing",
        "{missing}"
    );
    assert_eq!(line(&[&all[1]]), "waiting for quorum of cluster 1a2b3c4d: n3 missing");
    assert_eq!(line(&[&all[1], &all[2]]), "waiting for a leader of cluster 1a2b3c4d");
}
