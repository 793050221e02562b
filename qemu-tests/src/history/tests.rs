//! Histories that are and are not linearizable, and random ones of a register that is.

use super::*;

const fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// `(client, action, called, answered)`, in milliseconds, of register 0.
fn history(rows: &[(usize, Action, u64, Option<u64>)]) -> Vec<Operation> {
    let row = |(client, action, called, answered): &(usize, Action, u64, Option<u64>)| Operation {
        client: *client,
        register: 0,
        action: *action,
        called: at(*called),
        answered: answered.map(at),
    };
    rows.iter().map(row).collect()
}

use Action::{Read, Write};

#[test]
fn one_after_the_other_is_fine() {
    let rows = [
        (0, Read(0), 0, Some(1)),
        (0, Write(1), 2, Some(3)),
        (1, Read(1), 4, Some(5)),
        (1, Write(2), 6, Some(7)),
        (0, Read(2), 8, Some(9)),
    ];
    assert_eq!(check(&history(&rows)), Ok(()));
    assert_eq!(check(&[]), Ok(()));
}

#[test]
fn a_stale_read_is_found() {
    let rows = [(0, Write(1), 0, Some(1)), (0, Write(2), 2, Some(3)), (1, Read(1), 4, Some(5))];
    let violation = check(&history(&rows)).expect_err("a stale read");
    assert_eq!((violation.register, violation.explained), (0, 2));
    assert_eq!(violation.stuck, history(&rows[2..]));
}

#[test]
fn a_lost_write_is_found() {
    let rows = [(0, Write(1), 0, Some(1)), (1, Read(0), 2, Some(3))];
    assert!(check(&history(&rows)).is_err());
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert!(check(&history(&[(0, Read(9), 0, Some(1))])).is_err());
}

#[test]
fn what_was_read_is_not_unread_later() {
    // The write overlaps both reads: either value is right, but not the new one first and then the old one.
    let back =
        [(0, Write(1), 0, Some(100)), (1, Read(1), 10, Some(20)), (2, Read(0), 30, Some(40))];
    assert!(check(&history(&back)).is_err());
    let forth =
        [(0, Write(1), 0, Some(100)), (1, Read(0), 10, Some(20)), (2, Read(1), 30, Some(40))];
    assert_eq!(check(&history(&forth)), Ok(()));
}

#[test]
fn writes_that_overlap_may_come_in_either_order() {
    for last in [1, 2] {
        let rows =
            [(0, Write(1), 0, Some(10)), (1, Write(2), 5, Some(15)), (2, Read(last), 20, Some(30))];
        assert_eq!(check(&history(&rows)), Ok(()), "{last}");
    }
    let both = [
        (0, Write(1), 0, Some(10)),
        (1, Write(2), 5, Some(15)),
        (2, Read(1), 20, Some(30)),
        (2, Read(2), 40, Some(50)),
    ];
    assert!(check(&history(&both)).is_err());
}

#[test]
fn an_unanswered_write_may_have_happened_or_not() {
    let lost = [(0, Write(1), 0, None), (1, Read(0), 10, Some(20))];
    assert_eq!(check(&history(&lost)), Ok(()));
    let late = [(0, Write(1), 0, None), (1, Read(0), 10, Some(20)), (1, Read(1), 30, Some(40))];
    assert_eq!(check(&history(&late)), Ok(()));
    let undone = [(0, Write(1), 0, None), (1, Read(1), 10, Some(20)), (1, Read(0), 30, Some(40))];
    assert!(check(&history(&undone)).is_err());
    let early = [(1, Read(1), 0, Some(10)), (0, Write(1), 20, None)];
    assert!(check(&history(&early)).is_err());
}

#[test]
fn registers_do_not_explain_each_other() {
    let mut rows = history(&[(0, Write(1), 0, Some(1)), (1, Read(1), 2, Some(3))]);
    rows[1].register = 1;
    assert_eq!(check(&rows).expect_err("nobody wrote it").register, 1);
}

#[test]
#[should_panic(expected = "written twice")]
fn clients_that_write_a_value_twice_are_refused() {
    let _ = check(&history(&[(0, Write(1), 0, Some(1)), (0, Write(1), 2, Some(3))]));
}

#[test]
fn the_longest_gap_is_between_answers_of_writes() {
    let rows = [
        (0, Write(1), 0, Some(10)),
        (0, Read(1), 10, Some(500)),
        (1, Write(2), 600, Some(910)),
        (1, Write(3), 920, None),
        (0, Write(4), 0, Some(1000)),
    ];
    assert_eq!(longest_gap(&history(&rows)), at(900));
    assert_eq!(longest_gap(&[]), Duration::ZERO);
}

/// Runs clients against a register that does each operation at one instant between call and answer.
fn simulate(seed: u64, clients: usize, operations: usize) -> Vec<Operation> {
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % sides
    };
    // (instant of effect, client, called, answered, written)
    let mut plans = Vec::new();
    let mut value = 0;
    for client in 0..clients {
        let mut now = roll(50);
        for _ in 0..operations {
            let called = now;
            let effect = called + roll(30);
            let answered = effect + roll(30);
            now = answered + 1 + roll(10);
            value += 1;
            let written = (roll(2) == 0).then_some(value);
            // A client whose write is never answered goes on with its next.
            let known = written.is_none() || roll(20) != 0;
            plans.push((effect, client, called, known.then_some(answered), written));
        }
    }
    plans.sort_unstable();
    let mut register = 0;
    let done = plans.into_iter().map(|(_, client, called, answered, written)| {
        if let Some(written) = written {
            register = written;
        }
        let action = written.map_or(Read(register), Write);
        Operation { client, register: 0, action, called: at(called), answered: answered.map(at) }
    });
    done.collect()
}

#[test]
fn a_true_register_passes_and_a_spoiled_history_does_not() {
    for seed in 0..200 {
        let good = simulate(seed, 5, 40);
        assert_eq!(check(&good), Ok(()), "seed {seed}");
        // A read of something long overwritten: the first value, read at the very end.
        let mut spoiled = good.clone();
        let first = spoiled.iter().find_map(|it| match it.action {
            Write(value) if it.answered.is_some() => Some(value),
            _ => None,
        });
        let end = at(1_000_000);
        let action = Read(first.expect("a write"));
        spoiled.push(Operation {
            client: 9,
            register: 0,
            action,
            called: end,
            answered: Some(end + at(1)),
        });
        assert!(check(&spoiled).is_err(), "seed {seed}");
    }
}

#[test]
fn a_long_history_is_checked_in_good_time() {
    assert_eq!(check(&simulate(7, 6, 2_000)), Ok(()));
}
