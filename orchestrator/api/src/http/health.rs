//! Whether the server lives and is ready, and what it is.

use podium_store::Role;
use serde_json::{Value, json};

use super::Server;
use super::query::Query;
use super::reply::{self, Reply};

/// What clients take this server for, and what it is.
pub const GIT_VERSION: &str = "v1.37.0+podium";

/// The answer to `/version`.
#[must_use]
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", architecture()),
    })
}

/// The processor's architecture, by its name in container images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Answers `/livez`, `/readyz`, `/healthz`, and one check of them.
pub(super) fn answer(server: &Server, name: &str, query: &Query) -> Reply {
    let mut parts = name.split('/');
    let which = parts.next().unwrap_or_default();
    let checks = checks(server, which == "livez");
    match parts.next() {
        None => whole(which, &checks, query.flag("verbose")),
        Some(one) => match checks.iter().find(|(name, _)| *name == one) {
            Some((_, true)) => reply::text(200, "ok"),
            Some((name, false)) => {
                reply::text(500, format!("internal server error: {name} failed"))
            }
            None => reply::nowhere(),
        },
    }
}

/// What is looked at: a server lives as long as it answers; it is ready when its store can serve.
fn checks(server: &Server, alive_only: bool) -> Vec<(&'static str, bool)> {
    let mut checks = vec![("ping", true)];
    if !alive_only {
        let status = server.pipeline.store().status();
        let serving = matches!(status.role, Role::Leader | Role::Follower | Role::Learner);
        checks.push(("store", serving && status.leader.is_some()));
        checks.push(("shutdown", !*server.closing.borrow()));
    }
    checks
}

fn whole(which: &str, checks: &[(&str, bool)], verbose: bool) -> Reply {
    let good = checks.iter().all(|(_, good)| *good);
    if good && !verbose {
        return reply::text(200, "ok");
    }
    let line = |(name, good): &(&str, bool)| {
        if *good {
            format!("[+]{name} ok\n")
        } else {
            format!("[-]{name} failed: reason withheld\n")
        }
    };
    let lines: String = checks.iter().map(line).collect();
    if good {
        reply::text(200, format!("{lines}{which} check passed\n"))
    } else {
        reply::text(500, format!("{lines}{which} check failed\n"))
    }
}
