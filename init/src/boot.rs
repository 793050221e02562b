//! The boot as data: a list of phases, each timed, reported and passed by if it fails.
//!
//! The order carries the meaning, and each entry says why it stands where it stands. Nothing waits for the network or
//! for the right time: the node copes with both coming later.

use std::fs;
use std::path::Path;

use podium_init::config::Problem;
use podium_init::protocol::{self, ConfigSource, StateStatus};

use crate::console::{chain, uptime, warn};
use crate::control::Control;
use crate::disk::decide::Wish;
use crate::disk::{scan, state};
use crate::machine::Machine;
use crate::modules::When;
use crate::modules::child::Child;
use crate::power::{Button, Watchdog};
use crate::uevent::Uevents;
use crate::{clock, mounts, source};

/// One step of the boot: what it did in a few words, or what is missing because of it.
pub(crate) struct Phase {
    /// A short word.
    pub(crate) name: &'static str,
    /// The work.
    pub(crate) run: fn(&mut Machine) -> Result<String, String>,
}

const fn phase(name: &'static str, run: fn(&mut Machine) -> Result<String, String>) -> Phase {
    Phase { name, run }
}

/// All of it, in order.
pub(crate) const PHASES: &[Phase] = &[
    // Before anything is mounted, because mounts would stay behind on the old root.
    phase("root", root),
    phase("mounts", mount_all),
    // Settings that later phases rely on: no modprobe, forwarding.
    phase("kernel", settings),
    // Before files are made and certificates judged.
    phase("clock", set_clock),
    // What pods and their network need is loaded beside everything up to `modules`, on another processor if there is one.
    phase("loader", start_loader),
    // Disks, links and the hypervisor's config appear here.
    phase("devices", devices),
    phase("config", read_config),
    // As early as the config allows: a server answers while the disk is made ready.
    phase("network", network),
    phase("state", mount_state),
    // After STATE, which may hold the only usable config.
    phase("hostname", hostname),
    // The node programs the data path first of all.
    phase("modules", data_modules),
    // Before the node, which asks it first.
    phase("socket", socket),
    phase("node", node),
];

/// The end of the boot. The node does not wait for it and PID 1 listens meanwhile; it is entered when the last list of modules,
/// which only a second machine makes necessary, is through.
pub(crate) const LAST: &[Phase] = &[
    phase("late", late_modules),
    // After the last module was loaded and deleted.
    phase("seal", seal),
];

/// A kernel setting and its value.
struct Setting(&'static str, &'static str);

/// In `/proc/sys`. A kernel that lacks one goes on without.
const SETTINGS: &[Setting] = &[
    // There is no modprobe; a request for a module fails at once instead of after a fork.
    Setting("kernel/modprobe", "\n"),
    // A machine that lost its mind starts again.
    Setting("kernel/panic", "10"),
    Setting("kernel/panic_on_oops", "1"),
    Setting("kernel/kptr_restrict", "1"),
    Setting("kernel/dmesg_restrict", "1"),
    Setting("kernel/pid_max", "4194304"),
    Setting("kernel/keys/root_maxkeys", "1000000"),
    Setting("kernel/keys/root_maxbytes", "25000000"),
    // Pods reserve more than they use, and are limited by their cgroups.
    Setting("vm/overcommit_memory", "1"),
    Setting("vm/panic_on_oom", "0"),
    Setting("vm/max_map_count", "262144"),
    Setting("fs/inotify/max_user_instances", "8192"),
    Setting("fs/inotify/max_user_watches", "524288"),
    Setting("fs/protected_hardlinks", "1"),
    Setting("fs/protected_symlinks", "1"),
    Setting("net/core/somaxconn", "4096"),
    // A node is a router for its pods.
    Setting("net/ipv4/ip_forward", "1"),
    Setting("net/ipv6/conf/all/forwarding", "1"),
    // Answers may leave by another link than questions came: strict checks would drop pods' traffic.
    Setting("net/ipv4/conf/all/rp_filter", "0"),
    Setting("net/ipv4/conf/default/rp_filter", "0"),
    // Pods may ping.
    Setting("net/ipv4/ping_group_range", "0 2147483647"),
];

fn root(_: &mut Machine) -> Result<String, String> {
    mounts::pivotable_root().map(|()| "can be pivoted".to_owned()).map_err(|error| chain(&error))
}

fn mount_all(_: &mut Machine) -> Result<String, String> {
    let mounted = mounts::kernel_file_systems().map_err(|error| chain(&error))?;
    let controllers = mounts::delegate_controllers();
    Ok(format!("{mounted} file systems; cgroup controllers: {controllers}"))
}

fn settings(machine: &mut Machine) -> Result<String, String> {
    let refused: Vec<&str> = SETTINGS
        .iter()
        .filter(|Setting(name, value)| fs::write(Path::new("/proc/sys").join(name), value).is_err())
        .map(|Setting(name, _)| *name)
        .collect();
    // Ctrl-Alt-Del becomes a signal to process 1 instead of a reset.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
    machine.learn_release();
    if refused.is_empty() {
        return Ok(format!("{} settings", SETTINGS.len()));
    }
    Ok(format!(
        "{} settings; this kernel lacks {}",
        SETTINGS.len() - refused.len(),
        refused.join(", ")
    ))
}

fn set_clock(machine: &mut Machine) -> Result<String, String> {
    machine.clock = clock::at_least(machine.built);
    Ok(match machine.clock.source {
        protocol::ClockSource::BuildTime => {
            "the hardware clock is wrong; set to the image's build time".to_owned()
        }
        protocol::ClockSource::Hardware | protocol::ClockSource::Sntp { .. } => {
            "from the hardware".to_owned()
        }
    })
}

