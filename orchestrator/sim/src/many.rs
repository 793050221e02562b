//! Many seeds, a few at a time, and one table for all of them.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use podium_sim::fault::Coverage;
use podium_sim::{Mistakes, Options, Report, USUAL_TIME, run};

use crate::{Many, mistakes_of};

#[derive(Default)]
struct Total {
    runs: u64,
    failures: u64,
    virtual_time: Duration,
    shortest: Option<Duration>,
    polls: u64,
    checks: u64,
    revisions: u64,
    coverage: Coverage,
}

/// What a report says in one line.
pub(crate) fn line(report: &Report) -> String {
    format!(
        "seed {}: trace {:016x}, {:.0} s of virtual time, {} polls, {} transactions, {} terms, {} checks",
        report.options.seed,
        report.trace_hash,
        report.virtual_time.as_secs_f64(),
        report.polls,
        report.revisions,
        report.terms,
        report.checks,
    )
}

/// Runs all seeds, prints failures as they come and the coverage in the end.
pub(crate) fn run_many(many: &Many) -> ExitCode {
    let mistakes = match mistakes_of(many.bug.as_deref()) {
        Ok(mistakes) => mistakes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let total = all_seeds(many, mistakes);
    print_total(&total, began.elapsed());
    if many.bug.is_some() {
        return found_planted(&total);
    }
    let missing = total.coverage.missing();
    for fault in &missing {
        println!("never happened: {fault}");
    }
    let passed = total.runs - total.failures;
    println!("{passed} passed, {} failed", total.failures);
    if total.failures == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn found_planted(total: &Total) -> ExitCode {
    if total.failures > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all_seeds(many: &Many, mistakes: Mistakes) -> Total {
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    for_each_seed((many.first, many.seeds), many.threads, |seed| {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let report = run(Options {
            seed,
            steps: many.steps,
            nodes: many.nodes,
            mistakes,
            load: many.load.map(Into::into),
        });
        let failed = report.violation.is_some() || report.is_short();
        total.lock().unwrap_or_else(PoisonError::into_inner).add(&report);
        if failed && !many.keep_going {
            stop.store(true, Ordering::Relaxed);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs so many seeds from the first on, some at a time; what they came to is in no order.
pub(crate) fn for_each_seed<T: Send>(
    (first, seeds): (u64, u64),
    threads: usize,
    one: impl Fn(u64) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(first);
    let end = first.saturating_add(seeds);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = one(seed);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.virtual_time += report.virtual_time;
        self.polls += report.polls;
        self.checks += report.checks;
        self.revisions += report.revisions;
        self.coverage.add(&report.coverage);
        match &report.violation {
            None => {
                let shortest = self
                    .shortest
                    .map_or(report.virtual_time, |least| least.min(report.virtual_time));
                self.shortest = Some(shortest);
                if report.is_short() {
                    self.failures += 1;
                    println!("{}", line(report));
                    println!(
                        "seed {} is over before {} virtual minutes are: {}",
                        report.options.seed,
                        USUAL_TIME.as_secs() / 60,
                        report.options
                    );
                }
            }
            Some(violation) => {
                self.failures += 1;
                println!("{}", line(report));
                println!(
                    "seed {} violates: {violation}\nto repeat it: {}",
                    report.options.seed, report.options
                );
            }
        }
    }
}

fn print_total(total: &Total, took: Duration) {
    println!(
        "{} seeds in {:.1} s ({:.2} a second): {:.1} h of virtual time, the shortest run {:.0} s, {} polls, {} transactions, {} checks",
        total.runs,
        took.as_secs_f64(),
        total.runs as f64 / took.as_secs_f64().max(0.001),
        total.virtual_time.as_secs_f64() / 3_600.0,
        total.shortest.unwrap_or_default().as_secs_f64(),
        total.polls,
        total.revisions,
        total.checks,
    );
    print!("{}", total.coverage);
}
