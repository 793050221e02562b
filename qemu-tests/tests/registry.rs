//! The rig's registry, without any machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use podium_qemu_tests::node_api::Https;
use podium_qemu_tests::registry::Registry;

/// Downloads are shared with the rig's own runs.
fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.podium/cache")
}

#[test]
fn it_serves_the_examples_images_by_tls_and_comes_back_on_its_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut registry =
        Registry::start(&cache(), folder.path(), Ipv4Addr::new(10, 77, 0, 1)).expect("a registry");
    let address = registry.address();
    let https = Https::new(address, "10.77.0.1", registry.ca_pem()).expect("a client");
    for path in ["/v2/redis/tags/list", "/v2/library/busybox/tags/list"] {
        let tags = https.get(path).expect(path).json().expect(path);
        assert!(tags["tags"].as_array().is_some_and(|tags| tags.len() == 2), "{path}: {tags}");
    }
    registry.switch_off();
    https.get("/v2/").expect_err("an answer from a registry that is off");
    registry.switch_on().expect("on again");
    assert_eq!(registry.address(), address);
    assert_eq!(https.get("/v2/redis/tags/list").expect("an answer").status, 200);
}
