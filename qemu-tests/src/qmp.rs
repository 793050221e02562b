//! QEMU's control channel (QMP): one JSON object per line on a unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// QEMU answers from its main loop, at once; a host that swaps may take longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A connection in command mode.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, waiting for QEMU to make its socket, and leaves negotiation.
    ///
    /// # Errors
    /// There is no QEMU behind `path`, or it does not speak QMP.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connect to {}", path.display()));
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.line()?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its result.
    ///
    /// # Errors
    /// QEMU refuses (its words are in the error), or does not answer.
    pub fn command(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut request = json!({ "execute": name, "arguments": arguments }).to_string();
        request.push('\n');
        self.reader.get_mut().write_all(request.as_bytes())?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.pointer("/error/desc") {
                bail!("QEMU refuses {name}: {error}");
            }
            // Events come in between.
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU has closed its control channel");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
