//! Policies as tables, and properties over random lives.

use std::time::Duration;

use podium_control::pod::{Phase, PodEvent, PodMachine, StartStage};
use proptest::prelude::*;

use super::runtime::{Behaviour, Node, Script, containers, pod};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn restart_policy_decides_by_the_exit_code() {
    let table = [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ];
    for (policy, code, restarts) in table {
        let script = Script {
            containers: [("c".to_owned(), vec![Behaviour::exit(1, code), Behaviour::default()])]
                .into(),
            ..Script::default()
        };
        let mut node = Node::new(pod(&[], &["c"], policy), script);
        node.bind(Ok(()));
        node.run_for(seconds(60));
        assert_eq!(node.start_times.len() > 1, restarts, "{policy} after {code}");
        let phase = match (restarts, code) {
            (true, _) => Phase::Running,
            (false, 0) => Phase::Succeeded,
            (false, _) => Phase::Failed,
        };
        assert_eq!(node.phase(), phase, "{policy} after {code}");
    }
}

#[test]
fn crashes_are_restarted_at_once_then_after_doubling_delays() {
    let script = Script {
        containers: [("c".to_owned(), vec![Behaviour::exit(1, 1)])].into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("nine instances", |node| node.start_times.len() == 9);
    let times: Vec<_> = node.start_times.values().map(Duration::as_secs).collect();
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0] - 1).collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn long_run_forgets_the_crashes_before_it() {
    let crash = Behaviour::exit(1, 1);
    let behaviours = vec![crash.clone(), crash.clone(), Behaviour::exit(700, 1), crash];
    let script = Script { containers: [("c".to_owned(), behaviours)].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("four instances", |node| node.start_times.len() == 4);
    let times: Vec<_> = node.start_times.values().map(Duration::as_secs).collect();
    assert_eq!(times, [0, 1, 12, 712]);
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let script = Script {
        containers: [
            ("i1".to_owned(), vec![Behaviour::exit(2, 1), Behaviour::exit(2, 0)]),
            ("i2".to_owned(), vec![Behaviour::exit(3, 0)]),
        ]
        .into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&["i1", "i2"], &["a", "b"], "Always"), script);
    node.bind(Ok(()));
    node.run_for(seconds(1));
    assert_eq!(
        node.condition("Initialized"),
        ("False".to_owned(), Some("ContainersNotInitialized".to_owned()))
    );
    assert_eq!(node.waiting_reason("a").as_deref(), Some("PodInitializing"));
    assert_eq!(node.phase(), Phase::Pending);
    node.run_until("running", |node| node.is_running("a") && node.is_running("b"));
    let times: Vec<_> = node
        .start_times
        .iter()
        .map(|(instance, at)| (instance.to_string(), at.as_secs()))
        .collect();
    let expected = [("a.0", 7), ("b.0", 7), ("i1.0", 0), ("i1.1", 2), ("i2.0", 4)];
    assert_eq!(times, expected.map(|(name, at)| (name.to_owned(), at)));
    assert!(node.container("i2").ready);
    assert_eq!(node.condition("Initialized").0, "True");
}

#[test]
fn failed_init_container_fails_a_pod_that_never_restarts() {
    let script = Script {
        containers: [("i".to_owned(), vec![Behaviour::exit(1, 5)])].into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&["i"], &["c"], "Never"), script);
    node.bind(Ok(()));
    node.run_until("the end", |node| node.phase() == Phase::Failed);
    node.run_for(seconds(600));
    assert_eq!(node.start_times.len(), 1);
    assert_eq!(node.waiting_reason("c").as_deref(), Some("PodInitializing"));
}

#[test]
fn node_that_goes_down_stops_the_pod_and_runs_it_again_after() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.feed(PodEvent::NodeStopping { limit: seconds(10) });
    node.run_until("rest", |node| node.machine.as_ref().is_some_and(PodMachine::is_at_rest));
    assert_eq!(node.live_count(), 0);
    assert_eq!((node.phase(), node.deletions), (Phase::Running, 0));
    assert!(node.volumes, "what the pod kept on disk is gone");
    node.reboot();
    node.run_until("again", |node| node.is_running("c") && node.container("c").restart_count == 1);
}

#[test]
fn halted_pod_that_is_deleted_leaves_nothing() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.feed(PodEvent::NodeStopping { limit: seconds(10) });
    node.run_until("rest", |node| node.machine.as_ref().is_some_and(PodMachine::is_at_rest));
    node.delete(30);
    node.run_until("gone", |node| node.forgotten);
    assert!(!node.volumes);
}

#[test]
fn node_that_goes_down_waits_no_longer_than_its_limit() {
    let stubborn = Behaviour { stops_after: None, ..Behaviour::default() };
    let script =
        Script { containers: [("c".to_owned(), vec![stubborn])].into(), ..Script::default() };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.feed(PodEvent::NodeStopping { limit: seconds(5) });
    node.run_until("rest", |node| node.machine.as_ref().is_some_and(PodMachine::is_at_rest));
    assert_eq!(node.elapsed().as_secs(), 5);
}

