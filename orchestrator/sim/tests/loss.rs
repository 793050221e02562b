//! The default timings of node lifecycle, over many seeds: how long a machine is missed, and that nobody is given up wrongly.

use std::time::Duration;

use podium_sim::loss::{Loss, lose};

/// Seeds of each case. `PODIUM_LOSS_SEEDS` asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("PODIUM_LOSS_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(3)
}

fn within(loss: Loss, limit: Duration) {
    let mut took = Vec::new();
    for seed in 1..=seeds() {
        let nodes = [3, 3, 5, 7][usize::try_from(seed % 4).unwrap_or(0)];
        let outcome = lose(seed, nodes, loss);
        if let Some(violation) = outcome.violation {
            panic!("{loss:?}, {nodes} nodes, seed {seed}: {violation}");
        }
        assert!(outcome.took <= limit, "{loss:?}, {nodes} nodes, seed {seed}: {:?}", outcome.took);
        took.push(outcome.took);
    }
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{loss:?}: median {median:?}, longest {longest:?} of {} seeds", took.len());
}

#[test]
fn pods_of_a_dead_machine_are_bound_elsewhere_within_five_seconds() {
    within(Loss::Machine, Duration::from_secs(5));
}

#[test]
fn with_the_leader_it_takes_eight_seconds_at_most() {
    within(Loss::Leader, Duration::from_secs(8));
}

#[test]
fn silences_of_two_seconds_and_loss_of_a_fifth_evict_nobody() {
    let run = Duration::from_secs(120);
    within(Loss::Messages { silence: Duration::from_secs(2), run }, run * 2);
}
