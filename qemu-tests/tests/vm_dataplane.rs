//! The data path's own tests on the shipped kernel with the shipped modules: WireGuard is there, and on most hosts that run
//! tests it is not.
//!
//! No node runs here. The shipped initramfs lends its modules; beside them stand busybox and the data path's test program,
//! which `make vm` builds and names.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_image::newc::{self, Node};
use podium_qemu_tests::accelerator::Accelerator;
use podium_qemu_tests::boot::OsImage;
use podium_qemu_tests::debian;
use podium_qemu_tests::process::Child;
use podium_qemu_tests::scenario::{image, project};

/// Under emulation on a busy host; the tests are some seconds of work.
const LIMIT: Duration = Duration::from_secs(1200);
const PASSED: &str = "the tests ended with 0";

/// Loads what the data path needs, as PID 1 does by the same index, and runs the tests. The scale of a thousand services says
/// nothing about the kernel, and takes minutes here.
const INIT: &str = r#"#!/scenario/busybox sh
b=/scenario/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
cd /lib/modules
$b sed -n -E 's/^load (data|late) //p' index | while read wanted; do
  for name in $($b sed -n "s/^module $wanted\( \|\$\)//p" index) $wanted; do
    [ -d /sys/module/$name ] || $b insmod $name.ko
  done
done
$b mkdir -p /bin
$b ln -s $b /bin/ip
PATH=/bin PODIUM_TEST_WIREGUARD=1 /scenario/tests --test-threads=1 --skip a_thousand_services 2>&1
echo "the tests ended with $?"
$b poweroff -f
"#;

/// What stands beside the shipped initramfs.
fn archive(tests: &Path) -> anyhow::Result<Vec<u8>> {
    let tree =
        debian::unpack(&project().join(".podium/cache"), "busybox-static", &["busybox-static"])?;
    let busybox = debian::resolve(&tree, "bin/busybox")?;
    let program = |path: &Path| {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        anyhow::Ok(Node::File(0o755, bytes))
    };
    let nodes = BTreeMap::from([
        ("scenario".to_owned(), Node::Folder(0o755)),
        ("scenario/busybox".to_owned(), program(&busybox)?),
        ("scenario/init".to_owned(), Node::File(0o755, INIT.into())),
        ("scenario/tests".to_owned(), program(tests)?),
    ]);
    Ok(newc::write(&nodes))
}

#[test]
fn the_data_path_does_on_the_shipped_kernel_what_its_tests_say() -> anyhow::Result<()> {
    let tests = std::env::var_os("PODIUM_DATAPLANE_TESTS").map(PathBuf::from);
    let tests = tests.context("PODIUM_DATAPLANE_TESTS names the test program (make vm sets it)")?;
    let os = OsImage::open(&image()?)?;
    let folder = tempfile::tempdir()?;
    let (initramfs, console) = (folder.path().join("initramfs"), folder.path().join("console"));
    // The kernel takes archives one after the other; each starts at a multiple of four bytes.
    let mut bytes = archive(&tests)?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(std::fs::read(os.initramfs())?);
    std::fs::write(&initramfs, bytes)?;
    let (accelerator, why) = Accelerator::detect(&os.kernel());
    println!("{why}");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(accelerator.arguments())
        .args([
            "-m",
            "768",
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(os.kernel())
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/scenario/init"])
        .stdin(std::process::Stdio::null())
        .stdout(File::create(&console)?);
    let mut machine = Child::spawn(qemu)?;
    let ended = machine.wait_for(LIMIT)?;
    let said = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
    println!("{said}");
    ensure!(ended.is_some(), "the machine still runs after {LIMIT:?}");
    ensure!(said.contains(PASSED), "not all of the data path's tests passed");
    Ok(())
}
