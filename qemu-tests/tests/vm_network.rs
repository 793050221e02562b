//! What a pod finds around it: its files and its network, as programs in it see them.
//!
//! The scenarios run in order on one machine; each is a function whose name is its claim. Kernel objects that no pod can
//! see, as the rules of the table `podium`, have tests of their own beside the code that makes them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use podium_qemu_tests::ClusterOptions;
use podium_qemu_tests::registry::content;
use podium_qemu_tests::scenario::{CLIENT, POD_LIMIT, Rig, Scenario, blank};
use podium_switch::OutsidePort;

/// The port of the gateway behind which the test itself answers.
const OUTSIDE_PORT: u16 = 7080;
/// What it answers.
const OUTSIDE_WORD: &str = "from outside";

/// A pod on the machine's own network, with its processes and its disk.
const HOST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec:
  hostNetwork: true
  hostPID: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkdir /www; echo from the host >/www/index.html; exec httpd -f -vv -p 8081 -h /www']
    securityContext: {privileged: true}
    volumeMounts: [{name: state, mountPath: /state}]
  volumes: [{name: state, hostPath: {path: /var, type: Directory}}]
";

/// A web server and a UDP echo behind one Service, and one whose Service has no endpoint.
const SERVERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: netcat
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkdir /www; echo from the server >/www/index.html; head -c 1000000 /dev/zero >/www/large; exec httpd -f -vv -p 8080 -h /www']
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
  - name: echo
    image: netcat
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkfifo /tmp/back; while true; do netcat -u -l -w 2 9000 </tmp/back | tee /tmp/back; done']
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports:
  - {name: web, port: 80, targetPort: 8080}
  - {name: echo, port: 90, targetPort: 9000, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

fn pods_come_to_run(rig: &mut Rig) -> anyhow::Result<()> {
    let image = content::netcat(&rig.cluster.layout().cache())?;
    rig.cluster.registry().context("the rig has a registry")?.push(&image)?;
    for manifest in [&CLIENT.replace("image: busybox", "image: netcat"), HOST, SERVERS] {
        rig.apply(manifest)?;
    }
    for pod in ["client", "host", "server"] {
        rig.kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), POD_LIMIT])?;
    }
    Ok(())
}

/// Runs a script in a container of a pod.
fn shell(rig: &Rig, pod: &str, container: &str, script: &str) -> anyhow::Result<String> {
    rig.kubectl.run(&["exec", pod, "-c", container, "--", "sh", "-c", script])
}

fn host(rig: &Rig, script: &str) -> anyhow::Result<String> {
    shell(rig, "host", "shell", script)
}

fn address_of(rig: &Rig, pod: &str) -> anyhow::Result<String> {
    rig.kubectl.run(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

fn log_of(rig: &Rig, pod: &str, container: &str) -> anyhow::Result<String> {
    rig.kubectl.run(&["logs", pod, "-c", container])
}

const MOUNTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, 'file.conf': 'a = 1'}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: mounts, labels: {app: mounts}, annotations: {note: seen}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: before
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo from before >/disk/word; echo from before >/memory/word']
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
  containers:
  - name: shell
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    securityContext: {readOnlyRootFilesystem: true}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: disk, mountPath: /part, subPath: deep/part}
    - {name: memory, mountPath: /memory}
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /etc/one.conf, subPath: file.conf}
    - {name: password, mountPath: /password, readOnly: true}
    - {name: all, mountPath: /all}
    - {name: about, mountPath: /about}
    - {name: host, mountPath: /host}
    - {name: release, mountPath: /release, readOnly: true}
  - name: beside
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sleep, '1000000']
    volumeMounts: [{name: disk, mountPath: /disk}]
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password, defaultMode: 0400}}
  - name: all
    projected:
      sources:
      - configMap: {name: settings, items: [{key: color, path: settings/color}]}
      - secret: {name: password}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
  - name: about
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: limit, resourceFieldRef: {containerName: shell, resource: limits.memory}}
  - {name: host, hostPath: {path: /var/tmp/shared, type: DirectoryOrCreate}}
  - {name: release, hostPath: {path: /etc/podium-release, type: File}}
";

/// A script in the pod of [`MOUNTS`] and what it must print.
fn see(rig: &Rig, script: &str, expected: &str) -> anyhow::Result<()> {
    let seen = shell(rig, "mounts", "shell", script)?;
    ensure!(seen == expected, "{script}: {seen:?}, not {expected:?}");
    Ok(())
}

