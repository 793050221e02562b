//! The simulated runtime keeps the promises that openraft asks of one.

use std::time::Duration;

use openraft::rt::AsyncRuntime;
use openraft::testing::runtime::Suite;
use podium_sim::executor::{Executor, Life, NodeClock};
use podium_sim::runtime::{SimRuntime, spawn_in};

#[test]
fn the_simulated_runtime_passes_openrafts_suite() {
    Suite::<SimRuntime>::test_all();
}

/// Two tasks that hand the baton to the seed: the order of their steps is the seed's.
fn order_of(seed: u64) -> (Vec<u32>, u64) {
    let executor = Executor::new(seed);
    let order = executor.block_on(async {
        let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let log = log.clone();
                SimRuntime::spawn(async move {
                    for _ in 0..4 {
                        log.lock().expect("one thread").push(task);
                        SimRuntime::sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task crashes");
        }
        log.lock().expect("one thread").clone()
    });
    (order, executor.core().trace_hash())
}

#[test]
fn one_seed_gives_one_order_and_another_seed_another() {
    assert_eq!(order_of(7), order_of(7));
    assert_ne!(order_of(7).0, order_of(8).0);
}

#[test]
fn a_crash_drops_every_task_of_its_node_and_no_other() {
    let executor = Executor::new(1);
    executor.block_on(async {
        let first = podium_sim::executor::with(|core| core.boot(1, NodeClock::perfect()));
        let second = podium_sim::executor::with(|core| core.boot(2, NodeClock::perfect()));
        let child = |life: Life| {
            spawn_in(life, async {
                let inner = SimRuntime::spawn(async {
                    SimRuntime::sleep(Duration::from_secs(10)).await;
                    7
                });
                inner.await.expect("the node lives")
            })
        };
        let (doomed, survivor) = (child(first), child(second));
        SimRuntime::sleep(Duration::from_secs(1)).await;
        podium_sim::executor::with(|core| core.request_crash(1));
        assert!(doomed.await.is_err());
        assert_eq!(survivor.await.ok(), Some(7));
        let late = spawn_in(first, async {});
        assert!(late.await.is_err(), "a dead life runs nothing");
    });
}

#[test]
fn a_fast_clock_waits_less_virtual_time() {
    let executor = Executor::new(1);
    executor.block_on(async {
        let fast =
            podium_sim::executor::with(|core| core.boot(1, NodeClock::new(core.now(), 100_000, 0)));
        spawn_in(fast, async { SimRuntime::sleep(Duration::from_secs(11)).await })
            .await
            .expect("the node lives");
        let waited = podium_sim::executor::with(|core| core.now());
        assert!(waited > Duration::from_secs(9) && waited < Duration::from_secs(11), "{waited:?}");
    });
}

#[test]
fn a_frozen_node_resumes_where_it_stood() {
    let executor = Executor::new(1);
    executor.block_on(async {
        let life = podium_sim::executor::with(|core| core.boot(1, NodeClock::perfect()));
        let task = spawn_in(life, async { SimRuntime::sleep(Duration::from_secs(1)).await });
        podium_sim::executor::with(|core| core.freeze(1, Duration::from_secs(30)));
        task.await.expect("the node lives");
        // Its first step, and so its second of sleep, begins with the thaw.
        assert_eq!(podium_sim::executor::with(|core| core.now()), Duration::from_secs(31));
    });
}
