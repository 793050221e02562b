//! Is a history of reads and writes linearizable (Herlihy and Wing, 1990)?
//!
//! The history of each register is checked by itself, because linearizability is local: the algorithm is Wing and Gong's
//! search with Lowe's memory of the places it has been ("Testing for linearizability", 2017), as Porcupine and Knossos do it.
//! A write whose answer never came may have happened at any time after its call, or never.
//!
//! Every write of a register writes another value. That keeps the search short: an unanswered write that nobody has read need
//! not have happened, and one that somebody has read had happened by the time that the reader knew.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::time::Duration;

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It read this value. A register that was never written holds 0.
    Read(u64),
    /// It wrote this value.
    Write(u64),
}

/// One operation, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it.
    pub client: usize,
    /// On which register.
    pub register: usize,
    /// What.
    pub action: Action,
    /// When it was asked for. All clients have the same clock.
    pub called: Duration,
    /// When the answer was there; `None` for a write of which it is not known whether it happened.
    pub answered: Option<Duration>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, register, action, called, answered } = self;
        let (what, value) = match action {
            Action::Read(value) => ("reads", value),
            Action::Write(value) => ("writes", value),
        };
        write!(f, "{:9.3}s to ", called.as_secs_f64())?;
        match answered {
            Some(answered) => write!(f, "{:9.3}s", answered.as_secs_f64())?,
            None => write!(f, "   unknown")?,
        }
        write!(f, "  client {client} {what} {value} of register {register}")
    }
}

/// Why no order explains a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The register.
    pub register: usize,
    /// How many of its operations the longest attempt explained.
    pub explained: usize,
    /// What could not be put after them, in the order of the calls.
    pub stuck: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "register {} is not linearizable: {} operations are explained, none of these can be next:",
            self.register, self.explained
        )?;
        self.stuck.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

impl std::error::Error for Violation {}

/// Checks a history, register by register.
///
/// # Errors
/// The first register whose operations no order explains.
///
/// # Panics
/// A value of a register was written twice: the clients are wrong, and what follows would mean nothing.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut registers: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        registers.entry(operation.register).or_default().push(*operation);
    }
    for (register, operations) in registers {
        let mut written = BTreeSet::new();
        for operation in &operations {
            if let Action::Write(value) = operation.action {
                assert!(
                    value != 0 && written.insert(value),
                    "{value} was written twice: {operation}"
                );
            }
        }
        Search::new(settle(operations)).run(register)?;
    }
    Ok(())
}

/// The longest time in which no write was answered, from the first answer to the last.
#[must_use]
pub fn longest_gap(history: &[Operation]) -> Duration {
    let writes = history.iter().filter(|it| matches!(it.action, Action::Write(_)));
    let mut answers: Vec<Duration> = writes.filter_map(|it| it.answered).collect();
    answers.sort_unstable();
    answers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Gives unanswered writes the bounds that reads of them imply, and drops those that nobody has read.
fn settle(operations: Vec<Operation>) -> Vec<Operation> {
    let mut first_read: BTreeMap<u64, Duration> = BTreeMap::new();
    for operation in &operations {
        if let (Action::Read(value), Some(answered)) = (operation.action, operation.answered) {
            first_read.entry(value).and_modify(|it| *it = (*it).min(answered)).or_insert(answered);
        }
    }
    let settled = operations.into_iter().filter_map(|mut operation| {
        if operation.answered.is_none() {
            match operation.action {
                Action::Write(value) => operation.answered = Some(*first_read.get(&value)?),
                // A read without an answer has seen nothing.
                Action::Read(_) => return None,
            }
        }
        Some(operation)
    });
    settled.collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    // At the same instant a call comes before an answer: then the two overlap, and either order will do.
    Call,
    Answer,
}

/// A doubly linked list of calls and answers in the order of time; what is put in order is taken out of it.
struct Search {
    operations: Vec<Operation>,
    /// Index 0 is the list's head; `events[i - 1]` is entry i's.
    events: Vec<(Edge, usize)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The entry of each operation's answer.
    answer_of: Vec<usize>,
}

impl Search {
    fn new(operations: Vec<Operation>) -> Self {
        let mut events: Vec<(Duration, Edge, usize)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            events.push((operation.called, Edge::Call, index));
            events.push((operation.answered.unwrap_or(Duration::MAX), Edge::Answer, index));
        }
        events.sort_unstable();
        let count = events.len();
        let mut answer_of = vec![0; operations.len()];
        for (position, (_, edge, index)) in events.iter().enumerate() {
            if *edge == Edge::Answer {
                answer_of[*index] = position + 1;
            }
        }
        Self {
            operations,
            events: events.into_iter().map(|(_, edge, index)| (edge, index)).collect(),
            next: (1..=count).chain([0]).collect(),
            previous: [count].into_iter().chain(0..count).collect(),
            answer_of,
        }
    }

    fn run(mut self, register: usize) -> Result<(), Violation> {
        let mut value = 0;
        let mut done = vec![0u64; self.operations.len().div_ceil(64)];
        let mut been = HashSet::new();
        let mut taken: Vec<(usize, u64)> = Vec::new();
        let mut best = Violation { register, explained: 0, stuck: Vec::new() };
        let mut entry = self.next[0];
        while self.next[0] != 0 {
            let (edge, index) = self.events[entry - 1];
            if edge == Edge::Call {
                let after = match self.operations[index].action {
                    Action::Write(written) => Some(written),
                    Action::Read(read) => (read == value).then_some(value),
                };
                if let Some(after) = after {
                    done[index / 64] |= 1 << (index % 64);
                    if been.insert((done.clone(), after)) {
                        taken.push((entry, value));
                        value = after;
                        self.take(entry, index);
                        entry = self.next[0];
                        continue;
                    }
                    done[index / 64] &= !(1 << (index % 64));
                }
                entry = self.next[entry];
                continue;
            }
            // An answer that is still there: its operation, or one before it, must come first, and none of them can.
            if taken.len() >= best.explained {
                best.explained = taken.len();
                best.stuck = self.open_before(entry);
            }
            let Some((last, before)) = taken.pop() else { return Err(best) };
            let (_, index) = self.events[last - 1];
            value = before;
            done[index / 64] &= !(1 << (index % 64));
            self.put_back(last, index);
            entry = self.next[last];
        }
        Ok(())
    }

    fn take(&mut self, call: usize, index: usize) {
        for entry in [call, self.answer_of[index]] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last [`Self::take`].
    fn put_back(&mut self, call: usize, index: usize) {
        for entry in [self.answer_of[index], call] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = entry;
            self.previous[next] = entry;
        }
    }

    /// The operations that have been called before `entry` and are not in order yet.
    fn open_before(&self, entry: usize) -> Vec<Operation> {
        let mut open = Vec::new();
        let mut at = self.next[0];
        while at != entry {
            open.push(self.operations[self.events[at - 1].1]);
            at = self.next[at];
        }
        open
    }
}

#[cfg(test)]
mod tests;
