//! Clients that read and write registers through the API all the time, and keep the history that [`crate::history`] checks.
//!
//! A register is a ConfigMap with one value. Each client has a thread and a connection of its own to one machine; when that
//! machine is off or silent the client asks it again and again, as a stubborn program would. What a client knows goes into the
//! history: an answer, or that a write may or may not have happened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::Cluster;
use crate::history::{Action, Operation};
use crate::links::machine_name;

mod session;

use session::{Failure, Session};

/// What an operation may take. A leader's loss takes an emulated cluster ten seconds and more; who waits that long has not
/// lost the answer yet.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts at a machine that does not answer.
const PAUSE: Duration = Duration::from_millis(100);

const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// How many clients do what.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Writers at each machine.
    pub writers: usize,
    /// Readers at each machine.
    pub readers: usize,
    /// Registers, which all clients use alike.
    pub registers: usize,
}

/// Writes through one machine after the other, reads each time at once through all others, and fails if one of them is behind.
/// Whoever does not answer is asked again: it may lead no more, or may be off.
///
/// # Errors
/// A machine answers with an old value, or nobody answers within `limit` for one round.
pub fn read_what_was_written(
    cluster: &mut Cluster,
    machines: &[u16],
    rounds: u64,
    limit: Duration,
) -> anyhow::Result<()> {
    let open = |cluster: &mut Cluster, machine: &u16| -> anyhow::Result<(u16, Session)> {
        Ok((*machine, Session::new(cluster.api_of(*machine)?, ANSWER_LIMIT)))
    };
    let mut sessions =
        machines.iter().map(|it| open(cluster, it)).collect::<anyhow::Result<Vec<_>>>()?;
    let register = usize::MAX;
    let path = format!("{COLLECTION}/{}", name(register));
    let Some((_, first)) = sessions.first_mut() else { return Ok(()) };
    patiently(limit, || {
        let answer = first.request("POST", COLLECTION, &object(register, 0));
        // An earlier attempt may have made it.
        answer.ok().filter(|answer| answer.status == 201 || answer.status == 409)
    })?;
    for round in 1..=rounds {
        let count = sessions.len().max(1);
        sessions.rotate_left(1);
        let writer = usize::try_from(round)? % count;
        let (_, session) = &mut sessions[writer];
        patiently(limit, || {
            let answer = session.request("PUT", &path, &object(register, round)).ok()?;
            (answer.status == 200).then_some(())
        })?;
        let others = sessions.iter_mut().enumerate().filter(|(index, _)| *index != writer);
        let read = |(machine, session): &mut (u16, Session)| {
            let read = patiently(limit, || {
                value_of(&session.request("GET", &path, &Value::Null).ok()?.json().ok()?)
            })?;
            if read != round {
                bail!("{} reads {read} after {round} was written", machine_name(*machine));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let reading: Vec<_> =
                others.map(|(_, session)| scope.spawn(|| read(session))).collect();
            reading.into_iter().try_for_each(|read| match read.join() {
                Ok(read) => read,
                Err(_) => bail!("a reader has panicked"),
            })
        })?;
    }
    Ok(())
}

fn patiently<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("no answer within {limit:?}");
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Clients at work. Dropping them stops them.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    stop: AtomicBool,
    /// The last value that was written; each is written once.
    value: AtomicU64,
    acknowledged: AtomicU64,
    history: Mutex<Vec<Operation>>,
}

impl Clients {
    /// Makes the registers and starts clients at each of `machines`.
    ///
    /// # Errors
    /// The registers cannot be made.
    pub fn start(cluster: &mut Cluster, machines: &[u16], load: Load) -> anyhow::Result<Self> {
        let mut session = Session::new(cluster.api()?, ANSWER_LIMIT);
        for register in 0..load.registers {
            // One of an earlier scenario would hold its last value, and a history begins with 0.
            let path = format!("{COLLECTION}/{}", name(register));
            session.request("DELETE", &path, &Value::Null).map_err(Failure::into_error)?;
            let answer = session.request("POST", COLLECTION, &object(register, 0));
            answer.map_err(Failure::into_error)?.json().context("make a register")?;
        }
        let shared = Arc::new(Shared {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            value: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            history: Mutex::new(Vec::new()),
        });
        let mut clients = Self { shared, threads: Vec::new() };
        for machine in machines {
            for writes in (0..load.writers + load.readers).map(|number| number < load.writers) {
                let session = Session::new(cluster.api_of(*machine)?, ANSWER_LIMIT);
                let number = clients.threads.len();
                let client = Client {
                    shared: Arc::clone(&clients.shared),
                    session,
                    number,
                    writes,
                    registers: load.registers,
                };
                let thread = std::thread::Builder::new().name(format!("client {number}"));
                clients.threads.push(thread.spawn(move || client.run())?);
            }
        }
        Ok(clients)
    }

    /// How many writes have been acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for `count` more acknowledged writes.
    ///
    /// # Errors
    /// They do not come within `limit`.
    pub fn wait_for_writes(&self, count: u64, limit: Duration) -> anyhow::Result<()> {
        let (wanted, deadline) = (self.acknowledged() + count, Instant::now() + limit);
        while self.acknowledged() < wanted {
            if Instant::now() > deadline {
                let missing = wanted - self.acknowledged();
                bail!("{missing} of {count} writes are not acknowledged after {limit:?}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops the clients and returns what they did.
    ///
    /// # Errors
    /// A client has panicked.
    pub fn stop(mut self) -> anyhow::Result<Vec<Operation>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                bail!("a client has panicked");
            }
        }
        let mut history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut history))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    shared: Arc<Shared>,
    session: Session,
    number: usize,
    writes: bool,
    registers: usize,
}

impl Client {
    fn run(mut self) {
        let mut turn = self.number;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let register = turn % self.registers.max(1);
            turn += 1;
            let called = self.shared.started.elapsed();
            let done = if self.writes { self.write(register) } else { self.read(register) };
            let answered = self.shared.started.elapsed();
            let (action, answered) = match done {
                Some((action, true)) => (action, Some(answered)),
                Some((action, false)) => (action, None),
                None => {
                    std::thread::park_timeout(PAUSE);
                    continue;
                }
            };
            let client = self.number;
            let operation = Operation { client, register, action, called, answered };
            self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
            if answered.is_none() {
                std::thread::park_timeout(PAUSE);
            } else if self.writes {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The write, and whether it is known to have happened; `None` if it is known not to have.
    fn write(&mut self, register: usize) -> Option<(Action, bool)> {
        let value = self.shared.value.fetch_add(1, Ordering::Relaxed) + 1;
        let path = format!("{COLLECTION}/{}", name(register));
        let answer = self.session.request("PUT", &path, &object(register, value));
        let action = Action::Write(value);
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Some((action, true)),
            // The request was refused before anything was done.
            Ok(answer) if (400..500).contains(&answer.status) && answer.status != 408 => None,
            Ok(_) | Err(Failure::Unknown(_)) => Some((action, false)),
            Err(Failure::NotSent(_)) => None,
        }
    }

    fn read(&mut self, register: usize) -> Option<(Action, bool)> {
        let path = format!("{COLLECTION}/{}", name(register));
        let answer = self.session.request("GET", &path, &Value::Null).ok()?.json().ok()?;
        Some((Action::Read(value_of(&answer)?), true))
    }
}

fn name(register: usize) -> String {
    format!("register-{register}")
}

fn object(register: usize, value: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name(register) },
        "data": { "value": value.to_string() },
    })
}

fn value_of(object: &Value) -> Option<u64> {
    object.pointer("/data/value")?.as_str()?.parse().ok()
}
