//! Accepting connections: strangers get little, and little time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
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
/// After an error of accept there is nothing to do but wait a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Strangers by address.
#[derive(Clone, Debug, Default)]
struct Doorstep(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A stranger's place; given back when dropped.
struct Place {
    doorstep: Doorstep,
    address: IpAddr,
}

impl Doorstep {
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = places.values().sum();
        let own = places.get(&address).copied().unwrap_or_default();
        if taken >= STRANGERS_MAX || own >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        places.insert(address, own + 1);
        Some(Place { doorstep: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.doorstep.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.address);
            }
        }
    }
}

/// Accepts for ever; the connections end with it.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let doorstep = Doorstep::default();
    let known = Arc::new(Semaphore::new(KNOWN_MAX));
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
                let (shared, known) = (Arc::clone(&shared), Arc::clone(&known));
                tasks.spawn(async move { connection(&shared, stream, place, &known).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of another machine");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(shared: &Arc<Shared>, stream: TcpStream, place: Place, known: &Semaphore) {
    let Ok(remote) = stream.peer_addr() else { return };
    let secured = match timeout(shared.pace.connect, shared.tls.accept(stream, remote)).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%remote, "a handshake took too long"),
    };
    let Ok(_permit) = known.try_acquire() else {
        return shared.complaints.note("too many machines are connected".to_owned());
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
        let doorstep = Doorstep::default();
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let mut places: Vec<_> = (0..100).filter_map(|_| doorstep.enter(address(1))).collect();
        assert_eq!(places.len(), STRANGERS_PER_ADDRESS_MAX);
        places.extend((2..100).filter_map(|number| doorstep.enter(address(number))));
        assert_eq!(places.len(), STRANGERS_MAX);
        places.pop();
        assert!(doorstep.enter(address(200)).is_some());
        places.clear();
        assert!(doorstep.0.lock().expect("it").is_empty());
    }
}
