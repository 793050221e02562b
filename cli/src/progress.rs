//! What of a machine's console is worth a line of `podium up`.

/// Remembers what has been said of one machine.
#[derive(Debug, Default)]
pub(crate) struct Milestones {
    said: std::collections::BTreeSet<String>,
}

impl Milestones {
    /// The line's news, if it is any: what PID 1 and the node say of themselves, each once.
    pub(crate) fn of(&mut self, line: &str) -> Option<String> {
        let line = line.trim();
        let text = line.strip_prefix("podium: ")?.trim();
        (!text.is_empty() && self.said.insert(text.to_owned())).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_podiums_own_lines_are_news_and_each_once() {
        let mut milestones = Milestones::default();
        assert_eq!(milestones.of("[    1.0] virtio_net: ok"), None);
        assert_eq!(milestones.of("podium: network up"), Some("network up".to_owned()));
        assert_eq!(milestones.of("podium: network up"), None);
    }
}
