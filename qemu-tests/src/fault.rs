//! What can be done to a rig's machines and links, as one type that the command line and the tests share.

use anyhow::Context as _;
use podium_switch::{LinkCondition, PortId};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::links::{End, LinkFault};

/// A fault, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Links go bad, or good again.
    Link(LinkFault),
    /// The machine's processors stop; the world goes on without it.
    Pause(u16),
    /// They go on.
    Resume(u16),
    /// The machine's power goes, without a flush or a goodbye. A machine that is off stays off.
    PowerOff(u16),
    /// The machine is switched on.
    PowerOn(u16),
    /// The power goes and comes back at once.
    Reset(u16),
    /// At its next boots, the machine's hardware clock starts at this time: `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS` in UTC; the
    /// host's time without one.
    Clock(u16, Option<String>),
    /// The machine, which is off, gets a blank disk.
    ReplaceDisk(u16),
    /// DHCP has another address for every machine, which learns of it at its next boot.
    Readdress,
}

impl Cluster {
    /// Does it.
    ///
    /// # Errors
    /// There is no such machine, or it is not in the state that the fault is about.
    pub fn inject(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Link(change) => self.change_links(change),
            Fault::Pause(index) => self.existing(*index)?.pause(),
            Fault::Resume(index) => self.existing(*index)?.resume(),
            Fault::PowerOff(index) => self.existing(*index)?.cut_power(),
            Fault::PowerOn(index) => self.existing(*index)?.power_on(),
            Fault::Reset(index) => {
                let machine = self.existing(*index)?;
                machine.cut_power()?;
                machine.power_on()
            }
            Fault::Clock(index, clock) => {
                self.existing(*index)?.set_clock(clock.clone());
                Ok(())
            }
            Fault::ReplaceDisk(index) => self.existing(*index)?.blank_disk(),
            Fault::Readdress => self.readdress(),
        }
    }

    /// Changes links: [`Fault::Link`] without the wrapping.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn change_links(&mut self, change: &LinkFault) -> anyhow::Result<()> {
        for (from, to, condition) in self.links_mut().apply(change)? {
            self.set_link(from, to, condition)?;
        }
        Ok(())
    }

    /// The switch's port of one end.
    #[must_use]
    pub fn port(&self, end: End) -> PortId {
        match end {
            End::Machine(index) => PortId(usize::from(index)),
            End::Host => self.switch().gateway_port(),
        }
    }

    fn set_link(&self, from: End, to: End, condition: LinkCondition) -> anyhow::Result<()> {
        let ports = (self.port(from), self.port(to));
        self.switch()
            .set_condition(ports.0, ports.1, condition)
            .with_context(|| format!("change the link from {from} to {to}"))
    }
}
