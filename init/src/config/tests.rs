//! Golden messages: what a person reads on the console when the config is wrong.

use super::*;

const GOOD: &str = "\
apiVersion: podium.dev/v1
kind: MachineConfig
cluster:
  name: demo
  token: AAECAwQFBgcICQoLDA0ODw
  adminKey: MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==
  expect: 1
machine:
  hostname: one
  state: { disk: /dev/vda }
  network:
    address: 10.0.2.15/24
    gateway: 10.0.2.2
    nameservers: [10.0.2.3]
registries:
  - host: k8s.gcr.io
    mirrors:
      - url: https://10.0.2.2:5000
        username: podium
        password: secret
timings:
  factor: 4
";

fn problems(yaml: &str) -> Vec<String> {
    decode(yaml)
        .expect_err("the document is wrong")
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn replaced(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from:?} is not in the example");
    problems(&GOOD.replace(from, to))
}

#[test]
fn a_full_document_is_read() {
    let config = decode(GOOD).expect("a good document");
    assert_eq!(config.cluster.token.as_bytes().len(), 16);
    assert_eq!(config.cluster.pod_cidr.to_string(), "10.244.0.0/16");
    assert_eq!(config.cluster.service_cidr.to_string(), "10.96.0.0/16");
    assert_eq!(config.machine.state_disk.as_deref(), Some("/dev/vda"));
    assert_eq!(config.timings.factor, 4);
    let Network::Static { addresses, gateway, .. } = &config.machine.network else {
        panic!("a fixed address")
    };
    assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.2.15/24"]);
    assert_eq!(*gateway, Some("10.0.2.2".parse().expect("an address")));
    let mirror =
        config.registries.first().and_then(|registry| registry.mirrors.first()).expect("a mirror");
    assert_eq!(
        mirror.credential.as_ref().map(|credential| credential.username.as_str()),
        Some("podium")
    );
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let shown = format!("{:?}", decode(GOOD).expect("a good document"));
    assert!(!shown.contains("secret") && !shown.contains("[0, 1, 2, 3"), "{shown}");
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    assert_eq!(
        replaced("  hostname: one\n", "  hostnam: one\n"),
        ["machine.hostnam (line 9): unknown key; known here: hostname, state, network, time"]
    );
}

#[test]
fn an_unknown_key_in_a_list_is_named_with_its_index() {
    assert_eq!(
        replaced("        username: podium\n", "        user: podium\n"),
        [
            "registries[0].mirrors[0].user (line 19): unknown key; known here: url, ca, username, password"
        ]
    );
}

#[test]
fn an_unknown_key_at_the_top_is_named() {
    assert_eq!(
        replaced("timings:\n", "timing:\n"),
        [
            "timing (line 21): unknown key; known here: apiVersion, kind, cluster, machine, registries, timings"
        ]
    );
}

#[test]
fn a_missing_key_is_named_with_its_parent() {
    assert_eq!(
        replaced("  token: AAECAwQFBgcICQoLDA0ODw\n", ""),
        ["cluster.token (line 3): is missing"]
    );
}

