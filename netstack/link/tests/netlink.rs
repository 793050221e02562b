//! Against the kernel, in a network namespace of the test's own.

use std::os::fd::AsFd as _;

use podium_link::Cidr;
use podium_link::netlink::{LinkWatch, Netlink, NetlinkError, Route};

/// Runs `check` on a thread with an empty network namespace.
fn in_namespace(check: impl FnOnce(&mut Netlink) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The thread is this test's own, and ends with it.
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
                .expect("a network namespace (root is needed)");
            check(&mut Netlink::open().expect("rtnetlink"));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A link to work on. Not every kernel that tests run on has dummies.
fn add_link(netlink: &mut Netlink) -> u32 {
    let own = std::fs::File::open("/proc/thread-self/ns/net").expect("this namespace");
    netlink.add_veth("d0", "d0-peer", own.as_fd(), 1500).expect("a link");
    netlink.link("d0").expect("links").expect("d0").index
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect(text)
}

#[test]
fn a_new_namespace_has_lo_and_it_can_be_brought_up() {
    in_namespace(|netlink| {
        let lo = netlink.link("lo").expect("links").expect("lo");
        assert!(!lo.ethernet && !lo.up);
        netlink.set_up(lo.index, true).expect("up");
        assert!(netlink.link("lo").expect("links").expect("lo").up);
    });
}

#[test]
fn adding_twice_is_adding_once() {
    in_namespace(|netlink| {
        let link = add_link(netlink);
        assert_eq!(add_link(netlink), link);
        netlink.set_up(link, true).expect("up");
        let route = Route {
            destination: cidr("10.96.0.0/16"),
            gateway: None,
            link,
            preferred_source: Some("10.244.0.1".parse().expect("an address")),
            metric: 0,
            onlink: false,
        };
        for _ in 0..2 {
            netlink.add_address(link, cidr("10.244.0.1/32")).expect("an address");
            netlink.replace_route(&route).expect("a route");
        }
        assert_eq!(
            netlink
                .addresses(link)
                .expect("addresses")
                .iter()
                .filter(|it| it.address.is_ipv4())
                .count(),
            1
        );
        let routes = netlink.routes().expect("routes");
        assert_eq!(routes.iter().filter(|found| **found == route).count(), 1, "{routes:?}");
    });
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    in_namespace(|netlink| {
        let link = add_link(netlink);
        netlink.delete_address(link, cidr("10.0.0.1/24")).expect("no address");
        let route = Route {
            destination: cidr("10.1.0.0/16"),
            gateway: None,
            link,
            preferred_source: None,
            metric: 0,
            onlink: false,
        };
        netlink.delete_route(&route).expect("no route");
        netlink.delete_link(link).expect("the link");
        netlink.delete_link(link).expect("it is gone already");
    });
}

#[test]
fn a_refusal_names_what_was_asked() {
    in_namespace(|netlink| {
        let error = netlink.add_address(4711, cidr("10.0.0.1/24")).expect_err("no such link");
        assert_eq!(error.to_string(), "adding 10.0.0.1/24 to link 4711");
        assert!(matches!(error, NetlinkError::Refused { .. }));
    });
}

#[test]
fn a_veth_pair_spans_two_namespaces() {
    in_namespace(|netlink| {
        let other = std::thread::spawn(|| {
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a namespace");
            std::fs::File::open("/proc/thread-self/ns/net").expect("its file")
        });
        let namespace = other.join().expect("the other namespace");
        netlink.add_veth("v0", "eth0", namespace.as_fd(), 1400).expect("a pair");
        let here = netlink.link("v0").expect("links").expect("v0");
        assert_eq!((here.kind.as_deref(), here.mtu), (Some("veth"), 1400));
        assert_eq!(netlink.link("eth0").expect("links"), None);
    });
}

#[test]
fn who_waits_for_changes_is_told_of_one() {
    in_namespace(|netlink| {
        let mut watch = LinkWatch::open().expect("a watch");
        assert!(!watch.drain());
        let link = add_link(netlink);
        watch.wait().expect("a new link");
        netlink.set_mtu(link, 1300).expect("another MTU");
        watch.wait().expect("a changed link");
    });
}
