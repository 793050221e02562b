//! Shims without containers: they speak the protocol, and keep processes that exist in their books only.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use podium_agent::{BoxFuture, LaunchError, ShimLauncher};
use podium_shim_protocol::frame::{self, Decoder};
use podium_shim_protocol::{
    ContainerConfig, ContainerState, ContainerStatus, Event, ExecConfig, ExecExit, ExitRecord,
    Failure, FailureKind, PodConfig, PodStatus, Reply, Request, WallTime, paths, record,
};

/// All shims of one node; they outlive the agent, as shims do.
#[derive(Clone, Default)]
pub(crate) struct Shims(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    shims: BTreeMap<PathBuf, Arc<Shim>>,
    launches: usize,
}

struct Shim {
    dir: PathBuf,
    config: PodConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: bool,
    containers: Vec<(ContainerConfig, ContainerStatus)>,
    subscribers: Vec<UnixStream>,
    signals: Vec<(String, i32)>,
}

impl ShimLauncher for Shims {
    fn launch<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<(), LaunchError>> {
        Box::pin(async move {
            let config: PodConfig = record::read(&paths::pod_config(dir))
                .ok()
                .flatten()
                .ok_or_else(|| LaunchError("no pod.bin".to_owned()))?;
            let listener = UnixListener::bind(paths::socket(dir))
                .map_err(|error| LaunchError(error.to_string()))?;
            let shim = Arc::new(Shim { dir: dir.to_owned(), config, state: Mutex::default() });
            let mut inner = self.0.lock().expect("a lock");
            inner.launches += 1;
            inner.shims.insert(dir.to_owned(), Arc::clone(&shim));
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shim.state.lock().expect("a lock").dead {
                        return;
                    }
                    let shim = Arc::clone(&shim);
                    thread::spawn(move || shim.serve(&stream));
                }
            });
            Ok(())
        })
    }
}

impl Shims {
    pub(crate) fn launches(&self) -> usize {
        self.0.lock().expect("a lock").launches
    }

    fn shim(&self, dir: &Path) -> Arc<Shim> {
        Arc::clone(self.0.lock().expect("a lock").shims.get(dir).expect("a shim"))
    }

    /// A container ends by itself.
    pub(crate) fn exit(&self, dir: &Path, id: &str, code: i32) {
        self.shim(dir).end(id, code, None);
    }

    /// The shim dies without a word.
    pub(crate) fn kill(&self, dir: &Path) {
        let shim = self.shim(dir);
        let mut state = shim.state.lock().expect("a lock");
        state.dead = true;
        state.containers.clear();
        for subscriber in state.subscribers.drain(..) {
            let _closed = subscriber.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        // Wakes the listener, which then goes.
        let _gone = UnixStream::connect(paths::socket(dir));
        let _gone = fs::remove_file(paths::socket(dir));
    }

    /// What a container was made from.
    pub(crate) fn config(&self, dir: &Path, id: &str) -> ContainerConfig {
        let shim = self.shim(dir);
        let state = shim.state.lock().expect("a lock");
        state.containers.iter().find(|(config, _)| config.id == id).expect("a container").0.clone()
    }

    /// The instances that a shim knows.
    pub(crate) fn ids(&self, dir: &Path) -> Vec<String> {
        self.shim(dir).ids()
    }

    /// Signals that were sent to first processes.
    pub(crate) fn signals(&self, dir: &Path) -> Vec<(String, i32)> {
        self.shim(dir).state.lock().expect("a lock").signals.clone()
    }
}

impl Shim {
    fn serve(&self, stream: &UnixStream) {
        let mut decoder = Decoder::default();
        loop {
            let request = match decoder.next_message::<Request>() {
                Ok(Some(request)) => request,
                Ok(None) => match decoder.receive(stream) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                },
                Err(_) => return,
            };
            let reply = match request {
                Request::Exec(config) => {
                    self.exec(stream, &config, &mut decoder);
                    return;
                }
                Request::Subscribe => {
                    // The status and the events that follow it must have no gap between them.
                    let mut state = self.state.lock().expect("a lock");
                    send(stream, &Reply::Status(self.status(&state)));
                    state.subscribers.push(stream.try_clone().expect("a descriptor"));
                    continue;
                }
                request => self.answer(request),
            };
            send(stream, &reply);
        }
    }

    fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Status => Reply::Status(self.status(&self.state.lock().expect("a lock"))),
            Request::Create(config) => self.create(*config),
            Request::Start { id } if self.is_broken(&id) => {
                let message = format!("{id} cannot be started");
                Reply::Failed(Failure { kind: FailureKind::System, message })
            }
            Request::Start { id } => {
                self.change(&id, ContainerState::Running { pid: 7, started_at: now() });
                Reply::Done
            }
            Request::Signal { id, signal, .. } => {
                self.state.lock().expect("a lock").signals.push((id.clone(), signal));
                if signal == 9 {
                    self.end_created(&id);
                }
                self.end(&id, 128 + signal, Some(signal));
                Reply::Done
            }
            Request::Remove { id } if self.is_alive(&id) => {
                let message = format!("{id} has not ended");
                Reply::Failed(Failure { kind: FailureKind::WrongState, message })
            }
            Request::Remove { id } => {
                self.state.lock().expect("a lock").containers.retain(|(config, _)| config.id != id);
                Reply::Done
            }
            Request::StopPod => {
                for id in self.ids() {
                    self.end(&id, 137, Some(9));
                }
                Reply::Done
            }
            Request::Shutdown => {
                let mut state = self.state.lock().expect("a lock");
                state.dead = true;
                for subscriber in state.subscribers.drain(..) {
                    let _closed = subscriber.shutdown(std::net::Shutdown::Both);
                }
                Reply::Done
            }
            Request::Resize { .. }
            | Request::Attach { .. }
            | Request::Subscribe
            | Request::Exec(_) => {
                Reply::Failed(Failure { kind: FailureKind::System, message: "not here".to_owned() })
            }
        }
    }

    fn create(&self, config: ContainerConfig) -> Reply {
        assert!(Path::new(&config.upper_dir).is_dir() && Path::new(&config.work_dir).is_dir());
        for mount in &config.mounts {
            assert!(Path::new(&mount.source).exists(), "{} does not exist", mount.source);
        }
        let failure = match config.args.first().map(String::as_str) {
            Some("missing") => Some((
                FailureKind::CannotExecute,
                "exec: \"missing\": executable file not found in $PATH",
            )),
            Some("root") => Some((
                FailureKind::WouldRunAsRoot,
                "container has runAsNonRoot and image will run as root",
            )),
            _ => None,
        };
        if let Some((kind, message)) = failure {
            return Reply::Failed(Failure { kind, message: message.to_owned() });
        }
        fs::create_dir_all(paths::container(&self.dir, &config.id)).expect("a folder");
        let status = ContainerStatus {
            id: config.id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: ContainerState::Created { pid: 7 },
            created_at: now(),
            log_bytes_lost: 0,
        };
        let log = Path::new(&self.config.log_dir).join(&config.log_path);
        fs::create_dir_all(log.parent().expect("a folder")).expect("a folder");
        fs::write(log, format!("2026-11-21T10:00:00Z stdout F hello from {}\n", config.id))
            .expect("a log");
        let mut state = self.state.lock().expect("a lock");
        tell(&mut state, &status);
        state.containers.push((config, status));
        Reply::Created { pid: 7 }
    }

    fn end(&self, id: &str, code: i32, signal: Option<i32>) {
        let state = self.state.lock().expect("a lock");
        let found = state
            .containers
            .iter()
            .find(|(config, _)| config.id == id)
            .map(|(_, status)| status.state.clone());
        drop(state);
        if let Some(ContainerState::Running { started_at, .. }) = found {
            let exit = ExitRecord {
                code,
                signal,
                oom_killed: false,
                started_at: Some(started_at),
                finished_at: now(),
            };
            record::write(&paths::exit_record(&self.dir, id), &exit).expect("a record");
            self.change(id, ContainerState::Exited(exit));
        }
    }

    fn change(&self, id: &str, to: ContainerState) {
        let mut state = self.state.lock().expect("a lock");
        let Some((_, status)) = state.containers.iter_mut().find(|(config, _)| config.id == id)
        else {
            return;
        };
        status.state = to;
        let status = status.clone();
        tell(&mut state, &status);
    }

    /// Runs the command on the machine of the test, on the descriptors that came with it.
    fn exec(&self, stream: &UnixStream, config: &ExecConfig, decoder: &mut Decoder) {
        let fds: Vec<OwnedFd> = std::iter::from_fn(|| decoder.take_fd()).collect();
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).expect("three descriptors");
        let (program, args) = config.args.split_first().expect("a program");
        let spawned = Command::new(program)
            .args(args)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let message = format!("exec: {program:?}: {error}");
                send(stream, &Reply::Failed(Failure { kind: FailureKind::CannotExecute, message }));
                return;
            }
        };
        send(stream, &Reply::ExecStarted { pid: 8 });
        let status = child.wait().expect("an end");
        send(
            stream,
            &Reply::ExecExited(ExecExit { code: status.code().unwrap_or(137), signal: None }),
        );
        // The connection is the client's to close.
        let _end = (&mut &*stream).read(&mut [0]);
    }

    /// Its command says that it can be created and not started.
    fn is_broken(&self, id: &str) -> bool {
        let state = self.state.lock().expect("a lock");
        let found = state.containers.iter().find(|(config, _)| config.id == id);
        found.is_some_and(|(config, _)| {
            config.args.first().is_some_and(|program| program == "broken")
        })
    }

    fn is_alive(&self, id: &str) -> bool {
        let state = self.state.lock().expect("a lock");
        let found = state.containers.iter().find(|(config, _)| config.id == id);
        found.is_some_and(|(_, status)| !matches!(status.state, ContainerState::Exited(_)))
    }

    fn end_created(&self, id: &str) {
        let state = self.state.lock().expect("a lock");
        let found = state.containers.iter().find(|(config, _)| config.id == id);
        let created =
            found.is_some_and(|(_, status)| matches!(status.state, ContainerState::Created { .. }));
        drop(state);
        if created {
            let exit = ExitRecord {
                code: 137,
                signal: Some(9),
                oom_killed: false,
                started_at: None,
                finished_at: now(),
            };
            record::write(&paths::exit_record(&self.dir, id), &exit).expect("a record");
            self.change(id, ContainerState::Exited(exit));
        }
    }

    fn ids(&self) -> Vec<String> {
        self.state
            .lock()
            .expect("a lock")
            .containers
            .iter()
            .map(|(config, _)| config.id.clone())
            .collect()
    }

    fn status(&self, state: &State) -> PodStatus {
        let containers = state.containers.iter().map(|(_, status)| status.clone()).collect();
        PodStatus { uid: self.config.uid.clone(), pid: 1, containers }
    }
}

fn tell(state: &mut State, status: &ContainerStatus) {
    state.subscribers.retain(|subscriber| {
        try_send(subscriber, &Reply::Event(Event::Changed(status.clone()))).is_ok()
    });
}

fn send(stream: &UnixStream, reply: &Reply) {
    let _gone = try_send(stream, reply);
}

fn try_send(stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let bytes = frame::encode(reply).expect("a frame");
    let mut sent = 0;
    while sent < bytes.len() {
        sent += frame::send(stream, bytes.get(sent..).unwrap_or_default(), &[])?;
    }
    Ok(())
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    WallTime {
        seconds: i64::try_from(since.as_secs()).expect("seconds"),
        nanoseconds: since.subsec_nanos(),
    }
}
