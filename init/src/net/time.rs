//! The clock thread: asks time servers and reports how far off the clock is. PID 1 sets it.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use podium_link::sntp::{PACKET_BYTES, PORT, Question};

use super::Report;
use super::child::report;

/// A crystal drifts a few milliseconds in this time; servers are spared.
const PERIOD: Duration = Duration::from_secs(1800);
/// After a failure: soon at first, since the network may just be coming up, then rarely.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// An answer that took longer tells little about the time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Follows the servers that come through the channel; ends when it closes.
pub(super) fn follow(servers: &Receiver<Vec<String>>) {
    let mut current: Vec<String> = Vec::new();
    let mut retry = FIRST_RETRY;
    let mut wait = PERIOD;
    loop {
        match servers.recv_timeout(wait) {
            Ok(new) if new == current => {}
            Ok(new) => {
                current = new;
                retry = FIRST_RETRY;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        wait = PERIOD;
        if current.is_empty() {
            continue;
        }
        match current.iter().find_map(|server| ask(server).ok()) {
            Some((server, offset_milliseconds)) => {
                retry = FIRST_RETRY;
                report(&Report::Time { server, offset_milliseconds });
            }
            None => {
                wait = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

/// The first address of a server that answers, and what is to be added to our clock.
fn ask(server: &str) -> io::Result<(IpAddr, i64)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (server, PORT).to_socket_addrs()? {
        match ask_address(address) {
            Ok(offset) => return Ok((address.ip(), offset)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask_address(address: SocketAddr) -> io::Result<i64> {
    let any: SocketAddr =
        if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut nonce = [0u8; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    let question = Question::new(u64::from_le_bytes(nonce));
    let sent = Instant::now();
    socket.send(&question.packet())?;
    let mut packet = [0u8; PACKET_BYTES];
    let length = socket.recv(&mut packet)?;
    let answer = question
        .answered(packet.get(..length).unwrap_or_default(), sent.elapsed())
        .map_err(io::Error::other)?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Ok(milliseconds(answer).saturating_sub(milliseconds(ours)))
}
