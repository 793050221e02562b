//! Which kernel modules the image carries, and why. Their dependencies come along by themselves.
//!
//! Debian's kernel builds nearly everything as a module, and there is no modprobe to answer the kernel's own requests
//! (`kernel.modprobe` is empty). So hardware is loaded when its uevent names it, and what the kernel would ask for by
//! name is loaded by `init` before anybody can need it.

/// When `init` loads a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// When a device's modalias matches.
    Hardware,
    /// On every boot, before the machine config is read.
    Early,
    /// On every boot, before `node` starts.
    Data,
    /// On every boot, while `node` starts: nothing that a single machine needs.
    Late,
    /// When an EFI system partition is to be mounted.
    Esp,
}

impl When {
    /// The word in the module index.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Early => "early",
            Self::Data => "data",
            Self::Late => "late",
            Self::Esp => "esp",
        }
    }
}

/// A module, when it is loaded, and why it is here.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The kernel's name for it.
    pub name: &'static str,
    /// When it is loaded.
    pub when: When,
    /// Why.
    pub reason: &'static str,
}

const fn wanted(name: &'static str, when: When, reason: &'static str) -> Wanted {
    Wanted { name, when, reason }
}

/// The whole list.
pub const WANTED: &[Wanted] = &[
    // Machines of QEMU and KVM.
    wanted("virtio_blk", When::Hardware, "disks of QEMU and KVM"),
    wanted("virtio_scsi", When::Hardware, "disks of QEMU and KVM, Google Cloud"),
    wanted("virtio_net", When::Hardware, "links of QEMU and KVM"),
    wanted("virtio-rng", When::Hardware, "entropy of the host"),
    wanted("virtio_balloon", When::Hardware, "memory that the host asks back"),
    wanted("i6300esb", When::Hardware, "watchdog of QEMU"),
    wanted("ptp_kvm", When::Hardware, "the host's clock"),
    // Other hypervisors and clouds.
    wanted("ena", When::Hardware, "links of AWS"),
    wanted("gve", When::Hardware, "links of Google Cloud"),
    wanted("ixgbevf", When::Hardware, "links of older AWS machines"),
    wanted("vmxnet3", When::Hardware, "links of VMware"),
    wanted("vmw_pvscsi", When::Hardware, "disks of VMware"),
    wanted("hv_vmbus", When::Hardware, "the bus of Hyper-V and Azure"),
    wanted("hv_netvsc", When::Hardware, "links of Hyper-V"),
    wanted("hv_storvsc", When::Hardware, "disks of Hyper-V"),
    wanted("xen-blkfront", When::Hardware, "disks of Xen"),
    wanted("xen-netfront", When::Hardware, "links of Xen"),
    // Disks in general; NVMe is built in.
    wanted("ahci", When::Hardware, "SATA disks"),
    wanted("sd_mod", When::Hardware, "SCSI and SATA disks"),
    // The power button, which is also how a hypervisor asks for power-off.
    wanted("button", When::Hardware, "the ACPI power button"),
    wanted(
        "evdev",
        When::Early,
        "no modalias: makes the power button readable as /dev/input/event*",
    ),
    wanted(
        "qemu_fw_cfg",
        When::Early,
        "the machine config of a hypervisor; its ACPI id appears late, so it is not awaited",
    ),
    // What the kernel would request by itself. Containers:
    wanted("overlay", When::Data, "requested by mount: container root file systems"),
    // links:
    wanted("veth", When::Data, "requested by rtnetlink: a pod's link"),
    wanted("bridge", When::Data, "requested by rtnetlink: pods of a node"),
    wanted("dummy", When::Data, "requested by rtnetlink: holds the DNS address"),
    wanted("vxlan", When::Late, "requested by rtnetlink: cluster.overlay vxlan"),
    wanted("wireguard", When::Late, "requested by rtnetlink: cluster.overlay wireguard"),
    // nftables: the subsystem, chain types, expressions.
    wanted("nf_tables", When::Data, "requested by nfnetlink"),
    wanted("nfnetlink", When::Data, "requested by sockets of the netfilter family"),
    wanted("nf_conntrack", When::Data, "connection tracking"),
    wanted("nf_conntrack_netlink", When::Data, "reading and deleting connections"),
    wanted("nft_chain_nat", When::Data, "requested by nat chains"),
    wanted("nft_ct", When::Data, "requested by the expressions ct and notrack"),
    wanted("nft_nat", When::Data, "requested by the expression nat"),
    wanted("nft_masq", When::Data, "requested by the expression masq"),
    wanted("nft_numgen", When::Data, "requested by the expression numgen: choosing an endpoint"),
    wanted("nft_hash", When::Data, "requested by the expression hash: client affinity"),
    wanted(
        "nft_reject_ipv4",
        When::Data,
        "requested by the expression reject: Services without endpoints",
    ),
    // File systems and what they request.
    wanted("vfat", When::Esp, "requested by mount: the EFI system partition"),
    wanted("nls_cp437", When::Esp, "requested by vfat: short names"),
    wanted("nls_ascii", When::Esp, "requested by vfat: Debian's default character set"),
    wanted("nls_utf8", When::Esp, "requested by vfat: the kernel's default character set"),
];

/// Buses whose devices `init` looks at; aliases of other kinds (file systems, expressions) stand in [`WANTED`] by name.
pub const BUSES: &[&str] = &["pci:", "virtio:", "acpi", "vmbus:", "xen:", "scsi:"];
