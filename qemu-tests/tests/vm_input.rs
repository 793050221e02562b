//! What is wrong is said in words that help: golden messages of the shipped image, for whatever a person can get wrong, and for
//! a disk that is full.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_init::config::document;
use podium_qemu_tests::registry::content;
use podium_qemu_tests::scenario::{
    BOOT_LIMIT, CLIENT, FILL, POD_LIMIT, Rig, Scenario, blank, wait_console,
};
use podium_qemu_tests::{Cluster, ClusterOptions};

/// What kubectl prints when it is fed something wrong: all of it.
fn refusal(rig: &Rig, arguments: &[&str], input: &str, expected: &str) -> anyhow::Result<()> {
    let output = rig.kubectl.try_run(arguments, input)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{input}\nis not refused: {output:?}");
    ensure!(said.trim_end() == expected, "{input}\nis refused with\n{said}\nnot with\n{expected}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(())
}

const CREATE: [&str; 3] = ["create", "-f", "-"];

fn malformed_yaml(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x\nspec: [\n",
        "error: error parsing STDIN: error converting YAML to JSON: yaml: line 3: did not find expected ',' or '}'",
    )
}

fn an_unknown_field(rig: &mut Rig) -> anyhow::Result<()> {
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: x}
spec: {containers: [{name: c, image: busybox, imagePullPolcy: Never}]}
";
    let strict = "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: \
                  strict decoding error: unknown field \"spec.containers[0].imagePullPolcy\"";
    refusal(rig, &CREATE, pod, strict)?;
    refusal(rig, &["apply", "-f", "-"], pod, strict)?;
    let warned =
        rig.kubectl.try_run(&["create", "--validate=warn", "--dry-run=server", "-f", "-"], pod)?;
    ensure!(
        warned.status.success()
            && warned.stderr == b"Warning: unknown field \"spec.containers[0].imagePullPolcy\"\n"
            && warned.stdout == b"pod/x created (server dry run)\n",
        "{warned:?}"
    );
    Ok(())
}

fn a_wrong_type(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
spec:
  replicas: three
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: busybox}]}}
",
        "Error from server (BadRequest): error when creating \"STDIN\": Deployment in version \"v1\" cannot be handled as a \
         Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    )
}

fn an_invalid_name(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "
apiVersion: v1
kind: Pod
metadata: {name: Not_A_Name}
spec: {containers: [{name: c, image: busybox}]}
",
        r#"The Pod "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
    )
}

fn a_missing_namespace(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: nowhere}
spec: {containers: [{name: c, image: busybox}]}
",
        "Error from server (NotFound): error when creating \"STDIN\": namespaces \"nowhere\" not found",
    )
}

fn a_pod_without_containers(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}",
        "The Pod \"x\" is invalid: spec.containers: Required value",
    )
}

fn a_field_that_is_not_supported(rig: &mut Rig) -> anyhow::Result<()> {
    refusal(
        rig,
        &CREATE,
        "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {shareProcessNamespace: true, containers: [{name: c, image: busybox}]}}",
        "The Pod \"x\" is invalid: spec.shareProcessNamespace: Forbidden: not supported by Podium yet",
    )
}

/// Makes a pod of an image; it is always pulled.
fn pod_of(rig: &Rig, name: &str, image: &str) -> anyhow::Result<()> {
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  containers: [{{name: c, image: '{image}', imagePullPolicy: Always, command: [cat, /etc/label]}}]
"
    );
    rig.kubectl.feed(&CREATE, &pod).map(drop)
}

/// Waits for the reason for which a pod's container waits, and gives its message.
fn waiting(rig: &mut Rig, pod: &str, reason: &str) -> anyhow::Result<String> {
    let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}|{.status.containerStatuses[0].state.waiting.message}";
    rig.until(&format!("{pod} to be in {reason}"), |rig| {
        let seen = rig.kubectl.run(&["get", "pod", pod, "-o", path])?;
        Ok(seen.split_once('|').filter(|seen| seen.0 == reason).map(|seen| seen.1.to_owned()))
    })
}

fn events(rig: &Rig, pod: &str) -> anyhow::Result<String> {
    let selector = format!("involvedObject.name={pod}");
    let path = r#"jsonpath={range .items[*]}{.type} {.reason} {.message}{"\n"}{end}"#;
    rig.kubectl.run(&["get", "events", "--field-selector", &selector, "-o", path])
}

