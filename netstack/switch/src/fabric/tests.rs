//! Frames between ports that are only numbers, in virtual time.

use super::*;

const NOW: Duration = Duration::from_secs(1);
const GOOD: LinkCondition = LinkCondition {
    cut: false,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss_per_mille: 0,
    duplicate_per_mille: 0,
    reorder_per_mille: 0,
};
const CUT: LinkCondition = LinkCondition { cut: true, ..GOOD };
/// 239.255.64.44, by which machines announce themselves, as an Ethernet group (RFC 1112, 6.4).
const ANNOUNCEMENTS: [u8; 6] = [0x01, 0x00, 0x5e, 0x7f, 0x40, 0x2c];

fn frame(to: u8, from: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x08, 0x00];
    if to == 0xff {
        bytes[..6].fill(0xff);
    }
    bytes
}

fn receive(fabric: &mut Fabric, from: usize, bytes: &[u8]) -> Vec<usize> {
    let mut out = Vec::new();
    fabric.receive(NOW, PortId(from), bytes, &mut out);
    out.into_iter().map(|delivery| delivery.to.0).collect()
}

/// Sends `count` numbered frames from port 0 to port 1, one a millisecond, and tells in which order they arrive and when.
fn arrivals(fabric: &mut Fabric, count: u8) -> Vec<(u8, Duration)> {
    let mut arrived = Vec::new();
    let mut out = Vec::new();
    for step in 0..u64::from(count) + 1000 {
        let now = NOW + Duration::from_millis(step);
        if let Some(number) = u8::try_from(step).ok().filter(|number| *number < count) {
            let mut bytes = frame(2, 1);
            bytes.push(number);
            fabric.receive(now, PortId(0), &bytes, &mut out);
        }
        fabric.release(now, &mut out);
        arrived.extend(out.drain(..).map(|delivery| (delivery.frame[14], now)));
    }
    arrived
}

fn numbers(arrived: &[(u8, Duration)]) -> Vec<u8> {
    arrived.iter().map(|(number, _)| *number).collect()
}

#[test]
fn an_unknown_address_is_flooded_but_never_back() {
    let mut fabric = Fabric::new(4, 7);
    assert_eq!(receive(&mut fabric, 1, &frame(9, 1)), [0, 2, 3]);
}

#[test]
fn a_learned_address_gets_its_frames_alone() {
    let mut fabric = Fabric::new(4, 7);
    receive(&mut fabric, 2, &frame(0xff, 5));
    assert_eq!(receive(&mut fabric, 0, &frame(5, 1)), [2]);
}

#[test]
fn a_machine_that_moves_is_found_at_its_new_port() {
    let mut fabric = Fabric::new(3, 7);
    receive(&mut fabric, 1, &frame(0xff, 5));
    receive(&mut fabric, 2, &frame(0xff, 5));
    assert_eq!(receive(&mut fabric, 0, &frame(5, 1)), [2]);
}

#[test]
fn a_group_address_is_never_learned() {
    let mut fabric = Fabric::new(3, 7);
    let mut forged = frame(9, 1);
    forged[6..12].fill(0xff);
    receive(&mut fabric, 1, &forged);
    assert_eq!(receive(&mut fabric, 0, &frame(0xff, 2)), [1, 2]);
}

#[test]
fn announcements_reach_all_but_those_that_are_cut_off() {
    let mut fabric = Fabric::new(4, 7);
    let mut announcement = frame(0, 1);
    announcement[..6].copy_from_slice(&ANNOUNCEMENTS);
    assert_eq!(receive(&mut fabric, 0, &announcement), [1, 2, 3]);
    fabric.set_condition(PortId(0), PortId(2), CUT);
    assert_eq!(receive(&mut fabric, 0, &announcement), [1, 3]);
    announcement[11] = 3;
    assert_eq!(receive(&mut fabric, 2, &announcement), [0, 1, 3]);
}

#[test]
fn one_may_see_another_that_sees_a_third_unseen_by_the_first() {
    let mut fabric = Fabric::new(3, 7);
    for port in 0..3 {
        receive(&mut fabric, port, &frame(0xff, port as u8));
    }
    fabric.set_condition(PortId(0), PortId(2), CUT);
    fabric.set_condition(PortId(2), PortId(0), CUT);
    let reached = |fabric: &mut Fabric, from: u8, to: u8| {
        !receive(fabric, usize::from(from), &frame(to, from)).is_empty()
    };
    assert!(reached(&mut fabric, 0, 1) && reached(&mut fabric, 1, 0));
    assert!(reached(&mut fabric, 1, 2) && reached(&mut fabric, 2, 1));
    assert!(!reached(&mut fabric, 0, 2) && !reached(&mut fabric, 2, 0));
}

#[test]
fn a_cut_is_one_way() {
    let mut fabric = Fabric::new(2, 7);
    fabric.set_condition(PortId(0), PortId(1), CUT);
    assert!(receive(&mut fabric, 0, &frame(0xff, 1)).is_empty());
    assert_eq!(receive(&mut fabric, 1, &frame(0xff, 2)), [0]);
    fabric.set_condition(PortId(0), PortId(1), GOOD);
    assert_eq!(receive(&mut fabric, 0, &frame(0xff, 1)), [1]);
}

