//! Patches: what shall be done to an object, in three languages.
//!
//! Pure: an object and a patch give an object. Whether the result makes sense is for the rules of the kind to say.

mod strategic;

use std::fmt;

use podium_types::Kind;
use serde_json::Value;

pub use strategic::apply as apply_strategic;

/// A patch, by the language it is in.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(json_patch::Patch),
    /// RFC 7396: an object whose nulls take away.
    Merge(Value),
    /// Kubernetes' own: like merge, but lists have keys, and directives say the rest.
    Strategic(Value),
}

/// Why a patch gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no patch.
    #[error("{0}")]
    Malformed(String),
    /// It is not for an object like this.
    #[error("{0}")]
    Unfit(String),
}

impl Patch {
    /// Reads a JSON patch.
    ///
    /// # Errors
    /// [`PatchError::Malformed`].
    pub fn json(patch: Value) -> Result<Self, PatchError> {
        let read = serde_json::from_value(patch);
        Ok(Self::Json(
            read.map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?,
        ))
    }

    /// Reads a merge patch.
    ///
    /// # Errors
    /// [`PatchError::Malformed`].
    pub fn merge(patch: Value) -> Result<Self, PatchError> {
        Ok(Self::Merge(an_object(patch)?))
    }

    /// Reads a strategic merge patch.
    ///
    /// # Errors
    /// [`PatchError::Malformed`].
    pub fn strategic(patch: Value) -> Result<Self, PatchError> {
        Ok(Self::Strategic(an_object(patch)?))
    }

    /// What the patch makes of an object of a kind.
    ///
    /// # Errors
    /// [`PatchError::Unfit`], and [`PatchError::Malformed`] for directives that there are not.
    pub fn apply(&self, kind: Kind, object: &Value) -> Result<Value, PatchError> {
        let mut patched = object.clone();
        match self {
            Self::Json(patch) => json_patch::patch(&mut patched, patch)
                .map_err(|error| PatchError::Unfit(error.to_string()))?,
            Self::Merge(patch) => json_patch::merge(&mut patched, patch),
            Self::Strategic(patch) => patched = strategic::apply(kind, object, patch)?,
        }
        if patched.is_object() {
            Ok(patched)
        } else {
            Err(PatchError::Unfit("the patch leaves no object".to_owned()))
        }
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(patch) => patch.fmt(f),
            Self::Merge(patch) | Self::Strategic(patch) => patch.fmt(f),
        }
    }
}

fn an_object(patch: Value) -> Result<Value, PatchError> {
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(PatchError::Malformed("error decoding patch: not an object".to_owned()))
    }
}
