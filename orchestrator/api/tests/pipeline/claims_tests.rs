//! What only one may have: addresses, bindings, names, and the last word in a race.

use super::*;

#[test]
fn no_address_is_given_twice() {
    block_on(async {
        let config =
            Config { service_cidr: "10.96.0.0/27".parse().expect("a range"), ..Config::default() };
        let world = World::with(config).await;
        // 30 addresses, of which `kubernetes` has one and another is reserved.
        let names: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
        let all =
            join_all(names.iter().map(|name| world.create(resources::SERVICES, service(name))))
                .await;
        let mut addresses: Vec<String> = all
            .iter()
            .filter_map(|answer| answer.as_ref().ok())
            .filter_map(|written| {
                object::str_at(&written.object, &["spec", "clusterIP"]).map(str::to_owned)
            })
            .collect();
        assert_eq!(addresses.len(), 28);
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 28);
        assert!(!addresses.contains(&"10.96.0.10".to_owned()));
        let full = all.into_iter().find_map(Result::err).expect("the range is full");
        assert!(full.message.contains("range is full"), "{}", full.message);

        let freed = ObjectKey::new(resources::SERVICES, "default", "s0");
        world.delete(&freed, &DeleteOptions::default()).await.expect("deleted");
        let again = world.create(resources::SERVICES, service("again")).await.expect("one is free");
        assert!(addresses.contains(
            &object::str_at(&again.object, &["spec", "clusterIP"]).unwrap_or_default().to_owned()
        ));
    });
}

#[test]
fn addresses_follow_the_type_of_a_service() {
    block_on(async {
        let world = World::new().await;
        let mut first = service("a");
        first["spec"]["clusterIP"] = json!("10.96.0.77");
        world.create(resources::SERVICES, first).await.expect("created");
        let mut second = service("b");
        second["spec"]["clusterIP"] = json!("10.96.0.77");
        let message = "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.77\"]: failed to allocate IP 10.96.0.77: provided IP is already allocated";
        assert_eq!(
            told_of(world.create(resources::SERVICES, second.clone()).await),
            (422, "Invalid", message.to_owned())
        );
        let key = ObjectKey::new(resources::SERVICES, "default", "a");
        let external = json!({"spec": {"type": "ExternalName", "externalName": "x.example", "clusterIP": null, "clusterIPs": null, "ports": null}});
        world.merge(&key, "", external).await.expect("patched");
        let taken = world.create(resources::SERVICES, second).await.expect("free now").object;
        assert_eq!(taken["spec"]["clusterIPs"], json!(["10.96.0.77"]));
    });
}

#[test]
fn a_batch_of_pods_is_bound_in_one_transaction() {
    block_on(async {
        let world = World::new().await;
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let made = world.create(resources::PODS, pod(name)).await.expect("created");
            pods.push((pod_key(name), object::uid(&made.object).to_owned()));
        }
        let scheduler = User::system("kube-scheduler");
        pods[1].1 = "another".to_owned();
        let before = world.store.local().revision();
        let bound = world.pipeline.bind(&scheduler, "n1", &pods).await.expect("decided");
        assert_eq!(world.store.local().revision(), Revision(before.0 + 1));
        assert_eq!(bound[0], Ok(before.0 + 1));
        assert_eq!(bound[1].as_ref().map_err(|status| status.reason), Err("Conflict"));
        let a = world.get(&pods[0].0).await.expect("found");
        assert_eq!(a["spec"]["nodeName"], "n1");
        assert_eq!(a["status"]["conditions"][0]["type"], "PodScheduled");
        let again = world.pipeline.bind(&scheduler, "n2", &pods[..1]).await.expect("decided");
        let message = "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\"";
        assert_eq!(again[0].as_ref().map_err(|status| status.message.as_str()), Err(message));
    });
}

