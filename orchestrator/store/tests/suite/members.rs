//! Three members on tokio: elections, replication, reads, retries, snapshots to who is behind.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, eventually, member, put_one, small_log, text, write};
use podium_store::{
    FeatureLevel, LogLimits, MemberId, Outcome, Revision, Role, StoreError, StoreHandle,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_is_seen_by_a_read_on_every_member() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let leader = cluster.leader().await;
    for round in 0..20 {
        let revision = write(&leader, "/a", &round.to_string()).await;
        for store in cluster.stores.values() {
            let view = store.read().await.unwrap();
            assert!(view.revision() >= revision);
            assert_eq!(text(&view.get("/a").unwrap().value), round.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_refuses_to_decide_and_names_the_leader() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let follower = cluster.follower().await;
    let refused = follower.transact(put_one("/a", "1")).await.unwrap_err();
    let leader = cluster.leader().await.status().member;
    assert!(
        matches!(refused, StoreError::NotLeader { leader: Some(named) } if named == leader),
        "{refused}"
    );
    assert!(!refused.outcome_is_unknown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retried_transaction_happens_once_wherever_it_is_sent() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let transaction = put_one("/a", "1");
    let mut outcomes = Vec::new();
    for store in cluster.stores.values() {
        outcomes.push(store.submit(transaction.clone()).await.unwrap());
    }
    assert_eq!(outcomes, vec![Outcome::Committed { revision: Revision(1) }; 3]);
    assert_eq!(cluster.leader().await.read().await.unwrap().get("/a").unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_outlive_their_leader() {
    let mut cluster = Cluster::start(3, LogLimits::default()).await;
    let mut last = Revision::ZERO;
    for round in 0..3 {
        let leader = cluster.leader().await;
        for number in 0..30 {
            last = write(&leader, &format!("/{round}/{number:02}"), "x").await;
        }
        let id = leader.status().member;
        drop(leader);
        cluster.power_off(id).await;
        let view = cluster.leader().await.read().await.unwrap();
        assert!(view.revision() >= last);
        for earlier in 0..=round {
            assert_eq!(view.range(&format!("/{earlier}/")).count(), 30);
        }
        cluster.open(id).await.unwrap();
    }
    assert_eq!(last, Revision(90));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_leader_answers_no_read_and_commits_nothing() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let old = cluster.leader().await;
    write(&old, "/a", "1").await;
    cluster.network.cut(old.status().member);
    let new = cluster.leader().await;
    assert_ne!(new.status().member, old.status().member);
    let at = write(&new, "/a", "2").await;
    let stale = tokio::time::timeout(std::time::Duration::from_secs(2), old.read()).await;
    assert!(stale.is_err() || stale.unwrap().is_err(), "a leader without a quorum answered");
    cluster.network.heal();
    let view = old.read().await.unwrap();
    assert!(view.revision() >= at);
    assert_eq!(text(&view.get("/a").unwrap().value), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_was_away_is_filled_by_a_snapshot() {
    let mut cluster = Cluster::start(3, small_log()).await;
    let away = cluster.follower().await.status().member;
    cluster.power_off(away).await;
    let leader = cluster.leader().await;
    let id = leader.status().member;
    for number in 0..400 {
        write(&leader, &format!("/k/{:03}", number % 50), &number.to_string()).await;
    }
    let first = "log-0000000000000001";
    eventually("the log to be purged", || cluster.disks[&id].contents(first).is_none()).await;
    cluster.open(away).await.unwrap();
    let back = cluster.stores[&away].clone();
    let view = back.read().await.unwrap();
    assert_eq!(view.range("/k/").count(), 50);
    assert_eq!(text(&view.get("/k/049").unwrap().value), "399");
    let too_old = back.watch("/k/", Revision(3)).unwrap_err();
    assert!(matches!(too_old, StoreError::TooOld { .. }), "{too_old}");
    write(&leader, "/k/001", "after").await;
    eventually("the log to go on", || {
        back.local().get("/k/001").is_some_and(|record| text(&record.value) == "after")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_on_a_follower_sees_every_revision_once() {
    let cluster = Cluster::start(3, small_log()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut watch = follower.watch("/w/", Revision::ZERO).unwrap();
    let writer = tokio::spawn(async move {
        for number in 0..150 {
            write(&leader, &format!("/w/{}", number % 7), "x").await;
        }
    });
    for expected in 1..=150 {
        assert_eq!(watch.next().await.unwrap().revision, Revision(expected));
    }
    writer.await.unwrap();
    assert_eq!(watch.progress(), Revision(150));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_can_be_exchanged_one_by_one() {
    let mut cluster = Cluster::start(3, small_log()).await;
    let leader = cluster.leader().await;
    for number in 0..100 {
        write(&leader, &format!("/k/{number}"), "x").await;
    }
    cluster.open(MemberId(4)).await.unwrap();
    assert_eq!(cluster.stores[&MemberId(4)].status().role, Role::Blank);
    leader.add_learner(member(4)).await.unwrap();
    let leaving = cluster.follower().await.status().member;
    let mut voters: BTreeSet<_> = (1..=4).map(MemberId).collect();
    voters.remove(&leaving);
    leader.set_voters(voters.clone()).await.unwrap();
    cluster.network.detach(leaving);
    cluster.stores.remove(&leaving);
    let joined = cluster.stores[&MemberId(4)].clone();
    assert_eq!(joined.read().await.unwrap().len(), 100);
    assert_eq!(joined.status().membership.voters, vec![voters]);
    assert_eq!(joined.status().membership.members[&MemberId(4)], member(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_was_alone_and_idle_grows_to_three_and_is_replaced_when_it_dies() {
    let mut cluster = Cluster::start(1, LogLimits::default()).await;
    let first = cluster.leader().await;
    write(&first, "/a", "1").await;
    // Longer than an election: its clock has stopped by then.
    tokio::time::sleep(crate::cluster::timings().election_max * 2).await;
    for id in [2, 3] {
        cluster.open(MemberId(id)).await.unwrap();
        first.add_learner(member(id)).await.unwrap();
    }
    first.set_voters((1..=3).map(MemberId).collect()).await.unwrap();
    // Without heartbeats another would lead by now.
    cluster.leader().await;
    tokio::time::sleep(crate::cluster::timings().election_max * 2).await;
    assert_eq!(cluster.leader().await.status().member, MemberId(1));
    drop(first);
    cluster.power_off(MemberId(1)).await;
    let view = cluster.leader().await.read().await.unwrap();
    assert_eq!(text(&view.get("/a").unwrap().value), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feature_level_waits_for_every_member() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let leader = cluster.leader().await;
    let refused = leader.raise_feature_level(FeatureLevel(2)).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::NotKnownByAll { level: FeatureLevel(2), .. }),
        "{refused}"
    );
    let raised = async || leader.raise_feature_level(FeatureLevel::SUPPORTED).await;
    let begun = std::time::Instant::now();
    while raised().await.is_err() {
        assert!(begun.elapsed() < crate::cluster::PATIENCE, "members announce what they know");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(leader.status().feature_level, FeatureLevel::SUPPORTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_be_handed_over() {
    let cluster = Cluster::start(3, LogLimits::default()).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let before = write(&leader, "/a", "1").await;
    let to = follower.status().member;
    leader.transfer_leadership(to).await.unwrap();
    eventually("the other to lead", || follower.status().role == Role::Leader).await;
    assert!(follower.read().await.unwrap().revision() >= before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_initialise_is_refused() {
    let cluster = Cluster::start(1, LogLimits::default()).await;
    let again = cluster.leader().await.initialise(vec![member(1)]).await.unwrap_err();
    assert!(matches!(again, StoreError::Membership { .. }), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_comes_back_knows_its_cluster_at_once() {
    let mut cluster = Cluster::start(1, LogLimits::default()).await;
    write(&cluster.leader().await, "/a", "1").await;
    cluster.power_off(MemberId(1)).await;
    cluster.open(MemberId(1)).await.unwrap();
    let store = &cluster.stores[&MemberId(1)];
    assert_ne!(store.status().role, Role::Blank);
    assert_eq!(store.read().await.unwrap().revision(), Revision(1));
}

/// Entries reach the followers while the leader still syncs them. A leader that came back in its
/// own term without them would give their places in the log to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_comes_back_leads_only_in_a_new_term() {
    let mut cluster = Cluster::start(3, LogLimits::default()).await;
    let leader = cluster.leader().await.status();
    cluster.power_off(leader.member).await;
    cluster.open(leader.member).await.unwrap();
    let back = cluster.stores[&leader.member].status();
    assert!(back.role != Role::Leader || back.term > leader.term, "{back:?}");
    assert!(cluster.leader().await.status().term > leader.term);
}
