//! The rules of a cluster without RBAC objects: administrators and our own parts may do everything, a node may do what
//! its own work needs ([`super::node`]), and everybody may ask whether the server lives.

use futures::future::BoxFuture;
use podium_store::View;

use super::node::{self, Asked};
use super::{Attributes, Authorizer, Decision, INTERNAL, MASTERS, Subject};

/// Paths that anybody may read.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Paths that everybody who is known may read, with all below them.
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];

/// See the module.
#[derive(Debug, Default)]
pub struct ClusterRules;

impl Authorizer for ClusterRules {
    fn authorize<'a>(&'a self, request: Attributes<'a>, state: View) -> BoxFuture<'a, Decision> {
        Box::pin(async move { decide(request, &state) })
    }
}

fn decide(request: Attributes<'_>, state: &View) -> Decision {
    let user = request.user;
    if user.is_in(MASTERS) || user.is_in(INTERNAL) {
        return Decision::Allow;
    }
    match request.subject {
        Subject::Path(path) => {
            let below = |root: &str| {
                path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let allowed = request.verb == "get"
                && (PUBLIC.into_iter().any(below)
                    || (!user.is_anonymous() && DISCOVERY.into_iter().any(below)));
            if allowed { Decision::Allow } else { Decision::Deny(String::new()) }
        }
        Subject::Object { resource, subresource, namespace, name } => {
            let Some(node) = user.as_node() else { return Decision::Deny(String::new()) };
            let fields = request.fields;
            let asked = Asked { kind: resource.kind, subresource, namespace, name, fields };
            let uid = user.uid.as_deref();
            let present = node::is_present(node, uid, state);
            match present.and_then(|()| node::may(node, request.verb, asked, state)) {
                Ok(()) => Decision::Allow,
                Err(reason) => Decision::Deny(reason),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_store::{EphemeralStore, StoreHandle};
    use podium_types::kind::resources;

    use super::*;
    use crate::auth::User;
    use crate::registry;

    fn allowed(user: &User, verb: &str, subject: Subject<'_>) -> bool {
        let state = EphemeralStore::default().local();
        decide(Attributes { user, verb, subject, fields: "" }, &state) == Decision::Allow
    }

    fn pods(user: &User, verb: &str) -> bool {
        let resource = registry::find(&resources::PODS).expect("served");
        allowed(user, verb, Subject::Object { resource, subresource: "", namespace: "", name: "" })
    }

    #[test]
    fn strangers_may_ask_only_whether_the_server_lives() {
        let get = |user: &User, path: &str| allowed(user, "get", Subject::Path(path));
        assert!(get(&User::anonymous(), "/livez"));
        assert!(get(&User::anonymous(), "/version"));
        assert!(!get(&User::anonymous(), "/api"));
        assert!(!get(&User::anonymous(), "/versions"));
        assert!(get(&User::authenticated("bob", []), "/apis/apps/v1"));
        assert!(!pods(&User::authenticated("bob", []), "list"));
        assert!(pods(&User::admin(), "deletecollection"));
        assert!(pods(&User::system("node:n1"), "deletecollection"), "a part of a voter");
    }
}
