//! Containers' standard streams: read and logged, copied to whoever is attached, fed from them.

use std::io;
use std::os::fd::OwnedFd;

use podium_shim_protocol::{Failure, FailureKind, Reply};
use rustix::event::epoll::EventFlags;

use super::Server;
use crate::attach::{Attachment, Input};
use crate::client::Mode;
use crate::container::{Container, Output, State};
use crate::log::Stream;
use crate::poll::Source;
use crate::{failure, time};

impl Server {
    /// Puts a new container's streams into the poll set.
    pub(super) fn watch_streams(
        &mut self,
        container: &mut Container,
        outputs: Vec<(Stream, OwnedFd)>,
        input: Option<OwnedFd>,
    ) -> io::Result<()> {
        for (stream, fd) in outputs {
            let number =
                self.poll.add(&fd, Source::Output(container.number, stream), EventFlags::IN)?;
            container.outputs.push(Output { number, stream, fd });
        }
        if let Some(fd) = input {
            let number =
                self.poll.add(&fd, Source::Input(container.number), EventFlags::empty())?;
            container.input = Some(Input::new(number, fd));
        }
        Ok(())
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.containers.iter().position(|container| container.number == number)
    }

    /// A container wrote.
    pub(super) fn pump(&mut self, number: u64, stream: Stream) {
        let Some(index) = self.index(number) else { return };
        if !self.containers[index].pump(stream, &mut self.buffer, time::now()) {
            self.close_output(number, stream);
        }
    }

    /// Reads everything that a stream holds, when nobody is left to write more.
    pub(super) fn drain(&mut self, number: u64, stream: Stream) {
        let Some(index) = self.index(number) else { return };
        while self.containers[index].has_output(stream)
            && self.containers[index].pump(stream, &mut self.buffer, time::now())
        {}
        self.close_output(number, stream);
    }

    fn close_output(&mut self, number: u64, stream: Stream) {
        let Some(index) = self.index(number) else { return };
        let outputs = &mut self.containers[index].outputs;
        let (ended, open): (Vec<_>, Vec<_>) =
            std::mem::take(outputs).into_iter().partition(|output| output.stream == stream);
        *outputs = open;
        for output in ended {
            self.poll.remove(&output.fd, output.number);
        }
    }

    /// A container has ended: closes its input and lets attached clients go.
    pub(super) fn close_streams(&mut self, number: u64) {
        let Some(index) = self.index(number) else { return };
        self.close_input(index);
        self.containers[index].terminal = None;
        let attached: Vec<u64> =
            self.containers[index].attachments.iter().map(|attachment| attachment.client).collect();
        for client in attached {
            self.forget_client(client);
        }
    }

    fn close_input(&mut self, index: usize) {
        if let Some(input) = self.containers[index].input.take() {
            self.poll.remove(&input.fd, input.number);
        }
    }

    pub(super) fn attach(&mut self, client: u64, id: &str) -> Result<Reply, Failure> {
        let fds =
            self.clients.get_mut(&client).map(crate::client::Client::take_fds).unwrap_or_default();
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(failure::new(FailureKind::InvalidConfig, "attach needs three descriptors"));
        };
        let container = self.container(id)?;
        if !matches!(container.state, State::Created { .. } | State::Running { .. }) {
            return Err(failure::new(
                FailureKind::WrongState,
                format!("container {id:?} is not running"),
            ));
        }
        let (number, wants_input) = (container.number, container.input.is_some());
        for fd in [&stdin, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true)
                .map_err(|error| failure::of(FailureKind::System, &error))?;
        }
        let mut watched = None;
        if wants_input {
            // Refused by epoll for regular files and /dev/null: they have nothing to wait for, and nothing is read from them.
            watched = self
                .poll
                .add(&stdin, Source::Attached(client), EventFlags::IN)
                .ok()
                .map(|at| (at, stdin));
        }
        let container = self.container(id)?;
        container.attachments.push(Attachment::new(client, watched, stdout, stderr));
        self.set_mode(client, Mode::Attached(number));
        Ok(Reply::Done)
    }

    /// An attached client is gone.
    pub(super) fn detach(&mut self, number: u64, client: u64) {
        let Some(index) = self.index(number) else { return };
        let attachments = &mut self.containers[index].attachments;
        let Some(position) = attachments.iter().position(|attachment| attachment.client == client)
        else {
            return;
        };
        let attachment = attachments.remove(position);
        if let Some((at, stdin)) = attachment.stdin {
            self.poll.remove(&stdin, at);
            self.input_source_ended(index);
        }
    }

    /// Nobody types any more: standard input ends if it was to serve one client only.
    fn input_source_ended(&mut self, index: usize) {
        let once = self.containers[index].stdio.stdin_once;
        let Some(input) = self.containers[index].input.as_mut().filter(|_| once) else { return };
        input.closing = true;
        let number = self.containers[index].number;
        self.feed(number);
    }

    /// An attached client has typed something, or has closed its side.
    pub(super) fn take_typed(&mut self, client: u64) {
        let Some(Mode::Attached(number)) = self.clients.get(&client).map(|client| client.mode)
        else {
            return;
        };
        let Some(index) = self.index(number) else { return };
        let container = &mut self.containers[index];
        let Some(attachment) =
            container.attachments.iter_mut().find(|attachment| attachment.client == client)
        else {
            return;
        };
        let Some((at, stdin)) = &attachment.stdin else { return };
        match rustix::io::read(stdin, &mut self.buffer[..4096]) {
            Ok(0) | Err(rustix::io::Errno::IO) => {
                if let Some((at, stdin)) = attachment.stdin.take() {
                    self.poll.remove(&stdin, at);
                }
                self.input_source_ended(index);
            }
            Ok(length) => {
                let Some(input) = &mut container.input else { return };
                input.push(&self.buffer[..length]);
                // One piece at a time: what is typed waits in its own pipe until the container takes it.
                self.poll.change(stdin, *at, EventFlags::empty());
                self.feed(number);
            }
            Err(_) => {}
        }
    }

    /// A container can take more standard input.
    pub(super) fn feed(&mut self, number: u64) {
        let Some(index) = self.index(number) else { return };
        let container = &mut self.containers[index];
        let Some(input) = &mut container.input else { return };
        if input.flush().is_err() || (input.closing && input.is_drained()) {
            self.close_input(index);
            return;
        }
        let drained = input.is_drained();
        let (writing, typing) = if drained {
            (EventFlags::empty(), EventFlags::IN)
        } else {
            (EventFlags::OUT, EventFlags::empty())
        };
        self.poll.change(&input.fd, input.number, writing);
        for attachment in &container.attachments {
            if let Some((at, stdin)) = &attachment.stdin {
                self.poll.change(stdin, *at, typing);
            }
        }
    }
}
