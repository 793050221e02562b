//! What each request does.

use podium_shim_protocol::{
    ContainerConfig, Event, ExecConfig, Failure, FailureKind, Reply, Request, TerminalSize,
};

use super::Server;
use crate::client::Mode;
use crate::container::{Container, State, signal};
use crate::create::{Folder, state_root};
use crate::log::Log;
use crate::{create, exec, failure, terminal, time};

impl Server {
    /// Answers a request. False if the client is to be forgotten.
    pub(super) fn answer(&mut self, number: u64, request: Request) -> bool {
        let result = match request {
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Subscribe => {
                let status = self.status();
                self.set_mode(number, Mode::Subscribed);
                Ok(Reply::Status(status))
            }
            Request::Create(config) => self.create(*config),
            Request::Start { id } => self.start(&id),
            Request::Signal { id, signal, all } => self.signal(&id, signal, all),
            Request::Remove { id } => self.remove(&id),
            Request::Exec(config) => return self.exec(number, &config),
            Request::Resize { id, size } => self.resize(&id, size),
            Request::StopPod => self.stop_pod(),
            Request::Shutdown => self.shut_down(),
            Request::Attach { id } => self.attach(number, &id),
        };
        // Requests that take descriptors have taken them.
        let reply = result.unwrap_or_else(Reply::Failed);
        let Some(client) = self.clients.get_mut(&number) else { return false };
        drop(client.take_fds());
        client.send(&reply, None)
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: Mode) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.mode = mode;
        }
    }

    pub(super) fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.iter_mut().find(|container| container.id == id).ok_or_else(|| {
            failure::new(FailureKind::NotFound, format!("there is no container {id:?}"))
        })
    }

    fn create(&mut self, config: ContainerConfig) -> Result<Reply, Failure> {
        if self.containers.iter().any(|container| container.id == config.id) {
            return Err(failure::new(
                FailureKind::AlreadyExists,
                format!("container {:?} exists", config.id),
            ));
        }
        let created = create::create(&self.pod, &config, &mut self.leftovers)?;
        let pid = created.pid;
        // A leftover of the same name is this container's group now.
        self.leftovers.retain(|group| group.path() != created.group.path());
        let path = std::path::Path::new(&self.pod.config.log_dir).join(&config.log_path);
        let log = Log::open(path, self.pod.config.log_limits);
        let number = self.poll.number();
        let parts = (pid, created.group, created.runtime);
        let mut container = Container::new(number, config, parts, log, time::now());
        container.terminal = created.terminal;
        let watched = self.watch_streams(&mut container, created.outputs, created.input);
        let status = container.status();
        self.containers.push(container);
        if let Err(error) = watched {
            // Without its streams it must not run. Its end is noticed like any other.
            if let Some(container) = self.containers.last() {
                let _ = container.group.kill();
            }
            return Err(failure::of(FailureKind::System, &error));
        }
        self.tell(&Event::Changed(status));
        Ok(Reply::Created { pid })
    }

    fn start(&mut self, id: &str) -> Result<Reply, Failure> {
        let container = self.container(id)?;
        container.start(time::now())?;
        let status = container.status();
        self.tell(&Event::Changed(status));
        Ok(Reply::Done)
    }

    fn signal(&mut self, id: &str, number: i32, all: bool) -> Result<Reply, Failure> {
        let container = self.container(id)?;
        if all {
            container.group.kill().map_err(|error| failure::of(FailureKind::System, &error))?;
        } else if let Some(pid) = container.first_process() {
            signal(pid, number).map_err(|error| failure::of(FailureKind::InvalidConfig, &error))?;
        }
        Ok(Reply::Done)
    }

    fn remove(&mut self, id: &str) -> Result<Reply, Failure> {
        let Some(index) = self.containers.iter().position(|container| container.id == id) else {
            return Ok(Reply::Done);
        };
        let State::Exited(_) = self.containers[index].state else {
            let message = format!("container {id:?} has not ended");
            return Err(failure::new(FailureKind::WrongState, message));
        };
        let container = self.containers.remove(index);
        if !container.group.remove() {
            self.leftovers.push(container.group);
        }
        Folder::of(&self.pod, id).clear(&state_root(&self.pod).join(id));
        self.tell(&Event::Removed { id: id.to_owned() });
        Ok(Reply::Done)
    }

    /// Answers by itself, since the reply may carry a terminal.
    fn exec(&mut self, number: u64, config: &ExecConfig) -> bool {
        let Some(client) = self.clients.get_mut(&number) else { return false };
        let stdio = client.take_fds();
        let started = match self.container(&config.container).map(|container| container.state) {
            Ok(State::Running { .. }) => exec::start(&self.pod, config, stdio),
            Ok(State::Created { .. } | State::Ending { .. } | State::Exited(_)) => {
                Err(failure::new(
                    FailureKind::WrongState,
                    format!("container {:?} is not running", config.container),
                ))
            }
            Err(failure) => Err(failure),
        };
        let Some(client) = self.clients.get_mut(&number) else { return false };
        match started {
            Ok(started) => {
                client.mode = Mode::Exec(started.pid);
                client.send(&Reply::ExecStarted { pid: started.pid }, started.terminal)
            }
            Err(failure) => client.send(&Reply::Failed(failure), None),
        }
    }

    fn resize(&mut self, id: &str, size: TerminalSize) -> Result<Reply, Failure> {
        let container = self.container(id)?;
        let Some(master) = &container.terminal else {
            return Err(failure::new(
                FailureKind::WrongState,
                format!("container {id:?} has no terminal"),
            ));
        };
        terminal::resize(master, size).map_err(|error| failure::of(FailureKind::System, &error))?;
        Ok(Reply::Done)
    }

    fn stop_pod(&mut self) -> Result<Reply, Failure> {
        for container in &self.containers {
            container.group.kill().map_err(|error| failure::of(FailureKind::System, &error))?;
        }
        Ok(Reply::Done)
    }

    fn shut_down(&mut self) -> Result<Reply, Failure> {
        if self.containers.iter().any(|container| !matches!(container.state, State::Exited(_))) {
            return Err(failure::new(FailureKind::WrongState, "a container has not ended"));
        }
        for container in std::mem::take(&mut self.containers) {
            let _ = container.group.remove();
            Folder::of(&self.pod, &container.id).clear(&state_root(&self.pod).join(&container.id));
        }
        if !self.pod.config.host_ipc {
            let _ = rustix::mount::unmount(&self.pod.shm, rustix::mount::UnmountFlags::DETACH);
        }
        self.ending = true;
        Ok(Reply::Done)
    }
}
