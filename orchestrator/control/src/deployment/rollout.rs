//! How many replicas each ReplicaSet shall have: the arithmetic of a rollout, on [`Sets`] alone.

use podium_types::k8s::api::apps::v1::Deployment;
use podium_types::k8s::apimachinery::pkg::util::intstr::IntOrString;

use super::sets::{Set, Sets};
use crate::bugs::{self, Bug};
use crate::selector::Labels;

/// What `spec.replicas` was when a ReplicaSet was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods there might have been then.
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// The bounds of a rollout, as numbers of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// `spec.replicas`.
    pub(super) desired: i32,
    /// More pods than desired that there may be.
    pub(super) surge: i32,
    /// Fewer available pods than desired that there may be.
    pub(super) unavailable: i32,
    /// Whether the old pods go before the new ones come.
    pub(super) recreate: bool,
}

impl Limits {
    /// Percentages are of `spec.replicas`: the surge rounded up, the unavailable rounded down; both zero would never move, and
    /// count as one unavailable.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let desired = deployment.spec.replicas.unwrap_or(1).max(0);
        let strategy = deployment.spec.strategy.as_ref();
        let recreate =
            strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
        if recreate {
            return Self { desired, surge: 0, unavailable: desired, recreate };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
        let surge = scaled_value(surge, desired, |n| (n + 99) / 100);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let unavailable = scaled_value(unavailable.unwrap_or(&quarter), desired, |n| n / 100);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { desired, surge, unavailable: unavailable.min(desired), recreate }
    }

    /// The most pods there may be.
    pub(super) fn most(&self) -> i32 {
        self.desired.saturating_add(self.surge)
    }

    /// The fewest available pods there may be.
    pub(super) fn least_available(&self) -> i32 {
        self.desired - self.unavailable
    }

    /// Notes on a ReplicaSet under which size of the Deployment it got its own.
    pub(super) fn annotate(&self, annotations: &mut Labels) {
        annotations.insert(DESIRED.to_owned(), self.desired.to_string());
        annotations.insert(MAX.to_owned(), self.most().to_string());
    }
}

fn scaled_value(value: &IntOrString, of: i32, hundredth: impl Fn(i64) -> i64) -> i32 {
    let number = match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i32>().ok());
            hundredth(i64::from(percent.unwrap_or_default()) * i64::from(of))
        }
    };
    i32::try_from(number.max(0)).unwrap_or(i32::MAX)
}

/// Whether the Deployment got another size since its ReplicaSets got theirs.
pub(super) fn scaled(sets: &Sets, limits: &Limits) -> bool {
    let noted = |set: &Set| set.annotations.get(DESIRED)?.parse::<i32>().ok();
    let mut running = sets.all().filter(|set| set.replicas > 0);
    running.any(|set| noted(set).is_some_and(|noted| noted != limits.desired))
}

/// Gives the Deployment's size to its ReplicaSets without moving the rollout on: all of it to the only one that runs, or to
/// each its share.
pub(super) fn scale_in_proportion(sets: &mut Sets, limits: &Limits) {
    let running = sets.all().filter(|set| set.replicas > 0).count();
    if running <= 1 {
        scale_only_one(sets, limits);
        return;
    }
    if saturated(sets, limits) {
        sets.old.iter_mut().for_each(|set| set.replicas = 0);
        return;
    }
    if !limits.recreate {
        share_out(sets, limits);
    }
}

/// The ReplicaSet that runs; the new one if none does, or the newest.
fn scale_only_one(sets: &mut Sets, limits: &Limits) {
    let others = sets.sum(Set::room);
    let newest_old = sets.old.last().map(|set| set.key.clone());
    let has_new = sets.new.is_some();
    let none_runs = sets.all().all(|set| set.replicas == 0);
    let chosen = sets.all_mut().find(|set| {
        set.replicas > 0 || (none_runs && (has_new || Some(&set.key) == newest_old.as_ref()))
    });
    if let Some(set) = chosen {
        let room = limits.most().saturating_sub(others - set.room()).max(set.replicas);
        set.replicas = limits.desired.min(room);
    }
}

