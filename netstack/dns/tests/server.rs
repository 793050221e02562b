//! The server on real sockets, asked by a resolver like a pod's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{Resolver, TokioResolver};
use podium_dns::{Server, Service, ServiceKind, SharedZone, Upstreams, Zone};

fn zone(domain: &str, services: &[(&str, ServiceKind)]) -> SharedZone {
    let mut zone = Zone::new(domain);
    for (name, kind) in services {
        let service = Service {
            namespace: "default".to_owned(),
            name: (*name).to_owned(),
            kind: kind.clone(),
            ports: Vec::new(),
        };
        zone.replace(&service);
    }
    Arc::new(RwLock::new(zone))
}

fn cluster(last: u8) -> ServiceKind {
    ServiceKind::Cluster(vec![IpAddr::from([10, 96, 0, last])])
}

/// Starts a server on a free port and returns its address.
async fn start(zone: SharedZone, upstreams: Upstreams) -> SocketAddr {
    // The same number must be free for UDP and TCP.
    for _ in 0..50 {
        let probe = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = probe.local_addr().expect("its address");
        drop(probe);
        if let Ok(server) = Server::bind(&[address], Arc::clone(&zone), &upstreams).await {
            tokio::spawn(server.run());
            return address;
        }
    }
    panic!("no port is free for UDP and TCP");
}

fn resolver(server: SocketAddr, tcp: bool) -> TokioResolver {
    let mut connection = if tcp { ConnectionConfig::tcp() } else { ConnectionConfig::udp() };
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().expect("a resolver")
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, ResponseCode> {
    match resolver.lookup(name, RecordType::A).await {
        Ok(found) => {
            Ok(found.answers().iter().filter_map(|record| record.data.ip_addr()).collect())
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(none.response_code),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(code),
        Err(other) => panic!("{name}: {other}"),
    }
}

#[tokio::test]
async fn services_are_answered_by_udp_and_tcp_and_changes_are_seen_at_once() {
    let zone = zone("cluster.local", &[("redis", cluster(7))]);
    let server = start(Arc::clone(&zone), Upstreams::default()).await;
    for tcp in [false, true] {
        let resolver = resolver(server, tcp);
        let name = "redis.default.svc.cluster.local.";
        assert_eq!(addresses(&resolver, name).await, Ok(vec![IpAddr::from([10, 96, 0, 7])]));
        let gone = addresses(&resolver, "nobody.default.svc.cluster.local.").await;
        assert_eq!(gone, Err(ResponseCode::NXDomain));
    }
    zone.write().expect("the zone").remove("default", "redis");
    let gone = addresses(&resolver(server, false), "redis.default.svc.cluster.local.").await;
    assert_eq!(gone, Err(ResponseCode::NXDomain));
}

#[tokio::test]
async fn other_names_are_asked_of_the_upstream_and_followed_through_aliases() {
    let upstream = start(zone("example.org", &[("www", cluster(9))]), Upstreams::default()).await;
    let external = ServiceKind::External("www.default.svc.example.org".to_owned());
    let server =
        start(zone("cluster.local", &[("out", external)]), Upstreams(vec![upstream])).await;
    let resolver = resolver(server, false);
    let found = Ok(vec![IpAddr::from([10, 96, 0, 9])]);
    assert_eq!(addresses(&resolver, "www.default.svc.example.org.").await, found);
    assert_eq!(addresses(&resolver, "out.default.svc.cluster.local.").await, found);
    let gone = addresses(&resolver, "nobody.default.svc.example.org.").await;
    assert_eq!(gone, Err(ResponseCode::NXDomain));
}

#[tokio::test]
async fn without_an_upstream_other_names_are_refused_at_once() {
    let server = start(zone("cluster.local", &[]), Upstreams::default()).await;
    assert_eq!(
        addresses(&resolver(server, false), "example.org.").await,
        Err(ResponseCode::Refused)
    );
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error_that_names_it() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 53));
    let error =
        Server::bind(&[elsewhere], zone("cluster.local", &[]), &Upstreams::default()).await.err();
    assert_eq!(error.expect("no server").to_string(), "serve names at 192.0.2.1:53");
}
