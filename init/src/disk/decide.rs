//! Which partition becomes STATE: the safety rule, as a pure function of what is on the disks.
//!
//! A disk is only ever written to if it already carries a partition of Podium's own type, or if it is blank and
//! either the machine config names it or it is the machine's only disk. Blank means that both of its ends are zero:
//! every partition table, boot sector, and nearly every file system leaves its mark there. A named disk that is not
//! blank is refused as well: names of disks change, data does not come back.

use super::gpt::{Copy, STATE_TYPE, Table};

/// STATE must hold at least the template's file system.
pub(crate) const SMALLEST_STATE_SECTORS: u64 = 1 << 20;
/// Growing by less than this is not worth a write.
const WORTH_GROWING_SECTORS: u64 = 1 << 15;

/// A disk, as far as the rule looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// As `/dev/vda`.
    pub(crate) path: String,
    /// Its size.
    pub(crate) sectors: u64,
    /// What is on it.
    pub(crate) contents: Contents,
}

/// What is on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Both ends are zero.
    Blank,
    /// A partition table, and which copy of it was whole.
    Partitioned(Table, Copy),
    /// Something else; what, in a few words.
    Foreign(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Use the STATE partition that is there.
    Use {
        /// On which disk.
        disk: String,
        /// Its number.
        partition: u32,
        /// The sector that it is to end at, if it is to be grown first.
        grow_to: Option<u64>,
        /// Whether the table is to be written again although nothing changes: its primary copy is damaged.
        repair: bool,
    },
    /// Make a partition table with STATE as its only partition.
    Make {
        /// On which disk.
        disk: String,
    },
    /// Write nothing.
    Refuse {
        /// Why, naming the disks.
        reason: String,
    },
}

/// What the rule goes by, besides the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish<'a> {
    /// The disk of the machine config.
    pub(crate) named: Option<&'a str>,
    /// Whether a disk appeared after the boot's first look: then nobody can say which disk is the only one, and the
    /// one with STATE may be still to come.
    pub(crate) late: bool,
}

/// Applies the rule.
pub(crate) fn decide(disks: &[Disk], wish: Wish<'_>) -> Decision {
    let named = wish.named;
    let holders: Vec<(&Disk, &Table, u32)> = disks.iter().filter_map(holder).collect();
    let refuse = |reason: String| Decision::Refuse { reason };
    match (holders.as_slice(), named) {
        ([], None) if wish.late => refuse(format!(
            "no disk has a STATE partition, and {} came late: name one as machine.state.disk",
            paths(disks.iter())
        )),
        ([], None) => blank_only(disks),
        ([], Some(named)) => blank_named(disks, named),
        ([one], None) => take(*one),
        (many, Some(named)) => match many.iter().find(|(disk, _, _)| disk.path == named) {
            Some(one) => take(*one),
            None => refuse(format!(
                "the config names {named}, but STATE is on {}",
                paths(many.iter().map(|one| one.0))
            )),
        },
        (many, None) => {
            let holders = paths(many.iter().map(|one| one.0));
            refuse(format!(
                "STATE is on more than one disk ({holders}): name one as machine.state.disk"
            ))
        }
    }
}

/// The disk's STATE partition, if it has one.
fn holder(disk: &Disk) -> Option<(&Disk, &Table, u32)> {
    let Contents::Partitioned(table, _) = &disk.contents else { return None };
    let partition = table.partitions.iter().find(|partition| partition.kind == STATE_TYPE)?;
    Some((disk, table, partition.number))
}

/// STATE grows to the end of the disk if nothing lies behind it.
fn take((disk, table, number): (&Disk, &Table, u32)) -> Decision {
    let last_of_all = table.partitions.iter().map(|partition| partition.last).max().unwrap_or(0);
    let end = table
        .partitions
        .iter()
        .find(|partition| partition.number == number)
        .map_or(0, |partition| partition.last);
    let (_, limit) = table.free_end(disk.sectors);
    let grow = end == last_of_all && limit >= end + WORTH_GROWING_SECTORS;
    let repair = matches!(disk.contents, Contents::Partitioned(_, Copy::Backup));
    Decision::Use {
        disk: disk.path.clone(),
        partition: number,
        grow_to: grow.then_some(limit),
        repair,
    }
}

