//! Every bug that can be planted does what it says: the sound pipeline passes where the unsound one fails.
#![cfg(feature = "planted-bugs")]

use futures::executor::block_on;
use podium_api::User;
use podium_api::bugs::{Bug, Bugs};
use podium_api::pipeline::{Config, DeleteOptions};
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use serde_json::{Value, json};

#[path = "support/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod world;
use world::World;

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}})
}

/// Whether the property that the bug breaks holds.
async fn holds(bug: Bug, world: &World) -> bool {
    match bug {
        Bug::AddressReused => {
            let mut addresses = Vec::new();
            for name in ["a", "b"] {
                let mut service = named(name);
                service["spec"] = json!({"ports": [{"port": 80}]});
                let made = world.create(resources::SERVICES, service).await.expect("created");
                addresses.push(made.object["spec"]["clusterIP"].clone());
            }
            addresses[0] != addresses[1]
        }
        Bug::UpdateIgnoresResourceVersion => {
            let made = world.create(resources::CONFIG_MAPS, named("c")).await.expect("created");
            let key = ObjectKey::new(resources::CONFIG_MAPS, "default", "c");
            world.merge(&key, "", json!({"data": {"a": "1"}})).await.expect("patched");
            world.update(&key, made.object).await.is_err()
        }
        Bug::DeleteIgnoresUid => {
            world.create(resources::CONFIG_MAPS, named("c")).await.expect("created");
            let key = ObjectKey::new(resources::CONFIG_MAPS, "default", "c");
            let other =
                DeleteOptions { uid: Some("another".to_owned()), ..DeleteOptions::default() };
            world.delete(&key, &other).await.is_err()
        }
        Bug::BindOverwrites => {
            let mut pod = named("p");
            pod["spec"] = json!({"containers": [{"name": "c", "image": "i"}]});
            let made = world.create(resources::PODS, pod).await.expect("created");
            let key = ObjectKey::new(resources::PODS, "default", "p");
            let pods = [(key, object::uid(&made.object).to_owned())];
            let scheduler = User::system("kube-scheduler");
            world.pipeline.bind(&scheduler, "n1", &pods).await.expect("decided");
            world.pipeline.bind(&scheduler, "n2", &pods).await.expect("decided")[0].is_err()
        }
        Bug::CreateInTerminatingNamespace => {
            let namespace = json!({"metadata": {"name": "n"}});
            world.create(resources::NAMESPACES, namespace).await.expect("created");
            let key = ObjectKey::new(resources::NAMESPACES, "", "n");
            world.delete(&key, &DeleteOptions::default()).await.expect("deleted");
            let object = json!({"metadata": {"name": "c", "namespace": "n"}});
            world.create(resources::CONFIG_MAPS, object).await.is_err()
        }
    }
}

#[test]
fn planted_bugs_break_what_they_say_and_nothing_else_does() {
    block_on(async {
        for bug in Bug::ALL {
            let unsound = World::with(Config { bugs: Bugs::only(bug), ..Config::default() }).await;
            assert!(!holds(bug, &unsound).await, "{} does nothing", bug.name());
            assert!(
                holds(bug, &World::new().await).await,
                "{} is there without being planted",
                bug.name()
            );
        }
    });
}
