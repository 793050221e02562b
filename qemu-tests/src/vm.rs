//! One virtual machine.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use podium_switch::{MacAddress, PortConfig};
use serde_json::json;

use crate::accelerator::Accelerator;
use crate::boot::{Firmware, OsImage};
use crate::links::machine_name;
use crate::process::Child;
use crate::qmp::Qmp;
use crate::volatile::{self, Chance, Lost};

/// Debian's OVMF, the 4 MiB build.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// What one machine is made of.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// From 0; decides card and address.
    pub index: u16,
    /// Memory in MiB.
    pub memory_mebibytes: u32,
    /// Virtual processors.
    pub processors: u32,
    /// The disk's size in MiB. It is sparse: only what the machine writes takes room on the host.
    pub disk_mebibytes: u64,
    /// How it is run.
    pub accelerator: Accelerator,
    /// How it boots.
    pub firmware: Firmware,
    /// The machine config's file.
    pub config: PathBuf,
    /// Words appended to the image's kernel command line; direct boot only.
    pub extra_command_line: String,
    /// More raw disks, by path, after the machine's own.
    pub extra_disks: Vec<PathBuf>,
    /// QEMU's `-rtc base=`, for wrong clocks; the host's time if left out.
    pub clock: Option<String>,
    /// Whether the machine's own disk has a write cache that a power cut empties ([`crate::volatile`]).
    pub volatile_cache: bool,
}

/// A machine: its disk outlives its process.
#[derive(Debug)]
pub struct Vm {
    options: VmOptions,
    image: OsImage,
    folder: PathBuf,
    sockets: PathBuf,
    running: Option<Running>,
    boots: u32,
}

#[derive(Debug)]
struct Running {
    process: Child,
    qmp: Qmp,
    paused: bool,
}

impl Vm {
    /// A machine whose disk and logs are in `folder`, and whose sockets (short paths) are in `sockets`. Makes its disk if
    /// there is none: blank for direct boot, the image's for UEFI.
    ///
    /// # Errors
    /// The disk cannot be made.
    pub fn new(
        options: VmOptions,
        image: OsImage,
        folder: PathBuf,
        sockets: PathBuf,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut vm = Self { options, image, folder, sockets, running: None, boots: 0 };
        if !vm.disk().exists() {
            vm.blank_disk().with_context(|| format!("make {}", vm.disk().display()))?;
        }
        Ok(vm)
    }

    /// The machine's end of the switch.
    #[must_use]
    pub fn port(&self, address: Ipv4Addr) -> PortConfig {
        PortConfig {
            mac: MacAddress::of_vm(self.options.index),
            address,
            name: self.name(),
            switch_path: self.socket("switch"),
            guest_path: self.socket("guest"),
        }
    }

    /// The machine's disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// The disk as it was when the machine was switched on, and all that was written to it since; with a volatile cache only.
    fn durable(&self) -> PathBuf {
        self.folder.join("disk.durable.raw")
    }

    fn write_log(&self) -> PathBuf {
        self.folder.join("disk.log")
    }

    /// What the machine has printed on its serial console since it was last switched on.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Replaces the disk by a blank one, as a technician would. The machine must be off.
    ///
    /// # Errors
    /// The machine runs, or the disk cannot be made.
    pub fn blank_disk(&mut self) -> anyhow::Result<()> {
        if self.is_on() {
            bail!("{} is on", self.name());
        }
        match self.options.firmware {
            Firmware::Direct => {
                std::fs::File::create(self.disk())?;
            }
            Firmware::Uefi => {
                copy_sparse(&self.image.disk(), &self.disk())?;
                std::fs::copy(OVMF_VARIABLES, self.folder.join("uefi-variables.fd"))?;
            }
        }
        std::fs::File::options()
            .write(true)
            .open(self.disk())?
            .set_len(self.options.disk_mebibytes << 20)?;
        Ok(())
    }