/// Whether the new ReplicaSet alone does what the Deployment asks for.
fn saturated(sets: &Sets, limits: &Limits) -> bool {
    sets.new.as_ref().is_some_and(|new| {
        let noted = new.annotations.get(DESIRED).and_then(|noted| noted.parse::<i32>().ok());
        new.replicas == limits.desired
            && noted == Some(limits.desired)
            && new.pods.available == limits.desired
    })
}

/// Kubernetes' proportional scaling: each running ReplicaSet grows or shrinks in the ratio of the largest sizes allowed now
/// and before, larger ones first; what rounding leaves goes to the first.
fn share_out(sets: &mut Sets, limits: &Limits) {
    let allowed = if limits.desired > 0 { limits.most() } else { 0 };
    let wanted = sets.sum(|set| set.replicas);
    let to_add =
        if allowed > wanted { (allowed - sets.sum(Set::room)).max(0) } else { allowed - wanted };
    let mut running: Vec<&mut Set> = sets.all_mut().filter(|set| set.replicas > 0).collect();
    // Newer first when growing, older first when shrinking, among those of one size.
    running.sort_by_key(|set| {
        let created = set.before.as_ref().and_then(|set| set.metadata.creation_timestamp.clone());
        (created, set.key.clone())
    });
    if to_add > 0 {
        running.reverse();
    }
    running.sort_by_key(|set| std::cmp::Reverse(set.replicas));
    let mut added = 0;
    for set in &mut running {
        let share = share(set, limits);
        let left = to_add - added;
        let share = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        added += share;
        set.replicas += share;
    }
    if let Some(first) = running.first_mut() {
        first.replicas = (first.replicas + to_add - added).max(0);
    }
}

fn share(set: &Set, limits: &Limits) -> i32 {
    if limits.desired == 0 {
        return -set.replicas;
    }
    let before = set.annotations.get(MAX).and_then(|most| most.parse::<i64>().ok());
    let before = before.filter(|before| *before > 0).unwrap_or_else(|| i64::from(limits.most()));
    let scaled = i64::from(set.replicas) * i64::from(limits.most());
    // Rounded to the nearest.
    let size = (2 * scaled + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}

/// Recreate: the old ones to nothing; the new one to its size once no old pod is left, and none can come any more: a set that
/// asks for pods makes up for those that somebody deleted.
pub(super) fn recreate(sets: &mut Sets, limits: &Limits) {
    let old_ended = sets.old_pods() == 0 && sets.old.iter().all(|set| set.replicas == 0);
    sets.old.iter_mut().for_each(|set| set.replicas = 0);
    if let Some(new) = &mut sets.new
        && (old_ended || new.replicas > limits.desired)
    {
        new.replicas = limits.desired;
    }
}

/// Rolling update: one move up and one move down, each safe by itself.
pub(super) fn roll(sets: &mut Sets, limits: &Limits) {
    let room = limits.most() - sets.sum(Set::room);
    let Some(new) = &mut sets.new else { return };
    if new.replicas >= limits.desired || bugs::active(Bug::ExceedSurge) {
        new.replicas = limits.desired;
    } else {
        // Growing up to what it has already takes no room.
        let free = (new.pods.active - new.replicas).max(0);
        let grow = room.max(0).saturating_add(free).min(limits.desired - new.replicas);
        new.replicas += grow;
    }
    let unavailable_new = new.replicas - new.available();
    let removable = sets.sum(|set| set.replicas) - limits.least_available() - unavailable_new;
    drop_unavailable(&mut sets.old, removable);
    drop_available(sets, limits);
}

/// Old pods that do not serve go first: nobody misses them, and they may be why the rollout is stuck.
fn drop_unavailable(old: &mut [Set], mut removable: i32) {
    for set in old {
        let drop = (set.replicas - set.available()).min(removable).max(0);
        set.replicas -= drop;
        removable -= drop;
    }
}

fn drop_available(sets: &mut Sets, limits: &Limits) {
    let mut removable = sets.sum(Set::available) - limits.least_available();
    for set in &mut sets.old {
        let drop = set.replicas.min(removable).max(0);
        set.replicas -= drop;
        removable -= drop;
    }
}
