//! One machine whose power is cut again and again while clients write.
//!
//! A cut here is SIGKILL of QEMU, and a disk whose write cache is lost with it: of what the machine had written since its last
//! flush, a random choice is there afterwards, down to single sectors ([`podium_qemu_tests::volatile`]). So a write that was
//! acknowledged before it was flushed shows up as lost. `PODIUM_SEED` repeats the choices of a run, not its timing.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use podium_qemu_tests::node_api::{Breaker, Https, Session};
use podium_qemu_tests::scenario::{Rig, Scenario, blank};
use podium_qemu_tests::volatile::Chance;
use serde_json::{Value, json};

const CUTS: u32 = 20;
const WRITERS: u64 = 3;
/// Few enough that most writes change an object.
const OBJECTS_PER_WRITER: u64 = 30;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// What the machine sent before the cut has reached the writers by then.
const IN_TRANSIT: Duration = Duration::from_millis(300);

/// A ConfigMap, as far as a writer cares.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    uid: String,
    revision: u64,
    data: Value,
}

impl Object {
    fn of(value: &Value) -> anyhow::Result<(String, Self)> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let object = Self {
            uid: text("/metadata/uid").context("no uid")?.to_owned(),
            revision: text("/metadata/resourceVersion").context("no revision")?.parse()?,
            data: value["data"].clone(),
        };
        Ok((text("/metadata/name").context("no name")?.to_owned(), object))
    }
}

/// What the clients know to be true.
#[derive(Default)]
struct Record {
    /// Each object as it was acknowledged last.
    objects: BTreeMap<String, Object>,
    /// Every change of an object, by its revision.
    changes: BTreeMap<u64, (String, Value)>,
}

impl Record {
    fn take(&mut self, name: String, object: Object) -> anyhow::Result<()> {
        let change = (name.clone(), object.data.clone());
        let before = self.changes.insert(object.revision, change);
        ensure!(before.is_none(), "{name} has the revision of another change: {object:?}");
        self.objects.insert(name, object);
        Ok(())
    }

    fn latest(&self) -> u64 {
        self.changes.last_key_value().map_or(0, |(revision, _)| *revision)
    }
}

/// What one writer got done before the power was cut.
struct Written {
    acknowledged: Vec<(String, Object)>,
    /// The name and data of the write that was not answered.
    in_flight: Option<(String, Value)>,
}

/// Writes until its connection ends.
fn write(
    mut session: Session,
    writer: u64,
    mut own: BTreeMap<String, Object>,
    mut chance: Chance,
) -> anyhow::Result<Written> {
    let mut acknowledged = Vec::new();
    loop {
        let name = format!("writer-{writer}-{}", chance.below(OBJECTS_PER_WRITER));
        let filling = "x".repeat(usize::try_from(chance.below(6000))?);
        let data = json!({ "word": chance.below(u64::MAX).to_string(), "filling": filling });
        let known = own.get(&name);
        let (method, path, code) = match known {
            Some(_) => ("PUT", format!("{PATH}/{name}"), 200),
            None => ("POST", PATH.to_owned(), 201),
        };
        let revision = known.map(|object| object.revision.to_string());
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": { "name": name, "resourceVersion": revision },
        });
        let Ok(answer) = session.request(method, &path, &body) else {
            return Ok(Written { acknowledged, in_flight: Some((name, data)) });
        };
        ensure!(answer.status == code, "{method} {path}: {:?}", answer.json());
        let (_, object) = Object::of(&answer.json()?)?;
        ensure!(object.data == data, "{name} was not acknowledged as it was written");
        ensure!(known.is_none_or(|known| known.uid == object.uid), "{name} has another uid");
        own.insert(name.clone(), object.clone());
        acknowledged.push((name, object));
    }
}

/// A watch in a thread of its own.
struct Watcher {
    breaker: Breaker,
    thread: JoinHandle<()>,
    events: Receiver<anyhow::Result<(u64, String, Value)>>,
}

