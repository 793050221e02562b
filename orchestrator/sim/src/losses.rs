//! What the default timings promise, put to the proof with many seeds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use podium_sim::loss::{Claim, Missed};

use crate::many::for_each_seed;

/// Many losses.
#[derive(Args)]
pub(crate) struct Losses {
    /// How many seeds of each claim.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The claim: machine, leader or silence; all of them if this is not given.
    #[arg(long, value_parser = claim_of)]
    claim: Option<Claim>,
    /// How many seeds at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn claim_of(name: &str) -> Result<Claim, String> {
    let found = Claim::ALL.into_iter().find(|claim| claim.to_string() == name);
    found.ok_or_else(|| format!("no claim is called {name}"))
}

/// Runs all seeds of the claims; prints failures as they come, and for each claim how long machines were missed.
pub(crate) fn run(losses: &Losses) -> ExitCode {
    let claims = losses.claim.map_or(Claim::ALL.to_vec(), |claim| vec![claim]);
    let failures: usize = claims.into_iter().map(|claim| prove(losses, claim)).sum();
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of failures.
fn prove(losses: &Losses, claim: Claim) -> usize {
    let began = Instant::now();
    let outcomes = for_each_seed((losses.first, losses.seeds), losses.threads, |seed| {
        let outcome = claim.holds(seed);
        if let Err(violation) = &outcome {
            let repeat = claim.repeat(seed);
            println!("{claim}, seed {seed} violates: {violation}\nto repeat it: {repeat}");
        }
        outcome.ok()
    });
    let missed: Vec<Missed> = outcomes.iter().copied().flatten().collect();
    let mut spans = match claim.limit() {
        None => "nobody was evicted".to_owned(),
        Some(limit) => format!(
            "replaced after {} of {:.0} s",
            spread(missed.iter().map(|it| it.replaced)),
            limit.as_secs_f64(),
        ),
    };
    // Of the others, a majority goes on; that they commit nothing shows only that there is nothing to commit.
    if claim == Claim::Leader {
        spans += &format!("; no write for {}", spread(missed.iter().map(|it| it.gap)));
    }
    let (passed, failed) = (missed.len(), outcomes.len() - missed.len());
    let all = began.elapsed().as_secs_f64();
    println!("{claim}: {passed} seeds passed, {failed} failed: {spans}; took {all:.1} s");
    failed
}

fn spread(spans: impl Iterator<Item = Duration>) -> String {
    let mut seconds: Vec<f64> = spans.map(|span| span.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or_default();
    let (median, longest) = (at(seconds.len() / 2), at(seconds.len().saturating_sub(1)));
    format!("{median:.2} s (median), {longest:.2} s (longest)")
}