/// A pod whose image cannot be got, for this reason, in status and events.
fn cannot_pull(rig: &mut Rig, pod: &str, image: &str, why: &str) -> anyhow::Result<()> {
    let failure = waiting(rig, pod, "ErrImagePull")?;
    ensure!(failure == why, "{failure}\nnot\n{why}");
    let message = waiting(rig, pod, "ImagePullBackOff")?;
    let expected = format!("Back-off pulling image \"{image}\": ErrImagePull: {why}");
    ensure!(message == expected, "{message}\nnot\n{expected}");
    rig.until("the events", |rig| {
        let events = events(rig, pod)?;
        let all = [
            format!("Normal Pulling Pulling image \"{image}\"\n"),
            format!("Warning Failed Failed to pull image \"{image}\": {why}\n"),
            "Warning Failed Error: ErrImagePull\n".to_owned(),
            format!("Normal BackOff Back-off pulling image \"{image}\"\n"),
            "Warning Failed Error: ImagePullBackOff\n".to_owned(),
        ];
        match all.iter().find(|event| !events.contains(event.as_str())) {
            None => Ok(Some(())),
            Some(missing) => anyhow::bail!("no event {missing:?} in\n{events}"),
        }
    })
}

fn an_image_that_is_not_there(rig: &mut Rig) -> anyhow::Result<()> {
    pod_of(rig, "missing-image", "busybox:no-such-tag")?;
    cannot_pull(
        rig,
        "missing-image",
        "busybox:no-such-tag",
        "failed to pull image \"docker.io/library/busybox:no-such-tag\": https://10.77.0.1:5000: manifest \
         library/busybox:no-such-tag not found: manifest unknown; https://registry-1.docker.io: manifest \
         library/busybox:no-such-tag: failed to lookup address information: Name or service not known",
    )
}

/// A registry whose authority is not the one that the config names: [`strange_authority`].
fn a_registry_with_a_wrong_certificate(rig: &mut Rig) -> anyhow::Result<()> {
    pod_of(rig, "wrong-certificate", "registry.test/library/busybox:latest")?;
    cannot_pull(
        rig,
        "wrong-certificate",
        "registry.test/library/busybox:latest",
        "failed to pull image \"registry.test/library/busybox:latest\": https://10.77.0.1:5000: tls: failed to verify \
         certificate: certificate signed by unknown authority; https://registry.test: manifest library/busybox:latest: failed \
         to lookup address information: Name or service not known",
    )
}

fn a_damaged_layer_and_its_repair(rig: &mut Rig) -> anyhow::Result<()> {
    let mut label = [0; 16];
    getrandom::fill(&mut label)?;
    let label = format!("{:x}\n", u128::from_le_bytes(label));
    let image = content::labelled(&rig.cluster.layout().cache(), "library/damaged", &label)?;
    let registry = rig.cluster.registry().context("the rig has a registry")?;
    let before = registry.blobs("library/damaged").unwrap_or_default();
    registry.push(&image)?;
    let mut new = registry.blobs("library/damaged")?;
    new.retain(|digest, _| !before.contains_key(digest));
    // The other new blob is the configuration, which has some hundred bytes.
    let layers =
        new.into_iter().filter(|blob| blob.1.metadata().is_ok_and(|file| file.len() > 100_000));
    let [(digest, file)] = layers.collect::<Vec<_>>().try_into().ok().context("one layer")?;
    let good = std::fs::read(&file)?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad)?;
    let actual = ring::digest::digest(&ring::digest::SHA256, &bad);
    let actual: String = actual.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    pod_of(rig, "damaged-layer", "damaged")?;
    let why = format!(
        "failed to pull image \"docker.io/library/damaged:latest\": layer digest mismatch: expected {digest}, got sha256:{actual}"
    );
    let pulled = cannot_pull(rig, "damaged-layer", "damaged", &why);
    std::fs::write(&file, &good)?;
    pulled?;
    rig.kubectl.run(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/damaged-layer",
        POD_LIMIT,
    ])?;
    ensure!(rig.kubectl.run(&["logs", "damaged-layer"])? == label);
    Ok(())
}

