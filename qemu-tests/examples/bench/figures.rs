//! Medians, tables, and the machine that they were measured on.

use std::fmt::Write as _;
use std::process::Command;

use crate::Bench;

/// The value below which `share` of the values are (nearest rank); 0 of none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or_default()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// `least / **median** / most`, with this many digits.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    format!("{least:.digits$} / **{:.digits$}** / {most:.digits$}", median(values))
}

/// A goal, and by how much it is missed.
pub(crate) fn judged(value: f64, goal: f64, unit: &str) -> String {
    if value <= goal {
        format!("goal {goal:.1} {unit}: met")
    } else {
        format!("goal {goal:.1} {unit}: **missed by {:.2} {unit}**", value - goal)
    }
}

/// A Markdown table.
pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let mut text = format!("\n### {title}\n\n| {} |\n|", columns.join(" | "));
        columns.iter().for_each(|_| text.push_str("---|"));
        text.push('\n');
        Self { text }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// What everything depends on.
pub(crate) fn host(bench: &Bench) -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processors = std::thread::available_parallelism()?;
    let meminfo = read("/proc/meminfo");
    let memory =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory = memory.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let version = Command::new("qemu-system-x86_64").arg("--version").output()?;
    let version =
        String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
    Ok(format!(
        "\nHost: {processors} processors ({}), {memory} GiB, Linux {}; {version}, {:?}. Guests: 2 processors, \
         512 MiB where nothing else is said.\n",
        model.map_or("unknown", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim(),
        bench.accelerator,
    ))
}

pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// User and system time of a process so far, in seconds (proc(5); the kernel counts in hundredths, whatever its HZ).
pub(crate) fn processor_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = |index: usize| {
        after.split_whitespace().nth(index).and_then(|text| text.parse::<f64>().ok())
    };
    Ok((field(11).unwrap_or_default() + field(12).unwrap_or_default()) / 100.0)
}
