//! Which texts may be names, label keys, label values and the like.
//!
//! Every check returns the reasons why a text is none, in Kubernetes' words; no reasons mean that it is one. The rules
//! are those of RFC 1035, RFC 1123 and RFC 6335 as Kubernetes narrows them (ASCII, lower case).

/// The longest DNS label, and the longest label value.
pub const LABEL_BYTES: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_BYTES: usize = 253;

const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A label of a host name (RFC 1123): names of namespaces, containers, volumes.
#[must_use]
pub fn dns_label(text: &str) -> Vec<String> {
    let mut reasons = at_most(text, LABEL_BYTES);
    if !is_label(text) {
        if is_subdomain(text) {
            reasons.push("must not contain dots".to_owned());
        } else {
            reasons.push(pattern_reason(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_PATTERN,
                &["my-name", "123-abc"],
            ));
        }
    }
    reasons
}

/// A host name with dots (RFC 1123): names of most objects.
#[must_use]
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut reasons = at_most(text, SUBDOMAIN_BYTES);
    if !is_subdomain(text) {
        reasons.push(pattern_reason(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &format!("{LABEL_PATTERN}(\\.{LABEL_PATTERN})*"),
            &["example.com"],
        ));
    }
    reasons
}

/// A label that starts with a letter (RFC 1035): names of Services.
#[must_use]
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut reasons = at_most(text, LABEL_BYTES);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        reasons.push(pattern_reason(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    reasons
}

/// `name` or `prefix/name`: keys of labels and annotations, finalizers, resource names.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (prefix, name) = match parts.as_slice() {
        [name] => (None, *name),
        [prefix, name] => (Some(*prefix), *name),
        _ => {
            let message = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
            let reason =
                pattern_reason(message, QUALIFIED_PATTERN, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "{reason} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut reasons = Vec::new();
    match prefix {
        Some("") => reasons.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => reasons.extend(
            dns_subdomain(prefix).into_iter().map(|reason| format!("prefix part {reason}")),
        ),
        None => {}
    }
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES {
        reasons.push(format!("name part must be no more than {LABEL_BYTES} bytes"));
    }
    if !is_qualified(name) {
        let message = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        reasons.push(pattern_reason(message, QUALIFIED_PATTERN, &["MyName", "my.name", "123-abc"]));
    }
    reasons
}

/// The value of a label: may be empty.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut reasons = at_most_bytes(text, LABEL_BYTES);
    if !text.is_empty() && !is_qualified(text) {
        reasons.push(pattern_reason(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED_PATTERN})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    reasons
}

/// The name of an environment variable.
#[must_use]
pub fn environment_variable(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if text.is_empty() {
        reasons.push("environment variable name must be non-empty".to_owned());
    }
    if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte) || byte == b'=') {
        let reason = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        reasons.push(reason.to_owned());
    }
    reasons
}

/// A key of a ConfigMap or Secret, which may become the name of a file.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut reasons = at_most(text, SUBDOMAIN_BYTES);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        reasons.push(pattern_reason(
            message,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => reasons.push("must not be '.'".to_owned()),
        ".." => reasons.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => reasons.push("must not start with '..'".to_owned()),
        _ => {}
    }
    reasons
}

/// The name of a port (RFC 6335, lower case).
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut reasons = at_most(text, 15);
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || !text.bytes().all(allowed) {
        reasons.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        reasons.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        reasons.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        reasons.push("must not begin or end with a hyphen".to_owned());
    }
    reasons
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern_reason(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A port number other than 0.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|byte| allowed(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && text.bytes().all(inner)
}

fn at_most(text: &str, characters: usize) -> Vec<String> {
    if text.len() > characters {
        vec![format!("must be no more than {characters} characters")]
    } else {
        Vec::new()
    }
}

fn at_most_bytes(text: &str, bytes: usize) -> Vec<String> {
    if text.len() > bytes {
        vec![format!("must be no more than {bytes} bytes")]
    } else {
        Vec::new()
    }
}

fn pattern_reason(message: &str, pattern: &str, examples: &[&str]) -> String {
    let mut examples =
        examples.iter().map(|example| format!("'{example}', ")).collect::<Vec<_>>().join(" or ");
    if examples.is_empty() {
        examples.push(' ');
    }
    format!("{message} (e.g. {examples}regex used for validation is '{pattern}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_have_no_reasons_against_them() {
        for text in ["a", "a-b", "0", "a1-2-b"] {
            assert!(dns_label(text).is_empty() && dns_subdomain(text).is_empty(), "{text}");
        }
        assert!(dns_subdomain("a.b-c.d").is_empty());
        for text in ["a", "A_b.c", "example.com/A", "kubernetes.io/metadata.name"] {
            assert!(qualified_name(text).is_empty(), "{text}");
        }
        for text in ["", "a", "A.b_c"] {
            assert!(label_value(text).is_empty(), "{text}");
        }
        for text in ["http", "a-1", "1-a"] {
            assert!(port_name(text).is_empty(), "{text}");
        }
        assert!(config_key(".profile").is_empty() && environment_variable("my.var").is_empty());
    }

    #[test]
    fn bad_names_have_reasons() {
        for text in ["", "-a", "a-", "A", "a_b", "a.b", "é", &"a".repeat(64)] {
            assert!(!dns_label(text).is_empty(), "{text}");
        }
        for text in ["", ".", "a..b", ".a", "a.", "A", &"a".repeat(254)] {
            assert!(!dns_subdomain(text).is_empty(), "{text}");
        }
        for text in ["", "/a", "a/", "a/b/c", "A/b", "-a", "a b", &"a".repeat(64)] {
            assert!(!qualified_name(text).is_empty(), "{text}");
        }
        for text in ["-a", "a b", "a/b", &"a".repeat(64)] {
            assert!(!label_value(text).is_empty(), "{text}");
        }
        for text in ["", "80", "a--b", "-a", "a-", "HTTP", "abcdefghijklmnop"] {
            assert!(!port_name(text).is_empty(), "{text}");
        }
        for text in ["", ".", "..", "..a", "a/b", "a b"] {
            assert!(!config_key(text).is_empty(), "{text}");
        }
        assert!(!dns_1035_label("1a").is_empty() && dns_1035_label("a1").is_empty());
        assert!(
            !port_number(0).is_empty()
                && !port_number(65536).is_empty()
                && port_number(65535).is_empty()
        );
    }

    #[test]
    fn reasons_are_in_the_words_of_kubernetes() {
        assert_eq!(
            dns_subdomain("Bad_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            config_key("a/b"),
            [
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ]
        );
    }
}
