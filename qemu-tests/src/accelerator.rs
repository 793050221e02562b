//! KVM where it truly works, software emulation (TCG) otherwise.
//!
//! `/dev/kvm` that opens proves little: nested and restricted hosts offer a device that cannot run a stock kernel. So the
//! rig boots the very kernel that it is about to use, without a root file system, and believes KVM only if that kernel
//! comes as far as missing it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Child;

/// How QEMU runs a machine's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

/// A kernel under working KVM needs well under a second to miss its root; a broken one hangs.
const PROBE_DEADLINE: Duration = Duration::from_secs(8);

impl Accelerator {
    /// Finds out which accelerator runs `kernel`, with the reason, for the operator.
    #[must_use]
    pub fn detect(kernel: &Path) -> (Self, String) {
        match refuse_kvm(kernel) {
            None => (Self::Kvm, "KVM: a trial boot of the kernel worked".to_owned()),
            Some(reason) => (Self::Tcg, format!("software emulation: {reason}")),
        }
    }

    /// QEMU's arguments. The translator works on one thread per machine, whatever its number of processors: on several it
    /// may translate an instruction while another processor writes it (QEMU before 8.1, and Debian 12 has 7.2), and a kernel
    /// that patches itself then dies of its own `int3`. Machines of one processor and clusters lose nothing by it.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg,thread=single", "-cpu", "max"],
        }
    }

    /// By how much slower than a real machine everything that waits must be patient. Measured: a kernel reaches PID 1 in
    /// 2.4 s under TCG and in about 0.3 s under KVM; three emulated machines on two cores share what one had.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 10,
        }
    }

    /// The machine config's `timings.factor`. Less than [`Self::patience`], because what a cluster waits for are messages, which
    /// emulation delays less than it delays a boot; and small enough that what a machine took with it runs elsewhere within a
    /// minute also if it was the leader: 10 s until there is another, 17.5 s of silence, and a pod's start.
    #[must_use]
    pub fn timings_factor(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 5,
        }
    }
}

/// Why KVM is not usable, or `None` if it is.
fn refuse_kvm(kernel: &Path) -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = device {
        return Some(format!("/dev/kvm: {error}"));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if cfg!(target_arch = "x86_64") && !has_virtualisation(&cpuinfo) {
        return Some("/dev/kvm is there, but the processor shows neither vmx nor svm".to_owned());
    }
    match trial_boot(kernel) {
        Ok(true) => None,
        Ok(false) => Some("/dev/kvm is there, but a trial boot of the kernel failed".to_owned()),
        Err(error) => Some(format!("a trial boot under KVM: {error:#}")),
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

fn trial_boot(kernel: &Path) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let console = folder.path().join("console");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "q35", "-m", "256", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot"])
        .args(Accelerator::Kvm.arguments())
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // With -no-reboot, the panic over the missing root ends QEMU.
    let mut child = Child::spawn(command)?;
    let ended = child.wait_for(PROBE_DEADLINE)?;
    let said = std::fs::read(&console).unwrap_or_default();
    Ok(ended.is_some() && String::from_utf8_lossy(&said).contains("Unable to mount root fs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_read_from_whole_flags() {
        assert!(has_virtualisation("processor : 0\nflags\t\t: fpu vme svm lm\n"));
        assert!(has_virtualisation("flags : vmx\n"));
        assert!(!has_virtualisation("flags : fpu svm_lock lm\nbugs : vmx\n"));
        assert!(!has_virtualisation(""));
    }
}
