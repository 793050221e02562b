//! Scenarios that share one booted machine: booting an emulated one is what takes the time.
//!
//! A test file boots a [`Rig`] and hands it a list of scenarios, which run in order; each is a function whose name is its claim.
//! What a scenario leaves behind, the next one finds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::console::Console;
use crate::kubectl::Kubectl;
use crate::layout::Layout;
use crate::{Cluster, ClusterOptions};

mod machines;

/// How long a machine may take to become Ready on a busy host.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// And how much longer for each, as they share the host.
pub const BOOT_LIMIT_EACH: Duration = Duration::from_secs(60);

/// How long anything that a scenario waits for may take on a busy host.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The same, for kubectl's commands that wait.
pub const POD_LIMIT: &str = "--timeout=300s";

/// A pod with a shell in the image `busybox` that stays until it is deleted; `kubectl exec` runs what a scenario needs.
pub const CLIENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000000']}
";

/// Takes every block of the file system of `/fill`, large pieces first, and prints what `df -P` says of it.
pub const FILL: &str = "
n=0
for size in 1073741824 67108864 1048576 65536 4096; do
  while fallocate -l $size /fill/$n 2>/dev/null; do n=$((n + 1)); done
  rm -f /fill/$n
done
df -P /fill | tail -n 1
";

/// One claim: its name, and what shows it.
pub type Scenario = (&'static str, fn(&mut Rig) -> anyhow::Result<()>);

/// A booted cluster and a stock kubectl that reaches it.
pub struct Rig {
    /// The machines.
    pub cluster: Cluster,
    /// kubectl with the administrator's kubeconfig.
    pub kubectl: Kubectl,
}

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the image under test, which `make vm` names.
///
/// # Errors
///
/// `PODIUM_IMAGE` is not set.
pub fn image() -> anyhow::Result<PathBuf> {
    std::env::var_os("PODIUM_IMAGE")
        .map(PathBuf::from)
        .context("PODIUM_IMAGE names the image's folder (make vm sets it)")
}

/// Options of a cluster called `name` on blank disks, whatever an earlier run has left under that name.
///
/// # Errors
///
/// The name is not one for a cluster, or no image is named.
pub fn blank(name: &str) -> anyhow::Result<ClusterOptions> {
    let layout = Layout::new(&project().join(".podium"), name)?;
    let _ = std::fs::remove_dir_all(layout.cluster());
    Ok(ClusterOptions::new(layout, image()?))
}

/// Waits until the first machine's console shows `text`, and gives the line that does.
///
/// # Errors
///
/// The machine switches itself off, or [`PATIENCE`] has passed; the console is in the error.
pub fn wait_console(cluster: &mut Cluster, text: &str) -> anyhow::Result<String> {
    let started = Instant::now();
    let mut console = Console::open(&cluster.machine(0).console());
    loop {
        if let Some(line) = console.lines().into_iter().find(|line| line.contains(text)) {
            return Ok(line);
        }
        if !cluster.machine(0).is_on() || started.elapsed() > PATIENCE {
            bail!("the console does not show {text:?}\n{}", cluster.consoles());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Rig {
    /// Boots a cluster and waits until it is Ready.
    ///
    /// # Errors
    ///
    /// The cluster cannot be made, or is not Ready within [`BOOT_LIMIT`] and [`BOOT_LIMIT_EACH`] for each machine.
    pub fn boot(options: &ClusterOptions) -> anyhow::Result<Self> {
        let mut rig = Self::prepare(options)?;
        let started = Instant::now();
        rig.cluster.power_on()?;
        rig.wait_ready()?;
        println!("blank disks to Ready: {:.1}s", started.elapsed().as_secs_f64());
        Ok(rig)
    }

    /// A cluster whose machines are off.
    ///
    /// # Errors
    ///
    /// The cluster cannot be made.
    pub fn prepare(options: &ClusterOptions) -> anyhow::Result<Self> {
        let cluster = Cluster::prepare(options)?;
        println!("seed {}", cluster.seed());
        let kubectl = Kubectl::new(&cluster.layout().cache(), 37, &cluster.layout().kubeconfig())?;
        Ok(Self { cluster, kubectl })
    }

    /// Waits until all machines that are on are Ready, and points [`Self::kubectl`] to them.
    ///
    /// # Errors
    ///
    /// They are not within [`BOOT_LIMIT`] and [`BOOT_LIMIT_EACH`] for each.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let machines = u32::try_from(self.cluster.on().len()).unwrap_or(u32::MAX);
        self.cluster.wait_ready(BOOT_LIMIT + BOOT_LIMIT_EACH * machines, |_| {})?;
        self.cluster.write_kubeconfig().map(|_| ())
    }

    /// Runs scenarios in order and says how long each took.
    ///
    /// # Errors
    ///
    /// The first scenario that fails, with the machines' consoles.
    pub fn run(&mut self, scenarios: &[Scenario]) -> anyhow::Result<()> {
        for (name, scenario) in scenarios {
            let started = Instant::now();
            scenario(self).with_context(|| format!("{name}\n{}", self.cluster.consoles()))?;
            println!("{name}: {:.1}s", started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Applies a manifest.
    ///
    /// # Errors
    ///
    /// kubectl's own words.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.kubectl.feed(&["apply", "-f", "-"], manifest)
    }

    /// Runs a command in the pod of [`CLIENT`] and gives its standard output.
    ///
    /// # Errors
    ///
    /// The command, or kubectl, failed.
    pub fn exec(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl.run(&[&["exec", "client", "--"], arguments].concat())
    }

    /// Looks again and again until `look` finds what it looks for. An error of one look is not the end: a machine may be
    /// on its way down or up.
    ///
    /// # Errors
    ///
    /// [`PATIENCE`] has passed; says what was waited for and the last look's error.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            match look(self) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        match last {
            Some(error) => Err(error.context(format!("waited {PATIENCE:?} for {what}"))),
            None => bail!("waited {PATIENCE:?} for {what}"),
        }
    }
}
