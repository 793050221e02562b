//! Where a rig's owner answers: status, faults, captures, and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use podium_qemu_tests::Capture;
use podium_qemu_tests::Cluster;
use podium_qemu_tests::console::Console;
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::{End, describe, machine_name};

use super::{SHUT_DOWN_LIMIT, Turn};
use crate::control::{Connection, Event, MachineStatus, Request, RigStatus};
use crate::progress::Boot;

/// A client that does not say what it wants is not waited for longer.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A rig and what its owner knows of it.
pub(super) struct Desk {
    pub(super) cluster: Cluster,
    machines: Vec<Heard>,
    /// The machines that are meant to be on.
    wanted: BTreeSet<u16>,
    captures: BTreeMap<u64, Capture>,
    next_capture: u64,
}

struct Heard {
    console: Console,
    boot: Boot,
    boots: u32,
}

impl Desk {
    pub(super) fn new(mut cluster: Cluster) -> Self {
        let wanted = cluster.on().into_iter().collect();
        let heard = |machine: &podium_qemu_tests::vm::Vm| Heard {
            console: Console::open(&machine.console()),
            boot: Boot::default(),
            boots: machine.boots(),
        };
        let machines = cluster.machines().iter().map(heard).collect();
        Self { cluster, machines, wanted, captures: BTreeMap::new(), next_capture: 1 }
    }

    /// What the machines have said since the last call.
    pub(super) fn hear(&mut self) -> Vec<(u16, String)> {
        let mut news = Vec::new();
        for (index, heard) in (0..).zip(&mut self.machines) {
            let machine = self.cluster.machine(index);
            if machine.boots() != heard.boots {
                heard.boots = machine.boots();
                heard.console = Console::open(&machine.console());
                heard.boot = Boot::default();
            }
            let lines = heard.console.lines();
            news.extend(lines.iter().filter_map(|line| Some((index, heard.boot.hear(line)?))));
        }
        news
    }

    /// What each machine's boot took.
    pub(super) fn boots(&self) -> impl Iterator<Item = &Boot> {
        self.machines.iter().map(|heard| &heard.boot)
    }

    /// A machine that is off though nobody has asked for it.
    pub(super) fn ended_by_itself(&mut self) -> Option<u16> {
        let on: BTreeSet<u16> = self.cluster.on().into_iter().collect();
        self.wanted.difference(&on).next().copied()
    }

    /// Answers one request.
    pub(super) fn answer(&mut self, client: &mut Connection) -> anyhow::Result<Turn> {
        client.stream().set_read_timeout(Some(REQUEST_LIMIT))?;
        let Some(request) = client.receive()? else { return Ok(Turn::Next) };
        let is_down = matches!(request, Request::Down { .. });
        let answer = self.obey(request);
        let ends = is_down && answer.is_ok();
        let _ = client.send(&answer.unwrap_or_else(|error| Event::Failed(format!("{error:#}"))));
        Ok(if ends { Turn::Down } else { Turn::Next })
    }

    fn obey(&mut self, request: Request) -> anyhow::Result<Event> {
        match request {
            Request::Status => Ok(Event::Status(self.status())),
            Request::Fault(fault) => self.inject(&fault).map(|()| Event::Done),
            Request::Capture { between } => self.capture(&between),
            Request::EndCapture { id, out } => self.end_capture(id, &out),
            Request::Down { force } => {
                let limit = if force { Duration::ZERO } else { SHUT_DOWN_LIMIT };
                self.cluster.shut_down(limit).map(|()| Event::Down)
            }
            Request::Follow => Ok(Event::Failed("the cluster is up already".to_owned())),
        }
    }

    fn inject(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let done = self.cluster.inject(fault);
        self.wanted = self.cluster.on().into_iter().collect();
        done
    }

    fn capture(&mut self, between: &[End]) -> anyhow::Result<Event> {
        let machines = (0..).take(self.machines.len()).map(End::Machine);
        let all: Vec<End> = machines.chain([End::Host]).collect();
        let ends = if between.is_empty() { &all } else { between };
        for end in ends {
            if let End::Machine(index) = end {
                self.cluster.existing(*index)?;
            }
        }
        let ports: Vec<_> = ends.iter().map(|end| self.cluster.port(*end)).collect();
        let id = self.next_capture;
        self.next_capture += 1;
        self.captures.insert(id, self.cluster.switch().capture(ports)?);
        Ok(Event::Capturing { id })
    }

    fn end_capture(&mut self, id: u64, out: &Path) -> anyhow::Result<Event> {
        let capture = self.captures.remove(&id).context("there is no such capture")?;
        let context = || out.display().to_string();
        let mut file = std::io::BufWriter::new(std::fs::File::create(out).with_context(context)?);
        capture.write_pcap(&mut file).and_then(|()| file.flush()).with_context(context)?;
        Ok(Event::Captured { frames: capture.frames().len(), missed: capture.missed() })
    }

    fn status(&mut self) -> RigStatus {
        self.hear();
        let links = self.cluster.links().bad();
        let links = links.map(|(from, to, it)| format!("{from} → {to}: {}", describe(&it)));
        let links = links.collect();
        let machines = (0..).take(self.machines.len()).map(|index| self.machine(index)).collect();
        RigStatus { machines, links, api: self.cluster.api_front() }
    }

    fn machine(&mut self, index: u16) -> MachineStatus {
        let (address, api) = (self.cluster.address(index), self.cluster.api_address(index));
        let report = self.machines.get(usize::from(index)).and_then(|heard| heard.boot.report());
        let report = report.map(str::to_owned);
        let machine = self.cluster.machine(index);
        MachineStatus {
            name: machine_name(index),
            on: machine.is_on(),
            paused: machine.is_paused(),
            address,
            api,
            process: machine.process_id(),
            report,
        }
    }
}
