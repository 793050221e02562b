//! Brings `lo` up. A new network namespace has it down, and libcontainer leaves it so; without it a pod's containers cannot
//! speak to each other.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// `lo` is the first link of every network namespace.
const LO_INDEX: i32 = 1;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;
const NLMSG_ERROR: u16 = 2;

/// Sets `lo` up in the calling thread's network namespace.
pub(crate) fn bring_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is protocol 0
    )?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0u8; 256];
    let (_, length) = recv(&socket, &mut answer, RecvFlags::empty())?;
    outcome(answer.get(..length).unwrap_or(&[]))
}

/// `struct nlmsghdr` (16 bytes) and `struct ifinfomsg` (16 bytes), native byte order (rtnetlink(7)).
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&1u32.to_ne_bytes()); // sequence
    message.extend_from_slice(&0u32.to_ne_bytes()); // port: the kernel's choice
    message.extend_from_slice(&[0, 0]); // AF_UNSPEC, padding
    message.extend_from_slice(&0u16.to_ne_bytes()); // link type: any
    message.extend_from_slice(&LO_INDEX.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes()); // which flags to change
    message
}

/// The kernel's answer is an error message whose code is 0 for success.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected answer to RTM_NEWLINK")),
    }
}
