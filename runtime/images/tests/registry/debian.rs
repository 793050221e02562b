//! Debian's docker-registry over TLS with an image that umoci made and skopeo pushed: other people's programs on both ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podium_images::Mirror;
use rcgen::{CertificateParams, KeyPair};

use crate::Machine;

/// Kills its process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(folder: &Path, command: &str) {
    let mut words = command.split_whitespace();
    let output =
        Command::new(words.next().unwrap()).args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image with one file owned by somebody, in the OCI layout `layout`.
fn make_image(folder: &Path) {
    run(folder, "umoci init --layout layout");
    run(folder, "umoci new --image layout:app");
    run(folder, "umoci unpack --image layout:app bundle");
    fs::create_dir_all(folder.join("bundle/rootfs/srv")).unwrap();
    fs::write(folder.join("bundle/rootfs/srv/hello"), "hello from Debian\n").unwrap();
    std::os::unix::fs::chown(folder.join("bundle/rootfs/srv/hello"), Some(1234), Some(2345))
        .unwrap();
    run(folder, "umoci repack --image layout:app bundle");
    run(
        folder,
        "umoci config --image layout:app --config.entrypoint /srv/hello --config.user 1234",
    );
}

fn start_registry(folder: &Path, port: u16) -> (Running, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {root}/data }} }}\n\
         http: {{ addr: 127.0.0.1:{port}, tls: {{ certificate: {root}/cert.pem, key: {root}/key.pem }} }}\n",
        root = folder.display()
    );
    fs::write(folder.join("config.yml"), config).unwrap();
    let child = Command::new("docker-registry")
        .args(["serve", "config.yml"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Running(child), certificate.pem())
}

fn wait_for_port(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "docker-registry does not listen");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_serves_what_umoci_made() {
    let folder = tempfile::tempdir().unwrap();
    make_image(folder.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (registry, certificate) = start_registry(folder.path(), port);
    wait_for_port(port);
    run(
        folder.path(),
        &format!(
            "skopeo copy --dest-tls-verify=false oci:layout:app docker://127.0.0.1:{port}/team/app:1"
        ),
    );
    let url = format!("https://127.0.0.1:{port}");
    let machine = Machine::with(
        |_| {},
        Mirror { url, ca: Some(certificate), username: None, password: None },
    );
    let image = machine.pull("k8s.gcr.io/team/app:1").await.unwrap();
    drop(registry);
    assert_eq!(image.defaults.entrypoint, ["/srv/hello"]);
    assert_eq!(image.defaults.user, "1234");
    let hello = image.layers[0].join("srv/hello");
    assert_eq!(fs::read_to_string(&hello).unwrap(), "hello from Debian\n");
    let metadata = fs::metadata(&hello).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
}