/// A command in the pod of [`MOUNTS`] that must fail with these words.
fn refused(rig: &Rig, command: &str, words: &str) -> anyhow::Result<()> {
    let seen = shell(rig, "mounts", "shell", &format!("({command}) 2>&1 && echo done || true"))?;
    ensure!(seen.contains(words) && !seen.ends_with("done\n"), "{command}: {seen:?}");
    Ok(())
}

fn every_volume_holds_what_it_should(rig: &mut Rig) -> anyhow::Result<()> {
    rig.apply(MOUNTS)?;
    rig.kubectl.run(&["wait", "--for=condition=Ready", "pod/mounts", POD_LIMIT])?;
    see(rig, "cat /disk/word /memory/word", "from before\nfrom before\n")?;
    see(rig, "cat /settings/color /settings/file.conf", "bluea = 1")?;
    see(rig, "cat /password/password; stat -L -c %a /password/password", "hush400\n")?;
    see(rig, "cat /all/settings/color /all/password /all/name", "bluehushmounts")?;
    see(rig, "cat /about/labels; echo; cat /about/limit", "app=\"mounts\"\n67108864")?;
    see(rig, "cat /etc/one.conf", "a = 1")?;
    see(rig, "grep -c ^version= /release", "1\n")?;
    see(rig, "echo part >/part/file; cat /disk/deep/part/file", "part\n")?;
    see(rig, "echo kept >/host/file; cat /host/file", "kept\n")?;
    ensure!(host(rig, "cat /state/tmp/shared/file")? == "kept\n");
    ensure!(shell(rig, "mounts", "beside", "cat /disk/word")? == "from before\n");
    Ok(())
}

fn each_mount_is_of_its_kind(rig: &mut Rig) -> anyhow::Result<()> {
    let mounts = shell(rig, "mounts", "shell", "cat /proc/mounts")?;
    for (place, kind, option) in [
        ("/", "overlay", "ro"),
        ("/disk", "ext4", "rw"),
        ("/part", "ext4", "rw"),
        ("/memory", "tmpfs", "size=1024k"),
        ("/settings", "ext4", "ro"),
        ("/etc/one.conf", "ext4", "ro"),
        // Never on a disk.
        ("/password", "tmpfs", "ro"),
        ("/all", "tmpfs", "ro"),
        ("/about", "ext4", "ro"),
        ("/host", "ext4", "rw"),
        ("/release", "rootfs", "ro"),
        ("/proc", "proc", "rw"),
        ("/proc/sys", "proc", "ro"),
        ("/proc/sysrq-trigger", "proc", "ro"),
        ("/proc/acpi", "tmpfs", "ro"),
        ("/sys", "sysfs", "ro"),
        ("/sys/firmware", "tmpfs", "ro"),
        ("/sys/fs/cgroup", "cgroup2", "ro"),
        ("/dev", "tmpfs", "rw"),
        ("/dev/pts", "devpts", "rw"),
        ("/dev/shm", "tmpfs", "rw"),
        ("/dev/mqueue", "mqueue", "rw"),
        ("/dev/termination-log", "ext4", "rw"),
        ("/etc/hosts", "tmpfs", "rw"),
        ("/etc/resolv.conf", "tmpfs", "rw"),
        ("/etc/hostname", "tmpfs", "rw"),
    ] {
        let fits = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            words.get(1) == Some(&place)
                && words.get(2) == Some(&kind)
                && words.get(3).is_some_and(|all| all.split(',').any(|it| it == option))
        };
        ensure!(mounts.lines().any(fits), "{place} is no {option} {kind}:\n{mounts}");
    }
    Ok(())
}

fn what_must_not_be_written_or_read_cannot_be(rig: &mut Rig) -> anyhow::Result<()> {
    refused(rig, "touch /file", "Read-only file system")?;
    refused(rig, "touch /settings/file", "Read-only file system")?;
    refused(rig, "touch /password/file", "Read-only file system")?;
    refused(rig, "echo x >/release", "Read-only file system")?;
    refused(rig, "echo 1 >/proc/sys/vm/drop_caches", "Read-only file system")?;
    refused(rig, "echo b >/proc/sysrq-trigger", "Read-only file system")?;
    refused(rig, "mkdir /sys/fs/cgroup/mine", "Read-only file system")?;
    refused(rig, "dd if=/dev/zero of=/memory/large bs=64k count=32", "No space left on device")?;
    refused(rig, "mount -t tmpfs none /disk", "ermi")?;
    // A container may make device nodes, as under containerd, and use none of them.
    refused(rig, "mknod /disk/node b 254 0; head -c 1 /disk/node", "ermi")?;
    see(
        rig,
        "cat /proc/kcore /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware",
        "/proc/acpi:\n\n/sys/firmware:\n",
    )
}

