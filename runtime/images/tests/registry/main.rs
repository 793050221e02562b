//! Pulling from real TLS registries: one in this process that misbehaves on command, and Debian's docker-registry filled by skopeo.

mod debian;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use podium_images::{
    Config, ContainerImage, Credential, Digest, Images, Limits, Mirror, Platform, PullError,
    Reference, Registry, Retries,
};
use serde_json::json;
use server::{TestImage, TestRegistry, archive, gzip};

/// A machine that knows one registry as the mirror of `k8s.gcr.io`.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    config: Config,
    images: Images,
}

impl Machine {
    pub(crate) fn with(change: impl FnOnce(&mut Config), mirror: Mirror) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            registries: BTreeMap::from([(
                "k8s.gcr.io".to_owned(),
                Registry { mirrors: vec![mirror] },
            )]),
            authorities: folder.path().join("none"),
            retries: Retries { count: 3, wait: Duration::from_millis(1) },
            ..Config::default()
        };
        change(&mut config);
        let images = Images::open(folder.path().join("images"), config.clone()).unwrap();
        Self { folder, config, images }
    }

    fn of(registry: &TestRegistry) -> Self {
        Self::with(|_| {}, mirror(registry))
    }

    /// As after a restart.
    fn reopen(&mut self) {
        self.images = Images::open(self.folder.path().join("images"), self.config.clone()).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("images").join(name)
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result<ContainerImage, PullError> {
        self.images.pull(&reference.parse().unwrap(), &amd64(), None).await
    }
}

fn mirror(registry: &TestRegistry) -> Mirror {
    Mirror { url: registry.url(), ca: Some(registry.ca.clone()), username: None, password: None }
}

fn amd64() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
}

fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| step()).collect()
}

fn redis() -> TestImage {
    let base = archive(&[("etc/os-release", b"podium"), ("bin/tool", &noise(200_000))]);
    let top = archive(&[("bin/redis", b"program"), ("etc/.wh.old", b"")]);
    let config = json!({
        "Entrypoint": ["/bin/redis"], "Cmd": ["--port", "6379"], "Env": ["PATH=/bin"], "User": "999",
        "WorkingDir": "/data", "StopSignal": "SIGINT", "ExposedPorts": { "6379/tcp": {} }, "Volumes": { "/data": {} },
    });
    let zstd = zstd::encode_all(&top[..], 3).unwrap();
    TestImage { config, ..TestImage::default() }
        .with_layer(&base, gzip(&base))
        .with_layer(&top, zstd)
}

fn refused(result: Result<ContainerImage, PullError>) -> String {
    match result {
        Ok(image) => panic!("{image:?} should have been refused"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn image_comes_through_the_mirror_and_is_kept() {
    let registry = TestRegistry::start().await;
    let manifest = registry.publish("redis", "e2e", &redis());
    let mut machine = Machine::of(&registry);
    let image = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    assert_eq!(image.digest, Digest::of(&manifest));
    assert_eq!(image.defaults.entrypoint, ["/bin/redis"]);
    assert_eq!(
        (image.defaults.user.as_str(), image.defaults.stop_signal.as_str()),
        ("999", "SIGINT")
    );
    assert_eq!(image.layers.len(), 2);
    assert_eq!(fs::read_to_string(image.layers[0].join("bin/redis")).unwrap(), "program");
    assert_eq!(fs::metadata(image.layers[1].join("bin/tool")).unwrap().len(), 200_000);
    assert_eq!(names(machine.path("ingest")), Vec::<String>::new());
    registry.requests();

    // Pulled again, only the tag is asked for.
    assert_eq!(machine.pull("k8s.gcr.io/redis:e2e").await.unwrap(), image);
    assert_eq!(registry.requests(), ["/v2/redis/manifests/e2e"]);

    // After a restart, without the registry.
    machine.reopen();
    let reference: Reference = "k8s.gcr.io/redis:e2e".parse().unwrap();
    assert_eq!(machine.images.get(&reference), Some(image.clone()));
    assert_eq!(machine.images.list().unwrap(), std::slice::from_ref(&image));
    assert_eq!(registry.requests(), Vec::<String>::new());
    let by_digest: Reference = format!("k8s.gcr.io/redis@{}", image.digest).parse().unwrap();
    assert_eq!(machine.images.get(&by_digest).unwrap().layers, image.layers);
}

#[tokio::test]
async fn index_leads_to_this_machines_platform() {
    let registry = TestRegistry::start().await;
    let manifest = registry.publish("redis", "amd", &redis());
    let index = |architecture: &str| {
        let platform = json!({ "os": "linux", "architecture": architecture });
        let entry = json!({ "digest": Digest::of(&manifest), "size": manifest.len(), "platform": platform });
        serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] })).unwrap()
    };
    registry.put("/v2/redis/manifests/multi", index("amd64"));
    registry.put("/v2/redis/manifests/arm", index("arm64"));
    let machine = Machine::of(&registry);
    let image = machine.pull("k8s.gcr.io/redis:multi").await.unwrap();
    assert_eq!(image.digest, Digest::of(&index("amd64")));
    assert_eq!(
        refused(machine.pull("k8s.gcr.io/redis:arm").await),
        "failed to pull image \"k8s.gcr.io/redis:arm\": no match for platform linux/amd64 in manifest: it has linux/arm64"
    );
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused_with_the_reason() {
    let registry = TestRegistry::start().await;
    let other = TestRegistry::start().await;
    registry.publish("redis", "e2e", &redis());
    let machine = Machine::with(|_| {}, Mirror { ca: Some(other.ca.clone()), ..mirror(&registry) });
    let error = refused(machine.pull("k8s.gcr.io/redis:e2e").await);
    let expected = format!(
        "{}: tls: failed to verify certificate: certificate signed by unknown authority",
        registry.url()
    );
    assert!(
        error.starts_with(&format!("failed to pull image \"k8s.gcr.io/redis:e2e\": {expected}")),
        "{error}"
    );
    assert_eq!(registry.requests(), Vec::<String>::new());
    // No authority of its own, and none on the machine: nobody is trusted.
    let machine = Machine::with(|_| {}, Mirror { ca: None, ..mirror(&registry) });
    assert!(
        refused(machine.pull("k8s.gcr.io/redis:e2e").await).contains("signed by unknown authority")
    );
    let machine =
        Machine::with(|_| {}, Mirror { ca: Some("rubbish".to_owned()), ..mirror(&registry) });
    assert!(
        refused(machine.pull("k8s.gcr.io/redis:e2e").await).contains("its ca holds no certificate")
    );
}

