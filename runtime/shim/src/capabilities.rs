//! Which capabilities a container gets.

use std::collections::BTreeSet;

use podium_shim_protocol::Capabilities;
use thiserror::Error;

/// What a container has unless told otherwise: containerd's set, which images are made for.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability (capabilities(7), Linux 5.9 and later).
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A name that is no capability.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a capability")]
pub(crate) struct UnknownCapability(String);

/// A container's capabilities, without the `CAP_` prefix. `held` tells what the shim itself has: what it lacks it cannot give, and a
/// privileged container simply goes without.
pub(crate) fn decide(
    privileged: bool,
    changes: &Capabilities,
    held: impl Fn(&str) -> bool,
) -> Result<BTreeSet<&'static str>, UnknownCapability> {
    let mut set: BTreeSet<&'static str> = if privileged { ALL.into() } else { DEFAULT.into() };
    for name in &changes.drop {
        for known in matching(name)? {
            set.remove(known);
        }
    }
    for name in &changes.add {
        set.extend(matching(name)?);
    }
    set.retain(|name| held(name));
    Ok(set)
}

fn matching(name: &str) -> Result<Vec<&'static str>, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(ALL.to_vec());
    }
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match ALL.iter().find(|known| **known == short) {
        Some(known) => Ok(vec![*known]),
        None => Err(UnknownCapability(name.to_owned())),
    }
}

/// What this process may hand on: the bounding set, by number as in `linux/capability.h`.
pub(crate) fn held_by_shim() -> impl Fn(&str) -> bool {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = text
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    move |name| number(name).is_none_or(|number| bounding >> number & 1 == 1)
}

/// A capability's number.
fn number(name: &str) -> Option<u32> {
    const NUMBERED: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    NUMBERED.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(add: &[&str], drop: &[&str]) -> Capabilities {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Capabilities { add: own(add), drop: own(drop) }
    }

    #[test]
    fn drop_all_then_add_one_leaves_one() {
        let set = decide(false, &changes(&["NET_BIND_SERVICE"], &["ALL"]), |_| true).unwrap();
        assert_eq!(Vec::from_iter(set), ["NET_BIND_SERVICE"]);
    }

    #[test]
    fn default_set_is_containerd_s_fourteen_and_names_are_read_leniently() {
        let set = decide(false, &changes(&["cap_sys_time"], &["KILL"]), |_| true).unwrap();
        assert_eq!(set.len(), 14);
        assert!(set.contains("SYS_TIME") && !set.contains("KILL"));
    }

    #[test]
    fn unknown_name_is_an_error_that_names_it() {
        assert_eq!(
            decide(false, &changes(&["FLY"], &[]), |_| true).unwrap_err().to_string(),
            "\"FLY\" is not a capability"
        );
    }

    #[test]
    fn privileged_gets_what_the_shim_has_and_every_name_has_a_number() {
        let set = decide(true, &changes(&[], &[]), |name| name != "SYS_RESOURCE").unwrap();
        assert_eq!(set.len(), 40);
        assert!(ALL.iter().all(|name| number(name).is_some()));
    }
}
