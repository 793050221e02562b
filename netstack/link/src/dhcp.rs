//! A DHCPv4 client (RFC 2131, options of RFC 2132) as a pure machine: [`Client::step`] takes an event and the time,
//! and says what to do. Sockets and clocks are the caller's; the frames themselves are in [`message`].
//!
//! ```text
//!            link up                 offer                  ack
//!  Stopped ──────────► Selecting ──────────► Requesting ──────────► Bound ◄─────┐
//!     ▲                   ▲  ▲                  │ nak, silence        │ T1       │ ack
//!     │ link down         │  └──────────────────┘                     ▼          │
//!     │                   │ nak, expiry                            Renewing ─────┤
//!     └── (any)           └────────────────────────────────────────── │ T2       │
//!                                                                  Rebinding ────┘
//! ```
//!
//! Invariants: an address is configured only by an acknowledgement of our own transaction from the chosen server (any
//! server when rebinding); it is taken away when its lease expires or is refused; nothing is sent while the link is
//! down. A link that goes down and comes up asks afresh, because it may be another network.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::Cidr;

pub mod message;

#[cfg(test)]
mod tests;

use message::{Incoming, Kind, Outgoing};

/// The first answer should take milliseconds; a lost packet costs this much.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// RFC 2131 section 4.1 ends its back-off here.
const LONGEST_RETRY: Duration = Duration::from_secs(64);
/// A server that offered and then is silent is asked this often before we look for another.
const REQUEST_ATTEMPTS: u32 = 4;
/// RFC 2131 section 4.4.5: renewals are repeated no more often than this.
const RENEW_RETRY: Duration = Duration::from_secs(60);
/// A lease shorter than this would keep us asking all the time; it is treated as this long.
const SHORTEST_LEASE: Duration = Duration::from_secs(30);

/// What a server granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address with the network's prefix.
    pub address: Cidr,
    /// Default routers, best first.
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers, best first.
    pub nameservers: Vec<Ipv4Addr>,
    /// The network's domain.
    pub domain: Option<String>,
    /// A name for this machine.
    pub hostname: Option<String>,
    /// Time servers.
    pub time_servers: Vec<Ipv4Addr>,
    /// The network's largest packet.
    pub mtu: Option<u16>,
    /// Who granted it.
    pub server: Ipv4Addr,
    /// How long it is valid from the acknowledgement on.
    pub valid_for: Duration,
    /// When to ask the server for more time.
    pub renew_after: Duration,
    /// When to ask any server for more time.
    pub rebind_after: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link has a carrier.
    LinkUp,
    /// The link has no carrier any more.
    LinkDown,
    /// A DHCP message arrived.
    Received(Box<Incoming>),
    /// The time that [`Client::next_wake`] named has come, or something else woke the caller.
    Tick,
}

impl Event {
    /// That a message arrived.
    pub fn received(message: Incoming) -> Self {
        Self::Received(Box::new(message))
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this message.
    Send(Outgoing),
    /// Configure this lease on the link and announce the address; it may be the one that is configured already.
    Configure(Lease),
    /// Take the address of this lease away.
    Release(Lease),
}

/// The client of one link.
#[derive(Clone, Debug)]
pub struct Client {
    random: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Stopped,
    Selecting { exchange: Exchange },
    Requesting { exchange: Exchange, server: Ipv4Addr, address: Ipv4Addr },
    Bound { held: Held },
    Renewing { held: Held, exchange: Exchange },
    Rebinding { held: Held, exchange: Exchange },
}

/// One question, repeated until it is answered.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    transaction: u32,
    began: Duration,
    attempts: u32,
    next: Duration,
}

/// A lease and when it was granted.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    since: Duration,
}

