//! Who a container runs as: numbers from the pod spec, or names that the image's own `/etc/passwd` and `/etc/group` explain.

use std::io;

use podium_shim_protocol::RunAs;
use thiserror::Error;

use crate::inside::Inside;

/// A process's user and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, sorted, the main one among them.
    pub(crate) groups: Vec<u32>,
    /// The user's home, `/` if nothing names one.
    pub(crate) home: String,
}

/// Why it is not clear who to run as.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// No line of `/etc/passwd` has this name.
    #[error("unable to find user {0}: no matching entries in the image's /etc/passwd")]
    NoUser(String),
    /// No line of `/etc/group` has this name.
    #[error("unable to find group {0}: no matching entries in the image's /etc/group")]
    NoGroup(String),
    /// `runAsNonRoot` and user 0.
    #[error("container has runAsNonRoot and would run as root")]
    Root,
    /// The image's files cannot be read.
    #[error("cannot read the image's users")]
    Io(#[from] io::Error),
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Decides the identity for a container whose root is `root`.
pub(crate) fn decide(root: &Inside, run_as: &RunAs) -> Result<Identity, IdentityError> {
    let passwd = root.read("/etc/passwd")?.unwrap_or_default();
    let group = root.read("/etc/group")?.unwrap_or_default();
    let users: Vec<Passwd<'_>> = passwd.lines().filter_map(passwd_line).collect();
    let lines: Vec<GroupLine<'_>> = group.lines().filter_map(group_line).collect();

    let (user, main_group) = match run_as.image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (run_as.image_user.as_str(), None),
    };
    let user = match run_as.uid {
        Some(uid) => uid.to_string(),
        None if user.is_empty() => "0".to_owned(),
        None => user.to_owned(),
    };
    // A name that happens to be all digits is a number, as in every other runtime.
    let known = users.iter().find(|line| match user.parse::<u32>() {
        Ok(uid) => line.uid == uid,
        Err(_) => line.name == user,
    });
    let uid = match (user.parse(), known) {
        (Ok(uid), _) => uid,
        (Err(_), Some(known)) => known.uid,
        (Err(_), None) => return Err(IdentityError::NoUser(user)),
    };
    let gid = match (run_as.gid, main_group.filter(|_| run_as.uid.is_none())) {
        (Some(gid), _) => gid,
        (None, Some(group)) => {
            match (group.parse(), lines.iter().find(|line| line.name == group)) {
                (Ok(gid), _) => gid,
                (Err(_), Some(line)) => line.gid,
                (Err(_), None) => return Err(IdentityError::NoGroup(group.to_owned())),
            }
        }
        (None, None) => known.map_or(0, |known| known.gid),
    };
    if run_as.non_root && uid == 0 {
        return Err(IdentityError::Root);
    }

    let mut groups = run_as.supplemental_groups.clone();
    groups.push(gid);
    if let Some(known) = known {
        let member = |line: &&GroupLine<'_>| line.members.split(',').any(|name| name == known.name);
        groups.extend(lines.iter().filter(member).map(|line| line.gid));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = known.map(|known| known.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// passwd(5): `name:password:uid:gid:comment:home:shell`. A line that is not like that is skipped.
fn passwd_line(line: &str) -> Option<Passwd<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

/// group(5): `name:password:gid:members`.
fn group_line(line: &str) -> Option<GroupLine<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x\nredis:x:999:1000:,,,:/data:/bin/false\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            root.path().join("etc/group"),
            "root:x:0:\nredis:x:1000:\ndisk:x:6:root,redis\nadm:x:4:redis\n",
        )
        .unwrap();
        root
    }

    fn of(run_as: &RunAs) -> Result<Identity, IdentityError> {
        let root = root();
        decide(&Inside::open(root.path()).unwrap(), run_as)
    }

    fn image_user(user: &str) -> RunAs {
        RunAs { image_user: user.to_owned(), ..RunAs::default() }
    }

    #[test]
    fn image_users_mean_what_docker_means() {
        let identity = |uid, gid, groups: &[u32], home: &str| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        assert_eq!(of(&image_user("")).unwrap(), identity(0, 0, &[0, 6], "/root"));
        assert_eq!(of(&image_user("redis")).unwrap(), identity(999, 1000, &[4, 6, 1000], "/data"));
        assert_eq!(of(&image_user("999")).unwrap(), identity(999, 1000, &[4, 6, 1000], "/data"));
        assert_eq!(of(&image_user("redis:disk")).unwrap(), identity(999, 6, &[4, 6], "/data"));
        assert_eq!(of(&image_user("4711:4712")).unwrap(), identity(4711, 4712, &[4712], "/"));
        assert_eq!(of(&image_user("4711")).unwrap(), identity(4711, 0, &[0], "/"));
    }

    #[test]
    fn pod_spec_overrides_the_image() {
        let run_as = RunAs {
            uid: Some(5),
            gid: Some(7),
            supplemental_groups: vec![9, 7],
            ..image_user("redis:disk")
        };
        assert_eq!(
            of(&run_as).unwrap(),
            Identity { uid: 5, gid: 7, groups: vec![7, 9], home: "/".to_owned() }
        );
        let run_as = RunAs { uid: Some(5), ..image_user("redis:disk") };
        assert_eq!(of(&run_as).unwrap().gid, 0);
    }

    #[test]
    fn unknown_names_and_root_are_refused_by_name() {
        assert!(of(&image_user("nosuch")).unwrap_err().to_string().contains("user nosuch"));
        assert!(of(&image_user("redis:nosuch")).unwrap_err().to_string().contains("group nosuch"));
        let run_as = RunAs { non_root: true, ..image_user("root") };
        assert!(matches!(of(&run_as), Err(IdentityError::Root)));
        assert!(of(&RunAs { non_root: true, ..image_user("redis") }).is_ok());
    }
}
