//! The figures of docs/benchmarks.md, measured again: `make bench`.
//!
//! Each part boots or starts what it needs, takes medians of five or more, and gives a table; the page keeps its prose, and the
//! tables between its two marks are replaced. Goals stand beside what they judge, so that a miss is seen here first.
//!
//! Elsewhere: how a cluster is made (the rig), and what the figures mean (the page).

mod boot;
mod etcd;
mod figures;
mod guest;
mod sizes;
mod store;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use podium_qemu_tests::accelerator::Accelerator;
use podium_qemu_tests::boot::OsImage;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::{Cluster, ClusterOptions};

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// Measures Podium's figures.
#[derive(Parser)]
struct Arguments {
    /// The image's folder.
    #[arg(long, default_value = ".podium/image")]
    image: PathBuf,
    /// The folder with the programs that the image holds, and this one's examples.
    #[arg(long)]
    programs: PathBuf,
    /// The page to write the tables into.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Only these parts: boot, guest, store, sizes.
    #[arg(long, value_delimiter = ',', default_value = "boot,guest,store,sizes")]
    only: Vec<String>,
}

/// What the parts share.
struct Bench {
    image: OsImage,
    programs: PathBuf,
    cluster: Cluster,
    accelerator: Accelerator,
    /// The rig's downloads.
    cache: PathBuf,
    /// On the disk that is measured.
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let layout = Layout::new(Path::new(".podium"), "bench")?;
    let _ = std::fs::remove_dir_all(layout.cluster());
    let options = ClusterOptions::new(layout.clone(), arguments.image.clone());
    let cluster = Cluster::prepare(&options)?;
    let mut bench = Bench {
        image: OsImage::open(&arguments.image)?,
        programs: arguments.programs,
        accelerator: cluster.accelerator().0,
        cluster,
        cache: layout.cache(),
        folder: layout.cluster(),
    };
    let mut report = figures::host(&bench)?;
    type Part = fn(&mut Bench) -> anyhow::Result<String>;
    let parts: [(&str, Part); 4] = [
        ("sizes", sizes::measure),
        ("boot", boot::measure),
        ("guest", guest::measure),
        ("store", store::measure),
    ];
    for (name, part) in parts {
        if arguments.only.iter().any(|only| only == name) {
            let text = part(&mut bench)
                .with_context(|| format!("{name}\n{}", bench.cluster.consoles()))?;
            println!("{text}");
            report.push_str(&text);
        }
    }
    let load = figures::load_average();
    report.push_str(&format!(
        "\nMeasured in {} s; the host's load was {load} at the end.\n",
        began.elapsed().as_secs()
    ));
    if let Some(page) = arguments.page {
        let text = std::fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        std::fs::write(&page, replaced(&text, &report)?)?;
    }
    println!("{report}");
    Ok(())
}

/// The page with what stands between its marks replaced.
fn replaced(page: &str, report: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no mark for the begin")?;
    let (_, after) = rest.split_once(END).context("the page has no mark for the end")?;
    Ok(format!("{before}{BEGIN}\n{report}{END}{after}"))
}
