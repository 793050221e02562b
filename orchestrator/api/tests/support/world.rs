//! A pipeline over a store in memory, with clocks and numbers that the test decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use podium_api::pipeline::{
    Config, DeleteOptions, ListOptions, ReadOptions, WatchEvent, WatchOptions, Watcher,
    WriteOptions, Written,
};
use podium_api::seams::{Clock, Ids};
use podium_api::{Pipeline, Status, Target, User, bootstrap, registry};
use podium_store::EphemeralStore;
use podium_types::{GroupResource, Now, ObjectKey};
use serde_json::Value;

/// Stands still until somebody moves it.
#[derive(Default)]
pub struct TestClock {
    seconds: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let seconds = self.seconds.load(Ordering::Relaxed);
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().expect("a time");
        let since = i64::try_from(seconds).expect("a short test");
        let wall = start + SignedDuration::from_secs(since);
        Now { monotonic: Duration::from_secs(seconds), wall }
    }
}

/// A splitmix sequence: the same in every run.
pub struct TestIds(AtomicU64);

impl Ids for TestIds {
    fn random(&self) -> u128 {
        let next = || {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        (u128::from(next()) << 64) | u128::from(next())
    }
}

/// What a test has.
pub struct World {
    pub store: EphemeralStore,
    pub clock: Arc<TestClock>,
    pub pipeline: Pipeline,
    pub admin: User,
}

impl World {
    /// An empty cluster with its first objects.
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let store = EphemeralStore::default();
        let clock = Arc::new(TestClock::default());
        let ids = Arc::new(TestIds(AtomicU64::new(7)));
        let pipeline = Pipeline::new(Arc::new(store.clone()), clock.clone(), ids, config);
        let server = [10, 0, 2, 15].into();
        bootstrap::ensure(&pipeline, &[server], 6443).await.expect("first objects");
        Self { store, clock, pipeline, admin: User::admin() }
    }

    pub async fn create(&self, resource: GroupResource, object: Value) -> Result<Written, Status> {
        let namespace = podium_types::object::namespace(&object).to_owned();
        let target = Target::collection(row(&resource), &namespace);
        self.pipeline.create(&self.admin, &target, object.into(), &WriteOptions::default()).await
    }

    pub async fn get(&self, key: &ObjectKey) -> Result<Value, Status> {
        let target = Target::object(key).expect("served");
        let object = self.pipeline.get(&self.admin, &target, &ReadOptions::default()).await?;
        Ok(object.value())
    }

    pub async fn update(&self, key: &ObjectKey, object: Value) -> Result<Written, Status> {
        let target = Target::object(key).expect("served");
        self.pipeline.update(&self.admin, &target, object.into(), &WriteOptions::default()).await
    }

    pub async fn merge(
        &self,
        key: &ObjectKey,
        part: &str,
        patch: Value,
    ) -> Result<Written, Status> {
        let mut target = Target::object(key).expect("served");
        if !part.is_empty() {
            target = target.part(part).expect("has that part");
        }
        let patch = podium_api::patch::Patch::merge(patch).expect("a patch");
        self.pipeline.patch(&self.admin, &target, &patch, &WriteOptions::default()).await
    }

    pub async fn delete(&self, key: &ObjectKey, options: &DeleteOptions) -> Result<Value, Status> {
        let target = Target::object(key).expect("served");
        let deleted = self.pipeline.delete(&self.admin, &target, options).await?;
        Ok(deleted.answer(target.resource))
    }

    /// The names in a list, with the list.
    pub async fn list(
        &self,
        resource: GroupResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<(Vec<String>, podium_api::pipeline::Listing), Status> {
        let target = Target::collection(row(&resource), namespace);
        let listing = self.pipeline.list(&self.admin, &target, options).await?;
        let name = |item: &podium_api::pipeline::Served| {
            podium_types::object::name(&item.value()).to_owned()
        };
        Ok((listing.items.iter().map(name).collect(), listing))
    }

    pub async fn watch(
        &self,
        resource: GroupResource,
        options: WatchOptions,
    ) -> Result<Watcher, Status> {
        let target = Target::collection(row(&resource), "");
        self.pipeline.watch(&self.admin, &target, &options).await
    }
}

/// The row of a resource.
pub fn row(resource: &GroupResource) -> &'static podium_api::Resource {
    registry::find(resource).expect("served")
}

/// `ADDED a`
pub fn told(event: &WatchEvent) -> String {
    format!("{} {}", event.kind.as_str(), podium_types::object::name(&event.object.value()))
}