#[test]
fn events_are_one_thing_in_two_groups() {
    block_on(async {
        let world = World::new().await;
        let event = json!({
            "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-11-21T10:00:00.123456Z",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Started", "action": "Starting",
            "note": "hello", "type": "Normal", "reportingController": "x.y/z", "reportingInstance": "i",
        });
        let made = world.create(resources::EVENTS_EVENTS, event).await.expect("created").object;
        assert_eq!(
            (&made["apiVersion"], &made["note"]),
            (&json!("events.k8s.io/v1"), &json!("hello"))
        );
        let core =
            world.get(&ObjectKey::new(resources::EVENTS, "default", "e")).await.expect("found");
        assert_eq!((&core["apiVersion"], &core["message"]), (&json!("v1"), &json!("hello")));
        assert_eq!(core["involvedObject"]["name"], "p");
        let options =
            ListOptions { field_selector: "regarding.name=p".to_owned(), ..ListOptions::default() };
        let (names, _) = world.list(resources::EVENTS_EVENTS, "", &options).await.expect("a list");
        assert_eq!(names, ["e"]);
        let options = ListOptions {
            field_selector: "involvedObject.name=p".to_owned(),
            ..ListOptions::default()
        };
        let (names, _) = world.list(resources::EVENTS, "", &options).await.expect("a list");
        assert_eq!(names, ["e"]);
    });
}

/// Somebody who heard `n1` only.
struct HeardOne;

impl podium_api::seams::Beats for HeardOne {
    fn last(&self, node: &str) -> Option<jiff::Timestamp> {
        (node == "n1").then(|| "2026-11-21T10:00:07.25Z".parse().expect("a time"))
    }
}

#[test]
fn lease_of_a_node_is_renewed_by_reading_it() {
    block_on(async {
        let mut world = World::new().await;
        world.pipeline = world.pipeline.with_beats(std::sync::Arc::new(HeardOne));
        let stored = "2026-11-21T10:00:00.000000Z";
        let lease = |namespace: &str, name: &str| {
            json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"holderIdentity": name, "renewTime": stored}})
        };
        for (namespace, name) in
            [("kube-node-lease", "n1"), ("kube-node-lease", "n2"), ("kube-system", "n1")]
        {
            world.create(resources::LEASES, lease(namespace, name)).await.expect("created");
        }
        let heard = "2026-11-21T10:00:07.250000Z";
        let key = |namespace: &str, name: &str| ObjectKey::new(resources::LEASES, namespace, name);
        for (namespace, name, renewed) in [
            ("kube-node-lease", "n1", heard),
            ("kube-node-lease", "n2", stored),
            ("kube-system", "n1", stored),
        ] {
            let told = world.get(&key(namespace, name)).await.expect("a lease");
            assert_eq!(told["spec"]["renewTime"], renewed, "{namespace}/{name}");
        }
        let (_, all) =
            world.list(resources::LEASES, "", &ListOptions::default()).await.expect("a list");
        let renewals: Vec<Value> =
            all.items.iter().map(|item| item.value()["spec"]["renewTime"].clone()).collect();
        assert_eq!(renewals, [heard, stored, stored]);
    });
}

#[test]
fn first_objects_are_made_once() {
    block_on(async {
        let world = World::new().await;
        let before = world.store.local().revision();
        let servers = [[10, 0, 2, 15].into()];
        podium_api::bootstrap::ensure(&world.pipeline, &servers, 6443)
            .await
            .expect("nothing to do");
        assert_eq!(world.store.local().revision(), before);
        let key = ObjectKey::new(resources::SERVICES, "default", "kubernetes");
        assert_eq!(world.get(&key).await.expect("found")["spec"]["clusterIP"], "10.96.0.1");
        let moved = [[10, 0, 2, 16].into()];
        podium_api::bootstrap::ensure(&world.pipeline, &moved, 6443).await.expect("moved");
        let key = ObjectKey::new(resources::ENDPOINT_SLICES, "default", "kubernetes");
        let slice = world.get(&key).await.expect("found");
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.0.2.16"]));
    });
}

