//! The kernel modules of the image: selection, dependencies, and the index that `init` loads them by.
//!
//! Debian's package has no modules.dep, so dependencies come from the modules' own `.modinfo`. The modules are carried
//! decompressed: the initramfs is compressed as a whole, and the kernel's xz decoder is slow where it matters most,
//! under emulation. `init` deletes a module's file once it is loaded, so the size costs nothing for long.
//!
//! The index is a text file, one fact per line:
//!
//! ```text
//! module NAME DEPENDENCY…      names as in file names; all dependencies, each after its own
//! alias PATTERN NAME           a glob on a device's modalias
//! load WHEN NAME               early | data | late | esp
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::deb::{self, DebError};
use crate::elf::{self, ElfError};

mod list;

pub use list::{BUSES, WANTED, Wanted, When};

/// Why the modules cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has no such module.
    #[error("the kernel package has no module {name}, needed by {needed_by}")]
    Missing {
        /// The module.
        name: String,
        /// Who wants it.
        needed_by: String,
    },
    /// A module's file cannot be decompressed.
    #[error("decompressing the module {name}")]
    Decompress {
        /// The module.
        name: String,
        /// Why.
        #[source]
        source: DebError,
    },
    /// A module's file cannot be read.
    #[error("reading the module {name}")]
    Elf {
        /// The module.
        name: String,
        /// Why.
        #[source]
        source: ElfError,
    },
    /// Modules need each other in a circle.
    #[error("the module {0} depends on itself")]
    Circle(String),
}

/// What a module says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Direct dependencies, required and wished for before it, by canonical name.
    pub depends: Vec<String>,
    /// Globs on modaliases.
    pub aliases: Vec<String>,
}

/// The selected modules.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// The files by canonical name (dashes as underscores), decompressed.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The text for `init`.
    pub index: String,
}

/// The kernel treats `-` and `_` alike; files use either.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads the `.modinfo` section: `key=value` strings, each ended by a zero byte.
pub fn parse_modinfo(section: &[u8]) -> ModuleInfo {
    let mut info = ModuleInfo::default();
    for entry in section.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(entry);
        let Some((key, value)) = text.split_once('=') else { continue };
        match key {
            "depends" => {
                info.depends
                    .extend(value.split(',').filter(|name| !name.is_empty()).map(canonical));
            }
            "alias" => info.aliases.push(value.to_owned()),
            _ => {}
        }
    }
    info
}

/// Selects `wanted` and all that they need from the kernel package's files (`…/NAME.ko.xz` by path).
///
/// # Errors
/// [`ModuleError`].
pub fn select(package: &deb::Tree, wanted: &[Wanted]) -> Result<Modules, ModuleError> {
    let by_name: BTreeMap<String, &Vec<u8>> = package
        .iter()
        .filter_map(|(path, bytes)| {
            let file = path.rsplit('/').next()?;
            Some((canonical(file.strip_suffix(".ko.xz")?), bytes))
        })
        .collect();
    let mut files = BTreeMap::new();
    let mut infos: BTreeMap<String, ModuleInfo> = BTreeMap::new();
    let mut open: Vec<(String, String)> =
        wanted.iter().map(|wanted| (canonical(wanted.name), "the list".to_owned())).collect();
    while let Some((name, needed_by)) = open.pop() {
        if infos.contains_key(&name) {
            continue;
        }
        let Some(compressed) = by_name.get(&name) else {
            return Err(ModuleError::Missing { name, needed_by });
        };
        let file = deb::unxz(compressed)
            .map_err(|source| ModuleError::Decompress { name: name.clone(), source })?;
        let section = elf::section(&file, ".modinfo")
            .map_err(|source| ModuleError::Elf { name: name.clone(), source })?;
        let info = parse_modinfo(section);
        open.extend(info.depends.iter().map(|dependency| (dependency.clone(), name.clone())));
        infos.insert(name.clone(), info);
        files.insert(name, file);
    }
    let index = index(&infos, wanted)?;
    Ok(Modules { files, index })
}

/// Writes the index.
///
/// # Errors
/// [`ModuleError::Circle`].
pub fn index(
    infos: &BTreeMap<String, ModuleInfo>,
    wanted: &[Wanted],
) -> Result<String, ModuleError> {
    let mut text = String::new();
    for name in infos.keys() {
        let mut order = Vec::new();
        closure(infos, name, &mut Vec::new(), &mut order)?;
        let dependencies: Vec<&str> =
            order.iter().filter(|other| *other != name).map(String::as_str).collect();
        let _ =
            writeln!(text, "{}", format!("module {name} {}", dependencies.join(" ")).trim_end());
    }
    for (name, info) in infos {
        let unique: BTreeSet<&String> = info.aliases.iter().collect();
        for alias in
            unique.into_iter().filter(|alias| BUSES.iter().any(|bus| alias.starts_with(bus)))
        {
            let _ = writeln!(text, "alias {} {name}", alias.replace(' ', "?"));
        }
    }
    for wanted in wanted.iter().filter(|wanted| wanted.when != When::Hardware) {
        let _ = writeln!(text, "load {} {}", wanted.when.word(), canonical(wanted.name));
    }
    Ok(text)
}

/// Appends `name` after everything it needs.
fn closure(
    infos: &BTreeMap<String, ModuleInfo>,
    name: &str,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) -> Result<(), ModuleError> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    if path.iter().any(|open| open == name) {
        return Err(ModuleError::Circle(name.to_owned()));
    }
    path.push(name.to_owned());
    for dependency in infos.get(name).map(|info| info.depends.as_slice()).unwrap_or_default() {
        closure(infos, dependency, path, order)?;
    }
    path.pop();
    order.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(depends: &[&str], aliases: &[&str]) -> ModuleInfo {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        ModuleInfo { depends: own(depends), aliases: own(aliases) }
    }

    #[test]
    fn modinfo_gives_dependencies_and_aliases() {
        let section = b"license=GPL\0depends=net-failover,failover\0\0alias=virtio:d00000001v*\0alias=fs-x\0depends=\0";
        assert_eq!(
            parse_modinfo(section),
            info(&["net_failover", "failover"], &["virtio:d00000001v*", "fs-x"])
        );
    }

    #[test]
    fn dependencies_come_in_loading_order() {
        let infos = BTreeMap::from([
            ("virtio_net".to_owned(), info(&["net_failover"], &["virtio:d00000001v*", "net-pf-1"])),
            ("net_failover".to_owned(), info(&["failover"], &[])),
            ("failover".to_owned(), info(&[], &[])),
        ]);
        let wanted = [Wanted { name: "virtio_net", when: When::Early, reason: "a test" }];
        assert_eq!(
            index(&infos, &wanted).expect("no circle"),
            "module failover\nmodule net_failover failover\nmodule virtio_net failover net_failover\n\
             alias virtio:d00000001v* virtio_net\nload early virtio_net\n"
        );
    }

    #[test]
    fn a_circle_is_an_error() {
        let infos = BTreeMap::from([
            ("a".to_owned(), info(&["b"], &[])),
            ("b".to_owned(), info(&["a"], &[])),
        ]);
        assert!(matches!(index(&infos, &[]), Err(ModuleError::Circle(_))));
    }

    #[test]
    fn a_module_that_the_kernel_lacks_is_named() {
        let wanted = [Wanted { name: "no-such", when: When::Early, reason: "a test" }];
        let error = select(&deb::Tree::new(), &wanted).expect_err("nothing there");
        assert_eq!(
            error.to_string(),
            "the kernel package has no module no_such, needed by the list"
        );
    }
}
