//! The switch as a VM sees it: a smoltcp host on the other end of a port's sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant as Clock};

use podium_switch::{Lease, MacAddress, OutsidePort, PortConfig, PortId, Switch, SwitchConfig};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const DEADLINE: Duration = Duration::from_secs(60);

struct Card(UnixDatagram, std::path::PathBuf);
struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a Card);

impl Device for Card {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let mut frame = vec![0; 2048];
        let length = self.0.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some((Arrived(frame), Leaving(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        // The kernel queues ten frames; QEMU keeps the next until there is room, and so does this card. What the kernel
        // does not take for another reason is a lost frame; TCP repairs it.
        let full = |sent: &std::io::Result<usize>| {
            sent.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        while full(&self.0.0.send_to(&frame, &self.0.1)) {
            std::thread::yield_now();
        }
        result
    }
}

/// A VM with a DHCP client, on the first port of its own switch.
struct Guest {
    switch: Switch,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    started: Clock,
    leased: Option<Ipv4Addr>,
    _folder: tempfile::TempDir,
}

impl Guest {
    fn boot(outside: Vec<OutsidePort>) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the sockets");
        let port = PortConfig {
            mac: MacAddress::of_vm(0),
            address: ADDRESS,
            name: "n1".to_owned(),
            switch_path: folder.path().join("switch.sock"),
            guest_path: folder.path().join("guest.sock"),
        };
        let socket = UnixDatagram::bind(&port.guest_path).expect("bind the card");
        socket.set_nonblocking(true).expect("a non-blocking card");
        let mut card = Card(socket, port.switch_path.clone());
        let switch = Switch::start(&SwitchConfig {
            gateway: GATEWAY,
            ports: vec![port],
            outside,
            names: vec![("registry.test".to_owned(), GATEWAY)],
            upstream: None,
            seed: 1,
        })
        .expect("start the switch");
        let config = Config::new(EthernetAddress(MacAddress::of_vm(0).0).into());
        let interface = Interface::new(config, &mut card, Instant::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = sockets.add(dhcpv4::Socket::new());
        let mut guest = Self {
            switch,
            card,
            interface,
            sockets,
            dhcp,
            started: Clock::now(),
            leased: None,
            _folder: folder,
        };
        guest.until("a lease", |guest| guest.leased.is_some());
        guest
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Clock::now() + DEADLINE;
        loop {
            self.turn();
            if done(self) {
                return;
            }
            assert!(Clock::now() < deadline, "no {what} within {DEADLINE:?}");
        }
    }

    fn turn(&mut self) {
        let now = Instant::from_micros(
            i64::try_from(self.started.elapsed().as_micros()).expect("a short test"),
        );
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        if let Some(dhcpv4::Event::Configured(config)) =
            self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).poll()
        {
            self.leased = Some(config.address.address());
            self.interface.update_ip_addrs(|addresses| {
                addresses.clear();
                addresses.push(IpCidr::Ipv4(config.address)).expect("room for one address");
            });
            assert_eq!(config.router, Some(GATEWAY));
        }
        // The card has no descriptor that smoltcp waits for; give the switch's thread the processor.
        std::thread::yield_now();
    }

    fn tcp(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

/// An echo server that answers when its client has finished sending.
fn echo_server() -> OutsidePort {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
    let target = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("read");
            stream.write_all(&bytes).expect("write");
        }
    });
    OutsidePort { port: 5000, target }
}

#[test]
fn a_vm_gets_its_lease() {
    assert_eq!(Guest::boot(Vec::new()).leased, Some(ADDRESS));
}

#[test]
fn a_vm_reaches_a_named_host_port_and_half_closes() {
    let mut guest = Guest::boot(vec![echo_server()]);
    let handle = guest.tcp();
    let Guest { interface, sockets, .. } = &mut guest;
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(interface.context(), (GATEWAY, 5000), 40000).expect("connect");
    let sent: Vec<u8> = (0..2_000_000u32).map(|index| (index % 251) as u8).collect();
    let (mut offset, mut received) = (0, Vec::new());
    guest.until("echo", |guest| {
        let socket = guest.socket(handle);
        if socket.can_send() && offset < sent.len() {
            offset += socket.send_slice(&sent[offset..]).expect("send");
            if offset == sent.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .expect("receive");
        }
        received.len() >= sent.len()
    });
    assert!(received == sent, "the echo differs");
}

#[test]
fn a_port_that_nobody_named_is_refused() {
    let mut guest = Guest::boot(vec![echo_server()]);
    let handle = guest.tcp();
    let Guest { interface, sockets, .. } = &mut guest;
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(interface.context(), (GATEWAY, 22), 40000).expect("connect");
    guest.until("refusal", |guest| guest.socket(handle).state() == tcp::State::Closed);
}

#[test]
fn a_named_port_where_nothing_listens_ends_the_connection() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
    let target = free.local_addr().expect("its address");
    drop(free);
    let mut guest = Guest::boot(vec![OutsidePort { port: 5000, target }]);
    let handle = guest.tcp();
    let Guest { interface, sockets, .. } = &mut guest;
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(interface.context(), (GATEWAY, 5000), 40000).expect("connect");
    guest.until("reset", |guest| guest.socket(handle).state() == tcp::State::Closed);
}

