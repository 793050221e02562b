//! A network namespace as a machine or a pod, and the talk between them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use podium_link::Cidr;
use podium_link::netlink::Netlink;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Nothing here takes long, but the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A network namespace, kept by its file.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET)
                .expect("a network namespace (root is needed)");
            let mut netlink = Netlink::open().expect("rtnetlink");
            let lo = netlink.link("lo").expect("links").expect("lo");
            netlink.set_up(lo.index, true).expect("lo up");
            Self(File::open("/proc/thread-self/ns/net").expect("the namespace's file"))
        });
        made.join().expect("the namespace's thread")
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A server that answers every connection with `name` and the client's address.
    pub(crate) fn serve(&self, port: u16, name: &'static str) {
        let listener =
            self.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accept");
                let client = stream.peer_addr().expect("the client").ip();
                // A client that is gone already has its answer.
                let _ = write!(stream, "{name} {client}");
            }
        });
    }

    pub(crate) fn ask(&self, address: Ipv4Addr, port: u16) -> std::io::Result<(String, IpAddr)> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (name, client) = answer.split_once(' ').expect("a name and an address");
            Ok((name.to_owned(), client.parse().expect("an address")))
        })
    }
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().expect(text)
}

/// Makes the calling thread's namespace a router, as PID 1 does with the machine.
pub(crate) fn route_packets() {
    for name in ["conf/all/rp_filter", "conf/default/rp_filter"] {
        write_setting(name, "0");
    }
    write_setting("ip_forward", "1");
}

fn write_setting(name: &str, value: &str) {
    // Of the thread's own namespace: /proc/sys/net follows the process that opens it.
    std::fs::write(format!("/proc/thread-self/net/../../../sys/net/ipv4/{name}"), value)
        .or_else(|_| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value))
        .expect(name);
}
