//! Accepting connections: strangers get little, and little time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podium_control::forming::Fingerprint;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::peers::Shared;
use crate::tls::Protocol;
use crate::{link, meet};

/// Connections whose other end has not proven anything yet: each costs a TLS handshake's memory, some 40 kB.
const STRANGERS_MAX: usize = 64;
/// Of them from one address.
const STRANGERS_PER_ADDRESS_MAX: usize = 16;
/// Connections of machines of this cluster.
const KNOWN_MAX: usize = 1024;
/// Of them of one machine: one that was taken over must leave room for the others. A voter may carry the logs of all pods here.
const KNOWN_PER_MACHINE_MAX: usize = 256;
/// After an error of accept there is nothing to do but wait a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many there are, in all and of each; so many may be.
#[derive(Clone, Debug)]
struct Doorstep<Who> {
    all_max: usize,
    own_max: usize,
    places: Arc<Mutex<BTreeMap<Who, usize>>>,
}

/// A place; given back when dropped.
struct Place<Who: Ord> {
    doorstep: Doorstep<Who>,
    who: Who,
}

impl<Who: Ord + Copy> Doorstep<Who> {
    fn new(all_max: usize, own_max: usize) -> Self {
        Self { all_max, own_max, places: Arc::default() }
    }

    fn enter(&self, who: Who) -> Option<Place<Who>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = places.values().sum();
        let own = places.get(&who).copied().unwrap_or_default();
        if taken >= self.all_max || own >= self.own_max {
            return None;
        }
        places.insert(who, own + 1);
        Some(Place { doorstep: self.clone(), who })
    }
}

impl<Who: Ord> Drop for Place<Who> {
    fn drop(&mut self) {
        let mut places = self.doorstep.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.who);
            }
        }
    }
}

/// Accepts for ever; the connections end with it.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let doorstep = Doorstep::new(STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX);
    let known = Doorstep::new(KNOWN_MAX, KNOWN_PER_MACHINE_MAX);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = doorstep.enter(remote.ip()) else {
                    let ip = remote.ip();
                    shared.complaints.note(format!("{ip}: too many connections, some are refused"));
                    continue;
                };
                let (shared, known) = (Arc::clone(&shared), known.clone());
                tasks.spawn(async move { connection(&shared, stream, place, &known).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of another machine");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
    place: Place<IpAddr>,
    known: &Doorstep<Fingerprint>,
) {
    let Ok(remote) = stream.peer_addr() else { return };
    let secured = match timeout(shared.pace.connect, shared.tls.accept(stream, remote)).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%remote, "a handshake took too long"),
    };
    let Some(_place) = known.enter(secured.fingerprint) else {
        let (ip, key) = (remote.ip(), secured.fingerprint);
        let text = format!("{ip} (key {key}): too many connections of machines, some are refused");
        return shared.complaints.note(text);
    };
    match secured.protocol {
        Protocol::Meet => meet::serve(shared, secured, || drop(place)).await,
        Protocol::Store => link::serve(shared, secured, || drop(place)).await,
        protocol @ (Protocol::Node | Protocol::Streams | Protocol::Beat) => {
            if shared.services.knows(&secured.key) {
                drop(place);
                shared.services.session(protocol, secured.into()).await;
            } else {
                let (ip, key) = (secured.remote.ip(), secured.fingerprint);
                shared.complaints.note(format!("{ip} (key {key}): is not a node of this cluster"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_few_in_all_and_fewer_from_one_address() {
        let doorstep = Doorstep::new(STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX);
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let mut places: Vec<_> = (0..100).filter_map(|_| doorstep.enter(address(1))).collect();
        assert_eq!(places.len(), STRANGERS_PER_ADDRESS_MAX);
        places.extend((2..100).filter_map(|number| doorstep.enter(address(number))));
        assert_eq!(places.len(), STRANGERS_MAX);
        places.pop();
        assert!(doorstep.enter(address(200)).is_some());
        places.clear();
        assert!(doorstep.places.lock().expect("it").is_empty());
    }

    #[test]
    fn a_machine_leaves_room_for_others() {
        let known = Doorstep::new(KNOWN_MAX, KNOWN_PER_MACHINE_MAX);
        let key = |byte: u8| Fingerprint([byte; 32]);
        let places: Vec<_> = (0..2 * KNOWN_MAX).filter_map(|_| known.enter(key(1))).collect();
        assert_eq!(places.len(), KNOWN_PER_MACHINE_MAX);
        assert!(known.enter(key(2)).is_some());
        drop(places);
        assert!(known.enter(key(1)).is_some());
    }
}