#[test]
fn the_host_reaches_a_vm_by_a_forward() {
    let mut guest = Guest::boot(Vec::new());
    let handle = guest.tcp();
    guest.socket(handle).listen(6443).expect("listen");
    let address = guest.switch.forward(0, SocketAddrV4::new(ADDRESS, 6443)).expect("a forward");
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.write_all(b"hello").expect("write");
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).expect("read");
        reply
    });
    guest.until("a finished client", |guest| {
        let socket = guest.socket(handle);
        let mut bytes = [0; 16];
        if socket.can_recv() {
            let length = socket.recv_slice(&mut bytes).expect("receive");
            socket.send_slice(&bytes[..length]).expect("send");
        }
        client.is_finished()
    });
    assert_eq!(&client.join().expect("the client"), b"hello");
}

#[test]
fn a_vm_resolves_the_rigs_names() {
    let mut guest = Guest::boot(Vec::new());
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 2048]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(5353).expect("bind");
    let handle = guest.sockets.add(socket);
    let query =
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08registry\x04test\x00\x00\x01\x00\x01";
    guest
        .sockets
        .get_mut::<udp::Socket<'_>>(handle)
        .send_slice(query, (GATEWAY, 53))
        .expect("send");
    let mut reply = Vec::new();
    guest.until("a reply", |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
        if let Ok((bytes, _)) = socket.recv() {
            reply = bytes.to_vec();
        }
        !reply.is_empty()
    });
    assert_eq!(reply[reply.len() - 4..], GATEWAY.octets());
}

#[test]
fn a_cut_link_carries_nothing_until_it_is_mended() {
    let mut guest = Guest::boot(vec![echo_server()]);
    let cut = podium_switch::LinkCondition { cut: true, ..Default::default() };
    let gateway = guest.switch.gateway_port();
    guest.switch.set_condition(PortId(0), gateway, cut).expect("cut");
    let handle = guest.tcp();
    let Guest { interface, sockets, .. } = &mut guest;
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(interface.context(), (GATEWAY, 5000), 40000).expect("connect");
    // smoltcp repeats its SYN after 0.7 s and more: the second one leaves while the link is still cut.
    let until = Clock::now() + Duration::from_secs(1);
    guest.until("a second", |_| Clock::now() >= until);
    assert_ne!(guest.socket(handle).state(), tcp::State::Established);
    guest.switch.set_condition(PortId(0), gateway, Default::default()).expect("mend");
    guest.until("a connection", |guest| guest.socket(handle).state() == tcp::State::Established);
}

#[test]
fn a_machine_with_a_new_address_is_found_by_its_old_forward() {
    let mut guest = Guest::boot(Vec::new());
    let forward = guest.switch.forward(0, SocketAddrV4::new(ADDRESS, 6443)).expect("a forward");
    let elsewhere = Ipv4Addr::new(10, 77, 0, 50);
    let lease = Lease { mac: MacAddress::of_vm(0), address: elsewhere, name: "n1".to_owned() };
    guest.switch.lease(vec![lease]).expect("new leases");
    guest.leased = None;
    let dhcp = guest.dhcp;
    // As a machine that boots again.
    guest.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).reset();
    guest.until("a new lease", |guest| guest.leased == Some(elsewhere));
    let handle = guest.tcp();
    guest.socket(handle).listen(6443).expect("listen");
    let client = std::thread::spawn(move || TcpStream::connect(forward).expect("connect"));
    guest.until("a connection", |guest| guest.socket(handle).state() == tcp::State::Established);
    client.join().expect("the client");
}

#[test]
fn a_capture_shows_what_passes_between_its_ports() {
    let mut guest = Guest::boot(vec![echo_server()]);
    let gateway = guest.switch.gateway_port();
    let capture = guest.switch.capture([PortId(0), gateway]).expect("a capture");
    let elsewhere = guest.switch.capture([PortId(0)]).expect("a capture");
    let handle = guest.tcp();
    let Guest { interface, sockets, .. } = &mut guest;
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(interface.context(), (GATEWAY, 5000), 40000).expect("connect");
    guest.until("a connection", |guest| guest.socket(handle).can_send());
    guest.socket(handle).send_slice(b"a marker in clear").expect("send");
    guest.socket(handle).close();
    guest.until("the echo", |guest| guest.socket(handle).can_recv());
    let there = |from: PortId| {
        capture.with(b"marker in clear").iter().filter(|frame| frame.from == from).count()
    };
    assert!(there(PortId(0)) >= 1, "the marker on its way");
    assert!(there(gateway) >= 1, "its echo");
    assert_eq!(capture.missed(), 0);
    assert!(elsewhere.frames().is_empty());
}

#[test]
fn a_forward_to_any_passes_over_machines_that_do_not_answer() {
    let mut guest = Guest::boot(Vec::new());
    // Nobody has the first address; the second refuses that port.
    let silent = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 99), 6443);
    let guests = vec![silent, SocketAddrV4::new(ADDRESS, 1), SocketAddrV4::new(ADDRESS, 6443)];
    let forward = guest.switch.forward_to_any(0, guests).expect("a forward");
    let handle = guest.tcp();
    guest.socket(handle).listen(6443).expect("listen");
    let mut stream = TcpStream::connect(forward).expect("connect");
    stream.write_all(b"hello").expect("write");
    guest.until("the greeting", |guest| guest.socket(handle).recv_queue() == 5);
}

#[test]
fn a_forward_whose_machines_all_stay_silent_hangs_up() {
    let guest = Guest::boot(Vec::new());
    let silent = |last| SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, last), 6443);
    let guests = vec![silent(98), silent(99)];
    let forward = guest.switch.forward_to_any(0, guests).expect("a forward");
    let mut stream = TcpStream::connect(forward).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);
}
