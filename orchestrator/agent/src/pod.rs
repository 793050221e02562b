//! The task of one pod: feeds its machine, and carries out what it says.
//!
//! Commands that build or take down the pod go to one queue and run in order; pulls, probes, hooks and signals run
//! beside it. What comes of a command returns to the task's inbox, so that the machine sees one thing after the other.

pub(crate) mod site;

use std::sync::Arc;
use std::time::Duration;

use podium_control::pod::{Instance, PodCommand, PodEvent, PodMachine, PodRecord};
use podium_shim_protocol as protocol;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::records;
use crate::reports::Reporter;
use crate::sandbox;
use crate::seams::PodRef;
use crate::shim::Subscription;
use site::Site;

/// How soon a record is written again that the disk refused.
const PERSIST_AGAIN: Duration = Duration::from_secs(5);

/// What reaches a pod's task.
#[derive(Debug)]
pub(crate) enum Input {
    /// For the machine.
    Event(PodEvent),
    /// An object that the pod refers to changed: files are brought up to date, and what waits for it tries again.
    References,
    /// Which instance of a container runs, and which was the newest.
    Ask(Question),
}

/// A question to the machine.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) container: String,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) running: Option<Instance>,
    pub(crate) newest: Option<u32>,
}

/// How a pod stands, for whom it concerns besides its own task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It holds something of the node.
    Busy,
    /// It holds nothing but its logs.
    Resting,
    /// Its task has ended.
    Gone,
}

/// A handle to a pod's task.
#[derive(Clone)]
pub(crate) struct PodHandle {
    pub(crate) site: Arc<Site>,
    pub(crate) inbox: mpsc::UnboundedSender<Input>,
    pub(crate) rest: watch::Receiver<Rest>,
}

impl PodHandle {
    pub(crate) fn send(&self, event: PodEvent) {
        // A task that has ended needs no events.
        let _ended = self.inbox.send(Input::Event(event));
    }

    /// Asks about a container; `None` if the task has ended.
    pub(crate) async fn ask(&self, container: &str) -> Option<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.inbox.send(Input::Ask(Question { container: container.to_owned(), answer })).ok()?;
        receiver.await.ok()
    }
}

/// Starts a pod's task. `begin` makes the machine; `subscription` is there for a shim that was adopted.
pub(crate) fn start(
    host: &Arc<Host>,
    site: Arc<Site>,
    subscription: Option<Subscription>,
    begin: impl FnOnce(&mut Vec<PodCommand>) -> PodMachine,
) -> PodHandle {
    let (inbox, receiver) = mpsc::unbounded_channel();
    let (rest_sender, rest) = watch::channel(Rest::Busy);
    let gone = inbox.clone();
    let reporter = Reporter::start(Arc::clone(host), site.name.clone(), move || {
        let _ended = gone.send(Input::Event(PodEvent::Removed));
    });
    let mut first = Vec::new();
    let machine = begin(&mut first);
    let builder = Builder::start(Arc::clone(&site), inbox.clone(), subscription);
    let task = Task {
        host: Arc::clone(host),
        site: Arc::clone(&site),
        machine,
        reporter,
        builder,
        inbox: inbox.clone(),
        unwritten: None,
        rest: rest_sender,
    };
    tokio::spawn(task.run(receiver, first));
    PodHandle { site, inbox, rest }
}

struct Task {
    host: Arc<Host>,
    site: Arc<Site>,
    machine: PodMachine,
    reporter: Reporter,
    builder: Builder,
    inbox: mpsc::UnboundedSender<Input>,
    /// A record that the disk refused.
    unwritten: Option<Box<PodRecord>>,
    rest: watch::Sender<Rest>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>, first: Vec<PodCommand>) {
        self.carry_out(first).await;
        while !self.machine.is_gone() {
            let wake = self.machine.next_wake().map(|at| self.host.instant(at));
            let rewrite =
                self.unwritten.is_some().then(|| tokio::time::Instant::now() + PERSIST_AGAIN);
            let wake = [wake, rewrite].into_iter().flatten().min();
            let asleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                input = inbox.recv() => input,
                () = asleep => Some(Input::Event(PodEvent::Tick)),
            };
            let Some(input) = input else { break };
            self.take(input).await;
        }
        self.rest.send_replace(Rest::Gone);
    }

    async fn take(&mut self, input: Input) {
        let event = match input {
            Input::Event(event) => event,
            Input::References => {
                self.builder.queue(Work::RefreshVolumes);
                PodEvent::ReferencesChanged
            }
            Input::Ask(Question { container, answer }) => {
                let known = Answer {
                    running: self.machine.running_instance(&container),
                    newest: self.machine.newest_attempt(&container),
                };
                // Whoever asked may be gone.
                let _gone = answer.send(known);
                return;
            }
        };
        if let PodEvent::Desired(pod) = &event {
            self.site.set_pod(Arc::clone(pod));
        }
        if let Some(record) = self.unwritten.take() {
            self.persist(record).await;
        }
        let mut out = Vec::new();
        self.machine.step(self.host.now(), event, &mut out);
        self.carry_out(out).await;
    }

    async fn carry_out(&mut self, commands: Vec<PodCommand>) {
        for command in commands {
            match command {
                PodCommand::Persist(record) => self.persist(record).await,
                PodCommand::ReportStatus(status) => self.reporter.report(*status),
                PodCommand::Record(occurrence) => {
                    self.host.seams.events.record(&self.site.name, &occurrence);
                }
                PodCommand::DeleteObject => self.reporter.delete(),
                PodCommand::Forget => self.site.forget().await,
                PodCommand::PrepareVolumes
                | PodCommand::StartSandbox
                | PodCommand::AttachNetwork
                | PodCommand::RunInstance(_)
                | PodCommand::RemoveInstance(_)
                | PodCommand::StopSandbox
                | PodCommand::DetachNetwork
                | PodCommand::RemoveVolumes => self.builder.queue(Work::Command(command)),
                PodCommand::InspectImage { .. }
                | PodCommand::PullImage { .. }
                | PodCommand::RunHook { .. }
                | PodCommand::RunProbe { .. }
                | PodCommand::StopInstance { .. }
                | PodCommand::WithdrawEndpoint => self.beside(command),
            }
        }
        let rest = if self.machine.is_at_rest() { Rest::Resting } else { Rest::Busy };
        self.rest.send_if_modified(|known| std::mem::replace(known, rest) != rest);
    }

    /// Runs a command that needs no order.
    fn beside(&self, command: PodCommand) {
        let (site, inbox) = (Arc::clone(&self.site), self.inbox.clone());
        tokio::spawn(async move {
            if let Some(event) = site.run_beside(command).await {
                let _ended = inbox.send(Input::Event(event));
            }
        });
    }

    /// Writes the record before anything that follows. A full disk must not stop a pod from being stopped, so the
    /// task goes on and writes the record as soon as there is room.
    async fn persist(&mut self, record: Box<PodRecord>) {
        let dir = self.host.config.pod_dir(&self.site.name.uid);
        let copy = record.clone();
        let written = tokio::task::spawn_blocking(move || records::write(&dir, &copy)).await;
        match written {
            Ok(Ok(())) => self.unwritten = None,
            Ok(Err(error)) => {
                tracing::error!(pod = %self.site.name, error = sandbox::describe(&error), "the pod's record waits for the disk");
                self.unwritten = Some(record);
            }
            Err(error) => {
                tracing::error!(pod = %self.site.name, %error, "writing the pod's record was broken off");
            }
        }
    }
}