#[test]
fn pods_get_an_account_and_a_priority() {
    block_on(async {
        let world = World::new().await;
        let made = world.create(resources::PODS, pod("p")).await.expect("created").object;
        assert_eq!(made["spec"]["serviceAccountName"], "default");
        assert_eq!(
            (&made["spec"]["priority"], &made["status"]["phase"]),
            (&json!(0), &json!("Pending"))
        );
        let mut unknown = pod("q");
        unknown["spec"]["priorityClassName"] = json!("nope");
        let message = "pods \"q\" is forbidden: no PriorityClass with name nope was found";
        assert_eq!(
            told_of(world.create(resources::PODS, unknown).await),
            (403, "Forbidden", message.to_owned())
        );
    });
}

/// One of the writes that two clients may make at the same time.
#[derive(Debug, Clone)]
enum Write {
    Increment(usize),
    Conditional(usize),
    Recreate(usize),
}

fn write() -> impl Strategy<Value = Write> {
    (0..3_usize, 0..3_usize).prop_map(|(which, object)| match which {
        0 => Write::Increment(object),
        1 => Write::Conditional(object),
        _ => Write::Recreate(object),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Reading and writing back under a resourceVersion loses nothing, whoever else writes.
    #[test]
    fn conditional_updates_lose_nothing(writes in prop::collection::vec(write(), 1..30)) {
        block_on(async {
            let world = World::new().await;
            let key = |object: usize| config_key(&format!("c{object}"));
            let mut counts = [0_u32; 3];
            for object in 0..3 {
                world.create(resources::CONFIG_MAPS, config_map(&format!("c{object}"))).await.expect("created");
            }
            for write in writes {
                match write {
                    Write::Increment(object) | Write::Conditional(object) => {
                        let seen = world.get(&key(object)).await.expect("found");
                        let mut changed = seen.clone();
                        counts[object] += 1;
                        changed["data"]["count"] = json!(counts[object].to_string());
                        world.update(&key(object), changed).await.expect("nobody was faster");
                        let mut stale = seen;
                        stale["data"]["count"] = json!("stale");
                        let refused = world.update(&key(object), stale).await.expect_err("somebody was faster");
                        assert_eq!(refused.reason, "Conflict");
                    }
                    Write::Recreate(object) => {
                        let seen = world.get(&key(object)).await.expect("found");
                        world.delete(&key(object), &DeleteOptions::default()).await.expect("deleted");
                        world.create(resources::CONFIG_MAPS, config_map(&format!("c{object}"))).await.expect("created");
                        counts[object] = 0;
                        let other = world.update(&key(object), seen).await.expect_err("another object");
                        assert_eq!(other.reason, "Conflict");
                    }
                }
            }
            for (object, wanted) in counts.into_iter().enumerate() {
                let found = world.get(&key(object)).await.expect("found");
                let count = found["data"]["count"].as_str().map_or(0, |text| text.parse().expect("a number"));
                assert_eq!(count, wanted);
            }
        });
    }

    /// Pages of any size, put together, are the list.
    #[test]
    fn pages_add_up_to_the_list(names in prop::collection::btree_set("[a-z][a-z0-9]{0,6}", 0..24), limit in 1..9_usize) {
        block_on(async {
            let world = World::new().await;
            for name in &names {
                world.create(resources::CONFIG_MAPS, config_map(name)).await.expect("created");
            }
            let mut seen = Vec::new();
            let mut options = ListOptions { limit: Some(limit), ..ListOptions::default() };
            loop {
                let (page, listing) = world.list(resources::CONFIG_MAPS, "default", &options).await.expect("a page");
                assert!(page.len() <= limit);
                seen.extend(page);
                options.continue_token = listing.continue_token;
                assert_eq!(listing.remaining.unwrap_or_default() as usize, names.len() - seen.len());
                if options.continue_token.is_none() {
                    break;
                }
            }
            assert!(seen.iter().eq(names.iter()));
        });
    }
}
