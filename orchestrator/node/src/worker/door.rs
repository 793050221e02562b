//! The API's port on a node that has no API: every connection goes on to a voter, unread.
//!
//! TLS runs between the client and the voter, whose certificate names every node of the cluster; this node sees bytes. So
//! a client may be given any node's address, and a node that was taken over learns and forges nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A voter that does not answer within this is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections at a time. Each costs two sockets and their buffers.
const CONNECTIONS_MAX: usize = 512;
/// After an error of accept there is nothing to do but wait a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Passes connections on for ever. `voters` gives the API addresses of the voters, as they are known then.
pub(crate) async fn run(
    listener: TcpListener,
    voters: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static,
) -> ! {
    let voters = Arc::new(voters);
    let turn = Arc::new(AtomicUsize::new(0));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Who comes when the node is full waits in the kernel's queue.
        let place = Arc::clone(&places).acquire_owned().await;
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for the API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (voters, turn) = (Arc::clone(&voters), Arc::clone(&turn));
        tokio::spawn(async move {
            let _place = place;
            let first = turn.fetch_add(1, Ordering::Relaxed);
            let Some(mut voter) = connect(&voters(), first).await else {
                return tracing::warn!("no voter answers; a connection for the API is closed");
            };
            // Small frames of a watch are not to wait for others.
            let _ = (client.set_nodelay(true), voter.set_nodelay(true));
            // How it ends is the two ends' affair.
            let _ = copy_bidirectional(&mut client, &mut voter).await;
        });
    }
}

/// The first voter that answers, from the one whose turn it is.
async fn connect(voters: &[SocketAddr], first: usize) -> Option<TcpStream> {
    let start = first.checked_rem(voters.len())?;
    for voter in voters.iter().cycle().skip(start).take(voters.len()) {
        match timeout(CONNECT, TcpStream::connect(voter)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%voter, %error, "a voter does not answer"),
            Err(_) => tracing::debug!(%voter, "a voter does not answer in time"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    /// A voter that says its name, then repeats what it hears.
    async fn voter(name: &'static str) -> SocketAddr {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    stream.write_all(name.as_bytes()).await.expect("written");
                    let (mut incoming, mut outgoing) = stream.split();
                    let _ = tokio::io::copy(&mut incoming, &mut outgoing).await;
                });
            }
        });
        address
    }

    /// What a client of the node hears that says `word` and no more.
    async fn say(node: SocketAddr, word: &str) -> String {
        let mut stream = TcpStream::connect(node).await.expect("connected");
        stream.write_all(word.as_bytes()).await.expect("written");
        stream.shutdown().await.expect("closed");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.expect("read");
        heard
    }

    #[tokio::test]
    async fn connections_go_to_the_voters_in_turn_and_past_a_dead_one() {
        let (dead, dead_address) = listen().await;
        drop(dead);
        let voters = vec![voter("a:").await, dead_address, voter("c:").await];
        let (listener, node) = listen().await;
        let door = tokio::spawn(run(listener, move || voters.clone()));
        let mut heard = Vec::new();
        for word in ["one", "two", "three", "four"] {
            heard.push(say(node, word).await);
        }
        assert_eq!(heard, ["a:one", "c:two", "c:three", "a:four"]);
        door.abort();
    }

    #[tokio::test]
    async fn without_a_voter_the_client_is_told_by_the_end_of_the_connection() {
        let (listener, node) = listen().await;
        let door = tokio::spawn(run(listener, Vec::new));
        let mut stream = TcpStream::connect(node).await.expect("connected");
        let mut heard = Vec::new();
        assert!(matches!(stream.read_to_end(&mut heard).await, Ok(0) | Err(_)));
        door.abort();
    }
}