impl Client {
    /// A client that waits for its link; `seed` makes transaction numbers and jitter differ between machines.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, state: State::Stopped }
    }

    /// The lease that is configured now.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Stopped | State::Selecting { .. } | State::Requesting { .. } => None,
            State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => Some(&held.lease),
        }
    }

    /// Whether a message is awaited, so that the caller must listen.
    pub fn is_listening(&self) -> bool {
        match self.state {
            State::Stopped | State::Bound { .. } => false,
            State::Selecting { .. }
            | State::Requesting { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. } => true,
        }
    }

    /// What the client does, for people.
    pub fn describe(&self) -> String {
        match &self.state {
            State::Stopped => "waiting for the link".to_owned(),
            State::Selecting { exchange } => {
                format!("looking for a DHCP server (asked {} times)", exchange.attempts)
            }
            State::Requesting { server, address, .. } => {
                format!("requesting {address} from {server}")
            }
            State::Bound { held } => format!(
                "leased from {} for {} s",
                held.lease.server,
                held.lease.valid_for.as_secs()
            ),
            State::Renewing { held, .. } => {
                format!("renewing the lease from {}", held.lease.server)
            }
            State::Rebinding { held, .. } => {
                format!("{} is silent; asking any DHCP server", held.lease.server)
            }
        }
    }

    /// When to call [`Client::step`] with [`Event::Tick`]; on the same clock as `now`. Never, if nothing is due.
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.state {
            State::Stopped => None,
            State::Selecting { exchange } | State::Requesting { exchange, .. } => {
                Some(exchange.next)
            }
            State::Bound { held } => Some(held.since + held.lease.renew_after),
            State::Renewing { held, exchange } => {
                Some(exchange.next.min(held.since + held.lease.rebind_after))
            }
            State::Rebinding { held, exchange } => {
                Some(exchange.next.min(held.since + held.lease.valid_for))
            }
        }
    }

    /// Takes one event at the time `now` (any clock that only goes forward).
    pub fn step(&mut self, now: Duration, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::LinkUp => {
                if matches!(self.state, State::Stopped) {
                    self.select(now, out);
                }
            }
            Event::LinkDown => {
                out.extend(self.lease().cloned().map(Action::Release));
                self.state = State::Stopped;
            }
            Event::Received(message) => self.receive(now, *message, out),
            Event::Tick => self.tick(now, out),
        }
    }

    fn receive(&mut self, now: Duration, message: Incoming, out: &mut Vec<Action>) {
        match (&self.state, message) {
            (State::Selecting { exchange }, Incoming::Offer { transaction, server, address })
                if transaction == exchange.transaction =>
            {
                let exchange = Exchange { attempts: 0, next: now, ..*exchange };
                self.state = State::Requesting { exchange, server, address };
                self.tick(now, out);
            }
            (State::Requesting { exchange, server, .. }, Incoming::Ack { transaction, lease })
                if transaction == exchange.transaction && lease.server == *server =>
            {
                self.bind(now, lease, out);
            }
            (
                State::Renewing { exchange, .. } | State::Rebinding { exchange, .. },
                Incoming::Ack { transaction, lease },
            ) if transaction == exchange.transaction => {
                self.bind(now, lease, out);
            }
            (
                State::Requesting { exchange, server, .. },
                Incoming::Nak { transaction, server: from },
            ) if transaction == exchange.transaction && from == *server => {
                self.select(now, out);
            }
            (
                State::Renewing { held, exchange } | State::Rebinding { held, exchange },
                Incoming::Nak { transaction, .. },
            ) if transaction == exchange.transaction => {
                out.push(Action::Release(held.lease.clone()));
                self.select(now, out);
            }
            // Late, foreign, or meant for a state that we have left.
            (_, Incoming::Offer { .. } | Incoming::Ack { .. } | Incoming::Nak { .. }) => {}
        }
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        let jitter = self.jitter();
        match &mut self.state {
            State::Stopped => {}
            State::Selecting { exchange } => {
                if exchange.repeat(now, jitter) {
                    out.push(Action::Send(exchange.message(now, Kind::Discover)));
                }
            }
            State::Requesting { exchange, server, address } => {
                if now < exchange.next {
                    return;
                }
                if exchange.attempts >= REQUEST_ATTEMPTS {
                    return self.select(now, out);
                }
                exchange.repeat(now, jitter);
                out.push(Action::Send(
                    exchange.message(now, Kind::Request { server: *server, address: *address }),
                ));
            }
            State::Bound { held } => {
                if now >= held.since + held.lease.renew_after {
                    let held = held.clone();
                    self.state = State::Renewing { held, exchange: self.exchange(now) };
                    self.tick(now, out);
                }
            }
            State::Renewing { held, exchange } => {
                if now >= held.since + held.lease.rebind_after {
                    let held = held.clone();
                    self.state = State::Rebinding { held, exchange: self.exchange(now) };
                    self.tick(now, out);
                } else if exchange.repeat_slowly(now, held.since + held.lease.rebind_after) {
                    let server = held.lease.server;
                    out.push(Action::Send(
                        exchange
                            .message(now, Kind::Renew { server: Some(server), ours: held.ours() }),
                    ));
                }
            }
            State::Rebinding { held, exchange } => {
                if now >= held.since + held.lease.valid_for {
                    out.push(Action::Release(held.lease.clone()));
                    self.select(now, out);
                } else if exchange.repeat_slowly(now, held.since + held.lease.valid_for) {
                    out.push(Action::Send(
                        exchange.message(now, Kind::Renew { server: None, ours: held.ours() }),
                    ));
                }
            }
        }
    }

    fn select(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.state = State::Selecting { exchange: self.exchange(now) };
        self.tick(now, out);
    }

    fn bind(&mut self, now: Duration, lease: Lease, out: &mut Vec<Action>) {
        let lease = sane(lease);
        if let Some(old) = self.lease().filter(|old| old.address != lease.address) {
            out.push(Action::Release(old.clone()));
        }
        out.push(Action::Configure(lease.clone()));
        self.state = State::Bound { held: Held { lease, since: now } };
    }

    fn exchange(&mut self, now: Duration) -> Exchange {
        let [a, b, c, d, ..] = self.next_random().to_le_bytes();
        Exchange {
            transaction: u32::from_le_bytes([a, b, c, d]),
            began: now,
            attempts: 0,
            next: now,
        }
    }

    /// Up to a second, so that machines that started together do not stay together.
    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.next_random() % 1000)
    }

    /// splitmix64: only to be different, not to be secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Exchange {
    /// Whether to ask again now; if so, when next: after 1, 2, 4 … 64 seconds, plus jitter from the second time on.
    fn repeat(&mut self, now: Duration, jitter: Duration) -> bool {
        if now < self.next {
            return false;
        }
        let wait = FIRST_RETRY.saturating_mul(1 << self.attempts.min(6)).min(LONGEST_RETRY);
        self.next = now + if self.attempts == 0 { wait } else { wait + jitter };
        self.attempts += 1;
        true
    }

    /// As [`Exchange::repeat`], but after half of the time that is left (RFC 2131 section 4.4.5).
    fn repeat_slowly(&mut self, now: Duration, until: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + (until.saturating_sub(now) / 2).max(RENEW_RETRY);
        self.attempts += 1;
        true
    }

    fn message(&self, now: Duration, kind: Kind) -> Outgoing {
        let seconds = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        Outgoing { transaction: self.transaction, seconds, kind }
    }
}

impl Held {
    fn ours(&self) -> Ipv4Addr {
        match self.lease.address.address {
            std::net::IpAddr::V4(address) => address,
            std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// Times in an order that makes sense: renew before rebind before the end.
fn sane(mut lease: Lease) -> Lease {
    lease.valid_for = lease.valid_for.max(SHORTEST_LEASE);
    if lease.rebind_after.is_zero() || lease.rebind_after >= lease.valid_for {
        lease.rebind_after = lease.valid_for / 8 * 7;
    }
    if lease.renew_after.is_zero() || lease.renew_after >= lease.rebind_after {
        lease.renew_after = lease.valid_for.min(lease.rebind_after) / 2;
    }
    lease
}