fn blank_only(disks: &[Disk]) -> Decision {
    match disks {
        [] => Decision::Refuse { reason: "the machine has no disk".to_owned() },
        [only] => make(only, ""),
        many => Decision::Refuse {
            reason: format!(
                "no disk has a STATE partition, and there is more than one ({}): name one as machine.state.disk",
                paths(many.iter())
            ),
        },
    }
}

fn blank_named(disks: &[Disk], named: &str) -> Decision {
    match disks.iter().find(|disk| disk.path == named) {
        Some(disk) => make(disk, "the config names it, but "),
        None => {
            let present =
                if disks.is_empty() { "there is none".to_owned() } else { paths(disks.iter()) };
            Decision::Refuse {
                reason: format!(
                    "the config names {named}, which is no disk of this machine ({present})"
                ),
            }
        }
    }
}

fn make(disk: &Disk, although: &str) -> Decision {
    let path = &disk.path;
    match &disk.contents {
        Contents::Blank if disk.sectors >= SMALLEST_STATE_SECTORS + 4096 => {
            Decision::Make { disk: path.clone() }
        }
        Contents::Blank => {
            let mib = disk.sectors / 2048;
            Decision::Refuse {
                reason: format!(
                    "{path} is too small for STATE: {mib} MiB, at least 514 are needed"
                ),
            }
        }
        Contents::Partitioned(..) => Decision::Refuse {
            reason: format!("{path} is left alone: {although}it has partitions and none is STATE"),
        },
        Contents::Foreign(what) => Decision::Refuse {
            reason: format!(
                "{path} is left alone: {although}it holds data ({what}); STATE is made on blank disks only"
            ),
        },
    }
}

