//! The one host on the LAN that is not a VM: DHCP and DNS server, and the way between the VMs and the host's ports.
//!
//! It is a smoltcp interface whose wire is two queues. [`Gateway::turn`] does everything that can be done now; the caller
//! waits for the descriptors and the time that the gateway names.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::flow::Flow;
use crate::gateway::wire::Wire;
use crate::names::{self, Answer};
use crate::{OutsidePort, SwitchConfig, dhcp};

mod wire;

/// Bytes in flight per connection and direction: enough for an emulated guest, small enough for hundreds of connections.
const TCP_BUFFER_BYTES: usize = 128 * 1024;
/// smoltcp has no accept queue: a connection needs a socket that listens already, and a pull opens several at once.
const LISTENERS_PER_PORT: usize = 8;
const UDP_DATAGRAMS: usize = 64;
const UDP_BYTES: usize = 64 * 1024;
/// Relayed questions that wait for an answer; the oldest is forgotten past this.
const RELAYED_MAX: usize = 256;
/// How long a VM may take to take a connection before another that would do is called. An emulated one on a busy host takes
/// it within a second.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);
/// How long a VM is called where no other would do. Calls that nobody takes must end: smoltcp asks for one hardware address a
/// second, so those of a VM that is off keep it from finding the others.
const LONE_PATIENCE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Longer than any pause that a VM recovers from by itself; then its connections with the host are over.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The first of the dynamic ports of RFC 6335, which end at 65535.
const FIRST_DYNAMIC_PORT: u16 = 49152;
/// The gateway's card: locally administered, and no VM's.
const CARD: EthernetAddress = EthernetAddress([0x52, 0x54, 0x00, 0x70, 0xff, 0xff]);

/// What a waiting caller must watch a descriptor for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

#[derive(Debug)]
struct Outside {
    port: OutsidePort,
    listening: Vec<SocketHandle>,
}

/// A way from the host to whichever of `guests` answers.
#[derive(Debug)]
struct Forward {
    listener: TcpListener,
    /// The one that answered last comes first.
    guests: Vec<SocketAddrV4>,
}

/// A host's connection that has not found its VM yet.
#[derive(Debug)]
struct Dial {
    handle: SocketHandle,
    host: TcpStream,
    /// Index of its [`Forward`].
    forward: usize,
    guest: SocketAddrV4,
    others: VecDeque<SocketAddrV4>,
    since: Instant,
    patience: Duration,
}

#[derive(Debug)]
struct Relayed {
    own_id: u16,
    guest_id: [u8; 2],
    guest: IpEndpoint,
}

pub(crate) struct Gateway {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    dhcp: dhcp::Server,
    dhcp_socket: SocketHandle,
    names: Vec<(String, Ipv4Addr)>,
    dns_socket: SocketHandle,
    upstream: Option<UdpSocket>,
    relayed: VecDeque<Relayed>,
    outside: Vec<Outside>,
    forwards: Vec<Forward>,
    dials: Vec<Dial>,
    flows: Vec<Flow>,
    /// Sockets that are done with; each is kept for the one poll that sends its last segment or reset.
    over: Vec<SocketHandle>,
    next_id: u16,
}

