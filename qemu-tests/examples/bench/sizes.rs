//! The UKI and the programs in it.

use crate::Bench;
use crate::figures::{Table, judged};

const UKI_GOAL_MIB: f64 = 40.0;

pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let mut table = Table::new("Size", &["what", "MiB", "goal"]);
    let parts = [
        ("UKI", bench.image.uki()),
        ("kernel", bench.image.kernel()),
        ("initramfs, compressed", bench.image.initramfs()),
        ("`init`", bench.programs.join("init")),
        ("`node`", bench.programs.join("node")),
        ("`shim`", bench.programs.join("shim")),
    ];
    for (name, path) in parts {
        let mebibytes = std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20);
        let goal =
            if name == "UKI" { judged(mebibytes, UKI_GOAL_MIB, "MiB") } else { String::new() };
        table.row(&[name.to_owned(), format!("{mebibytes:.1}"), goal]);
    }
    Ok(table.finish())
}