/// How an instance may behave.
fn behaviour() -> impl Strategy<Value = Behaviour> {
    let exits = prop::option::of((0_u64..20, prop::sample::select(vec![0, 1, 3, 137])));
    let stops = prop::option::of(0_u64..40);
    let refused = prop::option::weighted(
        0.2,
        prop::sample::select(vec![StartStage::Config, StartStage::Create, StartStage::Start]),
    );
    (exits, stops, refused).prop_map(|(exits, stops, refused)| Behaviour {
        exits: exits.map(|(after, code)| (seconds(after), code)),
        stops_after: stops.map(seconds),
        refused,
        oom: false,
    })
}

/// What may befall a pod from outside.
#[derive(Debug, Clone)]
enum Blow {
    RestartProgram,
    Reboot,
    KillShim,
    KillBoth,
    ShutDown,
    KillContainer,
    References,
}

fn blow() -> impl Strategy<Value = (u64, Blow)> {
    let blows = vec![
        Blow::RestartProgram,
        Blow::Reboot,
        Blow::KillShim,
        Blow::KillBoth,
        Blow::ShutDown,
        Blow::KillContainer,
        Blow::References,
    ];
    (0_u64..15_000, prop::sample::select(blows))
}

fn strike(node: &mut Node, blow: &Blow) {
    match blow {
        Blow::RestartProgram => node.restart_program(),
        Blow::Reboot => node.reboot(),
        Blow::KillShim => node.kill_shim(),
        Blow::KillBoth => node.kill_both(),
        Blow::ShutDown => {
            node.feed(PodEvent::NodeStopping { limit: seconds(4) });
            // The machine does not wait for ever.
            node.run_for(seconds(6));
            if !node.forgotten {
                node.reboot();
            }
        }
        Blow::KillContainer => node.kill_container("a"),
        Blow::References => node.feed(PodEvent::ReferencesChanged),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The node in miniature checks at every step: no second instance, no attempt used twice, a record before each
    /// instance, phases and restart counts that never go back, nothing left when the object is deleted.
    #[test]
    fn deleted_pod_always_ends_whatever_befalls_it(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        init in prop::collection::vec(behaviour(), 0..3),
        main in prop::collection::vec(behaviour(), 1..4),
        pulls in prop::collection::vec(prop::bool::ANY, 0..4),
        takes in 0_u64..700,
        blows in prop::collection::vec(blow(), 0..8),
        after in prop::collection::vec(blow(), 0..4),
        grace in 0_i64..40,
        force in prop::bool::weighted(0.2),
    ) {
        let script = Script {
            containers: [("i".to_owned(), init.clone()), ("a".to_owned(), main.clone()), ("b".to_owned(), main)].into(),
            pulls: pulls.into_iter().map(|good| if good { Ok(()) } else { Err("no".to_owned()) }).collect(),
            effect_takes: Duration::from_millis(takes),
            hook_takes: seconds(3),
            ..Script::default()
        };
        let init: &[&str] = if init.is_empty() { &[] } else { &["i"] };
        let mut node = Node::new(pod(init, &["a", "b"], policy), script);
        node.bind(Ok(()));
        for (wait, blow) in &blows {
            node.run_for(Duration::from_millis(*wait));
            strike(&mut node, blow);
        }
        node.delete(grace);
        for (wait, blow) in &after {
            if node.forgotten {
                break;
            }
            node.run_for(Duration::from_millis(*wait));
            if !node.forgotten {
                strike(&mut node, blow);
            }
        }
        if force && !node.forgotten {
            node.feed(PodEvent::Removed);
        }
        let began = node.elapsed();
        node.run_until("gone", |node| node.forgotten);
        let bound = seconds(u64::try_from(grace).expect("a grace") + 2 + 5 + 10) + Duration::from_millis(takes * 10);
        prop_assert!(node.elapsed() - began <= bound, "it took {:?}", node.elapsed() - began);
        prop_assert_eq!(node.live_count(), 0);
        prop_assert!(node.machine.as_ref().is_some_and(PodMachine::is_gone));
    }

    /// Left alone, a pod whose containers end comes to its end, and says how each of them ended.
    #[test]
    fn pod_of_containers_that_end_comes_to_its_end(
        code_a in 0_i32..3,
        code_b in 0_i32..3,
        blows in prop::collection::vec(blow(), 0..6),
    ) {
        let runs = |code| vec![Behaviour::exit(3, code)];
        let script = Script {
            containers: [("a".to_owned(), runs(code_a)), ("b".to_owned(), runs(code_b))].into(),
            effect_takes: Duration::from_millis(20),
            ..Script::default()
        };
        let mut node = Node::new(pod(&[], &["a", "b"], "Never"), script);
        node.bind(Ok(()));
        for (wait, blow) in &blows {
            node.run_for(Duration::from_millis(*wait));
            strike(&mut node, blow);
        }
        node.run_until("the end", |node| node.phase().is_terminal());
        for status in containers(node.status()) {
            let end = status.state.and_then(|state| state.terminated);
            prop_assert!(end.is_some(), "no end of {}", status.name);
        }
        let all_good = containers(node.status())
            .iter()
            .all(|status| status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 0));
        prop_assert_eq!(node.phase() == Phase::Succeeded, all_good);
    }
}
