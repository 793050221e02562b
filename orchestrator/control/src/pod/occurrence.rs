//! Short ways to say that something happened.

use super::interface::{Occurrence, PodCommand, Severity};
use super::{Container, container::Role};

/// An ordinary occurrence of the pod.
pub(super) fn normal(reason: &'static str, message: String) -> PodCommand {
    record(Severity::Normal, reason.to_owned(), message, None)
}

/// An occurrence of the pod that someone should look at.
pub(super) fn warning(reason: &'static str, message: String) -> PodCommand {
    record(Severity::Warning, reason.to_owned(), message, None)
}

/// The same with a reason that is made at run time, such as `OutOfcpu`.
pub(super) fn warning_named(reason: String, message: String) -> PodCommand {
    record(Severity::Warning, reason, message, None)
}

impl Container {
    /// An ordinary occurrence of this container.
    pub(super) fn normal(&self, reason: &'static str, message: String) -> PodCommand {
        record(Severity::Normal, reason.to_owned(), message, Some(self.field_path()))
    }

    /// An occurrence of this container that someone should look at.
    pub(super) fn warning(&self, reason: &'static str, message: String) -> PodCommand {
        record(Severity::Warning, reason.to_owned(), message, Some(self.field_path()))
    }

    fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init => "initContainers",
            Role::Main => "containers",
        };
        format!("spec.{list}{{{}}}", self.name)
    }
}

fn record(
    severity: Severity,
    reason: String,
    message: String,
    field_path: Option<String>,
) -> PodCommand {
    PodCommand::Record(Occurrence { severity, reason, message, field_path })
}