fn a_changed_config_map_changes_its_files_in_place(rig: &mut Rig) -> anyhow::Result<()> {
    let patch = r#"{"data":{"color":"green","file.conf":"a = 2","new":"here"}}"#;
    rig.kubectl.run(&["patch", "configmap", "settings", "-p", patch])?;
    rig.until("the file to change", |rig| {
        let seen = shell(
            rig,
            "mounts",
            "shell",
            "cat /settings/color /all/settings/color /settings/file.conf /settings/new",
        )?;
        Ok((seen == "greengreena = 2here").then_some(()))
    })?;
    // A subPath is the file as it was when the container started, in Kubernetes as here.
    see(rig, "cat /etc/one.conf", "a = 1")?;
    let path = "jsonpath={.status.containerStatuses[*].restartCount}";
    let restarts = rig.kubectl.run(&["get", "pod", "mounts", "-o", path])?;
    ensure!(restarts == "0 0", "{restarts}");
    Ok(())
}

fn a_deleted_pod_leaves_no_volume_but_the_hosts(rig: &mut Rig) -> anyhow::Result<()> {
    let uid = rig.kubectl.run(&["get", "pod", "mounts", "-o", "jsonpath={.metadata.uid}"])?;
    let look = format!(
        "ls -d /state/lib/podium/pods/{uid} /state/log/pods/*{uid} 2>/dev/null; grep {uid} /proc/1/mounts; true"
    );
    ensure!(!host(rig, &look)?.is_empty(), "there is nothing to be removed");
    rig.kubectl.run(&["delete", "pod", "mounts", POD_LIMIT])?;
    rig.until("the pod's folders and mounts to go", |rig| {
        Ok(host(rig, &look)?.is_empty().then_some(()))
    })?;
    ensure!(host(rig, "cat /state/tmp/shared/file")? == "kept\n");
    Ok(())
}

fn links_and_routes_are_as_drawn(rig: &mut Rig) -> anyhow::Result<()> {
    let pod = address_of(rig, "client")?;
    let inside = rig.exec(&["ip", "route"])?;
    ensure!(
        inside == "default via 10.244.0.1 dev eth0 \n10.244.0.1 dev eth0 scope link \n",
        "{inside}"
    );
    let link = rig.exec(&["ip", "-o", "addr", "show", "eth0"])?;
    ensure!(link.contains(&format!("inet {pod}/32")), "{link}");
    let loopback = rig.exec(&["ip", "-o", "addr", "show", "lo"])?;
    ensure!(loopback.contains("inet 127.0.0.1/8"), "{loopback}");
    let uid = rig.kubectl.run(&["get", "pod", "client", "-o", "jsonpath={.metadata.uid}"])?;
    let veth: String = "veth".chars().chain(uid.chars().filter(|it| *it != '-').take(11)).collect();
    let routes = host(rig, "ip route")?;
    for route in [
        format!("{pod} dev {veth} scope link  src 10.244.0.1"),
        "10.244.0.0/16 dev podium0 scope link  src 10.244.0.1".to_owned(),
        "10.96.0.0/16 dev podium0 scope link  src 10.244.0.1".to_owned(),
        "default via 10.77.0.1 dev eth0".to_owned(),
    ] {
        ensure!(routes.contains(&route), "no route {route:?}:\n{routes}");
    }
    let own = host(rig, "ip -o addr show podium0")?;
    ensure!(own.contains("inet 10.244.0.1/32") && own.contains("inet 10.96.0.10/32"), "{own}");
    Ok(())
}

fn pods_reach_each_other_by_tcp_and_udp(rig: &mut Rig) -> anyhow::Result<()> {
    let (server, client) = (address_of(rig, "server")?, address_of(rig, "client")?);
    let page = rig.exec(&["wget", "-q", "-O", "-", &format!("http://{server}:8080/")])?;
    ensure!(page == "from the server\n", "{page:?}");
    let log = log_of(rig, "server", "web")?;
    ensure!(log.contains(&format!("[::ffff:{client}]")), "the server sees another source:\n{log}");
    let large =
        rig.exec(&["sh", "-c", &format!("wget -q -O - http://{server}:8080/large | wc -c")])?;
    ensure!(large == "1000000\n", "{large}");
    udp(rig, ("client", "shell"), &server, 9000)
}

