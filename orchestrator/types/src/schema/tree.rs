//! The unpacked field tree.

use std::sync::OnceLock;

use crate::kind::Kind;

/// What a field may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any JSON: kept as it is.
    Any,
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in a string.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// A list of one shape.
    List(Box<Shape>),
    /// An object with free keys and values of one shape.
    Map(Box<Shape>),
    /// An object with known fields: an index into [`Tree::types`].
    Object(usize),
}

/// An object with known fields.
#[derive(Debug)]
pub(crate) struct Type {
    /// `io.k8s.api.apps.v1.DeploymentSpec`
    pub(crate) definition: &'static str,
    /// By name.
    fields: Vec<(&'static str, Shape)>,
}

impl Type {
    /// `DeploymentSpec`
    pub(crate) fn name(&self) -> &'static str {
        self.definition.rsplit('.').next().unwrap_or(self.definition)
    }

    /// `v1.DeploymentSpec`, as Go prints the type.
    pub(crate) fn go_name(&self) -> &'static str {
        let mut dots = self.definition.rmatch_indices('.').map(|(at, _)| at);
        dots.nth(1).map_or(self.definition, |at| &self.definition[at + 1..])
    }

    #[cfg(test)]
    pub(crate) fn fields(&self) -> &[(&'static str, Shape)] {
        &self.fields
    }

    pub(crate) fn field(&self, name: &str) -> Option<(&'static str, &Shape)> {
        let at = self.fields.binary_search_by(|(field, _)| (*field).cmp(name)).ok()?;
        self.fields.get(at).map(|(field, shape)| (*field, shape))
    }
}

/// All types of all kinds.
#[derive(Debug)]
pub(crate) struct Tree {
    types: Vec<Type>,
    /// `Shape::Object` of each type, to borrow from.
    shapes: Vec<Shape>,
}

impl Tree {
    /// The tree, unpacked on first use.
    pub(crate) fn get() -> &'static Self {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let packed = include_bytes!(concat!(env!("OUT_DIR"), "/structure.zst"));
            let text = zstd::decode_all(packed.as_slice()).expect("packed by the build script");
            // The text lives as long as the program: names are borrowed from it.
            Self::parse(String::from_utf8(text).expect("packed by the build script").leak())
        })
    }

    pub(crate) fn ty(&self, index: usize) -> &Type {
        &self.types[index]
    }

    /// The shape of a kind's objects.
    pub(crate) fn root(&self, kind: Kind) -> &Shape {
        &self.shapes[self.find(definition_name(kind)).expect("the build script has every kind")]
    }

    fn find(&self, definition: &str) -> Option<usize> {
        self.types.binary_search_by(|ty| ty.definition.cmp(definition)).ok()
    }

    fn parse(text: &'static str) -> Self {
        let definitions: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
        let mut types: Vec<Type> =
            definitions.iter().map(|definition| Type { definition, fields: Vec::new() }).collect();
        let mut current = 0;
        for line in text.lines() {
            let Some(field) = line.strip_prefix(' ') else {
                current = definitions.binary_search(&line).expect("the build script sorts types");
                continue;
            };
            let (name, shape) = field.split_once(' ').expect("a name and a shape");
            types[current].fields.push((name, parse_shape(shape, &definitions)));
        }
        for ty in &mut types {
            ty.fields.sort_unstable_by_key(|(name, _)| *name);
        }
        let shapes = (0..types.len()).map(Shape::Object).collect();
        Self { types, shapes }
    }
}

fn parse_shape(text: &str, definitions: &[&str]) -> Shape {
    let (head, rest) = text.split_at(1);
    match head {
        "s" => Shape::String,
        "b" => Shape::Bool,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "d" => Shape::Double,
        "y" => Shape::Bytes,
        "t" => Shape::Time,
        "T" => Shape::MicroTime,
        "q" => Shape::Quantity,
        "o" => Shape::IntOrString,
        "[" => Shape::List(Box::new(parse_shape(rest, definitions))),
        "{" => Shape::Map(Box::new(parse_shape(rest, definitions))),
        "@" => Shape::Object(
            definitions.binary_search(&rest).expect("the build script has every type"),
        ),
        _ => Shape::Any,
    }
}

/// The name of a kind's definition, in our schema and in OpenAPI documents.
pub(crate) fn definition_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "io.k8s.api.core.v1.Namespace",
        Kind::Node => "io.k8s.api.core.v1.Node",
        Kind::Pod => "io.k8s.api.core.v1.Pod",
        Kind::Service => "io.k8s.api.core.v1.Service",
        Kind::ConfigMap => "io.k8s.api.core.v1.ConfigMap",
        Kind::Secret => "io.k8s.api.core.v1.Secret",
        Kind::ServiceAccount => "io.k8s.api.core.v1.ServiceAccount",
        Kind::CoreEvent => "io.k8s.api.core.v1.Event",
        Kind::Event => "io.k8s.api.events.v1.Event",
        Kind::Deployment => "io.k8s.api.apps.v1.Deployment",
        Kind::ReplicaSet => "io.k8s.api.apps.v1.ReplicaSet",
        Kind::EndpointSlice => "io.k8s.api.discovery.v1.EndpointSlice",
        Kind::Lease => "io.k8s.api.coordination.v1.Lease",
        Kind::Machine => "dev.podium.v1.Machine",
        Kind::Scale => "io.k8s.api.autoscaling.v1.Scale",
        Kind::Binding => "io.k8s.api.core.v1.Binding",
        Kind::Eviction => "io.k8s.api.policy.v1.Eviction",
        Kind::Status => "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
        Kind::DeleteOptions => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, Tree};
    use crate::kind::Kind;

    #[test]
    fn every_kind_is_in_the_tree_with_its_metadata() {
        let tree = Tree::get();
        for kind in Kind::ALL {
            let Shape::Object(root) = tree.root(kind) else { panic!("{kind:?} is an object") };
            let ty = tree.ty(*root);
            assert_eq!(ty.name(), kind.name());
            let wanted = matches!(ty.field("apiVersion"), Some((_, Shape::String)));
            assert!(wanted, "{kind:?} has an apiVersion");
        }
        let Shape::Object(pod) = tree.root(Kind::Pod) else { panic!("a pod is an object") };
        let pod = tree.ty(*pod);
        let Some((_, Shape::Object(spec))) = pod.field("spec") else { panic!("a pod has a spec") };
        assert_eq!(tree.ty(*spec).go_name(), "v1.PodSpec");
    }
}
