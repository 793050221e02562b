//! The node's name: what the objects of the cluster call this machine.
//!
//! A name in the machine config wins. Otherwise the machine keeps the name that it first went by, on STATE: pods are bound to
//! it, and an address that DHCP gives to another machine one day must not rename this one.

use std::path::Path;

use anyhow::Context as _;

use crate::files;

/// The name's file, in the folder of the identity.
const FILE: &str = "name";

/// The name to go by. `configured`: the machine config's; `found`: what DHCP, or else the hardware, calls the machine now.
pub(crate) fn keep(
    identity: &Path,
    configured: Option<&str>,
    found: &str,
) -> anyhow::Result<String> {
    let path = identity.join(FILE);
    let context = || path.display().to_string();
    let kept = files::read(&path).with_context(context)?;
    let kept = kept.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let kept = kept.filter(|name| !name.is_empty());
    let name = configured.or(kept.as_deref()).unwrap_or(found).to_owned();
    if kept.as_ref() != Some(&name) {
        files::replace(&path, format!("{name}\n").as_bytes()).with_context(context)?;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_stays_until_the_config_names_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |configured, found| keep(folder.path(), configured, found).expect("a name");
        assert_eq!(name(None, "n1"), "n1");
        assert_eq!(name(None, "n7"), "n1");
        assert_eq!(name(Some("rack-1"), "n7"), "rack-1");
        assert_eq!(name(None, "n7"), "rack-1");
    }

    #[test]
    fn an_empty_file_names_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), "\n").expect("write");
        assert_eq!(keep(folder.path(), None, "n1").expect("a name"), "n1");
    }
}