#[tokio::test]
async fn missing_image_is_told_as_the_registry_tells_it() {
    let registry = TestRegistry::start().await;
    let machine = Machine::of(&registry);
    let error = refused(machine.pull("k8s.gcr.io/redis:nope").await);
    let expected = format!("{}: manifest redis:nope not found: manifest unknown", registry.url());
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test]
async fn basic_and_token_authentication_let_in_who_has_the_password() {
    let registry = TestRegistry::start().await;
    registry.publish("team/redis", "1", &redis());
    let with = |password: Option<&str>| Mirror {
        username: password.map(|_| "user".to_owned()),
        password: password.map(str::to_owned),
        ..mirror(&registry)
    };
    for token in [false, true] {
        registry.change(|behaviour| {
            let secret = Some("user:right".to_owned());
            (behaviour.basic, behaviour.token_for) =
                if token { (None, secret) } else { (secret, None) };
        });
        Machine::with(|_| {}, with(Some("right"))).pull("k8s.gcr.io/team/redis:1").await.unwrap();
        for wrong in [Some("wrong"), None] {
            let error =
                refused(Machine::with(|_| {}, with(wrong)).pull("k8s.gcr.io/team/redis:1").await);
            assert!(error.contains("401: unauthorized: "), "{error}");
            assert!(!error.contains("wrong"), "{error}");
        }
    }
}

#[tokio::test]
async fn pods_own_credential_goes_to_the_registry_itself() {
    let registry = TestRegistry::start().await;
    registry.publish("redis", "1", &redis());
    registry.change(|behaviour| behaviour.basic = Some("me:mine".to_owned()));
    let machine = Machine::of(&registry);
    fs::write(machine.folder.path().join("none"), &registry.ca).unwrap();
    let reference = format!("{}/redis:1", registry.address).parse().unwrap();
    let credential = Credential { username: "me".to_owned(), password: "mine".to_owned() };
    machine.images.pull(&reference, &amd64(), Some(&credential)).await.unwrap();
    assert!(!format!("{credential:?}").contains("mine"));
}