impl Watcher {
    /// Goes on behind `after`; `None`: the server says that this is too long ago.
    fn start(api: &Https, after: u64) -> anyhow::Result<Option<Self>> {
        let path = format!("{PATH}?watch=1&resourceVersion={after}");
        let mut events = match api.session()?.watch(&path)? {
            Ok(events) => events,
            Err(410) => return Ok(None),
            Err(status) => bail!("watch: HTTP {status}"),
        };
        let breaker = events.breaker()?;
        let (send, receive) = channel();
        let thread = std::thread::spawn(move || {
            while let Ok(Some(event)) = events.next_event() {
                let change = match event["type"].as_str() {
                    Some("ADDED" | "MODIFIED") => Object::of(&event["object"])
                        .map(|(name, object)| (object.revision, name, object.data)),
                    _ => Err(anyhow::anyhow!("{event}")),
                };
                if send.send(change).is_err() {
                    return;
                }
            }
        });
        Ok(Some(Self { breaker, thread, events: receive }))
    }

    /// Ends it, and gives what it has seen and nobody has received.
    fn end(self) -> anyhow::Result<Vec<(u64, String, Value)>> {
        self.breaker.end();
        if self.thread.join().is_err() {
            bail!("the watcher panicked");
        }
        self.events.into_iter().filter(is_of_a_writer).collect()
    }
}

/// The cluster has a ConfigMap of its own in each namespace.
fn is_of_a_writer(event: &anyhow::Result<(u64, String, Value)>) -> bool {
    event.as_ref().map_or(true, |(_, name, _)| name.starts_with("writer-"))
}

/// How the cuts went.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    in_flight_there: usize,
    in_flight_gone: usize,
    watches_went_on: u32,
    watches_too_old: u32,
    cuts_while_booting: u32,
    writes_lost_by_disks: u64,
    writes_torn_by_disks: u64,
}

/// The clients, through all cuts.
struct Clients {
    chance: Chance,
    record: Record,
    in_flight: Vec<(String, Value)>,
    /// The last revision that the watcher saw.
    seen: u64,
    /// What it saw when the power was cut, not yet compared with what the machine says.
    unproven: Vec<(u64, String, Value)>,
    tally: Tally,
}

impl Clients {
    /// Waits for the API and compares all objects with the record.
    fn compare(&mut self, rig: &mut Rig) -> anyhow::Result<()> {
        let list = rig.until("the API after a cut", |rig| {
            ensure!(rig.cluster.machine(0).is_on(), "the machine is off");
            rig.cluster.api()?.get(PATH)?.json().map(Some)
        })?;
        let revision: u64 = list["metadata"]["resourceVersion"]
            .as_str()
            .context("the list has no resourceVersion")?
            .parse()?;
        let known = self.record.latest().max(self.seen);
        ensure!(revision >= known, "the store is at {revision}; it has been at {known}");
        let mut found = BTreeMap::new();
        for item in list["items"].as_array().context("no items")? {
            let (name, object) = Object::of(item)?;
            if name.starts_with("writer-") {
                found.insert(name, object);
            }
        }
        for (name, data) in std::mem::take(&mut self.in_flight) {
            let (before, now) = (self.record.objects.get(&name), found.get(&name));
            if before == now {
                self.tally.in_flight_gone += 1;
                continue;
            }
            let now = now.with_context(|| format!("{name} is gone; it was {before:?}"))?;
            let whole = now.data == data
                && before.is_none_or(|before| before.uid == now.uid)
                && now.revision > before.map_or(0, |before| before.revision);
            ensure!(whole, "{name} was {before:?}, {data} was on its way, and now it is {now:?}");
            self.record.take(name, now.clone())?;
            self.tally.in_flight_there += 1;
        }
        for (name, object) in &self.record.objects {
            let now = found.remove(name);
            ensure!(now.as_ref() == Some(object), "{name} was {object:?}, and now is {now:?}");
        }
        ensure!(found.is_empty(), "nobody wrote {found:?}");
        self.prove_what_was_seen()
    }

    /// What the watcher saw before the cut has happened, in that order, and between it nothing else.
    fn prove_what_was_seen(&mut self) -> anyhow::Result<()> {
        for (revision, name, data) in std::mem::take(&mut self.unproven) {
            let next = self.record.changes.range(self.seen + 1..).next();
            let expected = next.map(|(revision, (name, data))| (*revision, name, data));
            ensure!(
                expected == Some((revision, &name, &data)),
                "the watch showed {name} at {revision} where {:?} should follow {}",
                expected.map(|(revision, name, _)| (revision, name)),
                self.seen
            );
            self.seen = revision;
        }
        Ok(())
    }

