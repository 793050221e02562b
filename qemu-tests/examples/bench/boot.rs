//! From QEMU's start to process 1 to Ready, phase by phase, and the same kernel with a program that does nothing.
//!
//! The rounds alternate, so that a host that becomes busy spoils all columns alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;
use podium_image::newc::{self, Node};
use podium_qemu_tests::accelerator::Accelerator;
use podium_qemu_tests::console::{Console, tail};
use podium_qemu_tests::process::Child;

use crate::Bench;
use crate::figures::{Table, judged, median, spread};

const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);
/// How finely the console is looked at: what it adds to a figure.
const LOOK: Duration = Duration::from_millis(5);

/// One boot; seconds of the host's clock since QEMU was started, and milliseconds of the machine's own.
#[derive(Default)]
struct Boot {
    process_1: f64,
    ready: f64,
    phases: Vec<(String, f64)>,
}

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let (mut bare, mut blank, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("boot: round {round} of {ROUNDS}");
        bare.push(boot_bare(bench)?);
        bench.cluster.machine(0).blank_disk()?;
        blank.push(boot_podium(bench)?);
        again.push(boot_podium(bench)?);
        let [first, later] = [&blank, &again].map(|all| all.last().map_or(0.0, |boot| boot.ready));
        eprintln!("boot: Ready after {first:.2} s, and again after {later:.2} s");
    }
    Ok(summary(&bare, &blank, &again) + &phases(&blank, &again))
}

fn summary(bare: &[f64], blank: &[Boot], again: &[Boot]) -> String {
    let mut table = Table::new(
        "Boot: seconds on the host's clock, least / **median** / most",
        &["", "same kernel, static program", "Podium, blank disk", "Podium, later boots"],
    );
    let column =
        |boots: &[Boot], value: fn(&Boot) -> f64| boots.iter().map(value).collect::<Vec<_>>();
    let row = |name: &str, bare: String, value: fn(&Boot) -> f64| {
        [name.to_owned(), bare, spread(&column(blank, value), 2), spread(&column(again, value), 2)]
    };
    table.row(&row("QEMU's start → process 1", spread(bare, 2), |boot| boot.process_1));
    table.row(&row("process 1 → Ready", String::new(), |boot| boot.ready - boot.process_1));
    table.row(&row("QEMU's start → Ready", String::new(), |boot| boot.ready));
    let judge = |boots: &[Boot]| {
        let took = median(&column(boots, |boot| boot.ready - boot.process_1));
        let own = median(&column(boots, |boot| boot.process_1));
        format!(
            "its own kernel's {}; the bare kernel's {}",
            judged(took, own, "s"),
            judged(took, median(bare), "s")
        )
    };
    table.row(&["process 1 → Ready against".to_owned(), String::new(), judge(blank), judge(again)]);
    table.finish()
}

fn phases(blank: &[Boot], again: &[Boot]) -> String {
    let mut table =
        Table::new("Boot by phase: median milliseconds", &["phase", "blank disk", "later boots"]);
    let gather = |boots: &[Boot]| {
        let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, took) in boots.iter().flat_map(|boot| &boot.phases) {
            all.entry(name.clone()).or_default().push(*took);
        }
        all
    };
    let (first, later) = (gather(blank), gather(again));
    let order = blank.first().map(|boot| boot.phases.as_slice()).unwrap_or_default();
    for (name, _) in order {
        let cell = |all: &BTreeMap<String, Vec<f64>>| {
            all.get(name).map_or_else(String::new, |values| format!("{:.0}", median(values)))
        };
        table.row(&[name.clone(), cell(&first), cell(&later)]);
    }
    table.finish()
}

