//! One machine's disk lies, or is full; the others go on, and it comes back.

use anyhow::{Context as _, ensure};
use podium_qemu_tests::clients::read_what_was_written;
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::machine_name;
use podium_qemu_tests::scenario::{FILL, PATIENCE, POD_LIMIT, Rig, Scenario};

use crate::ALL;

pub(crate) const SCENARIOS: [Scenario; 2] = [
    ("a flipped bit in a log is repaired from the others", a_flipped_bit_is_repaired),
    ("a full disk stops one machine alone, until there is room", a_full_disk_stops_one_alone),
];

/// A follower, so that what happens to it is not hidden by an election.
fn follower(rig: &mut Rig) -> anyhow::Result<u16> {
    let leader = rig.leader()?;
    ALL.into_iter().find(|machine| *machine != leader).context("a follower")
}

fn a_flipped_bit_is_repaired(rig: &mut Rig) -> anyhow::Result<()> {
    const MARKER: &str = "a-record-that-rots-on-one-disk";
    rig.wait_for_answers(&ALL)?;
    let object = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: rot}}\ndata: {{key: {MARKER}}}\n"
    );
    rig.kubectl.feed(&["create", "-f", "-"], &object)?;
    let victim = follower(rig)?;
    // What was committed is on all disks once everybody has read it.
    read_what_was_written(&mut rig.cluster, &ALL, 1, PATIENCE)?;
    rig.cluster.inject(&Fault::PowerOff(victim))?;
    let flipped = rig.cluster.machine(victim).flip_bits(MARKER.as_bytes())?;
    ensure!(flipped > 0, "the record is not on {}'s disk", machine_name(victim));
    rig.cluster.inject(&Fault::PowerOn(victim))?;
    rig.wait_for_line(victim, &["damaged; following without a vote"])?;
    rig.wait_for_line(victim, &["the log is whole again"])?;
    rig.wait_for_answers(&ALL)?;
    let kubectl = rig.kubectl_of(victim)?;
    let read = kubectl.run(&["get", "configmap", "rot", "-o", "jsonpath={.data.key}"])?;
    ensure!(read == MARKER, "{read}");
    rig.kubectl.run(&["delete", "configmap", "rot"]).map(|_| ())
}

/// A pod on a node, for a shell that fills the node's disk without writing: blocks are taken, not filled.
fn filler(machine: u16) -> String {
    let node = machine_name(machine);
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: filler}}
spec:
  nodeName: {node}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    volumeMounts: [{{name: state, mountPath: /fill}}]
  volumes:
  - {{name: state, emptyDir: {{}}}}
"
    )
}

fn a_full_disk_stops_one_alone(rig: &mut Rig) -> anyhow::Result<()> {
    rig.wait_for_answers(&ALL)?;
    let victim = follower(rig)?;
    let others: Vec<u16> = ALL.into_iter().filter(|machine| *machine != victim).collect();
    rig.apply(&filler(victim))?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/filler", POD_LIMIT])?;
    let full = rig.kubectl.run(&["exec", "filler", "--", "sh", "-c", FILL])?;
    println!("{}: {}", machine_name(victim), full.trim());
    ensure!(full.split_whitespace().nth(3) == Some("0"), "the disk is not full: {full}");
    read_what_was_written(&mut rig.cluster, &others, 50, PATIENCE)
        .context("the others do not go on")?;
    // Its own API may not answer now; a shell that runs does.
    rig.until("room again", |rig| {
        let empty = ["exec", "filler", "--", "sh", "-c", "rm -f /fill/*"];
        Ok(rig.kubectl.run(&empty).ok())
    })?;
    rig.wait_for_answers(&ALL)?;
    read_what_was_written(&mut rig.cluster, &ALL, 5, PATIENCE).context("it does not come back")?;
    rig.kubectl.run(&["delete", "pod", "filler", "--now", POD_LIMIT]).map(|_| ())
}
