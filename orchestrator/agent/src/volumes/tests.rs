//! Volumes on the file system of the machine that runs the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use podium_types::k8s::api::core::v1::{ConfigMap, Pod, Secret};
use serde_json::{Value, json};

use super::{VolumeRoots, prepare, refresh, remove, sub_path};
use crate::fields::FieldFacts;
use crate::seams::{References, ServiceAddress};

#[derive(Default)]
struct Objects {
    map: Mutex<Option<Value>>,
}

impl References for Objects {
    fn config_map(&self, _namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        let data = self.map.lock().expect("a lock").clone().filter(|_| name == "conf")?;
        Some(Arc::new(serde_json::from_value(json!({"data": data})).expect("a ConfigMap")))
    }

    fn secret(&self, _namespace: &str, name: &str) -> Option<Arc<Secret>> {
        let data = json!({"data": {"token": "c2VjcmV0"}});
        (name == "key").then(|| Arc::new(serde_json::from_value(data).expect("a Secret")))
    }

    fn services(&self, _namespace: &str) -> Vec<ServiceAddress> {
        Vec::new()
    }
}

struct Ground {
    _dir: tempfile::TempDir,
    roots: VolumeRoots,
    objects: Objects,
}

fn ground(map: Value) -> Ground {
    let dir = tempfile::tempdir().expect("a folder");
    let roots = VolumeRoots { disk: dir.path().join("disk"), memory: dir.path().join("memory") };
    Ground { _dir: dir, roots, objects: Objects { map: Mutex::new(Some(map)) } }
}

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
        "spec": {"containers": [], "volumes": volumes}
    }))
    .expect("a pod")
}

#[test]
fn config_map_files_are_replaced_all_at_once_and_old_names_go() {
    let ground = ground(json!({"a": "1", "b": "1"}));
    let pod = pod(json!([{"name": "v", "configMap": {"name": "conf"}}]));
    let facts = FieldFacts::default();
    let paths = prepare(&pod, &ground.roots, &ground.objects, &facts).expect("volumes");
    let volume = paths.get("v").expect("the volume");
    let first = fs::read_link(volume.join("..data")).expect("a link");
    assert_eq!(fs::read_to_string(volume.join("a")).expect("a file"), "1");

    refresh(&pod, &ground.roots, &ground.objects, &facts).expect("a refresh");
    assert_eq!(
        fs::read_link(volume.join("..data")).expect("a link"),
        first,
        "replaced although nothing changed"
    );

    *ground.objects.map.lock().expect("a lock") = Some(json!({"a": "2", "c": "2"}));
    refresh(&pod, &ground.roots, &ground.objects, &facts).expect("a refresh");
    assert_eq!(fs::read_to_string(volume.join("a")).expect("a file"), "2");
    assert_eq!(fs::read_to_string(volume.join("c")).expect("a file"), "2");
    assert!(fs::symlink_metadata(volume.join("b")).is_err(), "a name that is gone is still there");
    assert!(!volume.join(first).exists(), "the old files are still there");
}

#[test]
fn items_choose_paths_and_modes() {
    let ground = ground(json!({"a": "1"}));
    let source =
        json!({"name": "conf", "items": [{"key": "a", "path": "deep/er/name", "mode": 256}]});
    let volumes = prepare(
        &pod(json!([{"name": "v", "configMap": source}])),
        &ground.roots,
        &ground.objects,
        &FieldFacts::default(),
    )
    .expect("volumes");
    let file = volumes.get("v").expect("the volume").join("deep/er/name");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "1");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o400);
}

#[test]
fn secrets_and_projections_stay_in_memory() {
    let ground = ground(json!({"a": "1"}));
    let projected = json!({"sources": [
        {"secret": {"name": "key"}},
        {"configMap": {"name": "conf"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    ]});
    let pod = pod(
        json!([{"name": "s", "secret": {"secretName": "key"}}, {"name": "p", "projected": projected}]),
    );
    let paths =
        prepare(&pod, &ground.roots, &ground.objects, &FieldFacts::default()).expect("volumes");
    assert!(paths.values().all(|path| path.starts_with(&ground.roots.memory)));
    let read = |volume: &str, name: &str| {
        fs::read_to_string(paths.get(volume).expect("the volume").join(name)).expect("a file")
    };
    assert_eq!(read("s", "token"), "secret");
    assert_eq!(
        (read("p", "token"), read("p", "a"), read("p", "labels")),
        ("secret".into(), "1".into(), "app=\"x\"".into())
    );
    remove(&ground.roots).expect("removal");
    assert!(!ground.roots.memory.exists() && !ground.roots.disk.exists());
}

#[test]
fn what_is_missing_or_not_supported_is_named() {
    let ground = ground(json!({}));
    let refused = |volume: Value| {
        prepare(&pod(json!([volume])), &ground.roots, &ground.objects, &FieldFacts::default())
            .expect_err("a refusal")
    };
    assert_eq!(
        refused(json!({"name": "v", "configMap": {"name": "none"}})),
        "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found"
    );
    assert_eq!(
        refused(
            json!({"name": "v", "configMap": {"name": "conf", "items": [{"key": "k", "path": "p"}]}})
        ),
        "MountVolume.SetUp failed for volume \"v\" : references non-existent ConfigMap key: conf/k"
    );
    assert_eq!(
        refused(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})),
        "MountVolume.SetUp failed for volume \"v\" : volumes of type persistentVolumeClaim are not supported"
    );
    assert!(
        refused(json!({"name": "v", "hostPath": {"path": "/proc/self/none", "type": "File"}}))
            .contains("does not exist")
    );
    let optional = json!({"name": "v", "configMap": {"name": "none", "optional": true}});
    prepare(&pod(json!([optional])), &ground.roots, &ground.objects, &FieldFacts::default())
        .expect("optional");
}

#[test]
fn empty_dir_is_open_to_all_and_survives_a_second_preparation() {
    let ground = ground(json!({}));
    let pod = pod(json!([{"name": "v", "emptyDir": {}}]));
    let paths =
        prepare(&pod, &ground.roots, &ground.objects, &FieldFacts::default()).expect("volumes");
    let volume = paths.get("v").expect("the volume");
    assert_eq!(fs::metadata(volume).expect("a folder").permissions().mode() & 0o777, 0o777);
    fs::write(volume.join("kept"), "x").expect("a file");
    prepare(&pod, &ground.roots, &ground.objects, &FieldFacts::default()).expect("volumes again");
    assert!(volume.join("kept").exists());
}

#[test]
fn sub_paths_stay_in_their_volume() {
    let dir = tempfile::tempdir().expect("a folder");
    let volume = dir.path().join("v");
    fs::create_dir(&volume).expect("a folder");
    assert!(sub_path(&volume, "a/b").expect("made").is_dir());
    std::os::unix::fs::symlink("/etc", volume.join("out")).expect("a link");
    std::os::unix::fs::symlink("a", volume.join("in")).expect("a link");
    for bad in ["../x", "/etc", "a/../../x", "out", "out/passwd"] {
        assert!(sub_path(&volume, bad).is_err(), "{bad}");
    }
    assert!(sub_path(&volume, "in/b").expect("a link inside").ends_with("v/a/b"));
}
