//! Walking the field tree beside an object.

use super::merge::{Merge, merge_of};
use super::tree::{Shape, Tree};
use crate::kind::Kind;

/// How a strategic merge patch treats a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The patch's list takes the place of the object's.
    Replace,
    /// Items are merged: by [`Cursor::merge_key`], or as a set if there is none.
    Merge,
}

/// A place in the schema of a kind. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    shape: &'static Shape,
    merge: Option<Merge>,
}

impl Cursor {
    /// The whole object of a kind.
    #[must_use]
    pub fn root(kind: Kind) -> Self {
        Self { shape: Tree::get().root(kind), merge: None }
    }

    /// The field of that name, if this place is an object that has one, or the value under that key, if it is a map.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Self> {
        match self.shape {
            Shape::Object(index) => {
                let ty = Tree::get().ty(*index);
                let (_, shape) = ty.field(name)?;
                Some(Self { shape, merge: merge_of(ty.name(), name) })
            }
            Shape::Map(values) => Some(Self { shape: values, merge: None }),
            _ => None,
        }
    }

    /// What the items of this list, or the values of this map, are.
    #[must_use]
    pub fn item(self) -> Option<Self> {
        match self.shape {
            Shape::List(items) | Shape::Map(items) => Some(Self { shape: items, merge: None }),
            _ => None,
        }
    }

    /// Follows field names; passes through lists without a step of their own: `["spec", "containers", "ports"]`.
    #[must_use]
    pub fn walk(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |place, name| {
            let place = if place.is_list() { place.item()? } else { place };
            place.field(name)
        })
    }

    /// The field that identifies the items of this list.
    #[must_use]
    pub fn merge_key(self) -> Option<&'static str> {
        self.merge?.key
    }

    /// Whether a patch merges into this list, or replaces it. Objects and maps are always merged.
    #[must_use]
    pub fn strategy(self) -> Strategy {
        match self.shape {
            Shape::List(_) | Shape::Any if !self.merge.is_some_and(|merge| merge.merge) => {
                Strategy::Replace
            }
            _ => Strategy::Merge,
        }
    }

    /// Whether a patch names all fields (of this object, or of this list's items), so that the others go.
    #[must_use]
    pub fn retain_keys(self) -> bool {
        self.merge.is_some_and(|merge| merge.retain_keys)
    }

    /// Whether a list stands here.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self.shape, Shape::List(_))
    }

    /// Whether an object with free keys stands here.
    #[must_use]
    pub fn is_map(self) -> bool {
        matches!(self.shape, Shape::Map(_))
    }

    /// Whether an object with known fields stands here.
    #[must_use]
    pub fn is_object(self) -> bool {
        matches!(self.shape, Shape::Object(_))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Strategy};
    use crate::kind::Kind;

    #[test]
    fn merge_marks_are_found_by_path() {
        let key = |kind, path: &[&str]| Cursor::root(kind).walk(path).and_then(Cursor::merge_key);
        assert_eq!(key(Kind::Pod, &["spec", "containers"]), Some("name"));
        assert_eq!(
            key(Kind::Deployment, &["spec", "template", "spec", "containers", "ports"]),
            Some("containerPort")
        );
        assert_eq!(key(Kind::Service, &["spec", "ports"]), Some("port"));
        assert_eq!(key(Kind::Pod, &["spec", "tolerations"]), None);
        let strategy = Cursor::root(Kind::Deployment).walk(&["spec", "strategy"]).expect("a field");
        assert!(strategy.retain_keys() && strategy.is_object());
        let finalizers =
            Cursor::root(Kind::Pod).walk(&["metadata", "finalizers"]).expect("a field");
        assert_eq!((finalizers.strategy(), finalizers.merge_key()), (Strategy::Merge, None));
        let args = Cursor::root(Kind::Pod).walk(&["spec", "containers", "args"]).expect("a field");
        assert_eq!(args.strategy(), Strategy::Replace);
        let selector = Cursor::root(Kind::Service)
            .walk(&["spec", "selector", "any/key"])
            .expect("a map's value");
        assert!(!selector.is_map());
        assert!(Cursor::root(Kind::Pod).walk(&["spec", "nope"]).is_none());
    }
}