fn a_pod_that_fits_no_node(rig: &mut Rig) -> anyhow::Result<()> {
    let all = "
{apiVersion: v1, kind: Pod, metadata: {name: too-big}, spec: {containers: [
  {name: c, image: busybox, resources: {requests: {memory: 64Gi}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far-too-big}, spec: {containers: [
  {name: c, image: busybox, resources: {requests: {memory: 64Gi, cpu: 100}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: elsewhere}, spec: {nodeSelector: {disk: fast}, containers: [
  {name: c, image: busybox}]}}
";
    rig.kubectl.feed(&CREATE, all)?;
    for (name, why) in [
        ("too-big", "0/1 nodes are available: 1 Insufficient memory."),
        ("far-too-big", "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        (
            "elsewhere",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
    ] {
        let path =
            r#"jsonpath={.status.phase} {.status.conditions[?(@.type=="PodScheduled")].message}"#;
        rig.until(name, |rig| {
            let seen = rig.kubectl.run(&["get", "pod", name, "-o", path])?;
            ensure!(seen == format!("Pending {why}"), "{name} is {seen}");
            let events = events(rig, name)?;
            ensure!(events == format!("Warning FailedScheduling {why}\n"), "{events}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// A pod that holds volumes on STATE, and can fill it at once.
const FILLER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: filler}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    volumeMounts: [{name: state, mountPath: /fill}]
  volumes: [{name: state, emptyDir: {}}]
";

fn disk_pressure(rig: &mut Rig, status: &str) -> anyhow::Result<()> {
    let path = r#"jsonpath={.items[0].status.conditions[?(@.type=="DiskPressure")].status}"#;
    rig.until(&format!("DiskPressure to be {status}"), |rig| {
        Ok((rig.kubectl.run(&["get", "nodes", "-o", path])? == status).then_some(()))
    })
}

/// Writes ConfigMaps until there are enough or one is refused; every acknowledged one's name is returned.
fn write_some(rig: &Rig, round: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
    let mut written = Vec::new();
    let value = "x".repeat(100_000);
    for number in 0..40 {
        let name = format!("{round}-{number}");
        let object = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: {value}}}\n"
        );
        let output = rig.kubectl.try_run(&CREATE, &object)?;
        if !output.status.success() {
            return Ok((written, Some(String::from_utf8_lossy(&output.stderr).into_owned())));
        }
        written.push(name);
    }
    Ok((written, None))
}

fn all_there(rig: &Rig, names: &[String]) -> anyhow::Result<()> {
    let present = rig.kubectl.run(&[
        "get",
        "configmaps",
        "-o",
        r#"jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}"#,
    ])?;
    let lost: Vec<_> =
        names.iter().filter(|name| !present.lines().any(|it| it == name.as_str())).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    Ok(())
}

fn a_full_disk_is_survived_and_told(rig: &mut Rig) -> anyhow::Result<()> {
    rig.apply(FILLER)?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/filler", POD_LIMIT])?;
    disk_pressure(rig, "False")?;
    let shell =
        |rig: &Rig, script: &str| rig.kubectl.run(&["exec", "filler", "--", "sh", "-c", script]);
    let free = shell(rig, FILL)?;
    ensure!(free.split_whitespace().nth(3) == Some("0"), "the disk is not full: {free}");

    disk_pressure(rig, "True")?;
    wait_console(&mut rig.cluster, "the disk of images and volumes is nearly full")?;
    let (mut written, refused) = write_some(rig, "full")?;
    // Volumes do not get what is reserved for the node.
    ensure!(refused.is_none(), "after {} writes of 100 kB: {refused:?}", written.len());
    all_there(rig, &written)?;

    // The machine starts with a full disk as well, and has all that it acknowledged.
    rig.cluster.machine(0).cut_power()?;
    rig.cluster.power_on()?;
    rig.cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    all_there(rig, &written)?;
    // No container starts now, but what fills the disk can be deleted, which is a write as well.
    rig.kubectl.run(&["delete", "pod", "filler", POD_LIMIT])?;
    disk_pressure(rig, "False")?;
    wait_console(&mut rig.cluster, "the node has no disk pressure")?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT])?;
    let (more, refused) = write_some(rig, "last")?;
    ensure!(refused.is_none(), "with room again, a write is refused: {refused:?}");
    written.extend(more);
    all_there(rig, &written)?;
    let node = rig.kubectl.run(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let events = events(rig, &node)?;
    for reason in ["NodeHasDiskPressure", "NodeHasNoDiskPressure"] {
        let event = format!("Normal {reason} Node {node} status is now: {reason}\n");
        ensure!(events.contains(&event), "no event {event:?} in\n{events}");
    }
    Ok(())
}

fn pods_come_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    rig.apply(CLIENT)?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/client", POD_LIMIT]).map(drop)
}

/// The rig's registry once more, under a host whose mirror's authority is another one.
fn strange_authority(config: &mut document::Document) {
    let strange = || -> Option<document::Registry> {
        let key = rcgen::KeyPair::generate().ok()?;
        let mut authority = rcgen::CertificateParams::new(Vec::new()).ok()?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&key).ok()?.pem();
        let mut mirror = config.registries.first()?.mirrors.first()?.clone();
        mirror.ca = Some(ca);
        Some(document::Registry { host: "registry.test".to_owned(), mirrors: vec![mirror] })
    };
    let strange = strange();
    config.registries.extend(strange);
}

#[test]
fn what_is_wrong_is_said() -> anyhow::Result<()> {
    let scenarios: [Scenario; 13] = [
        ("pods come to run", pods_come_to_run),
        ("malformed YAML", malformed_yaml),
        ("an unknown field", an_unknown_field),
        ("a wrong type", a_wrong_type),
        ("an invalid name", an_invalid_name),
        ("a missing namespace", a_missing_namespace),
        ("a pod without containers", a_pod_without_containers),
        ("a field that is not supported", a_field_that_is_not_supported),
        ("an image that is not there", an_image_that_is_not_there),
        ("a registry with a wrong certificate", a_registry_with_a_wrong_certificate),
        ("a damaged layer, and its repair", a_damaged_layer_and_its_repair),
        ("a pod that fits no node", a_pod_that_fits_no_node),
        ("a full disk is survived and told", a_full_disk_is_survived_and_told),
    ];
    let options = ClusterOptions { adjust: strange_authority, ..blank("vm-input")? };
    Rig::boot(&options)?.run(&scenarios)
}

#[test]
fn a_wrong_machine_config_is_named_on_the_console() -> anyhow::Result<()> {
    let options = ClusterOptions { registry: false, ..blank("vm-input-config")? };
    let mut cluster = Cluster::prepare(&options)?;
    let path = options.layout.machine_config();
    let good = std::fs::read_to_string(&path)?;
    let unknown = good.replace("kind: MachineConfig\n", "kind: MachineConfig\nclustre: {}\n");
    let token =
        good.lines().find(|line| line.trim_start().starts_with("token: ")).context("a token")?;
    let short = good.replace(token, "  token: c2hvcnQtdG9rZW4");
    for (config, reason) in [
        (
            &unknown,
            "clustre (line 3): unknown key; known here: apiVersion, kind, cluster, machine, registries, timings",
        ),
        (&short, "cluster.token (line 5): must hold at least 128 bits, found 88"),
    ] {
        std::fs::write(&path, config)?;
        cluster.power_on()?;
        let line = wait_console(&mut cluster, "] config ")?;
        ensure!(line.ends_with(&format!("!! {reason}")), "{line}\nnot\n{reason}");
        let line = wait_console(&mut cluster, "] node ")?;
        ensure!(line.ends_with("!! not started: there is no usable config"), "{line}");
        wait_console(&mut cluster, "address 10.77.0.10 on eth0")?;
        let limit = cluster.patient(Duration::from_secs(30));
        ensure!(cluster.machine(0).shut_down(limit)?, "the power button does nothing");
    }
    std::fs::write(&path, &good)?;
    cluster.power_on()?;
    cluster.wait_ready(BOOT_LIMIT, |_| {})?;
    // From now on there is a last good one.
    cluster.machine(0).cut_power()?;
    std::fs::write(&path, &unknown)?;
    cluster.power_on()?;
    wait_console(&mut cluster, "!! running with the last good config, from STATE")?;
    cluster.wait_ready(BOOT_LIMIT, |_| {})
}
