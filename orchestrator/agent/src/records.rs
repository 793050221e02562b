//! Pods' records on disk: `<state>/<uid>/record`, replaced whole and durably.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_control::pod::PodRecord;
use podium_shim_protocol::record::{self, RecordError};

const NAME: &str = "record";

/// Writes a pod's record into its folder, which is made if missing.
pub(crate) fn write(pod_dir: &Path, pod: &PodRecord) -> Result<(), RecordError> {
    fs::create_dir_all(pod_dir).map_err(|source| RecordError::Io {
        action: "make",
        path: pod_dir.to_owned(),
        source,
    })?;
    record::write(&pod_dir.join(NAME), pod)
}

/// The pods that have a folder, with the record where there is a good one. A damaged record is not an error of the
/// node: the pod is then as good as new, and what is left of it is cleaned up.
pub(crate) fn scan(state_dir: &Path) -> io::Result<Vec<(String, Option<PodRecord>)>> {
    let folders = match fs::read_dir(state_dir) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for folder in folders {
        let folder = folder?;
        let Ok(uid) = folder.file_name().into_string() else { continue };
        let path: PathBuf = folder.path().join(NAME);
        let record = record::read(&path).unwrap_or_else(|error| {
            tracing::warn!(pod = uid, %error, "a pod's record cannot be used");
            None
        });
        found.push((uid, record));
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{scan, write};
    use podium_control::pod::{PodRecord, PodRecordV1};
    use std::fs;

    #[test]
    fn records_come_back_and_a_damaged_one_costs_only_itself() {
        let state = tempfile::tempdir().expect("a folder");
        let record = |uid: &str| {
            PodRecord::V1(PodRecordV1 { uid: uid.to_owned(), ..PodRecordV1::default() })
        };
        write(&state.path().join("a"), &record("a")).expect("a record");
        write(&state.path().join("b"), &record("b")).expect("a record");
        fs::write(state.path().join("b/record"), b"\x01\x00torn").expect("damage");
        let found = scan(state.path()).expect("a scan");
        assert_eq!(found, [("a".to_owned(), Some(record("a"))), ("b".to_owned(), None)]);
    }

    #[test]
    fn first_form_of_the_record_is_read_for_ever() {
        // Frozen: these bytes were written by the first version and must decode in every later one.
        let bytes: &[u8] = &[
            0x01, 0x00, // version of the file
            0x00, // V1
            0x01, b'u', 0x02, b'n', b's', 0x01, b'p', // uid, namespace, name
            0x00, // no start time
            0x01, 0x00, 10, 244, 0, 5, // one IPv4 address
            0x01, 0x01, b'c', // one container, c
            0x01, 0x02, // running attempt 2
            0x03, // next attempt 3
            0x00, // not done
            0x00, 0x00, // no ends
            0x00, // no image
            0x00, // no back-off
            0x00, // not waiting
        ];
        let state = tempfile::tempdir().expect("a folder");
        fs::create_dir(state.path().join("u")).expect("a folder");
        fs::write(state.path().join("u/record"), bytes).expect("a record");
        let (_, record) = scan(state.path()).expect("a scan").remove(0);
        let record = record.expect("a record").into_latest();
        assert_eq!(
            (record.uid.as_str(), record.namespace.as_str(), record.name.as_str()),
            ("u", "ns", "p")
        );
        assert_eq!(
            record.addresses,
            ["10.244.0.5".parse::<std::net::IpAddr>().expect("an address")]
        );
        let container = record.containers.get("c").expect("the container");
        assert_eq!((container.running, container.next, container.done), (Some(2), 3, false));
    }
}
