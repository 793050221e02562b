//! Who leads stands in a Lease.

use std::time::Duration;

use podium_control::testing::Cluster;
use podium_control::testing::objects;
use podium_types::ObjectKey;
use podium_types::kind::resources;
use serde_json::{Value, json};

use crate::{assert_at_rest, cluster};

const LONG: Duration = Duration::from_secs(2);

fn key() -> ObjectKey {
    ObjectKey::new(resources::LEASES, "kube-system", "podium-leader")
}

fn lease(cluster: &Cluster) -> Value {
    cluster.api.get(&key()).expect("the lease").clone()
}

fn held(cluster: &Cluster) -> (Value, Value) {
    let spec = &lease(cluster)["spec"];
    (spec["holderIdentity"].clone(), spec["leaseTransitions"].clone())
}

#[test]
fn lease_says_who_leads_and_is_written_when_another_does() {
    let mut cluster = cluster(2);
    cluster.lead("n1");
    cluster.settle_for(LONG);
    assert!(cluster.api.get(&key()).is_none(), "there is no namespace for it");
    cluster.put(objects::namespace("kube-system"));
    cluster.settle_for(LONG);
    assert_eq!(held(&cluster), (json!("n1"), json!(0)));
    let first = lease(&cluster);
    cluster.lead("n1");
    cluster.settle_for(LONG);
    assert_eq!(lease(&cluster), first, "the same machine leads again");
    cluster.lead("n2");
    cluster.settle_for(LONG);
    assert_eq!(held(&cluster), (json!("n2"), json!(1)));
    assert_at_rest(&cluster);
}

#[test]
fn lease_is_restored_if_somebody_changes_it() {
    let mut cluster = cluster(1);
    cluster.put(objects::namespace("kube-system"));
    cluster.lead("n1");
    cluster.settle_for(LONG);
    cluster.patch(&key(), None, json!({"spec": {"holderIdentity": "somebody"}}));
    cluster.settle_for(LONG);
    assert_eq!(held(&cluster), (json!("n1"), json!(1)));
    assert_at_rest(&cluster);
}
