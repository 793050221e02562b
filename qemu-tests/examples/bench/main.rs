//! The figures of docs/benchmarks.md, measured again: `make bench`.
//!
//! Each part boots or starts what it needs, takes medians of five or more, and gives its tables; the page keeps its prose, and
//! what stands between a part's two marks is replaced. Goals stand beside what they judge, so that a miss is seen here first.
//!
//! Elsewhere: how a cluster is made (the rig), and what the figures mean (the page).

mod boot;
mod etcd;
mod figures;
mod forming;
mod guest;
mod losses;
mod memory;
mod sizes;
mod store;
mod throughput;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use podium_qemu_tests::accelerator::Accelerator;
use podium_qemu_tests::boot::OsImage;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::{Cluster, ClusterOptions};

type Part = fn(&mut Bench) -> anyhow::Result<String>;

/// In the order of the page.
const PARTS: [(&str, Part); 7] = [
    ("sizes", sizes::measure),
    ("boot", boot::measure),
    ("guest", guest::measure),
    ("store", store::measure),
    ("forming", forming::measure),
    ("losses", losses::measure),
    ("throughput", throughput::measure),
];

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
    /// Only these parts, of sizes, boot, guest, store, forming, losses and throughput; all if left out.
    #[arg(long, value_delimiter = ',', value_parser = PARTS.map(|(name, _)| name))]
    only: Vec<String>,
}

/// What the parts share.
struct Bench {
    image: OsImage,
    /// Its folder.
    image_folder: PathBuf,
    programs: PathBuf,
    cluster: Cluster,
    accelerator: Accelerator,
    /// The rig's downloads.
    cache: PathBuf,
    /// On the disk that is measured.
    folder: PathBuf,
}

impl Bench {
    /// Options of a cluster of its own, on blank disks.
    fn options(&self, name: &str, machines: u16) -> anyhow::Result<ClusterOptions> {
        let layout = Layout::new(Path::new(".podium"), name)?;
        let _ = std::fs::remove_dir_all(layout.cluster());
        let options = ClusterOptions::new(layout, self.image_folder.clone());
        Ok(ClusterOptions { machines, accelerator: Some(self.accelerator), ..options })
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let layout = Layout::new(Path::new(".podium"), "bench")?;
    let _ = std::fs::remove_dir_all(layout.cluster());
    let options = ClusterOptions::new(layout.clone(), arguments.image.clone());
    let cluster = Cluster::prepare(&options)?;
    let mut bench = Bench {
        image: OsImage::open(&arguments.image)?,
        image_folder: arguments.image,
        programs: arguments.programs,
        accelerator: cluster.accelerator().0,
        cluster,
        cache: layout.cache(),
        folder: layout.cluster(),
    };
    let put = |name: &str, text: &str| -> anyhow::Result<()> {
        println!("{text}");
        let Some(page) = &arguments.page else { return Ok(()) };
        let old = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
        std::fs::write(page, replaced(&old, name, text)?)?;
        Ok(())
    };
    put("host", &figures::host(&bench)?)?;
    for (name, part) in PARTS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let (began, load) = (Instant::now(), figures::load_average());
        let tables =
            part(&mut bench).with_context(|| format!("{name}\n{}", bench.cluster.consoles()))?;
        let took = began.elapsed().as_secs();
        let text = format!("{tables}\nThe host's load was {load} before; it took {took} s.\n");
        put(name, &text)?;
    }
    Ok(())
}

/// The page with what stands between a part's marks replaced.
fn replaced(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->"));
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end}"))?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}
