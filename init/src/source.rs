//! Where the machine config comes from: the hypervisor, the EFI system partition, or the last good copy on STATE.

use std::fs;
use std::io;
use std::path::Path;

use podium_init::config::{self, MachineConfig, Problem};
use podium_init::protocol::{ConfigSource, ConfigStatus};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::scan;
use crate::modules::{Loader, When};

/// QEMU's fw_cfg as the kernel shows it.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/podium/config/raw";
/// On the EFI system partition.
const ESP_FILE: &str = "podium/config.yaml";
const ESP_MOUNT: &str = "/run/podium/esp";
/// On STATE. It holds the cluster's token, as the ESP does, and only root reads it.
const LAST_GOOD: &str = "/var/lib/podium/machine/config.yaml";
/// A config is a page or two.
const MAX_BYTES: u64 = 1 << 20;

/// A config's text and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The YAML.
    pub(crate) text: String,
    /// Where.
    pub(crate) source: ConfigSource,
}

/// Looks at the hypervisor first, then at every EFI system partition.
pub(crate) fn find(modules: &mut Loader) -> Result<Option<Found>, Problem> {
    match read(Path::new(FW_CFG)) {
        Ok(text) => return Ok(Some(Found { text, source: ConfigSource::FwCfg })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable("the hypervisor's config", &error)),
    }
    let partitions = scan::efi_partitions(&scan::disks());
    if partitions.is_empty() {
        return Ok(None);
    }
    for failed in modules.load_listed(When::Esp) {
        crate::console::warn(&crate::console::chain(&failed));
    }
    for device in partitions {
        match read_esp(&device) {
            Ok(Some(text)) => return Ok(Some(Found { text, source: ConfigSource::Esp })),
            Ok(None) => {}
            Err(error) => {
                return Err(unreadable(&format!("{ESP_FILE} on {}", device.display()), &error));
            }
        }
    }
    Ok(None)
}

fn unreadable(what: &str, error: &io::Error) -> Problem {
    Problem { field: String::new(), line: None, reason: format!("{what} cannot be read: {error}") }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn read_esp(device: &Path) -> io::Result<Option<String>> {
    fs::create_dir_all(ESP_MOUNT)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(device, ESP_MOUNT, "vfat", flags, None)?;
    let text = read(&Path::new(ESP_MOUNT).join(ESP_FILE));
    unmount(ESP_MOUNT, UnmountFlags::DETACH)?;
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The config that is in force before STATE is mounted, and the text to keep once it is.
pub(crate) fn judge(
    found: Result<Option<Found>, Problem>,
) -> (Option<MachineConfig>, ConfigStatus, Option<String>) {
    match found {
        Ok(Some(found)) => match config::decode(&found.text) {
            Ok(config) => (
                Some(config),
                ConfigStatus { source: Some(found.source), problems: Vec::new() },
                Some(found.text),
            ),
            Err(error) => (None, ConfigStatus { source: None, problems: error.problems }, None),
        },
        Ok(None) => {
            let reason = "there is none: neither from the hypervisor (fw_cfg opt/podium/config) nor as \
                          /podium/config.yaml on an EFI system partition";
            let problem = Problem { field: String::new(), line: None, reason: reason.to_owned() };
            (None, ConfigStatus { source: None, problems: vec![problem] }, None)
        }
        Err(problem) => (None, ConfigStatus { source: None, problems: vec![problem] }, None),
    }
}

/// Keeps a good config's text on STATE; nothing is written when it is there already.
pub(crate) fn keep(text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if read(Path::new(LAST_GOOD)).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let partial = format!("{LAST_GOOD}.partial");
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, LAST_GOOD)?;
    fs::File::open("/var/lib/podium/machine")?.sync_all()
}

/// The last config that was good on this machine.
pub(crate) fn last_good() -> Option<MachineConfig> {
    config::decode(&read(Path::new(LAST_GOOD)).ok()?).ok()
}
