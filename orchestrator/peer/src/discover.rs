//! Announcements on the local network: sent every second by every machine, heard by every machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::announce::{ADDRESSES_MAX, Announcement, DATAGRAM_BYTES, is_foreign, open, seal};
use crate::peers::Shared;

/// An administratively scoped group (RFC 2365): it does not leave the site, and with a TTL of 1 not the link.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 64, 44);

/// Listens to the group on every interface that has one of this machine's addresses, and sends to it from each of them.
pub(crate) async fn run(shared: Arc<Shared>, port: u16) {
    let mut addresses = shared.addresses.subscribe();
    loop {
        let own = addresses.borrow_and_update().clone();
        let ended = tokio::select! {
            ended = announce(&shared, &own, port) => ended,
            changed = addresses.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if let Err(error) = ended {
            shared.complaints.note(format!("machines cannot be found by multicast: {error}"));
        }
        tokio::time::sleep(shared.pace.hello).await;
    }
}

async fn announce(shared: &Shared, own: &[IpAddr], port: u16) -> io::Result<()> {
    let socket = listen(own, port)?;
    let mut tick = tokio::time::interval(shared.pace.hello);
    let mut datagram = vec![0; DATAGRAM_BYTES + 1];
    loop {
        tokio::select! {
            _ = tick.tick() => send(shared, &socket, own, port).await,
            heard = socket.recv_from(&mut datagram) => {
                let (bytes, from) = heard?;
                let heard = datagram.get(..bytes).unwrap_or_default();
                if let Some(announcement) = open(heard, &shared.tokens.announcement) {
                    shared.learn(&announcement.addresses, Some(announcement.key));
                } else if is_foreign(heard) {
                    // Another cluster may well be on this network; or this machine's config, or that one's, has the wrong token.
                    let ip = from.ip();
                    shared.complaints.note_once(format!("{ip}: announces itself with another token"));
                }
            }
        }
    }
}

fn listen(own: &[IpAddr], port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(GROUP, port)))?;
    for address in v4(own) {
        // Two addresses of one interface join it twice.
        match socket.join_multicast_v4(&GROUP, &address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            joined => joined?,
        }
    }
    UdpSocket::from_std(socket.into())
}

async fn send(shared: &Shared, socket: &UdpSocket, own: &[IpAddr], port: u16) {
    let addresses = shared.own_addresses().into_iter().take(ADDRESSES_MAX).collect();
    let announcement = Announcement { key: shared.me, addresses };
    let Some(bytes) = seal(&announcement, &shared.tokens.announcement) else { return };
    for address in v4(own) {
        // A link that is down now may be up at the next second.
        if SockRef::from(socket).set_multicast_if_v4(&address).is_ok() {
            let _ = socket.send_to(&bytes, SocketAddr::from((GROUP, port))).await;
        }
    }
}

fn v4(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}