impl Gateway {
    pub(crate) fn new(config: &SwitchConfig) -> io::Result<Self> {
        let mut wire = Wire::default();
        let mut settings = Config::new(CARD.into());
        settings.random_seed = config.seed;
        let mut interface = Interface::new(settings, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(config.gateway), 24))
                .expect("an empty list takes one address");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp_socket = sockets.add(udp_socket(67));
        let dns_socket = sockets.add(udp_socket(53));
        let leases = config
            .ports
            .iter()
            .map(|port| dhcp::Lease {
                mac: port.mac,
                address: port.address,
                name: port.name.clone(),
            })
            .collect();
        let outside =
            config.outside.iter().map(|port| Outside { port: *port, listening: Vec::new() });
        Ok(Self {
            interface,
            outside: outside.collect(),
            sockets,
            wire,
            dhcp: dhcp::Server { gateway: config.gateway, leases },
            dhcp_socket,
            names: config.names.clone(),
            dns_socket,
            upstream: config.upstream.map(connect_upstream).transpose()?,
            relayed: VecDeque::new(),
            forwards: Vec::new(),
            dials: Vec::new(),
            flows: Vec::new(),
            over: Vec::new(),
            next_id: 0,
        })
    }

    /// A port of 127.0.0.1 (`host_port`, or any free one for 0) that leads to the first of `guests` that answers.
    pub(crate) fn forward(
        &mut self,
        host_port: u16,
        guests: Vec<SocketAddrV4>,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, host_port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        self.forwards.push(Forward { listener, guests });
        Ok(address)
    }

    /// Changes the leases; forwards go on to the machine that they led to.
    pub(crate) fn lease_anew(&mut self, leases: Vec<dhcp::Lease>) {
        for guest in self.forwards.iter_mut().flat_map(|forward| &mut forward.guests) {
            let owner = self.dhcp.leases.iter().find(|it| it.address == *guest.ip());
            let now = owner.and_then(|owner| leases.iter().find(|it| it.mac == owner.mac));
            if let Some(now) = now {
                guest.set_ip(now.address);
            }
        }
        self.dhcp.leases = leases;
    }

    /// A frame that the fabric brings.
    pub(crate) fn receive(&mut self, frame: Vec<u8>) {
        self.wire.arriving.push_back(frame);
    }

    /// Does all that can be done now; what must leave is appended to `frames`.
    pub(crate) fn turn(&mut self, now: Duration, frames: &mut Vec<Vec<u8>>) {
        let now = Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        self.accept_from_host(now);
        self.keep_listening();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.dial(now);
        self.lease();
        self.answer_names();
        self.accept_from_guests();
        let (flows, sockets) = (&mut self.flows, &mut self.sockets);
        let over = &mut self.over;
        flows.retain_mut(|flow| {
            let alive = flow.pump(sockets.get_mut(flow.handle));
            if !alive {
                over.push(flow.handle);
            }
            alive
        });
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for handle in self.over.drain(..) {
            self.sockets.remove(handle);
        }
        frames.append(&mut self.wire.leaving);
    }

    /// How long nothing needs to be done if no descriptor becomes ready and no frame comes.
    pub(crate) fn idle_for(&mut self, now: Duration) -> Option<Duration> {
        let now = Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        let stack: Option<Duration> = self.interface.poll_delay(now, &self.sockets).map(Into::into);
        let dials = self.dials.iter();
        let next_dial = dials.map(|dial| dial.patience.saturating_sub((now - dial.since).into()));
        next_dial.chain(stack).min()
    }

    pub(crate) fn interests(&self) -> Vec<Interest<'_>> {
        let listeners = self.forwards.iter().map(|forward| Interest {
            fd: forward.listener.as_fd(),
            read: true,
            write: false,
        });
        let upstream =
            self.upstream.iter().map(|it| Interest { fd: it.as_fd(), read: true, write: false });
        let flows = self.flows.iter().map(|flow| {
            let guest = self.sockets.get::<tcp::Socket<'_>>(flow.handle);
            Interest {
                fd: flow.as_fd(),
                read: flow.wants_to_read(guest),
                write: flow.wants_to_write(guest),
            }
        });
        listeners.chain(upstream).chain(flows).collect()
    }

    fn lease(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dhcp_socket);
        while let Ok((request, _)) = socket.recv() {
            if let Some(reply) = self.dhcp.answer(request) {
                // A full queue loses the reply; the client asks again.
                let _ = socket.send_slice(&reply, (Ipv4Addr::BROADCAST, 68));
            }
        }
    }

    fn answer_names(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dns_socket);
        while let Ok((query, from)) = socket.recv() {
            let reply = match names::answer(query, &self.names) {
                Answer::Reply(reply) => Some(reply),
                Answer::Nothing => None,
                Answer::Elsewhere => match &self.upstream {
                    None => names::refuse(query),
                    Some(upstream) => {
                        self.next_id = self.next_id.wrapping_add(1);
                        relay(&mut self.relayed, upstream, self.next_id, query, from.endpoint);
                        None
                    }
                },
            };
            if let Some(reply) = reply {
                let _ = socket.send_slice(&reply, from.endpoint);
            }
        }
        let Some(upstream) = &self.upstream else { return };
        let mut buffer = [0; 4096];
        while let Ok(length) = upstream.recv(&mut buffer) {
            let Some(reply) = buffer.get_mut(..length).filter(|reply| reply.len() >= 2) else {
                continue;
            };
            let id = u16::from_be_bytes([reply[0], reply[1]]);
            let Some(index) = self.relayed.iter().position(|it| it.own_id == id) else { continue };
            if let Some(relayed) = self.relayed.remove(index) {
                reply[..2].copy_from_slice(&relayed.guest_id);
                let _ = socket.send_slice(reply, relayed.guest);
            }
        }
    }

    /// Every named port always has sockets that listen, as many as connections may come between two turns.
    fn keep_listening(&mut self) {
        let address = self.dhcp.gateway;
        for outside in &mut self.outside {
            while outside.listening.len() < LISTENERS_PER_PORT {
                let mut socket = tcp_socket();
                let endpoint =
                    IpListenEndpoint { addr: Some(address.into()), port: outside.port.port };
                if socket.listen(endpoint).is_err() {
                    break;
                }
                outside.listening.push(self.sockets.add(socket));
            }
        }
    }

    fn accept_from_guests(&mut self) {
        for outside in &mut self.outside {
            let (sockets, flows) = (&mut self.sockets, &mut self.flows);
            let over = &mut self.over;
            outside.listening.retain(|handle| {
                let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
                if matches!(socket.state(), tcp::State::Listen | tcp::State::SynReceived) {
                    return true;
                }
                match connect_host(outside.port.target) {
                    Ok(host) => flows.push(Flow::new(*handle, host)),
                    // Nothing listens there: the VM sees the reset that it would see from the host itself.
                    Err(_) => {
                        socket.abort();
                        over.push(*handle);
                    }
                }
                false
            });
        }
    }

    fn accept_from_host(&mut self, now: Instant) {
        for index in 0..self.forwards.len() {
            while let Ok((host, _)) = self.forwards[index].listener.accept() {
                if host.set_nonblocking(true).is_err() {
                    continue;
                }
                let _ = host.set_nodelay(true);
                let others = self.forwards[index].guests.iter().copied().collect();
                self.dial_next(now, host, index, others);
            }
        }
    }

    /// Calls the first of `guests`; without any the host's connection ends.
    fn dial_next(
        &mut self,
        now: Instant,
        host: TcpStream,
        forward: usize,
        mut guests: VecDeque<SocketAddrV4>,
    ) {
        let Some(guest) = guests.pop_front() else { return };
        let handles = self.flows.iter().map(|flow| flow.handle);
        let handles: Vec<_> = handles.chain(self.dials.iter().map(|dial| dial.handle)).collect();
        let Some(port) = free_port(&handles, &self.sockets, &mut self.next_id) else { return };
        let mut socket = tcp_socket();
        if socket.connect(self.interface.context(), IpEndpoint::from(guest), port).is_ok() {
            let handle = self.sockets.add(socket);
            let alone = self.forwards.get(forward).is_some_and(|it| it.guests.len() == 1);
            let patience = if alone { LONE_PATIENCE } else { DIAL_PATIENCE };
            let (others, since) = (guests, now);
            self.dials.push(Dial { handle, host, forward, guest, others, since, patience });
        }
    }

    /// Joins the hosts whose VM has answered, and calls the next VM for those whose has refused or stays silent.
    fn dial(&mut self, now: Instant) {
        for dial in std::mem::take(&mut self.dials) {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(dial.handle);
            let silent = now - dial.since >= dial.patience.into();
            match socket.state() {
                tcp::State::SynSent if !silent => self.dials.push(dial),
                tcp::State::SynSent | tcp::State::Closed => {
                    socket.abort();
                    self.over.push(dial.handle);
                    self.dial_next(now, dial.host, dial.forward, dial.others);
                }
                _ => {
                    if let Some(forward) = self.forwards.get_mut(dial.forward) {
                        forward.guests.sort_by_key(|guest| *guest != dial.guest);
                    }
                    self.flows.push(Flow::new(dial.handle, dial.host));
                }
            }
        }
    }
}

fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_DATAGRAMS], vec![0; UDP_BYTES])
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a new socket binds to a fixed port");
    socket
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER_BYTES]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    // Interactive streams (exec, watch) matter more here than a full segment.
    socket.set_nagle_enabled(false);
    // A VM that lost its power answers nothing; whoever waits for it on the host must not wait for ever.
    socket.set_keep_alive(Some(KEEP_ALIVE.into()));
    socket.set_timeout(Some(SILENCE_MAX.into()));
    socket
}

fn connect_host(target: SocketAddr) -> io::Result<TcpStream> {
    // The targets are the host's own ports, so this answers at once, either way.
    let host = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
    host.set_nonblocking(true)?;
    host.set_nodelay(true)?;
    Ok(host)
}

fn connect_upstream(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn relay(
    relayed: &mut VecDeque<Relayed>,
    upstream: &UdpSocket,
    own_id: u16,
    query: &[u8],
    guest: IpEndpoint,
) {
    let mut query = query.to_vec();
    let Some(id) = query.first_chunk_mut::<2>() else { return };
    let guest_id = std::mem::replace(id, own_id.to_be_bytes());
    if upstream.send(&query).is_ok() {
        if relayed.len() >= RELAYED_MAX {
            relayed.pop_front();
        }
        relayed.push_back(Relayed { own_id, guest_id, guest });
    }
}

/// A dynamic port that none of `handles` uses.
fn free_port(handles: &[SocketHandle], sockets: &SocketSet<'_>, next: &mut u16) -> Option<u16> {
    let used = |port: u16| {
        handles.iter().any(|handle| {
            let local = sockets.get::<tcp::Socket<'_>>(*handle).local_endpoint();
            local.is_some_and(|local| local.port == port)
        })
    };
    (0..=u16::MAX - FIRST_DYNAMIC_PORT).find_map(|_| {
        *next = next.wrapping_add(1);
        let port = FIRST_DYNAMIC_PORT | *next;
        (!used(port)).then_some(port)
    })
}
