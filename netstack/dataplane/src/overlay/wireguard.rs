//! WireGuard's settings over generic netlink (the kernel's `include/uapi/linux/wireguard.h`): a link's key and port, and
//! its peers. One request, one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_GENERIC};
use podium_link::Cidr;

use super::key::{PrivateKey, PublicKey};
use super::plan::Tunnel;

/// Why WireGuard's settings could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum WireGuardError {
    /// The socket failed.
    #[error("talk to the kernel while {doing}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The answer made no sense.
    #[error("the kernel's answer while {0} could not be read")]
    Answer(&'static str),
}

/// A connection to WireGuard of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct WireGuard {
    socket: Socket,
    /// The number that the kernel gave the family when its module was loaded.
    family: u16,
    sequence: u32,
}

impl WireGuard {
    /// Opens a connection; the kernel must have the module already.
    pub(super) fn open() -> Result<Self, WireGuardError> {
        const DOING: &str = "looking for WireGuard";
        let failed = |source| WireGuardError::Socket { doing: DOING, source };
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&NetlinkAddress::new(0, 0)).map_err(failed)?;
        let mut opened = Self { socket, family: 0, sequence: 0 };
        let name = WireguardMessage::family_name().to_owned();
        let request =
            GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(name)] };
        let answers = opened.call(request, NLM_F_ACK, DOING)?;
        let number =
            answers.iter().flat_map(|answer| &answer.nlas).find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(number) => Some(*number),
                _ => None,
            });
        opened.family = number.ok_or(WireGuardError::Answer(DOING))?;
        Ok(opened)
    }

    /// Gives the link its key and port if it has others; `true` if it had.
    pub(super) fn ensure_device(
        &mut self,
        link: u32,
        key: &PrivateKey,
        port: u16,
    ) -> Result<bool, WireGuardError> {
        let have = self.device(link)?;
        let key = WireguardAttribute::PrivateKey(key.bytes());
        let port = WireguardAttribute::ListenPort(port);
        let is_there = |wanted: &WireguardAttribute| {
            have.iter().flatten().any(|attribute| attribute == wanted)
        };
        let missing: Vec<WireguardAttribute> =
            [key, port].into_iter().filter(|wanted| !is_there(wanted)).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        self.set(link, missing, "giving a WireGuard link its key and port")?;
        Ok(true)
    }

    /// The link's peers.
    pub(super) fn tunnels(
        &mut self,
        link: u32,
    ) -> Result<BTreeMap<PublicKey, Tunnel>, WireGuardError> {
        let mut tunnels = BTreeMap::<PublicKey, Tunnel>::new();
        for attribute in self.device(link)?.into_iter().flatten() {
            let WireguardAttribute::Peers(peers) = attribute else { continue };
            for peer in peers {
                // A peer that does not fit one message goes on in the next one.
                let Some((key, part)) = tunnel(&peer) else { continue };
                let tunnel = tunnels.entry(key).or_default();
                tunnel.endpoint = tunnel.endpoint.or(part.endpoint);
                tunnel.allowed.extend(part.allowed);
            }
        }
        Ok(tunnels)
    }

    /// Makes a peer or changes one. Without `replace`, `allowed` is added.
    pub(super) fn set_tunnel(
        &mut self,
        link: u32,
        key: PublicKey,
        endpoint: Option<SocketAddr>,
        allowed: &BTreeSet<Cidr>,
        replace: bool,
    ) -> Result<(), WireGuardError> {
        let mut peer = vec![WireguardPeerAttribute::PublicKey(key.bytes())];
        if replace {
            peer.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps));
        }
        peer.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
        if !allowed.is_empty() {
            let allowed = allowed.iter().map(|cidr| allowed_ip(*cidr)).collect();
            peer.push(WireguardPeerAttribute::AllowedIps(allowed));
        }
        let peers = WireguardAttribute::Peers(vec![WireguardPeer(peer)]);
        self.set(link, vec![peers], "telling WireGuard of a peer")
    }

    /// Removes a peer.
    pub(super) fn remove_tunnel(
        &mut self,
        link: u32,
        key: PublicKey,
    ) -> Result<(), WireGuardError> {
        let peer = vec![
            WireguardPeerAttribute::PublicKey(key.bytes()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ];
        let peers = WireguardAttribute::Peers(vec![WireguardPeer(peer)]);
        self.set(link, vec![peers], "removing a peer of WireGuard")
    }

    /// All that the kernel tells of a link, in one or more messages.
    fn device(&mut self, link: u32) -> Result<Vec<Vec<WireguardAttribute>>, WireGuardError> {
        let request = WireguardMessage {
            cmd: WireguardCmd::GetDevice,
            attributes: vec![WireguardAttribute::IfIndex(link)],
        };
        let answers = self.call(request, NLM_F_DUMP, "reading a WireGuard link")?;
        Ok(answers.into_iter().map(|answer| answer.attributes).collect())
    }

    fn set(
        &mut self,
        link: u32,
        mut attributes: Vec<WireguardAttribute>,
        doing: &'static str,
    ) -> Result<(), WireGuardError> {
        attributes.insert(0, WireguardAttribute::IfIndex(link));
        let request = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes };
        self.call(request, NLM_F_ACK, doing).map(drop)
    }

    fn call<F>(
        &mut self,
        payload: F,
        flags: u16,
        doing: &'static str,
    ) -> Result<Vec<F>, WireGuardError>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
    {
        let failed = |source| WireGuardError::Socket { doing, source };
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = GenlMessage::from_payload(payload);
        message.set_resolved_family_id(self.family);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<GenlMessage<F>>::deserialize(rest)
                    .map_err(|_| WireGuardError::Answer(doing))?;
                let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        let Some(code) = error.code else { return Ok(answers) };
                        let source = io::Error::from_raw_os_error(code.get().saturating_abs());
                        return Err(WireGuardError::Refused { doing, source });
                    }
                    NetlinkPayload::InnerMessage(message) => answers.push(message.payload),
                    _ => {}
                }
            }
        }
    }
}