fn devices(machine: &mut Machine) -> Result<String, String> {
    // First the stream, then the devices that are there: what comes between is seen twice, never missed.
    match Uevents::open() {
        Ok(uevents) => machine.uevents = Some(uevents),
        Err(error) => warn(&format!("devices that come later will not be noticed: {error}")),
    }
    let mut failed = machine.modules.load_listed(When::Early);
    failed.extend(machine.modules.load_for_devices());
    machine.buttons = Button::find();
    machine.watchdog = Watchdog::open(uptime());
    let watchdog = if machine.watchdog.is_some() { ", a watchdog" } else { "" };
    let found = format!(
        "{} modules, {} disks, {} power buttons{watchdog}",
        machine.modules.count(),
        scan::disks().len(),
        machine.buttons.len()
    );
    let failed: Vec<String> = failed.iter().map(|error| chain(error)).collect();
    if failed.is_empty() { Ok(found) } else { Err(format!("{found}; {}", failed.join("; "))) }
}

fn read_config(machine: &mut Machine) -> Result<String, String> {
    let (config, status, text) = source::judge(source::find(&mut machine.modules));
    machine.config = config;
    machine.config_status = status;
    machine.config_text = text;
    match (&machine.config, machine.config_status.source) {
        (Some(config), Some(source)) => {
            let from = match source {
                ConfigSource::FwCfg => "the hypervisor",
                ConfigSource::Esp => "the EFI system partition",
                ConfigSource::LastGood => "STATE",
            };
            Ok(format!("cluster {}, from {from}", config.cluster.name))
        }
        (_, _) => Err(problems(&machine.config_status.problems)),
    }
}

fn problems(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn network(machine: &mut Machine) -> Result<String, String> {
    machine.start_network();
    Ok(match machine.config.as_ref().map(|config| &config.machine.network) {
        Some(podium_init::config::Network::Static { .. }) => "fixed addresses".to_owned(),
        Some(podium_init::config::Network::Dhcp) | None => "asking for an address".to_owned(),
    })
}

fn mount_state(machine: &mut Machine) -> Result<String, String> {
    let named = machine.config.as_ref().and_then(|config| config.machine.state_disk.clone());
    let disks = scan::disks();
    let present: Vec<String> = disks.iter().map(|disk| disk.path.clone()).collect();
    let late = machine.disks.replace(present).is_some();
    machine.state = match state::mount_state(&disks, Wish { named: named.as_deref(), late }) {
        Ok(status) => status,
        Err(error) => StateStatus::Refused { reason: chain(&error) },
    };
    match machine.state.clone() {
        StateStatus::Mounted { device, size_bytes, made } => {
            machine.settle_config();
            let verb = if made { "made on" } else { "found on" };
            Ok(format!("{verb} {device}, {} MiB", size_bytes >> 20))
        }
        StateStatus::Refused { reason } => Err(reason),
        StateStatus::Pending => Err("undecided".to_owned()),
    }
}

fn hostname(machine: &mut Machine) -> Result<String, String> {
    let name = machine.config.as_ref().and_then(|config| config.machine.hostname.clone());
    machine
        .set_hostname(&name.unwrap_or_else(default_hostname))
        .map_err(|error| error.to_string())?;
    Ok(machine.hostname.clone())
}

/// From the hardware address of the first Ethernet link: the same at every boot, and different for each machine.
fn default_hostname() -> String {
    let mut links: Vec<(String, String)> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| {
            let address = fs::read_to_string(entry.path().join("address")).ok()?;
            Some((
                entry.file_name().to_string_lossy().into_owned(),
                address.trim().replace(':', ""),
            ))
        })
        .collect();
    links.sort();
    links
        .into_iter()
        .next()
        .map_or_else(|| "podium".to_owned(), |(_, address)| format!("podium-{address}"))
}

fn start_loader(machine: &mut Machine) -> Result<String, String> {
    let started = Child::spawn().and_then(|mut child| child.order(When::Data).map(|()| child));
    // Without it PID 1 loads them itself.
    machine.loader = Some(started.map_err(|error| error.to_string())?);
    Ok("loading what pods need".to_owned())
}

fn data_modules(machine: &mut Machine) -> Result<String, String> {
    let before = machine.modules.count();
    let heard = match machine.loader.as_mut().map(|child| child.finish(&mut machine.modules)) {
        Some(Ok(failed)) => Some(failed),
        Some(Err(error)) => {
            warn(&format!("the loader: {error}; its work is done here"));
            machine.loader = None;
            None
        }
        None => None,
    };
    let failed = heard.unwrap_or_else(|| machine.load_listed(When::Data));
    let loaded = machine.modules.count() - before;
    if failed.is_empty() { Ok(format!("{loaded} loaded")) } else { Err(failed.join("; ")) }
}

/// The loader has reported, or there is none.
fn late_modules(machine: &mut Machine) -> Result<String, String> {
    let failed = machine.late_failures.take().unwrap_or_else(|| machine.load_listed(When::Late));
    if failed.is_empty() {
        Ok("what only other machines make necessary".to_owned())
    } else {
        Err(failed.join("; "))
    }
}

fn socket(machine: &mut Machine) -> Result<String, String> {
    let control = Control::open(Path::new(protocol::SOCKET)).map_err(|error| error.to_string())?;
    machine.control = Some(control);
    Ok(protocol::SOCKET.to_owned())
}

fn seal(_: &mut Machine) -> Result<String, String> {
    mounts::read_only_root()
        .map(|()| "the root is read-only".to_owned())
        .map_err(|error| chain(&error))
}

fn node(machine: &mut Machine) -> Result<String, String> {
    machine.start_node()
}