#[tokio::test]
async fn corrupted_content_is_refused_naming_both_digests() {
    let registry = TestRegistry::start().await;
    let image = redis();
    let manifest = registry.publish("redis", "e2e", &image);
    let layer = Digest::of(&image.layers[0]);
    let mut corrupted = image.layers[0].clone();
    corrupted[1000] ^= 1;
    let path = format!("/v2/redis/blobs/{layer}");
    registry.put(&path, corrupted.clone());
    let machine = Machine::of(&registry);
    let error = refused(machine.pull("k8s.gcr.io/redis:e2e").await);
    let got = Digest::of(&corrupted);
    assert_eq!(
        error,
        format!(
            "failed to pull image \"k8s.gcr.io/redis:e2e\": layer digest mismatch: expected {layer}, got {got}"
        )
    );
    assert_eq!(machine.images.get(&"k8s.gcr.io/redis:e2e".parse().unwrap()), None);

    // Nothing of it stands in the way once the registry is well again.
    registry.put(&path, image.layers[0].clone());
    machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();

    let pinned = Digest::of(b"another manifest");
    registry.put(&format!("/v2/redis/manifests/{pinned}"), manifest);
    let error = refused(machine.pull(&format!("k8s.gcr.io/redis@{pinned}")).await);
    assert!(
        error.contains(&format!("manifest digest mismatch: expected {pinned}, got sha256:")),
        "{error}"
    );
}

#[tokio::test]
async fn layer_that_unpacks_to_something_else_is_refused() {
    let registry = TestRegistry::start().await;
    let mut image = redis();
    image.diff_ids[1] = Digest::of(b"something else").to_string();
    registry.publish("redis", "e2e", &image);
    let machine = Machine::of(&registry);
    let error = refused(machine.pull("k8s.gcr.io/redis:e2e").await);
    assert!(error.contains("layer content (diff id) digest mismatch: expected sha256:"), "{error}");
    assert!(!machine.path("layers").join(Digest::of(b"something else").hex()).exists());
    image.diff_ids.pop();
    registry.publish("redis", "short", &image);
    let error = refused(machine.pull("k8s.gcr.io/redis:short").await);
    assert!(error.contains("its manifest has 2 layers, its configuration 1"), "{error}");
}

#[tokio::test]
async fn hostile_layer_fails_the_pull_and_leaves_nothing() {
    let registry = TestRegistry::start().await;
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..9].copy_from_slice(b"../escape");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b""[..]).unwrap();
    let hostile = builder.into_inner().unwrap();
    registry.publish("evil", "1", &TestImage::default().with_layer(&hostile, gzip(&hostile)));
    let bomb = archive(&[("zeros", &vec![0; 3 << 20])]);
    registry.publish("bomb", "1", &TestImage::default().with_layer(&bomb, gzip(&bomb)));
    let limits = Limits { ratio_from_bytes: 1 << 20, ..Limits::default() };
    let machine = Machine::with(|config| config.limits = limits, mirror(&registry));
    let error = refused(machine.pull("k8s.gcr.io/evil:1").await);
    assert!(error.contains("\"../escape\" leads out of the layer"), "{error}");
    let error = refused(machine.pull("k8s.gcr.io/bomb:1").await);
    assert!(error.contains("the layer unpacks to more than the"), "{error}");
    for folder in ["layers", "ingest", "images", "names"] {
        assert_eq!(names(machine.path(folder)), Vec::<String>::new(), "{folder}");
    }
    assert!(!machine.path("escape").exists());
}

#[tokio::test]
async fn broken_download_goes_on_where_it_broke_off() {
    for whole_only in [false, true] {
        let registry = TestRegistry::start().await;
        registry.publish("redis", "e2e", &redis());
        registry.change(|behaviour| {
            behaviour.break_off = 2;
            behaviour.busy = 1;
            behaviour.whole_only = whole_only;
        });
        let machine = Machine::of(&registry);
        let image = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
        assert_eq!(fs::metadata(image.layers[1].join("bin/tool")).unwrap().len(), 200_000);
        assert!(registry.requests().iter().any(|request| request.contains(" bytes=")));
    }
}

#[tokio::test]
async fn download_is_taken_up_again_after_a_restart() {
    let registry = TestRegistry::start().await;
    registry.publish("redis", "e2e", &redis());
    registry.change(|behaviour| behaviour.break_off = 100);
    let mut machine = Machine::of(&registry);
    let error = refused(machine.pull("k8s.gcr.io/redis:e2e").await);
    assert!(error.contains(&registry.url()), "{error}");
    // What a crash may have left besides.
    fs::create_dir_all(machine.path("ingest/7.layer/half")).unwrap();
    fs::write(machine.path("ingest/8.new"), "half").unwrap();
    machine.reopen();
    assert_eq!(names(machine.path("ingest")), [Digest::of(&redis().layers[0]).hex()]);
    registry.change(|behaviour| behaviour.break_off = 0);
    registry.requests();
    machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    assert!(registry.requests().iter().any(|request| request.contains(" bytes=")));
}