/// Says a word over UDP from a pod's container, until it comes back: datagrams may be lost, and the echo
/// listens again only after a pause.
fn udp(rig: &mut Rig, (pod, container): (&str, &str), to: &str, port: u16) -> anyhow::Result<()> {
    let script = format!("echo word | netcat -u -w 1 {to} {port}");
    rig.until("the word to come back", |rig| {
        Ok((shell(rig, pod, container, &script)?.lines().next() == Some("word")).then_some(()))
    })
}

fn pod_and_node_reach_each_other_without_translation(rig: &mut Rig) -> anyhow::Result<()> {
    let (server, client) = (address_of(rig, "server")?, address_of(rig, "client")?);
    let page = host(rig, &format!("wget -q -O - http://{server}:8080/"))?;
    ensure!(page == "from the server\n", "{page:?}");
    let log = log_of(rig, "server", "web")?;
    ensure!(log.contains("[::ffff:10.244.0.1]"), "the node does not use its pod address:\n{log}");
    let page = rig.exec(&["wget", "-q", "-O", "-", "http://10.77.0.10:8081/"])?;
    ensure!(page == "from the host\n", "{page:?}");
    let log = log_of(rig, "host", "shell")?;
    ensure!(log.contains(&format!("[::ffff:{client}]")), "the node sees another source:\n{log}");
    Ok(())
}

fn services_work_from_pod_and_node(rig: &mut Rig) -> anyhow::Result<()> {
    let address =
        rig.kubectl.run(&["get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"])?;
    for script in
        ["wget -q -O - http://server/".to_owned(), format!("wget -q -O - http://{address}/")]
    {
        let page = rig.exec(&["sh", "-c", &script])?;
        ensure!(page == "from the server\n", "{script}: {page:?}");
    }
    for script in [
        "wget -q -O - http://server.default.svc.cluster.local/".to_owned(),
        format!("wget -q -O - http://{address}/"),
    ] {
        let page = host(rig, &script)?;
        ensure!(page == "from the server\n", "on the node, {script}: {page:?}");
    }
    Ok(())
}

fn a_pod_reaches_its_own_service(rig: &mut Rig) -> anyhow::Result<()> {
    // Its short name is in its own hosts file, with its own address.
    let url = "http://server.default.svc.cluster.local/";
    let page = shell(rig, "server", "web", &format!("wget -q -O - {url}"))?;
    ensure!(page == "from the server\n", "{page:?}");
    let log = log_of(rig, "server", "web")?;
    let own = address_of(rig, "server")?;
    ensure!(
        !log.contains(&format!("[::ffff:{own}]")),
        "it answers itself past the service:\n{log}"
    );
    let address =
        rig.kubectl.run(&["get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"])?;
    udp(rig, ("client", "shell"), &address, 90)?;
    udp(rig, ("server", "web"), &address, 90)
}

fn a_service_without_endpoints_refuses_at_once(rig: &mut Rig) -> anyhow::Result<()> {
    let said = rig.exec(&["sh", "-c", "timeout 20 wget -q -O - http://nobody/ 2>&1; echo $?"])?;
    ensure!(said.contains("Connection refused") && said.ends_with("\n1\n"), "{said:?}");
    Ok(())
}

