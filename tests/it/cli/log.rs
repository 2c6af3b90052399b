//! What a command writes to its log.

use super::program::bare;
use serde_json::{Value, json};
use std::process::Stdio;

/// What a run with a senseless `RUST_LOG` writes: a warning, as a record of the log.
fn logged(arguments: &[&str], journal: bool) -> String {
    use std::os::unix::fs::MetadataExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("log");
    let log = std::fs::File::create(&file).unwrap();
    let metadata = log.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino() + u64::from(!journal));
    let mut command = bare(&home, &[arguments, &["man"]].concat());
    command.env("RUST_LOG", "batchd=loud").env("JOURNAL_STREAM", stream);
    assert!(command.stdout(Stdio::null()).stderr(log).status().unwrap().success());
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn the_journal_gets_priorities_and_a_program_gets_json() {
    let plain = logged(&[], false);
    assert!(plain.contains("  WARN RUST_LOG makes no sense and is ignored error="), "{plain}");
    assert!(plain.starts_with("20"), "with the time: {plain}");
    let journal = logged(&[], true);
    assert!(journal.starts_with("<4>RUST_LOG makes no sense and is ignored error="), "{journal}");
    assert_eq!(logged(&["--log-format", "text"], true).split(' ').nth(2), Some("WARN"));
    let json: Value = serde_json::from_str(&logged(&["--log-format", "json"], false)).unwrap();
    assert_eq!(
        (&json["level"], &json["message"]),
        (&json!("warn"), &json!("RUST_LOG makes no sense and is ignored"))
    );
    for log in [plain, journal] {
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}
