//! The mistakes that a run can be told to make, of every crate under test, by one list of names.

use std::fmt;

/// One mistake, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// The store's.
    pub store: podium_store::Bugs,
    /// The pipeline's.
    pub api: podium_api::bugs::Bugs,
    #[cfg(feature = "planted-bugs")]
    control: Option<podium_control::bugs::Bug>,
}

/// There is no mistake of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownMistake {
    name: String,
}

impl fmt::Display for UnknownMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Mistakes::names();
        if known.is_empty() {
            return write!(f, "{} needs a build with the feature planted-bugs", self.name);
        }
        write!(f, "no planted bug is called {}; there are {}", self.name, known.join(", "))
    }
}

impl Mistakes {
    /// Sound code.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The name of what this is, if it is a mistake.
    #[must_use]
    #[cfg(not(feature = "planted-bugs"))]
    pub fn name(self) -> Option<String> {
        None
    }

    /// The name of what this is, if it is a mistake.
    #[must_use]
    #[cfg(feature = "planted-bugs")]
    pub fn name(self) -> Option<String> {
        all().into_iter().find(|(_, mistakes)| *mistakes == self).map(|(name, _)| name)
    }

    /// Sets what is chosen per thread instead of per value. Also unsets it: a run without mistakes must call it.
    pub(crate) fn plant(self) {
        #[cfg(feature = "planted-bugs")]
        podium_control::bugs::plant(self.control);
    }

    /// The names of all mistakes that this build can make.
    #[must_use]
    #[cfg(not(feature = "planted-bugs"))]
    pub fn names() -> Vec<String> {
        Vec::new()
    }

    /// The mistake of this name.
    ///
    /// # Errors
    /// [`UnknownMistake`].
    #[cfg(not(feature = "planted-bugs"))]
    pub fn named(name: &str) -> Result<Self, UnknownMistake> {
        Err(UnknownMistake { name: name.to_owned() })
    }

    /// The names of all mistakes that this build can make.
    #[must_use]
    #[cfg(feature = "planted-bugs")]
    pub fn names() -> Vec<String> {
        all().into_iter().map(|(name, _)| name).collect()
    }

    /// The mistake of this name.
    ///
    /// # Errors
    /// [`UnknownMistake`].
    #[cfg(feature = "planted-bugs")]
    pub fn named(name: &str) -> Result<Self, UnknownMistake> {
        let found = all().into_iter().find(|(known, _)| known == name);
        found.map(|(_, mistakes)| mistakes).ok_or_else(|| UnknownMistake { name: name.to_owned() })
    }
}

#[cfg(feature = "planted-bugs")]
fn all() -> Vec<(String, Mistakes)> {
    let none = Mistakes::none();
    let store = podium_store::Bug::ALL.iter().map(|bug| {
        (bug.name().to_owned(), Mistakes { store: podium_store::Bugs::only(*bug), ..none })
    });
    let api = podium_api::bugs::Bug::ALL.iter().map(|bug| {
        (bug.name().to_owned(), Mistakes { api: podium_api::bugs::Bugs::only(*bug), ..none })
    });
    let control = podium_control::bugs::Bug::ALL.into_iter().map(|bug| {
        // The API refuses what this scheduler does; two mistakes are needed to bind a pod twice.
        let api = match bug {
            podium_control::bugs::Bug::DoubleBind => {
                podium_api::bugs::Bugs::only(podium_api::bugs::Bug::BindOverwrites)
            }
            _ => none.api,
        };
        (snake_case(&format!("{bug:?}")), Mistakes { control: Some(bug), api, ..none })
    });
    store.chain(api).chain(control).collect()
}

/// `DoubleBind` as `double_bind`.
#[cfg(feature = "planted-bugs")]
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