#[test]
fn a_short_token_is_refused_without_being_shown() {
    assert_eq!(
        replaced("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0O"),
        ["cluster.token (line 5): must hold at least 128 bits, found 120"]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    assert_eq!(
        replaced("expect: 1", "expect: many"),
        ["cluster.expect (line 7): must be a whole number"]
    );
}

#[test]
fn all_bad_values_are_reported_together() {
    let yaml = GOOD
        .replace("name: demo", "name: Demo")
        .replace("expect: 1", "expect: 0")
        .replace("disk: /dev/vda", "disk: vda")
        .replace("        password: secret\n", "");
    assert_eq!(
        problems(&yaml),
        [
            "cluster.name (line 4): must be 1 to 63 lower-case letters, digits and '-', with no '-' at either end, \
             found \"Demo\"",
            "cluster.expect (line 7): must be from 1 to 7, found 0",
            "machine.state.disk (line 10): must be a disk as /dev/vda, found \"vda\"",
            "registries[0].mirrors[0].password (line 18): is missing: username and password go together",
        ]
    );
}

#[test]
fn overlapping_ranges_are_refused() {
    assert_eq!(
        replaced("  expect: 1\n", "  expect: 1\n  podCIDR: 10.0.0.0/8\n"),
        ["cluster.serviceCIDR (line 3): 10.96.0.0/16 overlaps podCIDR 10.0.0.0/8"]
    );
    assert_eq!(
        replaced("  expect: 1\n", "  expect: 1\n  podCIDR: 10.244.1.0/16\n"),
        [
            "cluster.podCIDR (line 8): has host bits set: 10.244.0.0/16 is the network of 10.244.1.0/16"
        ]
    );
}

#[test]
fn other_machines_are_listed_by_address() {
    let listed =
        |peers: &str| GOOD.replace("  expect: 1\n", &format!("  expect: 3\n  peers: {peers}\n"));
    let config = decode(&listed("[10.0.2.11, \"10.0.2.12:7000\", \"fd00::1\"]")).expect("a config");
    let shown: Vec<String> = config.cluster.peers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.2.11:6444", "10.0.2.12:7000", "[fd00::1]:6444"]);
    assert_eq!(
        problems(&listed("[10.0.2.11, n2, 0.0.0.0, \"10.0.2.12:0\"]")),
        [
            "cluster.peers[1] (line 8): must be a machine's address as 10.0.2.11 or 10.0.2.11:6444, found \"n2\"",
            "cluster.peers[2] (line 8): must be a machine's address as 10.0.2.11 or 10.0.2.11:6444, found \"0.0.0.0\"",
            "cluster.peers[3] (line 8): must be a machine's address as 10.0.2.11 or 10.0.2.11:6444, found \"10.0.2.12:0\"",
        ]
    );
}

#[test]
fn the_overlay_is_one_of_three_and_encrypted_unless_told_otherwise() {
    let overlay = |line: &str| {
        let yaml = GOOD.replace("  expect: 1\n", &format!("  expect: 1\n{line}"));
        decode(&yaml).expect("a good document").cluster.overlay
    };
    assert_eq!(overlay(""), Overlay::WireGuard);
    assert_eq!(overlay("  overlay: wireguard\n"), Overlay::WireGuard);
    assert_eq!(overlay("  overlay: vxlan\n"), Overlay::Vxlan);
    assert_eq!(overlay("  overlay: routes\n"), Overlay::Routes);
    assert_eq!(
        replaced("  expect: 1\n", "  expect: 1\n  overlay: geneve\n"),
        ["cluster.overlay (line 8): must be wireguard, vxlan or routes, found \"geneve\""]
    );
}

#[test]
fn an_address_and_dhcp_exclude_each_other() {
    assert_eq!(
        replaced("    gateway: 10.0.2.2\n", "    gateway: 10.0.2.2\n    dhcp: true\n"),
        ["machine.network (line 11): has both dhcp: true and an address: choose one"]
    );
}

#[test]
fn malformed_yaml_is_one_problem_with_a_line() {
    let found = problems("apiVersion: podium.dev/v1\nkind: [\n");
    assert_eq!(found.len(), 1);
    assert!(found.iter().all(|problem| problem.starts_with("kind (line ")), "{found:?}");
}

#[test]
fn an_empty_document_is_a_problem() {
    assert_eq!(problems("").len(), 1);
}

#[test]
fn a_written_document_reads_back() {
    let document = document::Document {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        cluster: document::Cluster {
            name: "demo".to_owned(),
            token: "AAECAwQFBgcICQoLDA0ODw".to_owned(),
            admin_key: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==".to_owned(),
            ..document::Cluster::default()
        },
        machine: None,
        registries: vec![document::Registry {
            host: "k8s.gcr.io".to_owned(),
            mirrors: vec![document::Mirror {
                url: "https://10.0.2.2:5000".to_owned(),
                ca: Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned()),
                username: None,
                password: None,
            }],
        }],
        timings: Some(document::Timings { factor: Some(3) }),
    };
    let yaml = document.to_yaml().expect("writable");
    let config = decode(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    assert_eq!(config.timings.factor, 3);
    assert_eq!(
        config
            .registries
            .first()
            .and_then(|registry| registry.mirrors.first())
            .and_then(|mirror| mirror.ca_pem.clone()),
        Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned())
    );
}

#[test]
fn a_config_survives_the_control_socket() {
    let config = decode(GOOD).expect("a good document");
    let bytes = postcard::to_allocvec(&config).expect("encodes");
    assert_eq!(postcard::from_bytes::<MachineConfig>(&bytes).expect("decodes"), config);
}
