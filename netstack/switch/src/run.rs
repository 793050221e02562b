//! The switch's thread: waits for frames, connections and time, and hands them to the fabric and the gateway.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::capture::{Capture, Recorder};
use crate::dhcp::Lease;
use crate::fabric::{Delivery, Fabric, LinkCondition, PortId};
use crate::gateway::Gateway;
use crate::port::Port;
use crate::{PortConfig, SwitchConfig};

/// The largest datagram that QEMU sends: a full-sized frame of a card with offloads on.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024 + 64;
/// Frames taken from one port before the others get their turn.
const BURST: usize = 64;

/// Why a switch could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// A VM's socket could not be made; the path is in the message.
    #[error("bind the switch's socket {}", .0.display())]
    Bind(std::path::PathBuf, #[source] io::Error),
    /// The gateway could not start.
    #[error("start the gateway")]
    Gateway(#[source] io::Error),
    /// A port-forward's host port is taken, or may not be used.
    #[error("listen on 127.0.0.1:{0}")]
    Forward(u16, #[source] io::Error),
    /// The switch's thread has ended.
    #[error("the switch has stopped")]
    Stopped,
}

/// What the switch has moved and lost since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames delivered to VMs and the gateway.
    pub delivered: AtomicU64,
    /// Frames lost because a VM did not read them, or was off.
    pub dropped: AtomicU64,
}

enum Command {
    Forward(u16, Vec<SocketAddrV4>, mpsc::Sender<io::Result<SocketAddr>>),
    Condition(PortId, PortId, LinkCondition),
    Lease(Vec<Lease>),
    Record(Recorder),
    Stop,
}

/// A running switch; dropping it stops it.
#[derive(Debug)]
pub struct Switch {
    commands: mpsc::Sender<Command>,
    waker: UnixDatagram,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
    gateway_port: PortId,
    started: SystemTime,
}

impl Switch {
    /// Binds every port and starts the switch's thread. VM `i` of `config.ports` is [`PortId`]`(i)`.
    ///
    /// # Errors
    /// A socket cannot be bound.
    pub fn start(config: &SwitchConfig) -> Result<Self, SwitchError> {
        let bind = |port: &PortConfig| {
            Port::bind(port).map_err(|error| SwitchError::Bind(port.switch_path.clone(), error))
        };
        let ports = config.ports.iter().map(bind).collect::<Result<Vec<Port>, _>>()?;
        let gateway = Gateway::new(config).map_err(SwitchError::Gateway)?;
        let (waker, woken) = wake_pair().map_err(SwitchError::Gateway)?;
        let (commands, orders) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let gateway_port = PortId(ports.len());
        let mut worker = Worker {
            fabric: Fabric::new(ports.len() + 1, config.seed),
            ports,
            gateway,
            gateway_port,
            orders,
            woken,
            started: Instant::now(),
            recorders: Vec::new(),
            counters: Arc::clone(&counters),
        };
        let started = SystemTime::now();
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || worker.run())
            .map_err(SwitchError::Gateway)?;
        Ok(Self { commands, waker, counters, thread: Some(thread), gateway_port, started })
    }

    /// The gateway's port, for link conditions between it and a VM.
    #[must_use]
    pub fn gateway_port(&self) -> PortId {
        self.gateway_port
    }

    /// What has passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Opens 127.0.0.1:`host_port` (0: any free port) as a way to `guest`, and returns the address.
    ///
    /// # Errors
    /// The port is taken, or the switch has stopped.
    pub fn forward(&self, host_port: u16, guest: SocketAddrV4) -> Result<SocketAddr, SwitchError> {
        self.forward_to_any(host_port, vec![guest])
    }

    /// [`Self::forward`], to whichever of `guests` takes the connection: the one that took the last one is asked first, and
    /// the next when it refuses or stays silent.
    ///
    /// # Errors
    /// The port is taken, or the switch has stopped.
    pub fn forward_to_any(
        &self,
        host_port: u16,
        guests: Vec<SocketAddrV4>,
    ) -> Result<SocketAddr, SwitchError> {
        let (reply, answer) = mpsc::channel();
        self.order(Command::Forward(host_port, guests, reply))?;
        let bound = answer.recv().map_err(|_| SwitchError::Stopped)?;
        bound.map_err(|error| SwitchError::Forward(host_port, error))
    }

    /// Sets what happens to frames from one port to another, in that direction only.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn set_condition(
        &self,
        from: PortId,
        to: PortId,
        condition: LinkCondition,
    ) -> Result<(), SwitchError> {
        self.order(Command::Condition(from, to, condition))
    }

    /// Changes whom DHCP gives which address and name. Forwards follow their machine; a machine learns of it when it asks
    /// again: at its next boot, or when half of its lease has passed.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn lease(&self, leases: Vec<Lease>) -> Result<(), SwitchError> {
        self.order(Command::Lease(leases))
    }

    /// Captures what passes between two of `ports` from now on, until the capture is dropped.
    ///
    /// # Errors
    /// The switch has stopped.
    pub fn capture(&self, ports: impl IntoIterator<Item = PortId>) -> Result<Capture, SwitchError> {
        let (recorder, capture) = Recorder::new(ports.into_iter().collect(), self.started);
        self.order(Command::Record(recorder))?;
        Ok(capture)
    }

    fn order(&self, command: Command) -> Result<(), SwitchError> {
        self.commands.send(command).map_err(|_| SwitchError::Stopped)?;
        // A full wake socket means that the thread will wake anyway.
        let _ = self.waker.send(&[0]);
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.order(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wake_pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (waker, woken) = UnixDatagram::pair()?;
    waker.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((waker, woken))
}

struct Worker {
    fabric: Fabric,
    ports: Vec<Port>,
    gateway: Gateway,
    gateway_port: PortId,
    orders: mpsc::Receiver<Command>,
    woken: UnixDatagram,
    started: Instant,
    recorders: Vec<Recorder>,
    counters: Arc<Counters>,
}

impl Worker {
    fn run(&mut self) {
        let mut leaving = Vec::new();
        while self.obey() {
            let now = self.started.elapsed();
            self.take_frames(now);
            self.gateway.turn(now, &mut leaving);
            let mut out = Vec::new();
            for frame in leaving.drain(..) {
                self.fabric.receive(now, self.gateway_port, &frame, &mut out);
            }
            self.fabric.release(now, &mut out);
            let answered = out.iter().any(|delivery| delivery.to == self.gateway_port);
            self.deliver(now, out);
            if !answered {
                self.wait();
            }
        }
    }

    /// `false`: stop.
    fn obey(&mut self) -> bool {
        let mut byte = [0; 1];
        while self.woken.recv(&mut byte).is_ok() {}
        loop {
            match self.orders.try_recv() {
                Ok(Command::Forward(host_port, guests, reply)) => {
                    let _ = reply.send(self.gateway.forward(host_port, guests));
                }
                Ok(Command::Condition(from, to, condition)) => {
                    self.fabric.set_condition(from, to, condition);
                }
                Ok(Command::Lease(leases)) => self.gateway.lease_anew(leases),
                Ok(Command::Record(recorder)) => self.recorders.push(recorder),
                Err(mpsc::TryRecvError::Empty) => return true,
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_frames(&mut self, now: Duration) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        for index in 0..self.ports.len() {
            let mut out = Vec::new();
            for _ in 0..BURST {
                let Some(frame) = self.ports[index].receive(&mut buffer) else { break };
                self.fabric.receive(now, PortId(index), frame, &mut out);
            }
            self.ports[index].flush();
            self.deliver(now, out);
        }
    }

    fn deliver(&mut self, now: Duration, frames: Vec<Delivery>) {
        self.counters.delivered.fetch_add(frames.len() as u64, Ordering::Relaxed);
        self.recorders.retain(Recorder::is_wanted);
        for delivery in frames {
            self.recorders.iter().for_each(|recorder| recorder.record(now, &delivery));
            if delivery.to == self.gateway_port {
                self.gateway.receive(delivery.frame);
            } else if let Some(port) = self.ports.get_mut(delivery.to.0) {
                port.send(delivery.frame);
            }
        }
        let dropped = self.ports.iter().map(|port| port.dropped).sum();
        self.counters.dropped.store(dropped, Ordering::Relaxed);
    }

    /// Until something can be done: a frame, a connection, room to write, an order, or a time that has come.
    fn wait(&mut self) {
        let now = self.started.elapsed();
        let release = self.fabric.next_release().map(|due| due.saturating_sub(now));
        let idle = self.gateway.idle_for(now).into_iter().chain(release).min();
        let timeout = idle.and_then(|idle| Timespec::try_from(idle).ok());
        let mut fds = vec![PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN)];
        for port in &self.ports {
            fds.push(PollFd::from_borrowed_fd(port.arriving(), PollFlags::IN));
            fds.extend(port.leaving().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        }
        for interest in self.gateway.interests() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.read);
            flags.set(PollFlags::OUT, interest.write);
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(interest.fd, flags));
            }
        }
        // An interrupted wait is a short wait.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}