/// Boots the machine's disk as it is, and presses the power button once all is up.
fn boot_podium(bench: &mut Bench) -> anyhow::Result<Boot> {
    let vm = bench.cluster.machine(0);
    let started = Instant::now();
    vm.power_on()?;
    let mut boot = Boot::default();
    let (mut sealed, mut address) = (false, 0.0);
    follow(&vm.console(), |line| {
        let now = started.elapsed().as_secs_f64();
        if let Some((stamp, name, took)) = phase(line) {
            if boot.phases.is_empty() {
                boot.process_1 = now;
            }
            sealed |= name == "seal";
            boot.phases.push((name.to_owned(), took));
            address = if name == "network" { stamp } else { address };
        } else if let Some((stamp, _)) =
            stamped(line).filter(|(_, text)| text.starts_with("address "))
        {
            boot.phases.push(("*address, from its asking*".to_owned(), (stamp - address) * 1e3));
        } else if let Some((what, took)) = line.split_once(" milliseconds=") {
            let what = what.rsplit(": ").next().unwrap_or(what);
            boot.phases.push((
                format!("*node: {what}, from its start*"),
                took.parse().unwrap_or_default(),
            ));
        } else if line.contains(" is ready: ") {
            boot.ready = now;
        }
        sealed && boot.ready > 0.0
    })?;
    if !vm.shut_down(LIMIT)? {
        bail!("the machine did not power off");
    }
    Ok(boot)
}

/// `[   3.071] text`: when by the machine's clock, and what.
fn stamped(line: &str) -> Option<(f64, &str)> {
    let (stamp, text) = line.strip_prefix('[')?.split_once("] ")?;
    Some((stamp.trim().parse().ok()?, text))
}

/// A phase's end, its name, and its milliseconds.
fn phase(line: &str) -> Option<(f64, &str, f64)> {
    let (stamp, text) = stamped(line)?;
    let mut words = text.split_whitespace();
    let (name, took) = (words.next()?, words.next()?.parse().ok()?);
    (words.next() == Some("ms")).then_some((stamp, name, took))
}

/// Seconds until the program that does nothing is process 1.
fn boot_bare(bench: &Bench) -> anyhow::Result<f64> {
    let mut bare = Bare::start(bench, "bare", "")?;
    let at = bare.process_1()?;
    bare.wait_off()?;
    Ok(at)
}

/// The image's kernel with `bare_init`: as much memory and as many processors, no disk and no link.
pub(crate) struct Bare {
    started: Instant,
    pub(crate) process: Child,
    pub(crate) console: PathBuf,
}

impl Bare {
    /// `name` is one of several at a time; `words` go onto the kernel's command line.
    pub(crate) fn start(bench: &Bench, name: &str, words: &str) -> anyhow::Result<Self> {
        let console = bench.folder.join(format!("{name}.log"));
        let initramfs = bench.folder.join(format!("{name}.cpio"));
        let _ = std::fs::remove_file(&console);
        std::fs::write(&initramfs, archive(&bench.programs.join("examples/bare_init"))?)?;
        let line = format!("{} {words}", bench.image.command_line());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35,sata=off", "-m", "512", "-smp", "2", "-display", "none"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(Accelerator::arguments(bench.accelerator))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(bench.image.kernel())
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", &line])
            .stdin(Stdio::null());
        let started = Instant::now();
        Ok(Self { started, process: Child::spawn(command)?, console })
    }

    /// Seconds from its start until its program was process 1; waits for that.
    pub(crate) fn process_1(&self) -> anyhow::Result<f64> {
        let mut at = 0.0;
        follow(&self.console, |line| {
            at = self.started.elapsed().as_secs_f64();
            line.contains("bare: process 1")
        })?;
        Ok(at)
    }

    /// Waits until it has powered off.
    pub(crate) fn wait_off(&mut self) -> anyhow::Result<()> {
        if self.process.wait_for(LIMIT)?.is_none() {
            bail!("the bare machine did not power off");
        }
        Ok(())
    }
}

fn archive(program: &Path) -> anyhow::Result<Vec<u8>> {
    let program = std::fs::read(program)?;
    Ok(newc::write(&newc::Tree::from([
        ("dev".to_owned(), Node::Folder(0o755)),
        ("dev/console".to_owned(), Node::Device(0o600, 5, 1)),
        ("init".to_owned(), Node::File(0o755, program)),
        ("proc".to_owned(), Node::Folder(0o755)),
    ])))
}

/// Reads a console until `enough` says so.
pub(crate) fn follow(path: &Path, mut enough: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut console = Console::open(path);
    while Instant::now() < deadline {
        for line in console.lines() {
            if enough(&line) {
                return Ok(());
            }
        }
        std::thread::sleep(LOOK);
    }
    bail!("{} seconds went by:\n{}", LIMIT.as_secs(), tail(path, 40))
}
