//! What of a machine's console is worth a line of `podium up`, and how long each phase of its boot took.

use std::collections::BTreeMap;

/// What one machine has told so far.
#[derive(Debug, Default)]
pub(crate) struct Boot {
    /// Phases in their order, with milliseconds.
    phases: Vec<(String, u64)>,
    /// Seconds since the kernel started.
    address_at: Option<f64>,
    ready_at: Option<f64>,
    /// What the node says of itself and the cluster.
    report: Option<String>,
}

impl Boot {
    /// The line's news, if it is any: an address, a phase that failed, and whatever changes in what the node says, which is
    /// whom it sees and who is missing as long as there is no cluster.
    pub(crate) fn hear(&mut self, line: &str) -> Option<String> {
        let (seconds, text) = timed(line)?;
        if let Some((name, milliseconds, what)) = phase(text) {
            self.phases.push((name.to_owned(), milliseconds));
            return what.starts_with("!!").then(|| format!("{name}: {what}"));
        }
        if text.starts_with("address ") {
            self.address_at.get_or_insert(seconds);
            return Some(text.to_owned());
        }
        if let Some(report) = report(text) {
            if report.ready {
                self.ready_at.get_or_insert(seconds);
            }
            let said = report.text();
            let changed = self.report.as_ref() != Some(&said);
            self.report = Some(said.clone());
            return changed.then_some(said);
        }
        (text.starts_with("powering off") || text.starts_with("Podium ")).then(|| text.to_owned())
    }

    /// Whether the node has said that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_some()
    }

    /// What the node said last.
    pub(crate) fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }
}

/// A report of the node, as PID 1 prints it.
struct Report<'a> {
    ready: bool,
    message: &'a str,
}

impl Report<'_> {
    fn text(&self) -> String {
        match (self.ready, self.message) {
            (true, "") => "ready".to_owned(),
            (true, message) => format!("ready: {message}"),
            (false, message) => message.to_owned(),
        }
    }
}

/// `node NAME is ready: MESSAGE`, `node NAME is not ready: MESSAGE`.
fn report(text: &str) -> Option<Report<'_>> {
    let (_, rest) = text.strip_prefix("node ")?.split_once(" is ")?;
    let (state, message) = rest.split_once(':')?;
    let ready = match state {
        "ready" => true,
        "not ready" => false,
        _ => return None,
    };
    Some(Report { ready, message: message.trim() })
}

/// `[   3.827] text`: three digits after the point are PID 1's; the kernel's lines have six.
fn timed(line: &str) -> Option<(f64, &str)> {
    let (seconds, text) = line.trim().strip_prefix('[')?.split_once(']')?;
    let (_, fraction) = seconds.split_once('.')?;
    if fraction.len() != 3 {
        return None;
    }
    Some((seconds.trim().parse().ok()?, text.trim()))
}

/// `name   12 ms  what`.
fn phase(text: &str) -> Option<(&str, u64, &str)> {
    let (name, rest) = text.split_once(' ')?;
    let (milliseconds, what) = rest.trim_start().split_once(" ms")?;
    Some((name, milliseconds.parse().ok()?, what.trim()))
}

/// The phases of all machines next to each other, in milliseconds, and when each had its address and was ready, in seconds
/// since its kernel started.
pub(crate) fn table(boots: &[(String, &Boot)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in boots.iter().flat_map(|(_, boot)| &boot.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let row = |name: &str, cell: &dyn Fn(&Boot) -> Option<String>| {
        let cells = boots.iter().map(|(_, boot)| cell(boot).unwrap_or_else(|| "-".to_owned()));
        let cells: String = cells.map(|cell| format!("{cell:>10}")).collect();
        format!("{name:12}{cells}")
    };
    let heads: String = boots.iter().map(|(name, _)| format!("{name:>10}")).collect();
    let mut lines = vec![format!("{:12}{heads}", "")];
    for name in names {
        lines.push(row(name, &|boot| {
            let all: BTreeMap<_, _> = boot.phases.iter().cloned().collect();
            all.get(name).map(|milliseconds| format!("{milliseconds} ms"))
        }));
    }
    let at = |seconds: Option<f64>| seconds.map(|seconds| format!("{seconds:.1} s"));
    lines.push(row("address at", &|boot| at(boot.address_at)));
    lines.push(row("ready at", &|boot| at(boot.ready_at)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_failures_and_changes_of_the_report_are_news() {
        let mut boot = Boot::default();
        let news: Vec<String> = [
            "[   3.827] root         2 ms  can be pivoted",
            "[    6.972065] reboot: Power down",
            "[   5.349] state      326 ms  !! no disk has a STATE partition",
            "[   6.952] address 10.77.0.10 on eth0",
            "[   7.000] node n1 is not ready: 1 of 3: n1 (me); waiting for 2 more",
            "[   8.000] node n1 is not ready: 1 of 3: n1 (me); waiting for 2 more",
            "[   9.000] node n1 is not ready: 2 of 3: n1 (me), n2; waiting for 1 more",
            "[  17.000] node n1 is ready: https://10.77.0.10:6443",
            "some pod's own words",
        ]
        .into_iter()
        .filter_map(|line| boot.hear(line))
        .collect();
        assert_eq!(
            news,
            [
                "state: !! no disk has a STATE partition",
                "address 10.77.0.10 on eth0",
                "1 of 3: n1 (me); waiting for 2 more",
                "2 of 3: n1 (me), n2; waiting for 1 more",
                "ready: https://10.77.0.10:6443",
            ]
        );
        assert_eq!(boot.report(), Some("ready: https://10.77.0.10:6443"));
    }

    #[test]
    fn the_table_has_a_column_for_each_machine() {
        let (mut one, mut two) = (Boot::default(), Boot::default());
        one.hear("[   3.827] root         2 ms  can be pivoted");
        one.hear("[   7.000] node n1 is ready: ");
        two.hear("[   3.827] late        30 ms  10 loaded");
        let table = table(&[("n1".to_owned(), &one), ("n2".to_owned(), &two)]);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["n1", "n2"]);
        assert_eq!(lines[1], ["root", "2", "ms", "-"]);
        assert_eq!(lines[2], ["late", "-", "30", "ms"]);
        assert_eq!(lines[4], ["ready", "at", "7.0", "s", "-"]);
    }
}