#[test]
fn a_cut_loses_what_is_on_its_way_on_that_link_alone() {
    let mut fabric = Fabric::new(3, 7);
    let slow = LinkCondition { delay: Duration::from_millis(50), ..GOOD };
    fabric.set_condition(PortId(0), PortId(1), slow);
    fabric.set_condition(PortId(0), PortId(2), slow);
    assert!(receive(&mut fabric, 0, &frame(0xff, 1)).is_empty());
    fabric.set_condition(PortId(0), PortId(1), CUT);
    let mut out = Vec::new();
    fabric.release(NOW + Duration::from_secs(1), &mut out);
    assert_eq!(out.iter().map(|delivery| delivery.to.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn delayed_frames_leave_in_order_and_on_time() {
    let mut fabric = Fabric::new(2, 7);
    let slow = LinkCondition { delay: Duration::from_millis(50), ..GOOD };
    fabric.set_condition(PortId(0), PortId(1), slow);
    assert!(receive(&mut fabric, 0, &frame(2, 1)).is_empty());
    assert!(receive(&mut fabric, 0, &frame(3, 1)).is_empty());
    let due = NOW + Duration::from_millis(50);
    assert_eq!(fabric.next_release(), Some(due));
    let mut out = Vec::new();
    fabric.release(due - Duration::from_nanos(1), &mut out);
    assert!(out.is_empty());
    fabric.release(due, &mut out);
    let last_bytes: Vec<u8> = out.iter().map(|delivery| delivery.frame[5]).collect();
    assert_eq!(last_bytes, [2, 3]);
}

#[test]
fn jitter_stays_within_its_bounds_and_lets_frames_overtake() {
    let mut fabric = Fabric::new(2, 7);
    let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(40));
    fabric.set_condition(PortId(0), PortId(1), LinkCondition { delay, jitter, ..GOOD });
    let arrived = arrivals(&mut fabric, 200);
    assert_eq!(arrived.len(), 200);
    for (number, at) in &arrived {
        let late = *at - (NOW + Duration::from_millis(u64::from(*number)));
        // Time goes in steps of a millisecond here.
        assert!(late >= delay && late <= delay + jitter + Duration::from_millis(1), "{late:?}");
    }
    assert!(!numbers(&arrived).is_sorted(), "no frame overtook another");
}

#[test]
fn reordered_frames_are_overtaken_and_none_is_lost() {
    let mut fabric = Fabric::new(2, 7);
    let condition = LinkCondition { reorder_per_mille: 200, ..GOOD };
    fabric.set_condition(PortId(0), PortId(1), condition);
    let mut arrived = numbers(&arrivals(&mut fabric, 200));
    assert!(!arrived.is_sorted(), "no frame was overtaken");
    arrived.sort_unstable();
    assert_eq!(arrived, (0..200).collect::<Vec<u8>>());
}

#[test]
fn duplicated_frames_come_twice_and_near_their_rate() {
    let mut fabric = Fabric::new(2, 7);
    let condition = LinkCondition { duplicate_per_mille: 300, ..GOOD };
    fabric.set_condition(PortId(0), PortId(1), condition);
    let arrived = numbers(&arrivals(&mut fabric, 250));
    for number in 0..250 {
        let copies = arrived.iter().filter(|it| **it == number).count();
        assert!((1..=2).contains(&copies), "frame {number} came {copies} times");
    }
    assert!((305..=345).contains(&arrived.len()), "{} of 250 at 300 per mille", arrived.len());
}

#[test]
fn loss_is_near_its_rate_and_repeats_with_its_seed() {
    let lost = |seed| {
        let mut fabric = Fabric::new(2, seed);
        let lossy = LinkCondition { loss_per_mille: 200, ..GOOD };
        fabric.set_condition(PortId(0), PortId(1), lossy);
        (0..10_000).map(|_| receive(&mut fabric, 0, &frame(2, 1)).is_empty()).collect::<Vec<bool>>()
    };
    let count = lost(42).into_iter().filter(|lost| *lost).count();
    assert!((1_700..2_300).contains(&count), "{count} of 10,000 lost at 200 per mille");
    assert!(lost(42) == lost(42), "one seed gave two patterns");
    assert!(lost(42) != lost(43), "two seeds gave one pattern");
}

#[test]
fn what_a_link_loses_does_not_depend_on_the_others() {
    let lost = |others: bool| {
        let mut fabric = Fabric::new(3, 42);
        let lossy = LinkCondition { loss_per_mille: 500, ..GOOD };
        fabric.set_condition(PortId(0), PortId(1), lossy);
        fabric.set_condition(PortId(2), PortId(1), lossy);
        receive(&mut fabric, 1, &frame(0xff, 2));
        let mut pattern = Vec::new();
        for _ in 0..200 {
            pattern.push(receive(&mut fabric, 0, &frame(2, 1)).is_empty());
            if others {
                receive(&mut fabric, 2, &frame(2, 3));
            }
        }
        pattern
    };
    assert!(lost(true) == lost(false));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_send_a_frame_back(
        frames in proptest::collection::vec((0usize..3, proptest::collection::vec(0u8..4, 0..20)), 0..40)
    ) {
        let mut fabric = Fabric::new(3, 1);
        for (from, bytes) in frames {
            proptest::prop_assert!(!receive(&mut fabric, from, &bytes).contains(&from));
        }
    }
}