#[tokio::test]
async fn dead_registry_is_named_with_the_reason() {
    let registry = TestRegistry::start().await;
    registry.change(|behaviour| behaviour.always = Some(500));
    let error = refused(Machine::of(&registry).pull("k8s.gcr.io/redis:e2e").await);
    assert!(
        error.contains(&format!("{}: manifest redis:e2e: unexpected answer: 500", registry.url())),
        "{error}"
    );
    let closed = Mirror { url: "https://127.0.0.1:1".to_owned(), ..mirror(&registry) };
    let error = refused(Machine::with(|_| {}, closed).pull("k8s.gcr.io/redis:e2e").await);
    assert!(
        error.contains("https://127.0.0.1:1: manifest redis:e2e: ") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn two_pulls_of_shared_layers_at_once_get_each_layer_once() {
    let registry = TestRegistry::start().await;
    registry.publish("redis", "e2e", &redis());
    registry.publish("other/redis", "e2e", &redis());
    let machine = Machine::of(&registry);
    let (one, two) = tokio::join!(
        machine.pull("k8s.gcr.io/redis:e2e"),
        machine.pull("k8s.gcr.io/other/redis:e2e")
    );
    assert_eq!(one.unwrap().layers, two.unwrap().layers);
    let layer = Digest::of(&redis().layers[0]).to_string();
    assert_eq!(registry.requests().iter().filter(|path| path.contains(&layer)).count(), 1);
}

#[tokio::test]
async fn image_may_have_the_same_layer_twice() {
    let registry = TestRegistry::start().await;
    let empty = archive(&[]);
    let image =
        TestImage::default().with_layer(&empty, gzip(&empty)).with_layer(&empty, gzip(&empty));
    registry.publish("empty", "1", &image);
    assert_eq!(Machine::of(&registry).pull("k8s.gcr.io/empty:1").await.unwrap().layers.len(), 2);
}

#[tokio::test]
async fn collection_keeps_what_is_in_use_and_layers_it_shares() {
    let registry = TestRegistry::start().await;
    let kept = redis();
    registry.publish("redis", "e2e", &kept);
    let own = archive(&[("own", b"x")]);
    let mut other = kept.clone().with_layer(&own, gzip(&own));
    other.config = json!({});
    registry.publish("redis", "new", &other);
    let machine = Machine::of(&registry);
    let kept = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    let other = machine.pull("k8s.gcr.io/redis:new").await.unwrap();
    let collected = machine.images.collect(BTreeSet::from([kept.digest.clone()])).await.unwrap();
    assert_eq!((collected.images, collected.layers), (1, 1));
    assert_eq!(machine.images.get(&kept.reference), Some(kept.clone()));
    assert_eq!(machine.images.get(&other.reference), None);
    assert!(kept.layers.iter().all(|layer| layer.is_dir()));
    assert!(!other.layers[0].exists());
    let collected = machine.images.collect(BTreeSet::new()).await.unwrap();
    assert_eq!((collected.images, collected.layers), (1, 2));
    for folder in ["layers", "blobs/sha256", "images", "names", "ingest"] {
        assert_eq!(names(machine.path(folder)), Vec::<String>::new(), "{folder}");
    }
    machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
}

#[tokio::test]
async fn moved_tag_leaves_the_old_image_for_who_runs_it() {
    let registry = TestRegistry::start().await;
    registry.publish("redis", "e2e", &redis());
    let machine = Machine::of(&registry);
    let old = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    let layer = archive(&[("new", b"x")]);
    registry.publish("redis", "e2e", &TestImage::default().with_layer(&layer, gzip(&layer)));
    let new = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    assert_ne!(old.digest, new.digest);
    machine.images.collect(BTreeSet::from([old.digest.clone(), new.digest.clone()])).await.unwrap();
    assert!(old.layers.iter().chain(&new.layers).all(|layer| layer.is_dir()));
    assert_eq!(machine.images.get(&new.reference), Some(new));
}

#[tokio::test]
async fn image_whose_layer_is_missing_counts_as_absent_and_heals() {
    let registry = TestRegistry::start().await;
    registry.publish("redis", "e2e", &redis());
    let machine = Machine::of(&registry);
    let image = machine.pull("k8s.gcr.io/redis:e2e").await.unwrap();
    fs::remove_dir_all(&image.layers[1]).unwrap();
    assert_eq!(machine.images.get(&image.reference), None);
    assert_eq!(machine.pull("k8s.gcr.io/redis:e2e").await.unwrap(), image);
    assert!(image.layers[1].join("bin/tool").exists());
}