/// What the queue holds.
#[derive(Debug)]
enum Work {
    /// For the machine, which waits for an answer.
    Command(PodCommand),
    /// Files from objects are brought up to date; nobody waits.
    RefreshVolumes,
}

/// The queue of what builds and takes down the pod.
struct Builder {
    commands: mpsc::UnboundedSender<Work>,
}

impl Builder {
    fn start(
        site: Arc<Site>,
        inbox: mpsc::UnboundedSender<Input>,
        subscription: Option<Subscription>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        tokio::spawn(build(site, inbox, subscription, receiver));
        Self { commands }
    }

    fn queue(&self, work: Work) {
        // The queue ends with its task.
        let _ended = self.commands.send(work);
    }
}

async fn build(
    site: Arc<Site>,
    inbox: mpsc::UnboundedSender<Input>,
    subscription: Option<Subscription>,
    mut commands: mpsc::UnboundedReceiver<Work>,
) {
    let mut listener = subscription.map(|subscription| listen(&site, &inbox, subscription));
    while let Some(work) = commands.recv().await {
        let event = match work {
            Work::Command(PodCommand::StartSandbox) => {
                let listening = listener.as_ref().is_some_and(|listener| !listener.is_finished());
                match site.start_sandbox(listening).await {
                    Ok(subscription) => {
                        if let Some((status, subscription)) = subscription {
                            announce(&site, &inbox, &status).await;
                            listener = Some(listen(&site, &inbox, subscription));
                        }
                        Some(PodEvent::SandboxStarted)
                    }
                    Err(message) => Some(PodEvent::SandboxFailed { message }),
                }
            }
            Work::Command(PodCommand::StopSandbox) => Some(match site.stop_sandbox().await {
                Ok(()) => {
                    drain(listener.take()).await;
                    PodEvent::SandboxStopped
                }
                Err(message) => PodEvent::TeardownFailed { message },
            }),
            Work::Command(command) => site.build(command).await,
            Work::RefreshVolumes => {
                site.refresh_volumes().await;
                None
            }
        };
        if let Some(event) = event
            && inbox.send(Input::Event(event)).is_err()
        {
            break;
        }
    }
    if let Some(listener) = listener {
        listener.abort();
    }
}

/// Waits until everything that an ended shim said has been passed on.
async fn drain(listener: Option<JoinHandle<()>>) {
    const LIMIT: Duration = Duration::from_secs(5);
    if let Some(mut listener) = listener
        && tokio::time::timeout(LIMIT, &mut listener).await.is_err()
    {
        listener.abort();
    }
}

/// Passes on what a shim says, until it ends.
fn listen(
    site: &Arc<Site>,
    inbox: &mpsc::UnboundedSender<Input>,
    mut subscription: Subscription,
) -> JoinHandle<()> {
    let (site, inbox) = (Arc::clone(site), inbox.clone());
    tokio::spawn(async move {
        loop {
            match subscription.next_event().await {
                Ok(protocol::Event::Changed(status)) => {
                    let event = site.event_of(&status).await;
                    if inbox.send(Input::Event(event)).is_err() {
                        return;
                    }
                }
                Ok(protocol::Event::Removed { .. }) => {}
                Err(error) => {
                    tracing::info!(pod = %site.name, error = sandbox::describe(&error), "the pod's shim has ended");
                    let _ended = inbox.send(Input::Event(PodEvent::SandboxLost));
                    return;
                }
            }
        }
    })
}

/// Passes on how things stand in a shim that was found running.
async fn announce(
    site: &Arc<Site>,
    inbox: &mpsc::UnboundedSender<Input>,
    status: &protocol::PodStatus,
) {
    for container in &status.containers {
        let event = site.event_of(container).await;
        let _ended = inbox.send(Input::Event(event));
    }
}

/// The pod that a task belongs to, for tables.
impl PodHandle {
    pub(crate) fn name(&self) -> &PodRef {
        &self.site.name
    }
}
