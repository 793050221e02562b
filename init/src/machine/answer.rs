//! What programs ask of PID 1 over the control socket, and its answers.

use podium_init::protocol::{Event, NodeStatus, Reply, Request, Status};

use super::Machine;
use crate::console::{say, uptime};
use crate::ending::Ending;
use crate::supervisor;

impl Machine {
    pub(super) fn serve(&mut self, token: u64) {
        let requests =
            self.control.as_mut().map(|control| control.serve(token)).unwrap_or_default();
        for request in requests {
            let subscribes = request == Request::Subscribe;
            let reply = self.answer(request);
            let network = Event::Network(self.network.clone());
            let Some(control) = &mut self.control else { return };
            control.reply(token, &reply);
            if subscribes {
                control.subscribe(token);
                control.notify(token, &network);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::GetStatus => Reply::Status(Box::new(self.status())),
            Request::GetConfig => Reply::Config(self.config.clone().map(Box::new)),
            Request::Shutdown { how, reason, grace } => {
                self.end(how, &reason, grace);
                Reply::Accepted
            }
            Request::ReportNode(report) => {
                if self.node_report.as_ref() != Some(&report) {
                    let state = if report.ready { "ready" } else { "not ready" };
                    say(&format!("node {} is {state}: {}", report.name, report.message));
                }
                if report.ready {
                    self.feed_node(supervisor::Event::Serving);
                }
                self.node_report = Some(report);
                Reply::Accepted
            }
            Request::Subscribe => Reply::Accepted,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: self.version.clone(),
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
            hostname: self.hostname.clone(),
            uptime: uptime(),
            phases: self.phases.clone(),
            config: self.config_status.clone(),
            state: self.state.clone(),
            network: self.network.clone(),
            clock: self.clock.clone(),
            node: NodeStatus {
                pid: self.node.pid(),
                restarts: self.node.restarts(),
                last_exit: self.node_last_exit.clone(),
                report: self.node_report.clone(),
            },
            ending: self.ending.as_ref().map(|ending: &Ending| ending.how),
        }
    }
}
