//! The default timings of node lifecycle with a few seeds; `make loss-all` puts them to the proof with a thousand.

use podium_sim::loss::Claim;

#[track_caller]
fn holds(claim: Claim) {
    for seed in 1..=3 {
        if let Err(violation) = claim.holds(seed) {
            panic!("{claim}, seed {seed}: {violation}");
        }
    }
}

#[test]
fn pods_of_a_dead_machine_are_bound_elsewhere_within_five_seconds() {
    holds(Claim::Machine);
}

#[test]
fn with_the_leader_it_takes_eight_seconds_at_most() {
    holds(Claim::Leader);
}

#[test]
fn silences_of_two_seconds_and_loss_of_a_fifth_evict_nobody() {
    holds(Claim::Silence);
}
