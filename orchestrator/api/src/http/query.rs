//! The query of a request, and paths with percent signs.

use crate::status::Status;

/// Names and values in the order they came; names may repeat.
#[derive(Debug, Default, Clone)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self { pairs: pairs.collect() }
    }

    /// The first value of a name; empty values count as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// `true`, `1`, or the bare name; `false` and `0` are false like no name at all.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|value| !matches!(value, "false" | "False" | "0"))
    }

    /// A number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Status::bad_request(format!(
                    "invalid value for query parameter {name}: {text:?} is not a number"
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }
}

/// Takes the percent signs (and, in queries, the plus signs) out. Bytes that are not UTF-8 become replacement characters.
pub(super) fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = || {
            let digits = text.get(at + 1..at + 3)?;
            digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16).ok())?
        };
        match (byte, hex) {
            (b'%', hex) if hex().is_some() => {
                out.extend(hex());
                at += 2;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Query, decode};

    #[test]
    fn queries_are_decoded_and_keep_repeated_names() {
        let query =
            Query::parse("command=sh&command=-c&command=echo+a%2Bb&watch&x=&limit=500&bad=1x");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a+b"]);
        assert!(query.flag("watch") && !query.flag("follow"));
        assert_eq!(query.get("x"), None);
        assert_eq!(query.number::<u64>("limit"), Ok(Some(500)));
        assert_eq!(query.number::<u64>("bad").map_err(|status| status.code), Err(400));
        assert!(!Query::parse("watch=false").flag("watch"));
    }

    #[test]
    fn broken_escapes_are_left_as_they_are() {
        assert_eq!(decode("%", false), "%");
        assert_eq!(decode("%4", false), "%4");
        assert_eq!(decode("%zz%41", false), "%zzA");
        assert_eq!(decode("%e4%b8%ad+", false), "中+");
        assert_eq!(decode("%ff", false), "\u{fffd}");
        assert_eq!(decode("%+1", true), "% 1");
    }
}