fn paths<'a>(disks: impl Iterator<Item = &'a Disk>) -> String {
    disks.map(|disk| disk.path.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::gpt::{ESP_TYPE, Guid, Partition};
    use super::*;

    const GIB: u64 = 1 << 21;

    fn disk(path: &str, contents: Contents) -> Disk {
        Disk { path: path.to_owned(), sectors: 4 * GIB, contents }
    }

    fn partitioned(kinds: &[(Guid, u64, u64)]) -> Contents {
        let partitions = kinds.iter().zip(1..).map(|((kind, first, last), number)| Partition {
            number,
            kind: *kind,
            id: Guid::default(),
            first: *first,
            last: *last,
            attributes: 0,
            name: Vec::new(),
        });
        Contents::Partitioned(
            Table { disk: Guid::default(), partitions: partitions.collect() },
            Copy::Primary,
        )
    }

    /// The decision of a boot's first look.
    fn boot(disks: &[Disk], named: Option<&str>) -> Decision {
        decide(disks, Wish { named, late: false })
    }

    fn foreign() -> Contents {
        Contents::Foreign("a boot sector".to_owned())
    }

    fn refused(decision: Decision) -> String {
        match decision {
            Decision::Refuse { reason } => reason,
            other => panic!("nothing should be written, but {other:?}"),
        }
    }

    #[test]
    fn the_only_disk_is_taken_if_it_is_blank() {
        let decision = boot(&[disk("/dev/vda", Contents::Blank)], None);
        assert_eq!(decision, Decision::Make { disk: "/dev/vda".to_owned() });
    }

    #[test]
    fn the_only_disk_is_left_alone_if_it_holds_data() {
        let reason = refused(boot(&[disk("/dev/vda", foreign())], None));
        assert_eq!(
            reason,
            "/dev/vda is left alone: it holds data (a boot sector); STATE is made on blank disks only"
        );
        refused(boot(&[disk("/dev/vda", partitioned(&[(ESP_TYPE, 2048, 4095)]))], None));
    }

    #[test]
    fn of_two_blank_disks_none_is_chosen() {
        let disks = [disk("/dev/vda", Contents::Blank), disk("/dev/vdb", Contents::Blank)];
        let reason = refused(boot(&disks, None));
        assert!(reason.contains("/dev/vda, /dev/vdb"), "{reason}");
        assert_eq!(boot(&disks, Some("/dev/vdb")), Decision::Make { disk: "/dev/vdb".to_owned() });
    }

    #[test]
    fn a_named_disk_with_data_is_left_alone() {
        let disks = [disk("/dev/vda", foreign()), disk("/dev/vdb", Contents::Blank)];
        let reason = refused(boot(&disks, Some("/dev/vda")));
        assert!(
            reason.starts_with("/dev/vda is left alone: the config names it, but it holds data"),
            "{reason}"
        );
    }

    #[test]
    fn a_named_disk_that_is_missing_is_named() {
        let reason = refused(boot(&[disk("/dev/vda", Contents::Blank)], Some("/dev/sda")));
        assert_eq!(
            reason,
            "the config names /dev/sda, which is no disk of this machine (/dev/vda)"
        );
    }

    #[test]
    fn state_is_found_next_to_a_foreign_disk_and_grown() {
        let state = partitioned(&[(ESP_TYPE, 2048, 264_191), (STATE_TYPE, 264_192, 1_312_767)]);
        let disks = [disk("/dev/vda", foreign()), disk("/dev/vdb", state)];
        let Decision::Use { disk, partition: 2, grow_to: Some(last), repair: false } =
            boot(&disks, None)
        else {
            panic!("STATE is there");
        };
        assert_eq!(disk, "/dev/vdb");
        assert!(last < 4 * GIB && last > 4 * GIB - 4096);
    }

    #[test]
    fn state_does_not_grow_over_what_lies_behind_it() {
        let state = partitioned(&[(STATE_TYPE, 2048, GIB), (ESP_TYPE, GIB + 1, 2 * GIB)]);
        let expected = Decision::Use {
            disk: "/dev/vda".to_owned(),
            partition: 1,
            grow_to: None,
            repair: false,
        };
        assert_eq!(boot(&[disk("/dev/vda", state)], None), expected);
    }

    #[test]
    fn a_full_disk_is_not_grown_again() {
        let whole = partitioned(&[(STATE_TYPE, 2048, 4 * GIB - 2049)]);
        let expected = Decision::Use {
            disk: "/dev/vda".to_owned(),
            partition: 1,
            grow_to: None,
            repair: false,
        };
        assert_eq!(boot(&[disk("/dev/vda", whole)], None), expected);
    }

    #[test]
    fn a_damaged_primary_table_is_written_again() {
        let Contents::Partitioned(table, _) = partitioned(&[(STATE_TYPE, 2048, 4 * GIB - 2049)])
        else {
            panic!("a table");
        };
        let damaged = disk("/dev/vda", Contents::Partitioned(table, Copy::Backup));
        assert!(matches!(
            boot(&[damaged], None),
            Decision::Use { repair: true, grow_to: None, .. }
        ));
    }

    #[test]
    fn two_states_need_a_name() {
        let state = || partitioned(&[(STATE_TYPE, 2048, 4 * GIB - 2049)]);
        let disks = [disk("/dev/vda", state()), disk("/dev/vdb", state())];
        refused(boot(&disks, None));
        assert!(
            matches!(boot(&disks, Some("/dev/vdb")), Decision::Use { disk, .. } if disk == "/dev/vdb")
        );
        refused(boot(&disks, Some("/dev/vdc")));
    }

    #[test]
    fn a_disk_that_came_late_is_taken_only_by_name_or_with_state() {
        let blank = [disk("/dev/sda", Contents::Blank)];
        let late = |named| Wish { named, late: true };
        let reason = refused(decide(&blank, late(None)));
        assert!(reason.contains("/dev/sda came late"), "{reason}");
        assert_eq!(
            decide(&blank, late(Some("/dev/sda"))),
            Decision::Make { disk: "/dev/sda".to_owned() }
        );
        let state = [disk("/dev/sda", partitioned(&[(STATE_TYPE, 2048, 4 * GIB - 2049)]))];
        assert!(matches!(decide(&state, late(None)), Decision::Use { .. }));
    }

    #[test]
    fn a_small_disk_is_refused() {
        let small =
            Disk { path: "/dev/vda".to_owned(), sectors: 2048 * 100, contents: Contents::Blank };
        assert_eq!(
            refused(boot(&[small], None)),
            "/dev/vda is too small for STATE: 100 MiB, at least 514 are needed"
        );
    }
}
