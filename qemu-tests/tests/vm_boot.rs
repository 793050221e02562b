//! How a machine comes up: by firmware or directly, on little memory, and beside disks that are somebody else's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::boot::Firmware;
use podium_qemu_tests::scenario::{
    BOOT_LIMIT, CLIENT, POD_LIMIT, Rig, Scenario, blank, project, wait_console,
};
use podium_qemu_tests::{Cluster, ClusterOptions, debian};
use ring::digest::{Context as Sum, SHA256};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

fn a_pod_runs(rig: &mut Rig) -> anyhow::Result<()> {
    rig.apply(CLIENT)?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    ensure!(rig.exec(&["echo", "it runs"])? == "it runs\n");
    Ok(())
}

fn state_has_grown_to_the_end_of_the_disk(rig: &mut Rig) -> anyhow::Result<()> {
    let line = wait_console(&mut rig.cluster, "made on /dev/vda2")?;
    let mebibytes: u32 = line
        .split_whitespace()
        .rev()
        .nth(1)
        .context("a size")?
        .parse()
        .with_context(|| line.clone())?;
    // The disk has 8 GiB, of which the EFI system partition takes 128 MiB.
    ensure!((8060..8064).contains(&mebibytes), "{line}");
    Ok(())
}

fn the_disk_boots_again_after_a_power_cut(rig: &mut Rig) -> anyhow::Result<()> {
    rig.cluster.machine(0).cut_power()?;
    rig.cluster.power_on()?;
    rig.cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    wait_console(&mut rig.cluster, "found on /dev/vda2")?;
    Ok(())
}

#[test]
fn the_disk_image_boots_by_uefi() -> anyhow::Result<()> {
    let scenarios: [Scenario; 3] = [
        ("a pod runs", a_pod_runs),
        ("STATE has grown to the end of the disk", state_has_grown_to_the_end_of_the_disk),
        ("the disk boots again after a power cut", the_disk_boots_again_after_a_power_cut),
    ];
    let options = ClusterOptions { firmware: Firmware::Uefi, ..blank("vm-boot-uefi")? };
    Rig::boot(&options)?.run(&scenarios)
}

fn the_example_comes_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    let example = project().join("examples/redis.yaml");
    rig.kubectl.run(&["apply", "-f", &example.display().to_string()])?;
    rig.kubectl.run(&["rollout", "status", "deployment/redis-master", POD_LIMIT])?;
    let answer = rig.exec(&["sh", "-c", r"printf 'PING\r\n' | nc -w 10 redis-master 6379"])?;
    ensure!(answer == "+PONG\r\n", "{answer:?}");
    Ok(())
}

fn the_node_is_not_short_of_memory(rig: &mut Rig) -> anyhow::Result<()> {
    let path = r#"jsonpath={.items[0].status.conditions[?(@.type=="MemoryPressure")].status}"#;
    let pressure = rig.kubectl.run(&["get", "nodes", "-o", path])?;
    let memory = rig.exec(&["cat", "/proc/meminfo"])?;
    ensure!(pressure == "False", "MemoryPressure is {pressure:?}\n{memory}");
    Ok(())
}

#[test]
fn a_machine_of_256_mib_is_enough() -> anyhow::Result<()> {
    let scenarios: [Scenario; 3] = [
        ("a pod runs", a_pod_runs),
        ("the example comes to run", the_example_comes_to_run),
        ("the node is not short of memory", the_node_is_not_short_of_memory),
    ];
    let options = ClusterOptions { memory_mebibytes: 256, ..blank("vm-boot-small")? };
    Rig::boot(&options)?.run(&scenarios)
}

/// Other people's disks, by what is on them.
struct Foreign {
    folder: tempfile::TempDir,
    sums: BTreeMap<PathBuf, Vec<u8>>,
}

/// Large enough for STATE, were it blank.
const FOREIGN_BYTES: u64 = 520 << 20;

impl Foreign {
    /// A file system, a partition table, an encrypted volume, and a disk whose only mark is in its last sector.
    fn make() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, fill) in [
            ("ext4", ext4 as fn(&Path) -> anyhow::Result<()>),
            ("gpt", partitioned),
            ("luks", luks),
            ("end", end),
        ] {
            let path = folder.path().join(name);
            File::create(&path)?.set_len(FOREIGN_BYTES)?;
            fill(&path).with_context(|| name.to_owned())?;
        }
        let mut foreign = Self { folder, sums: BTreeMap::new() };
        foreign.sums = foreign.look()?;
        Ok(foreign)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.sums.keys().cloned().collect()
    }

    fn look(&self) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut sums = BTreeMap::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            sums.insert(path.clone(), sum(&path)?);
        }
        Ok(sums)
    }

    fn check(&self) -> anyhow::Result<()> {
        let now = self.look()?;
        ensure!(now == self.sums, "a foreign disk has changed: {:?}, now {now:?}", self.sums);
        Ok(())
    }
}

/// SHA-256 of what a disk holds: the blocks that are not zero, and where they are. The rest of a disk is mostly holes.
fn sum(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path)?;
    let (mut sum, mut block, mut at) = (Sum::new(&SHA256), vec![0; 64 << 10], 0);
    loop {
        match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(data) => at = data - data % block.len() as u64,
            Err(Errno::NXIO) => return Ok(sum.finish().as_ref().to_vec()),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        let length = file.read_at(&mut block, at)?;
        if block[..length].iter().any(|byte| *byte != 0) {
            sum.update(&at.to_le_bytes());
            sum.update(&block[..length]);
        }
        at += block.len() as u64;
    }
}