    /// A watch behind the last event that was seen, which shows everything since.
    fn watch(&mut self, api: &Https) -> anyhow::Result<Watcher> {
        let watcher = match Watcher::start(api, self.seen)? {
            Some(watcher) => {
                self.tally.watches_went_on += 1;
                watcher
            }
            None => {
                self.tally.watches_too_old += 1;
                self.seen = self.record.latest();
                Watcher::start(api, self.seen)?.context("the present is too old for a watch")?
            }
        };
        let latest = self.record.latest();
        while self.seen < latest {
            let event = watcher.events.recv_timeout(podium_qemu_tests::scenario::PATIENCE);
            let event = event.with_context(|| format!("the watch is silent at {}", self.seen))?;
            if is_of_a_writer(&event) {
                self.unproven.push(event?);
                self.prove_what_was_seen()?;
            }
        }
        Ok(watcher)
    }

    /// Lets the writers write, and cuts the power in their midst.
    fn write_and_cut(&mut self, rig: &mut Rig) -> anyhow::Result<()> {
        let api = rig.cluster.api()?;
        let watcher = self.watch(&api)?;
        let mut breakers = Vec::new();
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let session = api.session()?;
            breakers.push(session.breaker()?);
            let prefix = format!("writer-{writer}-");
            let own = self.record.objects.iter().filter(|(name, _)| name.starts_with(&prefix));
            let own = own.map(|(name, object)| (name.clone(), object.clone())).collect();
            let chance = Chance::new(self.chance.below(u64::MAX));
            writers.push(std::thread::spawn(move || write(session, writer, own, chance)));
        }
        park_timeout(Duration::from_millis(100 + self.chance.below(2500)));
        let early = writers.iter().any(JoinHandle::is_finished);
        self.cut(rig)?;
        park_timeout(IN_TRANSIT);
        breakers.into_iter().for_each(Breaker::end);
        for writer in writers {
            let Ok(written) = writer.join() else { bail!("a writer panicked") };
            let written = written?;
            self.tally.acknowledged += written.acknowledged.len();
            for (name, object) in written.acknowledged {
                self.record.take(name, object)?;
            }
            self.in_flight.extend(written.in_flight);
        }
        ensure!(!early, "a writer's connection ended before the power was cut");
        self.unproven = watcher.end()?;
        Ok(())
    }

    fn cut(&mut self, rig: &mut Rig) -> anyhow::Result<()> {
        let lost = rig.cluster.machine(0).cut_power_and_cache(&mut self.chance)?;
        self.tally.writes_lost_by_disks += lost.lost;
        self.tally.writes_torn_by_disks += lost.torn;
        rig.cluster.power_on()
    }
}

fn acknowledged_writes_and_watches_outlive_power_cuts(rig: &mut Rig) -> anyhow::Result<()> {
    let seed = match std::env::var("PODIUM_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => u64::from(std::process::id()),
    };
    println!("PODIUM_SEED={seed}");
    let mut clients = Clients {
        chance: Chance::new(seed),
        record: Record::default(),
        in_flight: Vec::new(),
        seen: 0,
        unproven: Vec::new(),
        tally: Tally::default(),
    };
    let list = rig.cluster.api()?.get(PATH)?.json()?;
    clients.seen = list["metadata"]["resourceVersion"].as_str().context("no revision")?.parse()?;
    for cut in 1..=CUTS {
        clients.write_and_cut(rig).with_context(|| format!("cut {cut}, seed {seed}"))?;
        // Now and then the power comes back only for a moment.
        if clients.chance.below(4) == 0 {
            park_timeout(Duration::from_millis(clients.chance.below(8000)));
            clients.cut(rig)?;
            clients.tally.cuts_while_booting += 1;
        }
        clients.compare(rig).with_context(|| format!("after cut {cut}, seed {seed}"))?;
    }
    clients.watch(&rig.cluster.api()?)?.end()?;
    let tally = &clients.tally;
    println!("{tally:?}");
    ensure!(tally.acknowledged > 100, "the writers hardly wrote: {tally:?}");
    ensure!(tally.writes_lost_by_disks > 0, "no cut lost anything: {tally:?}");
    Ok(())
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let scenarios: [Scenario; 1] = [(
        "acknowledged writes and watches outlive power cuts",
        acknowledged_writes_and_watches_outlive_power_cuts,
    )];
    let mut options = blank("vm-power")?;
    options.registry = false;
    options.volatile_cache = true;
    Rig::boot(&options)?.run(&scenarios)
}