    /// Flips a bit of every place on the disk where `marker` stands, as a bad sector would, and tells how many there were.
    /// The machine must be off.
    ///
    /// # Errors
    /// The machine runs, or the disk cannot be read or written.
    pub fn flip_bits(&mut self, marker: &[u8]) -> anyhow::Result<usize> {
        if self.is_on() {
            bail!("{} is on", self.name());
        }
        let disk = self.disk();
        flip_bits(&disk, marker).with_context(|| disk.display().to_string())
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// It is on already, or QEMU does not start; QEMU's words are in the error.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        if self.is_on() {
            bail!("{} is on already", self.name());
        }
        // It may have switched itself off.
        self.running = None;
        self.boots += 1;
        if self.console().exists() {
            std::fs::rename(self.console(), self.folder.join("console.previous.log"))?;
        }
        let said = self.folder.join("qemu.log");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said)?);
        if self.options.volatile_cache {
            copy_sparse(&self.disk(), &self.durable())?;
            std::fs::File::create(self.write_log())?;
        }
        // A socket that a killed QEMU left would be taken for a live one.
        let _ = std::fs::remove_file(self.socket("qmp"));
        let _ = std::fs::remove_file(self.socket("guest"));
        let mut process = Child::spawn(command)?;
        match Qmp::connect(&self.socket("qmp")) {
            Ok(qmp) => self.running = Some(Running { process, qmp, paused: false }),
            Err(error) => {
                process.kill()?;
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                return Err(error.context(format!("start QEMU: {}", said.trim())));
            }
        }
        Ok(())
    }

    /// Cuts the power: no flush, no goodbye. Nothing happens to a machine that is off.
    ///
    /// # Errors
    /// QEMU cannot be killed.
    pub fn cut_power(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mut running) => Ok(running.process.kill()?),
            None => Ok(()),
        }
    }

    /// Cuts the power of a machine whose disk has a volatile cache; `chance` decides what of the cache is lost.
    ///
    /// # Errors
    /// The machine is off or its disk has no such cache, QEMU cannot be killed, or the disk cannot be made.
    pub fn cut_power_and_cache(&mut self, chance: &mut Chance) -> anyhow::Result<Lost> {
        if !self.options.volatile_cache || self.running.is_none() {
            bail!("{} is off or its disk has no volatile cache", self.name());
        }
        self.cut_power()?;
        let lost = volatile::replay(&self.write_log(), &self.durable(), chance)?;
        std::fs::rename(self.durable(), self.disk())?;
        Ok(lost)
    }

    /// Presses the power button and waits until the machine is off. `false`: it still ran at `limit`.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn shut_down(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let Some(running) = &mut self.running else { return Ok(true) };
        running.qmp.command("system_powerdown", json!({}))?;
        if running.process.wait_for(limit)?.is_none() {
            return Ok(false);
        }
        self.running = None;
        Ok(true)
    }

    /// Waits until the machine switches itself off. `false`: it still ran at `limit`.
    ///
    /// # Errors
    /// QEMU cannot be waited for.
    pub fn wait_off(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let Some(running) = &mut self.running else { return Ok(true) };
        if running.process.wait_for(limit)?.is_none() {
            return Ok(false);
        }
        self.running = None;
        Ok(true)
    }

    /// Stops the machine's processors; the world goes on without it.
    ///
    /// # Errors
    /// The machine is off, or QEMU does not answer.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.qmp("stop", true)
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// The machine is off, or QEMU does not answer.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.qmp("cont", false)
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.paused)
    }

    /// What the machine's hardware clock says when it is switched on next: `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS` in UTC, or the
    /// host's time.
    pub fn set_clock(&mut self, clock: Option<String>) {
        self.options.clock = clock;
    }

    /// Whether the machine's process lives.
    #[must_use]
    pub fn is_on(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        !matches!(running.process.wait_for(Duration::ZERO), Ok(Some(_)))
    }

    /// How often it has been switched on by this rig.
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// The id of QEMU's process, if it is on.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process.id())
    }

    fn qmp(&mut self, name: &str, pauses: bool) -> anyhow::Result<()> {
        let Some(running) = &mut self.running else { bail!("{} is off", self.name()) };
        running.qmp.command(name, json!({}))?;
        running.paused = pauses;
        Ok(())
    }

    fn name(&self) -> String {
        machine_name(self.options.index)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(format!("{}.{name}", self.options.index))
    }

    fn arguments(&self) -> Vec<OsString> {
        let options = &self.options;
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: String| all.extend([name.into(), value.into()]);
        // Probing the ports of an AHCI controller that nothing hangs on takes an emulated machine most of a second.
        add("-machine", "q35,sata=off".to_owned());
        add("-m", options.memory_mebibytes.to_string());
        add("-smp", options.processors.to_string());
        add("-display", "none".to_owned());
        add("-serial", format!("file:{}", self.console().display()));
        add("-qmp", format!("unix:{},server=on,wait=off", self.socket("qmp").display()));
        add("-device", "virtio-rng-pci".to_owned());
        add(
            "-netdev",
            format!(
                "dgram,id=net0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                self.socket("guest").display(),
                self.socket("switch").display()
            ),
        );
        let mac = MacAddress::of_vm(options.index);
        add("-device", format!("virtio-net-pci,netdev=net0,mac={mac}"));
        let own = self.disk();
        for (index, disk) in std::iter::once(&own).chain(&options.extra_disks).enumerate() {
            let logged = options.volatile_cache && index == 0;
            let drive = if logged {
                volatile::drive(disk, &self.write_log())
            } else {
                format!("file={},format=raw", disk.display())
            };
            add("-drive", format!("if=none,id=disk{index},{drive}"));
            // QEMU 7.2 spoils the log when it writes zeroes.
            let features = if logged { ",write-zeroes=off,discard=off" } else { "" };
            add("-device", format!("virtio-blk-pci,drive=disk{index}{features}"));
        }
        add("-fw_cfg", format!("name=opt/podium/config,file={}", options.config.display()));
        if let Some(clock) = &options.clock {
            add("-rtc", format!("base={clock}"));
        }
        match options.firmware {
            Firmware::Direct => {
                add("-kernel", self.image.kernel().display().to_string());
                add("-initrd", self.image.initramfs().display().to_string());
                let line = self.image.command_line();
                add(
                    "-append",
                    format!("{line} {}", options.extra_command_line).trim_end().to_owned(),
                );
            }
            Firmware::Uefi => {
                let variables = self.folder.join("uefi-variables.fd");
                add("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"));
                add("-drive", format!("if=pflash,format=raw,unit=1,file={}", variables.display()));
            }
        }
        all.extend(["-nodefaults", "-no-user-config"].map(OsString::from));
        all.extend(options.accelerator.arguments().iter().map(OsString::from));
        all
    }
}

