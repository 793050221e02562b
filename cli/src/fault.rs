//! `podium fault`: what can go wrong with a rig's machines and links, on demand.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::links::{self, End, LinkFault, parse_machine};

use crate::Name;
use crate::control::{Connection, Event, Request};

/// Of which cluster.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    name: Name,
    #[command(subcommand)]
    kind: Kind,
}

/// Machines are called n1, n2, n3…; `host` is the host as they see it: registry, DHCP, and the way to their API.
#[derive(Debug, Subcommand)]
enum Kind {
    /// Links: nothing passes.
    Cut(Link),
    /// Links: everything is late.
    Delay {
        #[command(flatten)]
        link: Link,
        /// By this much: 100ms, 2s.
        #[arg(value_parser = duration)]
        delay: Duration,
        /// And by up to this much more, each frame by an amount of its own.
        #[arg(long, value_parser = duration, default_value = "0ms")]
        jitter: Duration,
    },
    /// Links: some frames are lost.
    Loss(Rated),
    /// Links: some frames come twice.
    Duplicate(Rated),
    /// Links: some frames are overtaken by later ones.
    Reorder(Rated),
    /// Split the machines into groups that do not reach each other: `partition n1 n2,n3`.
    Partition {
        /// Groups; the machines that none names are one more. The host is reached by all, unless a group names it.
        #[arg(required = true, value_parser = group)]
        groups: Vec<Group>,
    },
    /// Cut a machine off from the others and from the host.
    Isolate {
        /// The machine.
        #[arg(value_parser = machine)]
        machine: u16,
    },
    /// Make links good again: all of them, those of one machine, or those between two.
    Heal {
        /// One end.
        from: Option<End>,
        /// The other.
        to: Option<End>,
    },
    /// Stop a machine's processors; the world goes on without it.
    Pause(Machine),
    /// Let a paused machine go on.
    Resume(Machine),
    /// Cut a machine's power.
    PowerOff(Machine),
    /// Switch a machine on.
    PowerOn(Machine),
    /// Cut a machine's power and switch it on again.
    Reset(Machine),
    /// Set the hardware clock that a machine finds at its next boots.
    Clock {
        /// The machine.
        #[arg(value_parser = machine)]
        machine: u16,
        /// 1970-01-01, or 2030-01-31T12:00:00, in UTC; `now` for the host's time.
        time: String,
    },
    /// Give a machine, which must be off, a blank disk.
    ReplaceDisk(Machine),
    /// Give every machine another address, which it learns at its next boot.
    Readdress,
    /// Show which links are not good.
    List,
}

#[derive(Debug, Args)]
struct Machine {
    /// The machine.
    #[arg(value_parser = machine)]
    machine: u16,
}

#[derive(Debug, Args)]
struct Link {
    /// One end.
    from: End,
    /// The other; `all` for every other machine.
    #[arg(value_parser = other)]
    to: Other,
    /// Only what goes from the one to the other.
    #[arg(long)]
    one_way: bool,
}

#[derive(Debug, Args)]
struct Rated {
    #[command(flatten)]
    link: Link,
    /// Of all frames: 10%, 0.5%.
    #[arg(value_parser = per_mille)]
    rate: u16,
}

/// A link's second end; `None` means all machines.
#[derive(Clone, Copy, Debug)]
struct Other(Option<End>);

#[derive(Clone, Debug)]
struct Group(Vec<End>);

impl Link {
    fn path(&self) -> links::Path {
        links::Path { from: self.from, to: self.to.0, one_way: self.one_way }
    }
}

/// Does it, or shows what has been done.
pub(crate) fn run(dir: &Path, options: Options) -> anyhow::Result<()> {
    let layout = Layout::new(dir, &options.name.name)?;
    let Some(mut connection) = Connection::open(&layout.cluster())? else {
        bail!("cluster {} is not up", layout.name());
    };
    let Some(fault) = fault(options.kind) else { return list(&mut connection) };
    connection.send(&Request::Fault(fault))?;
    match connection.event()? {
        Event::Done => Ok(()),
        other => bail!("the supervisor said something unexpected: {other:?}"),
    }
}

fn list(connection: &mut Connection) -> anyhow::Result<()> {
    connection.send(&Request::Status)?;
    let Event::Status(status) = connection.event()? else { bail!("the supervisor did not answer") };
    if status.links.is_empty() {
        println!("all links are good");
    }
    status.links.iter().for_each(|link| println!("{link}"));
    Ok(())
}