/// The API speaks TLS only, and only to clients with a certificate, which busybox has none of: its alert to a client that speaks
/// plain HTTP (RFC 8446, 6: type 21, two bytes) shows that the path leads there.
fn a_pod_reaches_the_api_as_kubernetes_default(rig: &mut Rig) -> anyhow::Result<()> {
    for script in [
        r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 kubernetes.default 443 | xxd -p",
        r#"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT" | xxd -p"#,
    ] {
        let alert = rig.exec(&["sh", "-c", script])?;
        ensure!(alert.starts_with("150303000202"), "{script}: {alert:?}");
    }
    let alert = host(rig, r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 10.96.0.1 443 | xxd -p")?;
    ensure!(alert.starts_with("150303000202"), "on the node: {alert:?}");
    Ok(())
}

fn a_pod_reaches_the_outside_by_name_tcp_and_udp(rig: &mut Rig) -> anyhow::Result<()> {
    let url = format!("http://gateway.podium.test:{OUTSIDE_PORT}/");
    let page = rig.exec(&["wget", "-q", "-O", "-", &url])?;
    ensure!(page == OUTSIDE_WORD, "{page:?}");
    // The gateway answers those on its own network only, which a pod's address is not.
    let found = rig.exec(&["nslookup", "-type=a", "registry.podium.test", "10.77.0.1"])?;
    ensure!(found.contains("Address: 10.77.0.1\n"), "{found}");
    Ok(())
}

/// Look-ups go to the DNS address of the pod's own node, which is not tracked. Look-ups alone are counted: probes and clients of
/// the API come and go meanwhile. One at the gateway, which is tracked, shows that the count would have told.
fn a_thousand_look_ups_leave_no_tracked_connection(rig: &mut Rig) -> anyhow::Result<()> {
    let script = "
tracked() { grep 'dport=53 ' /proc/net/nf_conntrack; }
for pid in $(pidof sleep); do tr '\\0' ' ' </proc/$pid/cmdline | grep -q 'sleep 1000000' && pod=$pid; done
look() { nsenter -t $pod -m -n nslookup \"$@\" >/dev/null; }
done=0
while [ $done -lt 1000 ]; do look server.default.svc.cluster.local && done=$((done + 1)) || exit 1; done
look -type=a registry.podium.test 10.77.0.1
echo $done $(tracked | grep -vc ' dst=10.77.0.1 ') $(tracked | grep -c ' dst=10.77.0.1 ')
tracked
";
    let said = host(rig, script)?;
    let numbers = said.lines().next().unwrap_or_default().split(' ');
    let numbers: Vec<u32> = numbers.filter_map(|it| it.parse().ok()).collect();
    let &[done, cluster, gateway] = numbers.as_slice() else { anyhow::bail!("{said}") };
    ensure!(done == 1000 && cluster == 0, "{cluster} of {done} look-ups are tracked:\n{said}");
    ensure!(gateway > 0, "a tracked look-up does not show: {said}");
    Ok(())
}

/// Answers each connection with [`OUTSIDE_WORD`], until the test ends.
fn outside() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(answer(stream)));
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let _ = stream.read(&mut [0; 4096])?;
    let length = OUTSIDE_WORD.len();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{OUTSIDE_WORD}")
}

fn links_go_with_their_pods(rig: &mut Rig) -> anyhow::Result<()> {
    let veths = "ip -o link | grep -c veth";
    ensure!(host(rig, veths)? == "2\n");
    rig.kubectl.run(&["delete", "pod", "server", POD_LIMIT])?;
    rig.until("the pod's link to go", |rig| Ok((host(rig, veths)? == "1\n").then_some(())))?;
    let routes = host(rig, "ip route")?;
    ensure!(routes.matches("veth").count() == 1, "{routes}");
    Ok(())
}

#[test]
fn pods_have_their_files_and_their_network() -> anyhow::Result<()> {
    let scenarios: [Scenario; 16] = [
        ("pods come to run", pods_come_to_run),
        ("every volume holds what it should", every_volume_holds_what_it_should),
        ("each mount is of its kind", each_mount_is_of_its_kind),
        ("what must not be written or read cannot be", what_must_not_be_written_or_read_cannot_be),
        (
            "a changed ConfigMap changes its files in place",
            a_changed_config_map_changes_its_files_in_place,
        ),
        (
            "a deleted pod leaves no volume but the host's",
            a_deleted_pod_leaves_no_volume_but_the_hosts,
        ),
        ("links and routes are as drawn", links_and_routes_are_as_drawn),
        ("pods reach each other by TCP and UDP", pods_reach_each_other_by_tcp_and_udp),
        (
            "pod and node reach each other without translation",
            pod_and_node_reach_each_other_without_translation,
        ),
        ("services work from pod and node", services_work_from_pod_and_node),
        ("a pod reaches its own service", a_pod_reaches_its_own_service),
        (
            "a service without endpoints refuses at once",
            a_service_without_endpoints_refuses_at_once,
        ),
        (
            "a pod reaches the API as kubernetes.default",
            a_pod_reaches_the_api_as_kubernetes_default,
        ),
        (
            "a pod reaches the outside by name, TCP and UDP",
            a_pod_reaches_the_outside_by_name_tcp_and_udp,
        ),
        (
            "a thousand look-ups leave no tracked connection",
            a_thousand_look_ups_leave_no_tracked_connection,
        ),
        ("links go with their pods", links_go_with_their_pods),
    ];
    let port = OutsidePort { port: OUTSIDE_PORT, target: outside()? };
    let options = ClusterOptions { outside: vec![port], ..blank("vm-network")? };
    Rig::boot(&options)?.run(&scenarios)
}
