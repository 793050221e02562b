//! What a machine's programs hold in memory, seen by a pod on it.

use std::collections::BTreeMap;

use podium_qemu_tests::kubectl::Kubectl;

use crate::figures::median;
use crate::guest::SETTLE;

const SAMPLES: usize = 5;

/// Podium's own, on every machine.
pub(crate) const PROCESSES: [&str; 3] = ["`init`", "`init net`", "`node`"];
/// One for each pod.
pub(crate) const SHIM: &str = "`shim`, of one pod";
/// The programs themselves lie there.
pub(crate) const FILES: &str = "of it the root file system and other tmpfs";

/// Sees every process of the machine, and the machine's memory.
const PROBE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  nodeName: NODE
  hostPID: true
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: probe, image: busybox, command: [sleep, "100000"], securityContext: {privileged: true}}
"#;

/// Proportional set sizes (proc(5), smaps_rollup) by process name, then three lines of meminfo, in KiB.
const LOOK: &str = r#"
for p in /proc/[0-9]*; do
  pss=$(awk '/^Pss:/ {print $2}' $p/smaps_rollup 2>/dev/null)
  [ -n "$pss" ] && echo "$(cat $p/comm) ${p#/proc/} $pss"
done
awk '/^(MemTotal|MemAvailable|Shmem):/ {sub(":", "", $1); print $1, 0, $2}' /proc/meminfo
"#;

/// Medians, in MiB.
pub(crate) struct Memory(BTreeMap<&'static str, f64>);

impl Memory {
    /// Of one of the names above.
    pub(crate) fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Podium's processes.
    pub(crate) fn together(&self) -> f64 {
        PROCESSES.iter().map(|name| self.of(name)).sum()
    }

    /// By everything on the machine.
    pub(crate) fn taken(&self) -> f64 {
        self.of("total") - self.of("available")
    }
}

/// Looks at an idle node with one pod, which does the looking.
pub(crate) fn measure(kubectl: &Kubectl, node: &str) -> anyhow::Result<Memory> {
    kubectl.feed(&["apply", "-f", "-"], &PROBE.replace("NODE", node))?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/probe", "--timeout=120s"])?;
    std::thread::sleep(SETTLE);
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..SAMPLES {
        let text = kubectl.feed(&["exec", "-i", "probe", "--", "sh"], LOOK)?;
        for (name, value) in sample(&text) {
            all.entry(name).or_default().push(value);
        }
    }
    kubectl.run(&["delete", "pod/probe", "--timeout=60s"])?;
    Ok(Memory(all.into_iter().map(|(name, values)| (name, median(&values))).collect()))
}

fn sample(text: &str) -> BTreeMap<&'static str, f64> {
    let mut sample: BTreeMap<&'static str, f64> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (name, process) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let kibibytes: f64 = words.next().and_then(|it| it.parse().ok()).unwrap_or_default();
        let name = match (name, process) {
            ("init", "1") => "`init`",
            ("init", _) => "`init net`",
            ("node", _) => "`node`",
            // libcontainer runs from a sealed copy of the program, which the kernel names so.
            ("shim" | "exe", _) => SHIM,
            ("MemTotal", _) => "total",
            ("MemAvailable", _) => "available",
            ("Shmem", _) => FILES,
            _ => continue,
        };
        *sample.entry(name).or_default() += kibibytes / 1024.0;
    }
    sample
}
