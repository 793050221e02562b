//! What a worker's certificate is good for: what is its own, and nothing else.
//!
//! The credential is `/var/lib/podium/identity/api` on the worker's STATE: `node.pem` (certificate and key), `authority.pem` and
//! `kubeconfig`. A pod with a hostPath has them; kubectl takes them as they are, with the server of the administrator's.

use std::path::Path;

use anyhow::ensure;
use podium_qemu_tests::kubectl::Kubectl;
use podium_qemu_tests::scenario::{POD_LIMIT, Rig};

/// The fourth of four machines, three of which were blank before it came.
const WORKER: &str = "n4";
const VOTER: &str = "n1";

/// A pod on a node that uses a Secret, and has the node's credential.
fn user_of_secret(node: &str, secret: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {secret}}}
stringData: {{word: {secret}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: on-{node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    envFrom: [{{secretRef: {{name: {secret}}}}}]
    volumeMounts: [{{name: identity, mountPath: /identity, readOnly: true}}]
  volumes: [{{name: identity, hostPath: {{path: /var/lib/podium/identity, type: Directory}}}}]
"
    )
}

/// kubectl as the worker: its files, and the server that the administrator uses.
fn as_the_worker(rig: &Rig, folder: &Path) -> anyhow::Result<Kubectl> {
    let pod = format!("on-{WORKER}");
    let server =
        rig.kubectl.run(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    for file in ["node.pem", "authority.pem", "kubeconfig"] {
        let path = format!("/identity/api/{file}");
        let contents = rig.kubectl.run(&["exec", &pod, "--", "cat", &path])?;
        std::fs::write(
            folder.join(file),
            contents.replace("https://127.0.0.1:6443", server.trim()),
        )?;
    }
    Kubectl::new(&rig.cluster.layout().cache(), 37, &folder.join("kubeconfig"))
}

pub(crate) fn a_workers_certificate_is_good_for_what_is_its_own(
    rig: &mut Rig,
) -> anyhow::Result<()> {
    rig.apply(&user_of_secret(WORKER, "mine"))?;
    rig.apply(&user_of_secret(VOTER, "theirs"))?;
    for node in [WORKER, VOTER] {
        rig.kubectl.run(&[
            "wait",
            "--for=condition=Ready",
            &format!("pod/on-{node}"),
            POD_LIMIT,
        ])?;
    }
    let folder = tempfile::tempdir()?;
    let worker = as_the_worker(rig, folder.path())?;
    let word = worker.run(&["get", "secret", "mine", "-o", "jsonpath={.data.word}"])?;
    ensure!(word == "bWluZQ==", "its own pod's Secret: {word:?}");
    worker.run(&["annotate", "node", WORKER, "note=own"])?;
    let (on_worker, on_voter) = (format!("on-{WORKER}"), format!("on-{VOTER}"));
    let mirror = format!("--overrides={{\"spec\":{{\"nodeName\":\"{WORKER}\"}}}}");
    let votes = r#"{"status":{"voter":true}}"#;
    let control_plane = "node-role.kubernetes.io/control-plane=";
    let refused: [(&[&str], &str); 10] = [
        (&["get", "secret", "theirs"], "no relationship found between node"),
        (&["get", "secrets"], "cannot list resource \"secrets\""),
        (&["get", "secrets", "--watch"], "cannot list resource \"secrets\""),
        (&["annotate", "node", VOTER, "note=taken"], "may only change its own"),
        (&["annotate", "machine", VOTER, "note=taken"], "may only change its own"),
        (&["label", "node", WORKER, control_plane], "is not allowed to modify labels"),
        (
            &["patch", "machine", WORKER, "--subresource=status", "--type=merge", "-p", votes],
            "is not allowed to call itself a voter",
        ),
        (&["delete", "pod", &on_voter], "can only delete pods with spec.nodeName set to itself"),
        (&["exec", &on_worker, "--", "id"], "cannot create resource \"pods/exec\""),
        (&["run", "mirror", "--image=busybox", &mirror], "cannot create resource \"pods\""),
    ];
    for (arguments, why) in refused {
        let output = worker.try_run(arguments, "")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // kubectl says "(Forbidden)" of an object, and of a stream what the server said.
        let forbidden = !output.status.success() && said.to_lowercase().contains("forbidden");
        ensure!(forbidden && said.contains(why), "{arguments:?}: {said}");
    }
    Ok(())
}