fn write(path: &Path, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(File::options().write(true).open(path)?.write_all_at(bytes, at)?)
}

fn ext4(path: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4"]).arg(path);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    debian::run(command).map(drop)
}

/// The header of LUKS2 (its specification, 2.1), and noise where the keys would be.
fn luks(path: &Path) -> anyhow::Result<()> {
    write(path, 0, b"LUKS\xba\xbe\x00\x02")?;
    write(path, 16 << 10, &random(64 << 10)?)
}

fn end(path: &Path) -> anyhow::Result<()> {
    write(path, FOREIGN_BYTES - 512, &random(512)?)
}

fn random(length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A GPT (UEFI 2.10, 5.3) with one partition of Linux data, its primary copy only: as after a resize that nobody finished.
fn partitioned(path: &Path) -> anyhow::Result<()> {
    const LINUX_DATA: [u8; 16] = [
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ];
    let sectors = FOREIGN_BYTES / 512;
    let mut entries = vec![0; 128 * 128];
    entries[..16].copy_from_slice(&LINUX_DATA);
    entries[16..32].copy_from_slice(&random(16)?);
    entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
    entries[40..48].copy_from_slice(&(sectors - 2048).to_le_bytes());
    let mut header = vec![0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    for (at, value) in [(24, 1), (32, sectors - 1), (40, 34), (48, sectors - 34), (72, 2)] {
        header[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    header[56..72].copy_from_slice(&random(16)?);
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut protective = vec![0; 512];
    protective[446..462]
        .copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0x1f, 0]);
    protective[510..].copy_from_slice(&[0x55, 0xaa]);
    write(path, 0, &protective)?;
    write(path, 512, &header)?;
    write(path, 1024, &entries)?;
    write(path, 1 << 20, &random(1 << 20)?)
}

/// CRC-32 of ISO 3309, as GPT uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

fn switch_off(cluster: &mut Cluster) -> anyhow::Result<()> {
    let limit = cluster.patient(Duration::from_secs(30));
    ensure!(
        cluster.machine(0).shut_down(limit)?,
        "the power button does nothing\n{}",
        cluster.consoles()
    );
    Ok(())
}

/// A machine that may not choose a disk says so, and stays up without a node.
fn refuses(cluster: &mut Cluster, reason: &str) -> anyhow::Result<()> {
    cluster.power_on()?;
    let refusal = wait_console(cluster, "state ")?;
    ensure!(refusal.ends_with(&format!("!! {reason}")), "{refusal}");
    let node = wait_console(cluster, "node ")?;
    ensure!(
        node.ends_with("!! not started: without STATE nothing that it says could be kept"),
        "{node}"
    );
    // It goes on with what can be done without STATE, and obeys the power button.
    wait_console(cluster, "address 10.77.0.10 on eth0")?;
    switch_off(cluster)
}

#[test]
fn disks_with_foreign_data_are_left_alone() -> anyhow::Result<()> {
    let foreign = Foreign::make()?;
    let options = ClusterOptions { extra_disks: foreign.disks(), ..blank("vm-boot-foreign")? };
    let mut cluster = Cluster::prepare(&options)?;
    let own = cluster.machine(0).disk();
    let blank_sum = sum(&own)?;

    refuses(
        &mut cluster,
        "no disk has a STATE partition, and there is more than one (/dev/vda, /dev/vdb, /dev/vdc, /dev/vdd, /dev/vde): name one as machine.state.disk",
    )?;
    ensure!(sum(&own)? == blank_sum, "the blank disk was written to although none was named");
    foreign.check()?;

    let config = options.layout.machine_config();
    let unnamed = std::fs::read_to_string(&config)?;
    let name = |disk: &str| {
        std::fs::write(&config, format!("{unnamed}machine:\n  state:\n    disk: {disk}\n"))
    };
    name("/dev/vdb")?;
    refuses(
        &mut cluster,
        "/dev/vdb is left alone: the config names it, but it holds data (its last megabyte is not empty); STATE is made on \
         blank disks only",
    )?;
    foreign.check()?;

    name("/dev/vda")?;
    cluster.power_on()?;
    cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    cluster.machine(0).cut_power()?;
    // Whose STATE is there needs not be named any more.
    std::fs::write(&config, &unnamed)?;
    cluster.power_on()?;
    cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    switch_off(&mut cluster)?;
    foreign.check()
}

#[test]
fn the_only_disk_is_left_alone_if_it_holds_foreign_data() -> anyhow::Result<()> {
    let foreign = Foreign::make()?;
    let mut cluster = Cluster::prepare(&blank("vm-boot-only")?)?;
    let own = cluster.machine(0).disk();
    let data = |what| {
        format!("/dev/vda is left alone: it holds data ({what}); STATE is made on blank disks only")
    };
    for (name, reason) in [
        ("ext4", data("its first megabyte is not empty")),
        ("luks", data("its first megabyte is not empty")),
        ("gpt", "/dev/vda is left alone: it has partitions and none is STATE".to_owned()),
        ("end", data("its last megabyte is not empty")),
    ] {
        std::fs::copy(foreign.path(name), &own)?;
        refuses(&mut cluster, &reason).with_context(|| name.to_owned())?;
        ensure!(foreign.sums.get(&foreign.path(name)) == Some(&sum(&own)?), "{name} has changed");
    }
    Ok(())
}
