//! The shape of the YAML: what a person may write, before any value is checked.
//!
//! Programs that write a config (`podium cluster new`) fill a [`Document`] and print it with [`Document::to_yaml`];
//! programs that read one use [`super::decode`]. Every struct refuses keys that it does not know.

use serde::{Deserialize, Serialize};

use super::Problem;
use super::outline::Outline;

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    /// Must be `podium.dev/v1`.
    pub api_version: String,
    /// Must be `MachineConfig`.
    pub kind: String,
    /// See [`super::Cluster`].
    pub cluster: Cluster,
    /// See [`super::Machine`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// See [`super::Registry`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<Registry>,
    /// See [`super::Timings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// `cluster:`
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cluster {
    /// A DNS label.
    pub name: String,
    /// base64url, no padding, at least 128 bits.
    pub token: String,
    /// base64 of a SubjectPublicKeyInfo.
    pub admin_key: String,
    /// Machines that form the cluster; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u32>,
    /// Addresses of other machines, as `10.0.2.11` or `10.0.2.11:6444`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// `10.244.0.0/16` if left out.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// `10.96.0.0/16` if left out.
    #[serde(default, rename = "serviceCIDR", skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<String>,
    /// `wireguard` (if left out), `vxlan` or `routes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cluster")
            .field("name", &self.name)
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}

/// `machine:`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Machine {
    /// A DNS label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Where STATE may be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// `{dhcp: true}`, or fixed addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Time servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// `machine.state:`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct State {
    /// A whole disk, as `/dev/vda`.
    pub disk: String,
}

/// `machine.network:`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Network {
    /// Ask a DHCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Which link the fixed address belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// A fixed address, as `10.0.2.15/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The default router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
}

/// `machine.time:`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Time {
    /// Names or addresses.
    pub servers: Vec<String>,
}

/// One of `registries:`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Registry {
    /// The host in image references.
    pub host: String,
    /// Asked before the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
}

/// One of `registries[].mirrors:`
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mirror {
    /// `https://host[:port]`.
    pub url: String,
    /// PEM certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// With `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// With `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Mirror").field("url", &self.url).finish_non_exhaustive()
    }
}

/// `timings:`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Timings {
    /// 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
}

/// A document that cannot be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("writing the machine config as YAML")]
pub struct WriteError(#[source] serde_saphyr::ser::Error);

impl Document {
    /// The document as YAML that [`super::decode`] reads back.
    ///
    /// # Errors
    /// A value that YAML cannot hold; none of ours is.
    pub fn to_yaml(&self) -> Result<String, WriteError> {
        serde_saphyr::to_string(self).map_err(WriteError)
    }
}

/// Reads the shape; the first thing that does not fit is the problem.
pub(super) fn parse(yaml: &str, outline: &Outline) -> Result<Document, Problem> {
    serde_saphyr::from_str::<Document>(yaml).map_err(|error| problem(&error, outline))
}

/// Turns the decoder's error into the words of this module: field, line, reason.
fn problem(error: &serde_saphyr::Error, outline: &Outline) -> Problem {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let line = error
        .location()
        .and_then(|location| u32::try_from(location.line()).ok())
        .filter(|line| *line > 0);
    let at = line.map(|line| outline.path_at(line)).unwrap_or_default();
    if let Error::SerdeMissingField { field, .. } = error {
        let parent = outline.parent_of_missing(&at);
        let line = outline.line_of(&parent).or(line);
        return Problem { field: under(&parent, field), line, reason: "is missing".to_owned() };
    }
    let (field, reason) = match error {
        Error::SerdeUnknownField { field, expected, .. } => (
            under(&outline.parent_for(&at, field), field),
            format!("unknown key; known here: {}", expected.join(", ")),
        ),
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            (at, format!("expected {expected}, found {unexpected}"))
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (at, format!("expected {expected}, found {unexpected}"))
        }
        Error::InvalidScalar { ty, .. } => (at, format!("must be {}", meaning(ty))),
        other => (at, first_line(&other.to_string())),
    };
    Problem { field, line, reason }
}

/// What a scalar type is called by people who write YAML.
fn meaning(scalar: &str) -> &str {
    match scalar {
        "u32" => "a whole number",
        "bool" => "true or false",
        other => other,
    }
}

fn under(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

/// The decoder explains itself over several lines and repeats the place, which the problem already names.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or(text);
    let end = line.find(" at line ").unwrap_or(line.len());
    line.get(..end).unwrap_or(line).to_owned()
}