/// Flips the lowest bit of the first byte of every `marker` in a sparse file.
fn flip_bits(path: &Path, marker: &[u8]) -> anyhow::Result<usize> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut flipped = 0;
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start))?;
        let mut bytes = vec![0; usize::try_from(at - start)?];
        file.read_exact_at(&mut bytes, start)?;
        let found = bytes.windows(marker.len().max(1)).enumerate().filter(|(_, it)| *it == marker);
        for (offset, _) in found {
            let first = marker.first().copied().unwrap_or_default();
            file.write_all_at(&[first ^ 1], start + offset as u64)?;
            flipped += 1;
        }
    }
    file.sync_all()?;
    Ok(flipped)
}

/// Copies a file and keeps its holes.
fn copy_sparse(from: &Path, to: &Path) -> anyhow::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use std::io::{Read as _, Seek as _};
    let mut source = std::fs::File::open(from)?;
    let mut target = std::fs::File::create(to)?;
    let mut end = 0;
    loop {
        let start = match seek(&source, SeekFrom::Data(end)) {
            Err(rustix::io::Errno::NXIO) => break,
            start => start?,
        };
        end = seek(&source, SeekFrom::Hole(start))?;
        source.seek(std::io::SeekFrom::Start(start))?;
        target.seek(std::io::SeekFrom::Start(start))?;
        std::io::copy(&mut source.by_ref().take(end - start), &mut target)?;
    }
    target.set_len(source.metadata()?.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        use std::os::unix::fs::{FileExt as _, MetadataExt as _};
        let folder = tempfile::tempdir().expect("folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = std::fs::File::create(&from).expect("file");
        file.write_all_at(b"front", 3).expect("write");
        file.write_all_at(b"middle", 5 << 20).expect("write");
        file.set_len(64 << 20).expect("grow");
        copy_sparse(&from, &to).expect("copy");
        assert!(std::fs::read(&from).expect("read") == std::fs::read(&to).expect("read"));
        let allocated_bytes = to.metadata().expect("metadata").blocks() * 512;
        assert!(allocated_bytes < 1 << 20, "{allocated_bytes}");
    }

    #[test]
    fn every_marker_is_spoiled_and_nothing_else() {
        use std::os::unix::fs::FileExt as _;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let write = |bytes: &[u8], at| file.as_file().write_all_at(bytes, at).expect("write");
        write(b"one marker here", 5);
        write(b"and a marker there", 64 << 20);
        file.as_file().set_len(1 << 30).expect("a hole");
        assert_eq!(flip_bits(file.path(), b"marker").expect("flipped"), 2);
        assert_eq!(flip_bits(file.path(), b"marker").expect("flipped"), 0);
        let mut bytes = [0; 15];
        file.as_file().read_exact_at(&mut bytes, 5).expect("read");
        assert_eq!(&bytes, b"one larker here");
    }
}
