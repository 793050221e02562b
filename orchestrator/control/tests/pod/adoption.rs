//! A node program that dies at any moment, and comes back.

use std::time::Duration;

use podium_control::pod::Phase;

use super::runtime::{Behaviour, Node, Script, containers, pod};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A job that fails twice and then succeeds, beside one that succeeds, after an init container.
fn job() -> Node {
    let script = Script {
        containers: [
            ("i".to_owned(), vec![Behaviour::exit(1, 1), Behaviour::exit(1, 0)]),
            (
                "a".to_owned(),
                vec![Behaviour::exit(2, 1), Behaviour::exit(2, 4), Behaviour::exit(2, 0)],
            ),
            ("b".to_owned(), vec![Behaviour::exit(5, 0)]),
        ]
        .into(),
        effect_takes: Duration::from_millis(30),
        ..Script::default()
    };
    Node::new(pod(&["i"], &["a", "b"], "OnFailure"), script)
}

/// Phase, and of each container its restarts and its exit code.
fn end(node: &Node) -> (Phase, Vec<(String, i32, Option<i32>)>) {
    let list = containers(node.status()).into_iter().map(|status| {
        let code = status.state.and_then(|state| state.terminated).map(|end| end.exit_code);
        (status.name, status.restart_count, code)
    });
    (node.phase(), list.collect())
}

#[test]
fn adoption_at_any_point_comes_to_the_same_end() {
    let mut undisturbed = job();
    undisturbed.bind(Ok(()));
    let limit = seconds(10_000);
    let mut steps = 0;
    while undisturbed.advance(limit) {
        steps += 1;
    }
    let expected = end(&undisturbed);
    let rows = [("i", 1, 0), ("a", 2, 0), ("b", 0, 0)]
        .map(|(name, restarts, code)| (name.to_owned(), restarts, Some(code)));
    assert_eq!(expected, (Phase::Succeeded, rows.to_vec()));
    assert!(steps > 30, "only {steps} steps");
    for at in 0..steps {
        let mut node = job();
        node.bind(Ok(()));
        for _ in 0..at {
            node.advance(limit);
        }
        node.restart_program();
        while node.advance(limit) {}
        assert_eq!(end(&node), expected, "adopted after step {at}");
    }
}

#[test]
fn program_that_dies_again_and_again_still_comes_to_the_same_end() {
    let mut node = job();
    node.bind(Ok(()));
    let limit = seconds(10_000);
    // A dozen steps before each death: what never gets past its setup cannot come to an end.
    let mut alive = 0;
    while node.advance(limit) {
        alive += 1;
        if alive % 12 == 0 {
            node.restart_program();
        }
        assert!(alive < 10_000, "no end in sight");
    }
    assert_eq!(end(&node).0, Phase::Succeeded);
    assert_eq!(end(&node).1.get(1).map(|row| (row.1, row.2)), Some((2, Some(0))));
}

#[test]
fn end_while_the_program_was_away_is_reported_exactly() {
    let script = Script {
        containers: [("c".to_owned(), vec![Behaviour::exit(5, 42)])].into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "Never"), script);
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    node.machine = None;
    node.run_for(seconds(30));
    node.restart_program();
    let ended = node.container("c").state.and_then(|state| state.terminated).expect("an end");
    assert_eq!((ended.exit_code, node.phase()), (42, Phase::Failed));
    let ran = |time: &Option<podium_types::k8s::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().expect("a time").0
    };
    assert_eq!(ran(&ended.finished_at).duration_since(ran(&ended.started_at)).as_secs(), 5);
}

#[test]
fn ready_pod_stays_ready_through_a_restart_of_the_program() {
    let mut spec = pod(&[], &["c"], "Always");
    spec["spec"]["containers"][0]["readinessProbe"] =
        serde_json::json!({"tcpSocket": {"port": 1}, "periodSeconds": 10});
    let mut node =
        Node::new(spec, Script { effect_takes: Duration::from_millis(20), ..Script::default() });
    node.bind(Ok(()));
    node.run_until("ready", |node| {
        !node.statuses.is_empty() && node.condition("Ready").0 == "True"
    });
    let before = node.statuses.len();
    node.restart_program();
    node.run_for(seconds(30));
    for status in node.statuses.iter().skip(before) {
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready")
            .expect("Ready");
        assert_eq!(ready.status, "True", "it was taken out of its Services");
    }
    assert_eq!(node.start_times.len(), 1);
}

#[test]
fn crash_loop_goes_on_where_it_was() {
    let script = Script {
        containers: [("c".to_owned(), vec![Behaviour::exit(1, 1)])].into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("four instances", |node| node.start_times.len() == 4);
    node.run_until("the loop", |node| {
        node.waiting_reason("c").as_deref() == Some("CrashLoopBackOff")
    });
    node.restart_program();
    node.run_until("five instances", |node| node.start_times.len() == 5);
    let times: Vec<_> = node.start_times.values().map(Duration::as_secs).collect();
    assert_eq!(
        times.windows(2).map(|pair| pair[1] - pair[0] - 1).collect::<Vec<_>>(),
        [0, 10, 20, 40]
    );
    assert_eq!(node.container("c").restart_count, 4);
}

#[test]
fn power_cuts_restart_the_pod_at_once_with_its_counts() {
    let mut node = Node::new(pod(&[], &["c"], "Always"), Script::default());
    node.bind(Ok(()));
    node.run_until("running", |node| node.is_running("c"));
    for cut in 1..=3 {
        node.run_for(seconds(7));
        node.reboot();
        let began = node.elapsed();
        node.run_until("again", |node| {
            node.is_running("c") && node.container("c").restart_count == cut
        });
        let last =
            node.container("c").last_state.and_then(|state| state.terminated).expect("an end");
        assert_eq!((last.exit_code, last.reason.as_deref()), (255, Some("Unknown")));
        assert!(node.elapsed() - began < seconds(1), "a power cut counted as a crash");
    }
    assert_eq!(node.phase(), Phase::Running);
}

#[test]
fn program_that_dies_between_an_end_and_the_next_start_does_not_delay_it() {
    let script = Script {
        containers: [("c".to_owned(), vec![Behaviour::exit(5, 1), Behaviour::default()])].into(),
        effect_takes: Duration::from_millis(100),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "Always"), script);
    node.bind(Ok(()));
    node.run_until("the end", |node| {
        !node.statuses.is_empty()
            && node.container("c").state.is_some_and(|state| state.terminated.is_some())
    });
    node.restart_program();
    let began = node.elapsed();
    node.run_until("the second instance", |node| {
        node.is_running("c") && node.container("c").restart_count == 1
    });
    assert!(node.elapsed() - began < seconds(2), "it took {:?}", node.elapsed() - began);
}

#[test]
fn finished_pod_is_left_alone_by_a_new_program() {
    let script = Script {
        containers: [("c".to_owned(), vec![Behaviour::exit(1, 0)])].into(),
        ..Script::default()
    };
    let mut node = Node::new(pod(&[], &["c"], "OnFailure"), script);
    node.bind(Ok(()));
    node.run_until("the end", |node| node.phase() == Phase::Succeeded);
    node.run_for(seconds(60));
    let reports = node.statuses.len();
    node.reboot();
    node.run_for(seconds(600));
    assert_eq!((node.start_times.len(), node.statuses.len()), (1, reports));
    node.delete(30);
    node.run_until("gone", |node| node.forgotten);
}