/// `None`: the operator only asks.
fn fault(kind: Kind) -> Option<Fault> {
    Some(match kind {
        Kind::Cut(link) => Fault::Link(LinkFault::Cut(link.path())),
        Kind::Delay { link, delay, jitter } => {
            Fault::Link(LinkFault::Delay { path: link.path(), delay, jitter })
        }
        Kind::Loss(it) => Fault::Link(LinkFault::Loss(it.link.path(), it.rate)),
        Kind::Duplicate(it) => Fault::Link(LinkFault::Duplicate(it.link.path(), it.rate)),
        Kind::Reorder(it) => Fault::Link(LinkFault::Reorder(it.link.path(), it.rate)),
        Kind::Partition { groups } => {
            Fault::Link(LinkFault::Partition(groups.into_iter().map(|group| group.0).collect()))
        }
        Kind::Isolate { machine } => Fault::Link(LinkFault::Isolate(machine)),
        Kind::Heal { from, to } => {
            let path = from.map(|from| links::Path { from, to, one_way: false });
            Fault::Link(LinkFault::Heal(path))
        }
        Kind::Pause(it) => Fault::Pause(it.machine),
        Kind::Resume(it) => Fault::Resume(it.machine),
        Kind::PowerOff(it) => Fault::PowerOff(it.machine),
        Kind::PowerOn(it) => Fault::PowerOn(it.machine),
        Kind::Reset(it) => Fault::Reset(it.machine),
        Kind::Clock { machine, time } => Fault::Clock(machine, (time != "now").then_some(time)),
        Kind::ReplaceDisk(it) => Fault::ReplaceDisk(it.machine),
        Kind::Readdress => Fault::Readdress,
        Kind::List => return None,
    })
}

fn machine(text: &str) -> anyhow::Result<u16> {
    parse_machine(text)
}

fn other(text: &str) -> anyhow::Result<Other> {
    if text == "all" { Ok(Other(None)) } else { Ok(Other(Some(text.parse()?))) }
}

fn group(text: &str) -> anyhow::Result<Group> {
    Ok(Group(text.split(',').map(str::parse).collect::<anyhow::Result<_>>()?))
}

/// `100ms`, `1.5s`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => bail!("{text:?} is no time: write 100ms or 2s"),
    };
    let number: f64 = number.parse().with_context(|| format!("{text:?} is no time"))?;
    Ok(Duration::try_from_secs_f64(number * seconds)?)
}

/// `10%` or `0.5%`, in thousandths.
fn per_mille(text: &str) -> anyhow::Result<u16> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent: f64 =
        number.parse().with_context(|| format!("{text:?} is no share: write 10%"))?;
    if !(0.0..=100.0).contains(&percent) {
        bail!("{text:?}: a share is 0% to 100%");
    }
    // Truncation is exact: the value is whole and small.
    Ok((percent * 10.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(words: &str) -> Fault {
        let line = Line::try_parse_from(["fault"].into_iter().chain(words.split(' ')));
        fault(line.expect(words).options.kind).expect("a fault")
    }

    const N1: End = End::Machine(0);
    const N2: End = End::Machine(1);

    #[test]
    fn what_an_operator_writes_is_what_happens() {
        let both = links::Path { from: N1, to: Some(N2), one_way: false };
        let all = links::Path { from: N1, to: None, one_way: true };
        let host = links::Path { from: N1, to: Some(End::Host), one_way: false };
        let (delay, jitter) = (Duration::from_millis(1500), Duration::from_millis(20));
        for (words, expected) in [
            ("cut n1 n2", Fault::Link(LinkFault::Cut(both))),
            ("cut n1 host", Fault::Link(LinkFault::Cut(host))),
            ("loss n1 all 0.5% --one-way", Fault::Link(LinkFault::Loss(all, 5))),
            ("reorder n1 n2 25%", Fault::Link(LinkFault::Reorder(both, 250))),
            (
                "delay n1 n2 1.5s --jitter 20ms",
                Fault::Link(LinkFault::Delay { path: both, delay, jitter }),
            ),
            (
                "partition n1 n2,host",
                Fault::Link(LinkFault::Partition(vec![vec![N1], vec![N2, End::Host]])),
            ),
            ("heal", Fault::Link(LinkFault::Heal(None))),
            ("heal n1 n2", Fault::Link(LinkFault::Heal(Some(both)))),
            ("power-off n2", Fault::PowerOff(1)),
            ("clock n2 1970-01-01", Fault::Clock(1, Some("1970-01-01".to_owned()))),
            ("clock n2 now", Fault::Clock(1, None)),
        ] {
            assert_eq!(parsed(words), expected, "{words}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["cut n1", "cut n1 3", "delay n1 n2 fast", "loss n1 n2 101%", "pause host"] {
            let line = Line::try_parse_from(["fault"].into_iter().chain(words.split(' ')));
            assert!(line.is_err(), "{words}");
        }
    }
}
