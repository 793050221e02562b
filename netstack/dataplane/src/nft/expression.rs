//! The expressions of our rules. A rule is a list of them; each reads and writes registers.
//!
//! Registers are named as in the kernel's 32-bit scheme: [`Register(0)`](Register) is `NFT_REG32_00`. A value longer than
//! four bytes takes the registers that follow.

use super::message::Attributes;

/// A 32-bit register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    /// `NFT_REG32_00` is 8.
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// Where a packet's bytes are counted from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Header {
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// On to the next hook.
    Accept,
}

/// A rule's expressions, being written.
#[derive(Debug)]
pub(crate) struct Expressions<'a>(pub(crate) &'a mut Attributes);

const LIST_ELEMENT: u16 = 1;

impl Expressions<'_> {
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        self.0.nest(LIST_ELEMENT, |it| {
            it.string(1, name).nest(2, fill);
        });
        self
    }

    /// Packet bytes into a register.
    pub(crate) fn payload(
        &mut self,
        to: Register,
        header: Header,
        offset: u32,
        length: u32,
    ) -> &mut Self {
        self.push("payload", |it| {
            it.number(1, to.number()).number(2, header as u32).number(3, offset).number(4, length);
        })
    }

    /// The transport protocol's number into a register.
    pub(crate) fn protocol(&mut self, to: Register) -> &mut Self {
        const META_L4PROTO: u32 = 16;
        self.push("meta", |it| {
            it.number(1, to.number()).number(2, META_L4PROTO);
        })
    }

    /// Goes on only if the register's first bytes are (or are not) `value`.
    pub(crate) fn compare(&mut self, register: Register, equal: bool, value: &[u8]) -> &mut Self {
        self.push("cmp", |it| {
            it.number(1, register.number()).number(2, u32::from(!equal)).nest(3, |it| {
                it.bytes(1, value);
            });
        })
    }

    /// Keeps only the bits of `mask` in a register.
    pub(crate) fn mask(&mut self, register: Register, mask: [u8; 4]) -> &mut Self {
        self.push("bitwise", |it| {
            it.number(1, register.number()).number(2, register.number()).number(3, 4);
            it.nest(4, |it| {
                it.bytes(1, &mask);
            });
            it.nest(5, |it| {
                it.bytes(1, &[0; 4]);
            });
        })
    }

    /// Goes on only if the set holds what is in the registers.
    pub(crate) fn in_set(&mut self, set: &str, key: Register) -> &mut Self {
        self.push("lookup", |it| {
            it.string(1, set).number(2, key.number());
        })
    }

    /// Does what the map says of what is in the registers; goes on if it says nothing.
    pub(crate) fn verdict_by_map(&mut self, map: &str, key: Register) -> &mut Self {
        const REGISTER_VERDICT: u32 = 0;
        self.push("lookup", |it| {
            it.string(1, map).number(2, key.number()).number(3, REGISTER_VERDICT);
        })
    }

    /// The map's value for what is in the registers; ends the rule if it has none.
    pub(crate) fn value_by_map(&mut self, map: &str, key: Register, to: Register) -> &mut Self {
        self.push("lookup", |it| {
            it.string(1, map).number(2, key.number()).number(3, to.number());
        })
    }

    /// A random number below `count`, in host order.
    pub(crate) fn random(&mut self, to: Register, count: u32) -> &mut Self {
        const RANDOM: u32 = 1;
        self.push("numgen", |it| {
            it.number(1, to.number()).number(2, count).number(3, RANDOM).number(4, 0);
        })
    }

    /// Rewrites the destination to the address and port in two registers.
    pub(crate) fn destination(&mut self, address: Register, port: Register) -> &mut Self {
        const DNAT: u32 = 1;
        self.push("nat", |it| {
            it.number(1, DNAT).number(2, u32::from(super::message::FAMILY_IPV4));
            it.number(3, address.number()).number(5, port.number());
        })
    }

    /// Rewrites the source to the address in a register.
    pub(crate) fn source(&mut self, address: Register) -> &mut Self {
        const SNAT: u32 = 0;
        self.push("nat", |it| {
            it.number(1, SNAT)
                .number(2, u32::from(super::message::FAMILY_IPV4))
                .number(3, address.number());
        })
    }

    /// Rewrites the source to the address of the link by which the packet leaves.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |_| {})
    }

    /// A constant into a register.
    pub(crate) fn constant(&mut self, to: Register, value: &[u8]) -> &mut Self {
        self.push("immediate", |it| {
            it.number(1, to.number()).nest(2, |it| {
                it.bytes(1, value);
            });
        })
    }

    /// Makes no conntrack entry for the packet.
    pub(crate) fn no_track(&mut self) -> &mut Self {
        self.push("notrack", |_| {})
    }

    /// Answers "port unreachable" (ICMP type 3, code 3), which a client sees as a refused connection.
    pub(crate) fn refuse(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        const PORT_UNREACHABLE: u8 = 3;
        self.push("reject", |it| {
            it.number(1, ICMP_UNREACHABLE).bytes(2, &[PORT_UNREACHABLE]);
        })
    }

    /// Ends the packet's way through this hook.
    pub(crate) fn verdict(&mut self, verdict: Verdict) -> &mut Self {
        let Verdict::Accept = verdict;
        const NF_ACCEPT: u32 = 1;
        self.push("immediate", |it| {
            it.number(1, 0).nest(2, |it| {
                it.nest(2, |it| {
                    it.number(1, NF_ACCEPT);
                });
            });
        })
    }
}
