use super::*;
use proptest::prelude::*;

fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 96, 0, last])
}

fn port(name: &str) -> Port {
    Port { name: name.to_owned(), protocol: "tcp", port: 6379 }
}

fn redis() -> Service {
    Service {
        namespace: "default".to_owned(),
        name: "redis-master".to_owned(),
        kind: ServiceKind::Cluster(vec![v4(7)]),
        ports: vec![port("redis")],
    }
}

fn headless(backends: Vec<Backend>) -> Service {
    Service { kind: ServiceKind::Headless(backends), name: "db".to_owned(), ..redis() }
}

fn backend(last: u8, hostname: Option<&str>) -> Backend {
    Backend { address: v4(last), hostname: hostname.map(str::to_owned), ports: Vec::new() }
}

fn zone(services: &[Service]) -> Zone {
    let mut zone = Zone::new("cluster.local");
    services.iter().for_each(|service| zone.replace(service));
    zone
}

#[test]
fn a_service_has_its_address_port_and_way_back() {
    let zone = zone(&[redis()]);
    let name = "redis-master.default.svc.cluster.local";
    assert_eq!(zone.lookup(name, Kind::V4), Answer::Records(vec![Data::Address(v4(7))]));
    assert_eq!(
        zone.lookup("Redis-Master.DEFAULT.svc.cluster.local.", Kind::V4),
        Answer::Records(vec![Data::Address(v4(7))])
    );
    assert_eq!(zone.lookup(name, Kind::V6), Answer::NoData);
    let server = Data::Server { port: 6379, target: name.to_owned() };
    assert_eq!(
        zone.lookup("_redis._tcp.redis-master.default.svc.cluster.local", Kind::Server),
        Answer::Records(vec![server])
    );
    assert_eq!(
        zone.lookup("7.0.96.10.in-addr.arpa", Kind::Pointer),
        Answer::Records(vec![Data::Pointer(name.to_owned())])
    );
}

#[test]
fn names_that_are_not_there_differ_from_names_without_records_and_from_other_domains() {
    let zone = zone(&[redis()]);
    assert_eq!(zone.lookup("nobody.default.svc.cluster.local", Kind::V4), Answer::NoSuchName);
    for inner in [
        "default.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "_tcp.redis-master.default.svc.cluster.local",
    ] {
        assert_eq!(zone.lookup(inner, Kind::V4), Answer::NoData, "{inner}");
    }
    for other in ["example.org", "notcluster.local", "1.0.0.127.in-addr.arpa", ""] {
        assert_eq!(zone.lookup(other, Kind::V4), Answer::Elsewhere, "{other}");
    }
}

#[test]
fn a_headless_service_is_its_pods() {
    let zone = zone(&[headless(vec![backend(1, Some("db-0")), backend(2, None)])]);
    let both = Answer::Records(vec![Data::Address(v4(1)), Data::Address(v4(2))]);
    assert_eq!(zone.lookup("db.default.svc.cluster.local", Kind::V4), both);
    assert_eq!(
        zone.lookup("db-0.db.default.svc.cluster.local", Kind::V4),
        Answer::Records(vec![Data::Address(v4(1))])
    );
    assert_eq!(
        zone.lookup("10-96-0-2.db.default.svc.cluster.local", Kind::V4),
        Answer::Records(vec![Data::Address(v4(2))])
    );
    let pointer = Data::Pointer("db-0.db.default.svc.cluster.local".to_owned());
    assert_eq!(
        zone.lookup("1.0.96.10.in-addr.arpa", Kind::Pointer),
        Answer::Records(vec![pointer])
    );
}

#[test]
fn an_external_service_is_an_alias_whatever_is_asked() {
    let zone =
        zone(&[Service { kind: ServiceKind::External("Example.org.".to_owned()), ..redis() }]);
    for kind in [Kind::V4, Kind::V6] {
        assert_eq!(
            zone.lookup("redis-master.default.svc.cluster.local", kind),
            Answer::Alias("example.org".to_owned())
        );
    }
}

#[test]
fn pods_have_names_made_of_their_addresses() {
    let zone = zone(&[]);
    let name = "10-244-0-9.default.pod.cluster.local";
    assert_eq!(
        zone.lookup(name, Kind::V4),
        Answer::Records(vec![Data::Address(IpAddr::from([10, 244, 0, 9]))])
    );
    assert_eq!(zone.lookup("x.default.pod.cluster.local", Kind::V4), Answer::NoSuchName);
}

#[test]
fn the_zone_says_which_schema_it_follows() {
    let answer = zone(&[]).lookup("dns-version.cluster.local", Kind::Text);
    assert_eq!(answer, Answer::Records(vec![Data::Text("1.1.0".to_owned())]));
}

fn services() -> impl Strategy<Value = Service> {
    let backends = prop::collection::vec((0u8..5, prop::option::of("[a-c]")), 0..4);
    let kind = prop_oneof![
        prop::collection::vec((0u8..5).prop_map(v4), 0..3).prop_map(ServiceKind::Cluster),
        backends.prop_map(|all| {
            let backends =
                all.into_iter().map(|(last, hostname)| backend(last, hostname.as_deref()));
            ServiceKind::Headless(backends.collect())
        }),
        "[a-c]\\.org".prop_map(ServiceKind::External),
    ];
    ("[a-b]", "[a-c]", kind).prop_map(|(namespace, name, kind)| Service {
        namespace,
        name,
        kind,
        ports: vec![port("p")],
    })
}

proptest! {
    #[test]
    fn only_the_last_state_of_each_service_counts(history in prop::collection::vec((services(), any::<bool>()), 0..12)) {
        let mut zone = Zone::new("cluster.local");
        let mut last = BTreeMap::new();
        for (service, keep) in &history {
            zone.replace(service);
            last.insert((service.namespace.clone(), service.name.clone()), service.clone());
            if !keep {
                zone.remove(&service.namespace, &service.name);
                last.remove(&(service.namespace.clone(), service.name.clone()));
            }
        }
        let mut fresh = Zone::new("cluster.local");
        last.values().for_each(|service| fresh.replace(service));
        prop_assert_eq!(zone.names, fresh.names);
        prop_assert_eq!(zone.owned, fresh.owned);
    }

    #[test]
    fn no_name_makes_it_panic(name in ".{0,40}") {
        let _ = zone(&[redis()]).lookup(&name, Kind::V4);
    }
}
