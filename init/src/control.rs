//! The control socket's server side: connections, requests in, replies and events out, never blocking.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use podium_init::protocol::frame::{self, Inbox};
use podium_init::protocol::{Event, Reply, Request};

/// A peer that does not read is let go when this much waits for it.
const MOST_WAITING_BYTES: usize = 1 << 20;
/// Programs of one machine; more is a mistake.
const MOST_CONNECTIONS: usize = 64;

/// The socket and its connections.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Vec<u8>,
    subscribed: bool,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A new connection.
    Listener,
    /// A known connection; whether there is something to be written to it.
    Connection(u64, bool),
}

impl Control {
    /// Listens at `path`, for root only.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: BTreeMap::new(), next: 0 })
    }

    /// Everything to wait for.
    pub(crate) fn fds(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let mut fds = vec![(Source::Listener, self.listener.as_fd())];
        for (token, connection) in &self.connections {
            fds.push((
                Source::Connection(*token, !connection.outbox.is_empty()),
                connection.stream.as_fd(),
            ));
        }
        fds
    }

    /// Whether anybody hears events.
    pub(crate) fn has_subscribers(&self) -> bool {
        self.connections.values().any(|connection| connection.subscribed)
    }

    /// Takes a new connection.
    pub(crate) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() < MOST_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                self.next += 1;
                let connection = Connection {
                    stream,
                    inbox: Inbox::default(),
                    outbox: Vec::new(),
                    subscribed: false,
                };
                self.connections.insert(self.next, connection);
            }
        }
    }

    /// Reads and writes what can be; the whole requests that arrived come out.
    pub(crate) fn serve(&mut self, token: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        let Some(connection) = self.connections.get_mut(&token) else { return requests };
        let open = connection.read() && connection.take(&mut requests) && connection.flush();
        if !open {
            self.connections.remove(&token);
        }
        requests
    }

    /// Answers a connection.
    pub(crate) fn reply(&mut self, token: u64, reply: &Reply) {
        let open = self.connections.get_mut(&token).is_none_or(|connection| connection.send(reply));
        if !open {
            self.connections.remove(&token);
        }
    }

    /// From now on the connection gets events.
    pub(crate) fn subscribe(&mut self, token: u64) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.subscribed = true;
        }
    }

    /// Sends an event to one subscriber.
    pub(crate) fn notify(&mut self, token: u64, event: &Event) {
        let open = self.connections.get_mut(&token).is_none_or(|connection| connection.send(event));
        if !open {
            self.connections.remove(&token);
        }
    }

    /// Sends an event to all subscribers.
    pub(crate) fn broadcast(&mut self, event: &Event) {
        self.connections.retain(|_, connection| !connection.subscribed || connection.send(event));
    }
}

impl Connection {
    /// False when the peer is gone.
    fn read(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.inbox.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// False when the peer does not speak the protocol.
    fn take(&mut self, requests: &mut Vec<Request>) -> bool {
        loop {
            match self.inbox.next() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => return true,
                Err(error) => {
                    let _ = self.send(&Reply::Refused { reason: error.to_string() });
                    return false;
                }
            }
        }
    }

    fn send<T: serde::Serialize>(&mut self, message: &T) -> bool {
        match frame::encode(message) {
            Ok(bytes) => self.outbox.extend_from_slice(&bytes),
            Err(_) => return false,
        }
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return false,
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.outbox.len() <= MOST_WAITING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use podium_init::protocol::{Client, ClockStatus};

    use super::*;

    /// Serves until `count` requests came, answering with Accepted and subscribing who asks.
    fn serve(control: &mut Control, count: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        while requests.len() < count {
            let sources: Vec<Source> =
                control.fds().into_iter().map(|(source, _)| source).collect();
            for source in sources {
                match source {
                    Source::Listener => control.accept(),
                    Source::Connection(token, _) => {
                        for request in control.serve(token) {
                            control.reply(token, &Reply::Accepted);
                            if request == Request::Subscribe {
                                control.subscribe(token);
                            }
                            requests.push(request);
                        }
                    }
                }
            }
            std::thread::yield_now();
        }
        requests
    }

    #[test]
    fn requests_are_answered_and_events_reach_subscribers_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("init.sock");
        let mut control = Control::open(&path).expect("listening");
        let event = Event::ClockSet(ClockStatus::default());
        let node = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut client = Client::connect(&path).expect("connected");
                client.report(podium_init::protocol::NodeReport::default()).expect("accepted");
                let mut events =
                    Client::connect(&path).expect("connected").subscribe().expect("accepted");
                events.wait().expect("an event")
            }
        });
        let requests = serve(&mut control, 2);
        assert!(
            matches!(requests.as_slice(), [Request::ReportNode(_), Request::Subscribe]),
            "{requests:?}"
        );
        assert!(control.has_subscribers());
        control.broadcast(&event);
        assert_eq!(node.join().expect("the client ends"), event);
    }

    #[test]
    fn a_peer_that_speaks_nonsense_is_let_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("init.sock");
        let mut control = Control::open(&path).expect("listening");
        let mut peer = UnixStream::connect(&path).expect("connected");
        peer.write_all(&[5, 0, 0, 0, 9, 9, 9, 9, 9]).expect("sent");
        control.accept();
        assert!(control.serve(1).is_empty());
        assert_eq!(control.fds().len(), 1);
    }
}
