//! The shim's one loop: clients, signals and containers' streams, each handled to the end before the next.
//!
//! libcontainer waits for its own helper processes while it creates a container. Nothing here reaps children during that, for there is
//! one thread and reaping is done from the loop only.

mod requests;
mod streams;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use podium_shim_protocol::{Event, ExecExit, PodStatus, Reply, paths, record};
use rustix::event::epoll::EventFlags;
use rustix::process::{WaitOptions, wait};

use crate::cgroup::Group;
use crate::client::{Client, Mode};
use crate::container::{Container, End, State, end_of};
use crate::log::Stream;
use crate::pod::Pod;
use crate::poll::{Poll, Source};
use crate::{failure, time};

/// How often to look again while a container is ending or a group lets go of its last process. Children's ends wake the loop, so this
/// only matters where the kernel tells late.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One read from a container's stream. Output of empty lines grows forty-fold in the log, which bounds what is worth reading at once.
const READ_BYTES: usize = 16 << 10;

/// The shim, serving.
pub(crate) struct Server {
    pod: Pod,
    poll: Poll,
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    containers: Vec<Container>,
    /// Groups of removed containers that the kernel did not let go at once.
    leftovers: Vec<Group>,
    buffer: Vec<u8>,
    ending: bool,
}

impl Server {
    /// Takes over a listening socket.
    pub(crate) fn new(pod: Pod, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // At shutdown PID 1 signals every process; the shim stays until its containers are gone and it is told to end.
        let mut ours = SigSet::empty();
        for signal in
            [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]
        {
            ours.add(signal);
        }
        ours.thread_block()?;
        let signals = SignalFd::with_flags(&ours, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut poll = Poll::new()?;
        poll.add(&listener, Source::Listener, EventFlags::IN)?;
        poll.add(&signals, Source::Signals, EventFlags::IN)?;
        Ok(Self {
            pod,
            poll,
            listener,
            signals,
            clients: BTreeMap::new(),
            containers: Vec::new(),
            leftovers: Vec::new(),
            buffer: vec![0; READ_BYTES],
            ending: false,
        })
    }

    /// Serves until told to end.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.ending {
            for (number, flags) in self.poll.wait(self.timeout())? {
                match self.poll.source(number) {
                    Some(Source::Listener) => self.accept(),
                    Some(Source::Signals) => self.reap(),
                    Some(Source::Client) => self.serve(number, flags),
                    Some(Source::Output(container, stream)) => self.pump(container, stream),
                    Some(Source::Input(container)) => self.feed(container),
                    Some(Source::Attached(client)) => self.take_typed(client),
                    None => {}
                }
            }
            self.settle();
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let ending =
            self.containers.iter().any(|container| matches!(container.state, State::Ending { .. }));
        (ending || !self.leftovers.is_empty()).then_some(LOOK_AGAIN)
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let Ok(client) = Client::new(stream) else { return };
        if let Ok(number) = self.poll.add(&client.stream, Source::Client, EventFlags::IN) {
            self.clients.insert(number, client);
        }
    }

    /// A client has sent something, can take something, or is gone.
    fn serve(&mut self, number: u64, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut alive = true;
        if flags.contains(EventFlags::OUT) {
            alive = client.flush();
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            alive = alive && client.receive();
        }
        while alive {
            let Some(client) = self.clients.get_mut(&number) else { return };
            match client.next() {
                Ok(Some(request)) if client.mode == Mode::Asking => {
                    alive = self.answer(number, request);
                }
                Ok(None) => break,
                // Nonsense, or a request on a connection that is for something else by now.
                Ok(Some(_)) | Err(_) => alive = false,
            }
        }
        if alive {
            self.renew_interest(number);
        } else {
            self.forget_client(number);
        }
    }

    fn renew_interest(&mut self, number: u64) {
        if let Some(client) = self.clients.get(&number) {
            self.poll.change(&client.stream, number, client.interest());
        }
    }

    /// Sends a reply; a client that cannot take it is forgotten.
    fn send(&mut self, number: u64, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.send(reply, None) {
            self.renew_interest(number);
        } else {
            self.forget_client(number);
        }
    }

    fn forget_client(&mut self, number: u64) {
        let Some(client) = self.clients.remove(&number) else { return };
        self.poll.remove(&client.stream, number);
        match client.mode {
            Mode::Asking | Mode::Subscribed => {}
            Mode::Exec(pid) => {
                // The process leads a session of its own, so this takes its children too unless they left the group.
                let group = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
            }
            Mode::Attached(container) => self.detach(container, number),
        }
    }

    /// The pod as clients see it.
    fn status(&self) -> PodStatus {
        PodStatus {
            uid: self.pod.config.uid.clone(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            containers: self.containers.iter().map(Container::status).collect(),
        }
    }

    fn tell(&mut self, event: &Event) {
        let subscribed: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.mode == Mode::Subscribed)
            .map(|(number, _)| *number)
            .collect();
        for number in subscribed {
            self.send(number, &Reply::Event(event.clone()));
        }
    }

    /// Takes the end of every child that has one: first processes, exec'd ones, and orphans of either.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(end) = end_of(status) {
                self.process_ended(pid.as_raw_nonzero().get(), end);
            }
        }
    }

    fn process_ended(&mut self, pid: i32, end: End) {
        let now = time::now();
        if let Some(container) =
            self.containers.iter_mut().find(|container| container.first_process() == Some(pid))
        {
            container.first_process_ended(end, now);
            return;
        }
        let waiting = self
            .clients
            .iter()
            .find(|(_, client)| client.mode == Mode::Exec(pid))
            .map(|(number, _)| *number);
        if let Some(number) = waiting {
            if let Some(client) = self.clients.get_mut(&number) {
                // Nothing is left to be killed when the client goes.
                client.mode = Mode::Subscribed;
            }
            self.send(number, &Reply::ExecExited(ExecExit { code: end.code, signal: end.signal }));
            if let Some(client) = self.clients.get_mut(&number) {
                client.mode = Mode::Asking;
            }
        }
    }

    /// Completes what could not be completed at once.
    fn settle(&mut self) {
        self.leftovers.retain(|group| !group.remove());
        for index in 0..self.containers.len() {
            let Some(container) = self.containers.get(index) else { return };
            let Some(exit) = container.record() else { continue };
            let number = container.number;
            // Every writer is gone: what the pipes hold now is all there will be.
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.drain(number, stream);
            }
            let Some(container) = self.containers.get_mut(index) else { return };
            let path = paths::exit_record(&self.pod.dir, &container.id);
            if let Err(error) = record::write(&path, &exit) {
                eprintln!("podium-shim: will try again: {}", failure::chain(&error));
                continue;
            }
            container.state = State::Exited(exit);
            let status = container.status();
            self.close_streams(number);
            self.tell(&Event::Changed(status));
        }
    }
}
