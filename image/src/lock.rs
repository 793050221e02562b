//! The lock file: every Debian package that goes into the image, and the one tool that shapes it.
//!
//! One line per input, fields separated by spaces: `role package version sha256 size_bytes`; a tool has only role,
//! package and version. `#` begins a comment. The roles are fixed by [`Role`]; each appears once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What an input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The kernel and its modules.
    Kernel,
    /// systemd's EFI stub and boot manager.
    Boot,
    /// The public certificate authorities.
    Certificates,
    /// e2fsprogs of the building machine: another version may lay out the ext4 template differently.
    Mke2fs,
}

impl Role {
    /// All, in the order of the lock file.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Boot, Self::Certificates, Self::Mke2fs];

    /// The word in the lock file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Boot => "boot",
            Self::Certificates => "certificates",
            Self::Mke2fs => "mke2fs",
        }
    }

    /// The package that names the newest version of this input: for the kernel a meta-package of the series.
    pub fn series(self) -> &'static str {
        match self {
            Self::Kernel => "linux-image-6.12-cloud-amd64",
            Self::Boot => "systemd-boot-efi",
            Self::Certificates => "ca-certificates",
            Self::Mke2fs => "e2fsprogs",
        }
    }

    /// Whether the input is taken from the archive; otherwise it is a program of the building machine.
    pub fn is_downloaded(self) -> bool {
        match self {
            Self::Kernel | Self::Boot | Self::Certificates => true,
            Self::Mke2fs => false,
        }
    }
}

/// One locked input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Debian's package name.
    pub package: String,
    /// Debian's version.
    pub version: String,
    /// Of the package file; empty for a tool.
    pub sha256: String,
    /// Of the package file; 0 for a tool.
    pub size_bytes: u64,
}

/// All locked inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// By role.
    pub inputs: BTreeMap<Role, Input>,
}

/// Why a lock file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// A line has the wrong fields.
    #[error("line {line} of the lock file: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A role has no line.
    #[error("the lock file has no line for {0:?}; `podium image pin` writes one")]
    Missing(&'static str),
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let mut inputs = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (role, input) =
                parse_line(line).map_err(|reason| LockError::Line { line: number + 1, reason })?;
            if inputs.insert(role, input).is_some() {
                return Err(LockError::Line {
                    line: number + 1,
                    reason: format!("{} stands twice", role.word()),
                });
            }
        }
        if let Some(missing) = Role::ALL.into_iter().find(|role| !inputs.contains_key(role)) {
            return Err(LockError::Missing(missing.word()));
        }
        Ok(Self { inputs })
    }

    /// The input for `role`.
    ///
    /// # Errors
    /// [`LockError::Missing`].
    pub fn input(&self, role: Role) -> Result<&Input, LockError> {
        self.inputs.get(&role).ok_or(LockError::Missing(role.word()))
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from(
            "# Every Debian input of the OS image: role, package, version, sha256 and size of the package file.\n\
             # `podium image pin` renews it from the archive that apt knows.\n",
        );
        for (role, input) in &self.inputs {
            let Input { package, version, sha256, size_bytes } = input;
            if role.is_downloaded() {
                writeln!(text, "{} {package} {version} {sha256} {size_bytes}", role.word())?;
            } else {
                writeln!(text, "{} {package} {version}", role.word())?;
            }
        }
        out.write_str(&text)
    }
}

fn parse_line(line: &str) -> Result<(Role, Input), String> {
    let mut fields = line.split_whitespace();
    let word = fields.next().unwrap_or_default();
    let role = Role::ALL
        .into_iter()
        .find(|role| role.word() == word)
        .ok_or(format!("{word:?} is no known role"))?;
    let mut next =
        |what: &str| fields.next().map(str::to_owned).ok_or(format!("{what} is missing"));
    let package = next("the package")?;
    let version = next("the version")?;
    let (mut sha256, mut size_bytes) = (String::new(), 0);
    if role.is_downloaded() {
        sha256 = next("the sha256")?;
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("{sha256:?} is no sha256"));
        }
        size_bytes = next("the size")?.parse().map_err(|_| "the size is no number".to_owned())?;
    }
    match fields.next() {
        Some(extra) => Err(format!("{extra:?} is one field too many")),
        None => Ok((role, Input { package, version, sha256, size_bytes })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        let sha = "a".repeat(64);
        format!(
            "# head\nkernel linux 6.12-1 {sha} 5\nboot sd 252 {sha} 6\ncertificates ca 1 {sha} 7\nmke2fs e2fsprogs 1.47\n"
        )
    }

    #[test]
    fn a_lock_is_written_as_it_is_read() {
        let lock = Lock::parse(&example()).expect("a good lock");
        assert_eq!(Lock::parse(&lock.to_string()), Ok(lock));
    }

    #[test]
    fn a_lock_without_a_role_is_refused() {
        let text = example().replace("boot sd", "# boot sd");
        assert_eq!(Lock::parse(&text), Err(LockError::Missing("boot")));
    }

    #[test]
    fn a_bad_line_is_named() {
        let text = example().replace(" 6\n", " six\n");
        let reason = "the size is no number".to_owned();
        assert_eq!(Lock::parse(&text), Err(LockError::Line { line: 3, reason }));
    }
}
