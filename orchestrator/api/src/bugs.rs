//! Mistakes that can be switched on, to see that the simulator finds them.
//!
//! Only with the cargo feature `planted-bugs`, which no shipped program may enable. Without it [`Bugs`] has no bit to set
//! and every question is answered `false` at compile time. A bug is chosen per pipeline.

/// Whether this build can be made to misbehave.
pub const PLANTED_BUGS: bool = cfg!(feature = "planted-bugs");

/// A mistake at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Bug {
    /// A cluster IP is given without looking whether it is taken.
    AddressReused,
    /// An update with a resourceVersion overwrites whatever is there.
    UpdateIgnoresResourceVersion,
    /// A deletion does not compare the uid that it is for.
    DeleteIgnoresUid,
    /// A pod that has a node is bound again.
    BindOverwrites,
    /// Objects are created in namespaces that are being deleted.
    CreateInTerminatingNamespace,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AddressReused,
        Self::UpdateIgnoresResourceVersion,
        Self::DeleteIgnoresUid,
        Self::BindOverwrites,
        Self::CreateInTerminatingNamespace,
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AddressReused => "address_reused",
            Self::UpdateIgnoresResourceVersion => "update_ignores_resource_version",
            Self::DeleteIgnoresUid => "delete_ignores_uid",
            Self::BindOverwrites => "bind_overwrites",
            Self::CreateInTerminatingNamespace => "create_in_terminating_namespace",
        }
    }
}

/// Which bugs a pipeline has. None, unless the build can have any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bugs {
    #[cfg(feature = "planted-bugs")]
    bits: u32,
}

impl Bugs {
    /// A sound pipeline.
    pub const NONE: Self = Self {
        #[cfg(feature = "planted-bugs")]
        bits: 0,
    };

    /// A pipeline with one bug.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn only(bug: Bug) -> Self {
        Self { bits: 1 << bug as u32 }
    }

    /// Whether the pipeline has this bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bits & (1 << bug as u32) != 0
    }

    /// Whether the pipeline has this bug: it has none.
    #[cfg(not(feature = "planted-bugs"))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn has(self, _bug: Bug) -> bool {
        false
    }
}
