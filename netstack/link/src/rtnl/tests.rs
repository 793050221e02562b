//! Against the kernel, in a network namespace of the test's own.

use super::*;

/// Runs `check` on a thread with an empty network namespace.
fn in_namespace(check: impl FnOnce(&mut Rtnl) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The thread is this test's own, and ends with it.
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
                .expect("a network namespace (root is needed)");
            check(&mut Rtnl::open().expect("rtnetlink"));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A link to work on. Not every kernel that tests run on has dummies.
fn add_link(rtnl: &mut Rtnl) -> u32 {
    use std::os::fd::AsFd as _;
    let own = std::fs::File::open("/proc/thread-self/ns/net").expect("this namespace");
    rtnl.add_veth("d0", "d0-peer", own.as_fd(), 1500).expect("a link")
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect(text)
}

#[test]
fn a_new_namespace_has_lo_and_it_can_be_brought_up() {
    in_namespace(|rtnl| {
        let lo = rtnl.link("lo").expect("links").expect("lo");
        assert!(lo.loopback && !lo.up);
        rtnl.set_up(lo.index).expect("up");
        assert!(rtnl.link("lo").expect("links").expect("lo").up);
    });
}

#[test]
fn adding_twice_is_adding_once() {
    in_namespace(|rtnl| {
        let link = add_link(rtnl);
        assert_eq!(add_link(rtnl), link);
        rtnl.set_up(link).expect("up");
        let route = Route {
            destination: cidr("10.96.0.0/16"),
            gateway: None,
            link,
            source: Some("10.244.0.1".parse().expect("an address")),
        };
        for _ in 0..2 {
            rtnl.add_address(link, cidr("10.244.0.1/32")).expect("an address");
            rtnl.add_route(&route).expect("a route");
        }
        assert_eq!(
            rtnl.addresses(link)
                .expect("addresses")
                .iter()
                .filter(|it| it.address.is_ipv4())
                .count(),
            1
        );
        let routes = rtnl.routes().expect("routes");
        assert_eq!(routes.iter().filter(|found| **found == route).count(), 1, "{routes:?}");
    });
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    in_namespace(|rtnl| {
        let link = add_link(rtnl);
        rtnl.remove_address(link, cidr("10.0.0.1/24")).expect("no address");
        let route = Route { destination: cidr("10.1.0.0/16"), gateway: None, link, source: None };
        rtnl.remove_route(&route).expect("no route");
        rtnl.delete_link("d0").expect("the link");
        rtnl.delete_link("d0").expect("no link");
    });
}

#[test]
fn a_refusal_names_what_was_asked() {
    in_namespace(|rtnl| {
        let error = rtnl.add_address(4711, cidr("10.0.0.1/24")).expect_err("no such link");
        assert_eq!(error.to_string(), "give link 4711 the address 10.0.0.1/24");
        assert!(error.is_absent());
    });
}

#[test]
fn a_veth_pair_spans_two_namespaces() {
    in_namespace(|rtnl| {
        let other = std::thread::spawn(|| {
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a namespace");
            std::fs::File::open("/proc/thread-self/ns/net").expect("its file")
        });
        let namespace = other.join().expect("the other namespace");
        use std::os::fd::AsFd as _;
        rtnl.add_veth("v0", "eth0", namespace.as_fd(), 1400).expect("a pair");
        let here = rtnl.link("v0").expect("links").expect("v0");
        assert_eq!((here.kind.as_deref(), here.mtu_bytes), (Some("veth"), 1400));
        assert_eq!(rtnl.link("eth0").expect("links"), None);
    });
}
