//! Logs in a folder of the machine that runs the tests.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;

use super::{LogOptions, LogOrigin, LogStream, open};

fn append(path: &Path, lines: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(lines.as_bytes()).expect("a write");
}

fn line(second: u32, text: &str) -> String {
    format!("2026-11-21T10:00:{second:02}.000000000Z stdout F {text}\n")
}

/// Three parts with the entries 0 to 8.
fn log(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("0.log");
    for (name, range) in [("0.log.2", 0..3), ("0.log.1", 3..6), ("0.log", 6..9)] {
        for second in range {
            append(&dir.path().join(name), &line(second, &second.to_string()));
        }
    }
    path
}

async fn all(stream: LogStream) -> String {
    let parts: Vec<_> = stream.map(|part| part.expect("a part").to_vec()).collect().await;
    String::from_utf8(parts.concat()).expect("text")
}

async fn read(path: &Path, options: LogOptions) -> String {
    all(open(path.to_owned(), options, Arc::new(|| true))).await
}

#[tokio::test]
async fn whole_log_comes_from_all_its_parts_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(read(&log(&dir), LogOptions::default()).await, "0\n1\n2\n3\n4\n5\n6\n7\n8\n");
}

#[tokio::test]
async fn tail_reaches_into_older_parts() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = log(&dir);
    for (count, expected) in [
        (0, ""),
        (1, "8\n"),
        (3, "6\n7\n8\n"),
        (4, "5\n6\n7\n8\n"),
        (100, "0\n1\n2\n3\n4\n5\n6\n7\n8\n"),
    ] {
        let options = LogOptions { tail_lines: Some(count), ..LogOptions::default() };
        assert_eq!(read(&path, options).await, expected, "tail {count}");
    }
}

#[tokio::test]
async fn since_stream_limit_and_timestamps_do_what_they_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("0.log");
    append(&path, &line(1, "one"));
    append(&path, "2026-11-21T10:00:02.5Z stderr P tw\n2026-11-21T10:00:02.6Z stderr F o\n");
    append(&path, "torn");
    let base = LogOptions::default;
    assert_eq!(read(&path, base()).await, "one\ntwo\n");
    assert_eq!(read(&path, LogOptions { limit_bytes: Some(5), ..base() }).await, "one\nt");
    assert_eq!(
        read(&path, LogOptions { stream: Some(LogOrigin::Stdout), ..base() }).await,
        "one\n"
    );
    let since = Some("2026-11-21T10:00:02Z".parse().expect("a time"));
    assert_eq!(read(&path, LogOptions { since, ..base() }).await, "two\n");
    assert_eq!(
        read(&path, LogOptions { timestamps: true, ..base() }).await,
        "2026-11-21T10:00:01.000000000Z one\n2026-11-21T10:00:02.5Z two\n"
    );
}

#[tokio::test]
async fn bytes_of_a_line_come_out_exactly_as_they_went_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("0.log");
    append(
        &path,
        "2026-11-21T10:00:01Z stdout F   two  spaces \t\n2026-11-21T10:00:01Z stdout F \n",
    );
    assert_eq!(read(&path, LogOptions::default()).await, "  two  spaces \t\n\n");
}

#[tokio::test]
async fn follower_crosses_rotations_and_ends_with_its_container() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("0.log");
    append(&path, &line(0, "0"));
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = open(path.clone(), options, Arc::new(move || ended.load(Ordering::SeqCst)));
    let mut seen = String::new();
    for second in 1..=20 {
        if second % 3 == 0 {
            let _old = fs::rename(dir.path().join("0.log.1"), dir.path().join("0.log.2"));
            fs::rename(&path, dir.path().join("0.log.1")).expect("a rotation");
        }
        append(&path, &line(second, &second.to_string()));
        if second % 2 == 0 {
            // Two entries at a time, so that a rotation falls between writing and reading.
            let wanted = format!("{second}\n");
            while !seen.ends_with(&wanted) {
                let part = tokio::time::timeout(Duration::from_secs(20), stream.next())
                    .await
                    .expect("in time");
                seen.push_str(
                    std::str::from_utf8(&part.expect("a part").expect("bytes")).expect("text"),
                );
            }
        }
    }
    over.store(true, Ordering::SeqCst);
    append(&path, &line(21, "21"));
    let rest = tokio::time::timeout(Duration::from_secs(20), all(stream)).await.expect("the end");
    let expected: String = (0..=21).map(|number| format!("{number}\n")).collect();
    assert!(expected.starts_with(&(seen.clone() + &rest)), "{seen}{rest}");
    assert_eq!(seen, (0..=20).map(|number| format!("{number}\n")).collect::<String>());
}

#[tokio::test]
async fn follower_of_a_log_that_is_not_there_yet_waits_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("0.log");
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = open(path.clone(), options, Arc::new(move || ended.load(Ordering::SeqCst)));
    append(&path, &line(1, "late"));
    let part = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
    assert_eq!(part.expect("a part").expect("bytes").as_ref(), b"late\n");
    over.store(true, Ordering::SeqCst);
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), all(stream)).await.expect("the end"),
        ""
    );
}