fn allowed_ip(cidr: Cidr) -> WireguardAllowedIp {
    let family = if cidr.address.is_ipv4() {
        WireguardAddressFamily::Ipv4
    } else {
        WireguardAddressFamily::Ipv6
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(cidr.address),
        WireguardAllowedIpAttr::Cidr(cidr.prefix_length),
    ])
}

fn tunnel(peer: &WireguardPeer) -> Option<(PublicKey, Tunnel)> {
    let mut key = None;
    let mut tunnel = Tunnel::default();
    for attribute in peer.iter() {
        match attribute {
            WireguardPeerAttribute::PublicKey(bytes) => key = Some(PublicKey::from_bytes(*bytes)),
            WireguardPeerAttribute::Endpoint(endpoint) => tunnel.endpoint = Some(*endpoint),
            WireguardPeerAttribute::AllowedIps(allowed) => {
                tunnel.allowed.extend(allowed.iter().filter_map(cidr));
            }
            _ => {}
        }
    }
    Some((key?, tunnel))
}

fn cidr(allowed: &WireguardAllowedIp) -> Option<Cidr> {
    let address = allowed.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::IpAddr(address) => Some(*address),
        _ => None,
    })?;
    let prefix_length = allowed.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::Cidr(length) => Some(*length),
        _ => None,
    })?;
    Some(Cidr::new(address, prefix_length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_is_written() {
        let allowed = [
            Cidr::new("10.244.1.0".parse().expect("an address"), 24),
            Cidr::new("fd00::1".parse().expect("an address"), 128),
        ];
        let endpoint = SocketAddr::from(([10, 77, 0, 11], 51820));
        let peer = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([5; 32]),
            WireguardPeerAttribute::Endpoint(endpoint),
            WireguardPeerAttribute::AllowedIps(allowed.map(allowed_ip).to_vec()),
        ]);
        let (key, tunnel) = tunnel(&peer).expect("a peer");
        assert_eq!(key.bytes(), [5; 32]);
        assert_eq!(tunnel.endpoint, Some(endpoint));
        assert_eq!(tunnel.allowed, allowed.into_iter().collect());
    }
}
