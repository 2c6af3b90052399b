//! The newest commit in the database's log (`batchd.db-wal`), and whether a log still holds it.
//!
//! SQLite takes a log that lost its end for a shorter one and says nothing, so what was acknowledged would be gone
//! without a word. batchd remembers which frame the newest commit ended with, and reads it again
//! (`docs/delivery.md#integrity`). The formats are those of <https://sqlite.org/walformat.html>.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the newest commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogMark {
    /// Which log it is: both are new whenever a log is begun anew, and the first is then greater by one.
    salts: [u32; 2],
    /// How many frames the log has; 0: everything is in the database.
    frames: u32,
    /// The checksum over the header and all frames up to the last.
    checksum: [u32; 2],
}

/// What is wrong with a log.
pub(super) type Flaw = String;

impl LogMark {
    /// As [`LogMark::parse`] reads it.
    pub(super) fn text(&self) -> String {
        let Self { salts, frames, checksum } = self;
        format!("{:x} {:x} {frames} {:x} {:x}", salts[0], salts[1], checksum[0], checksum[1])
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut number = |radix| u32::from_str_radix(words.next()?, radix).ok();
        let salts = [number(16)?, number(16)?];
        let frames = number(10)?;
        Some(Self { salts, frames, checksum: [number(16)?, number(16)?] })
    }

    /// The newest commit by the index of the log (`batchd.db-shm`), with the size of a page; `None`: it cannot be read
    /// just now.
    pub(super) fn of_index(index: &File) -> Option<(Self, u64)> {
        let mut header = [0; 96];
        index.read_exact_at(&mut header, 0).ok()?;
        // Two copies, so that one that is being written is told from a whole one.
        let (first, second) = header.split_at(48);
        if first != second || native(first, 0) != INDEX_VERSION || first[12] != 1 {
            return None;
        }
        let size = u16::from_ne_bytes([first[14], first[15]]);
        let page = if size == 1 { 65_536 } else { u64::from(size) };
        let mark = Self {
            salts: [big(first, 32), big(first, 36)],
            frames: native(first, 16),
            checksum: [native(first, 24), native(first, 28)],
        };
        Some((mark, page))
    }

    /// Whether `log` holds the commit: its header and its last frame are read, two small reads.
    pub(super) fn is_held_by(&self, log: &File, page: u64) -> Result<(), Flaw> {
        if self.frames == 0 {
            return Ok(());
        }
        let mut header = [0; HEADER];
        read(log, &mut header, 0)?;
        if [big(&header, 16), big(&header, 20)] != self.salts {
            return Err("its beginning was overwritten".to_owned());
        }
        let mut frame = [0; FRAME];
        read(log, &mut frame, HEADER as u64 + (u64::from(self.frames) - 1) * (page + FRAME as u64))?;
        let (salts, checksum) = ([big(&frame, 8), big(&frame, 12)], [big(&frame, 16), big(&frame, 20)]);
        // The size after a commit is never 0; a frame without one ends none.
        if salts != self.salts || checksum != self.checksum || big(&frame, 4) == 0 {
            return Err("its end was overwritten".to_owned());
        }
        Ok(())
    }

    /// Whether everything is in the database.
    pub(super) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether this is the same log, and not older than `before`.
    pub(super) fn continues(&self, before: &Self) -> bool {
        self.salts == before.salts && self.frames >= before.frames
    }

    /// Whether every frame of `log` up to the commit is as it was written. A log that was begun anew after the commit
    /// holds it no more: what was in the old one is in the database.
    pub(super) fn is_whole_in(&self, log: &File) -> Result<(), Flaw> {
        if self.frames == 0 {
            return Ok(());
        }
        let mut header = [0; HEADER];
        read(log, &mut header, 0)?;
        let big_endian = match big(&header, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return Err("its beginning was overwritten".to_owned()),
        };
        let mut sum = checksum([0, 0], &header[..24], big_endian);
        if sum != [big(&header, 24), big(&header, 28)] {
            return Err("its beginning was overwritten".to_owned());
        }
        let salts = [big(&header, 16), big(&header, 20)];
        if salts != self.salts {
            let newer = (1..=MAX_NEWER).contains(&salts[0].wrapping_sub(self.salts[0]));
            return if newer { Ok(()) } else { Err("it is another log".to_owned()) };
        }
        let page = usize::try_from(big(&header, 8)).ok().filter(|page| (512..=65_536).contains(page));
        let page = page.ok_or_else(|| "its beginning was overwritten".to_owned())?;
        let mut frame = vec![0; FRAME + page];
        for number in 0..u64::from(self.frames) {
            read(log, &mut frame, HEADER as u64 + number * (FRAME + page) as u64)?;
            sum = checksum(checksum(sum, &frame[..8], big_endian), &frame[FRAME..], big_endian);
            if [big(&frame, 8), big(&frame, 12)] != salts || [big(&frame, 16), big(&frame, 20)] != sum {
                return Err(format!("frame {} of {} was overwritten", number + 1, self.frames));
            }
        }
        if sum == self.checksum { Ok(()) } else { Err("its end is another one".to_owned()) }
    }
}

fn read(log: &File, bytes: &mut [u8], at: u64) -> Result<(), Flaw> {
    log.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is shorter than it was".to_owned(),
        _ => error.to_string(),
    })
}

/// The checksum of a log: of pairs of words, on from `sum`.
fn checksum(mut sum: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        sum[0] = sum[0].wrapping_add(word(&pair[..4])).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(word(&pair[4..])).wrapping_add(sum[0]);
    }
    sum
}

fn big(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn native(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bytes before the first frame of a log.
const HEADER: usize = 32;
/// Bytes before the page of a frame.
const FRAME: usize = 24;
const INDEX_VERSION: u32 = 3_007_000;
/// A log may have been begun anew so many times since the mark was written.
const MAX_NEWER: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::fs;
    use std::path::Path;

    /// A log of three commits, with the mark of the last; nothing holds the files.
    fn logged(dir: &Path) -> (LogMark, u64) {
        let file = dir.join("a.db");
        let connection = Connection::open(&file).unwrap();
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        for sql in
            ["CREATE TABLE a (x)", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (randomblob(9000))"]
        {
            connection.execute_batch(sql).unwrap();
        }
        let index = File::open(dir.join("a.db-shm")).unwrap();
        LogMark::of_index(&index).unwrap()
    }

    #[test]
    fn a_whole_log_holds_its_newest_commit_and_the_mark_survives_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, page) = logged(dir.path());
        let log = File::open(dir.path().join("a.db-wal")).unwrap();
        assert!(mark.frames >= 5);
        assert_eq!(mark.is_held_by(&log, page), Ok(()));
        assert_eq!(mark.is_whole_in(&log), Ok(()));
        assert_eq!(LogMark::parse(&mark.text()), Some(mark));
        assert_eq!(LogMark::parse("1 2 3"), None);
    }

    #[test]
    fn whatever_byte_is_lost_or_changed_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, page) = logged(dir.path());
        let whole = fs::read(dir.path().join("a.db-wal")).unwrap();
        let damaged = |bytes: &[u8]| {
            let path = dir.path().join("damaged");
            fs::write(&path, bytes).unwrap();
            let log = File::open(path).unwrap();
            (mark.is_held_by(&log, page), mark.is_whole_in(&log))
        };
        assert_eq!(damaged(&whole), (Ok(()), Ok(())));
        for left in [0, 10, 32, 40, whole.len() / 2, whole.len() - 4200, whole.len() - 1] {
            assert!(damaged(&whole[..left]).1.is_err(), "{left}");
        }
        assert!(damaged(&whole[..whole.len() - 4200]).0.is_err());
        for at in (0..whole.len()).step_by(97) {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            assert!(damaged(&changed).1.is_err(), "{at}");
        }
        assert!(damaged(&vec![0; whole.len()]).0.is_err());
        assert!(damaged(&vec![0; whole.len()]).1.is_err());
    }

    #[test]
    fn a_log_that_was_begun_anew_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, _) = logged(dir.path());
        let connection = Connection::open(dir.path().join("a.db")).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO a VALUES (2)").unwrap();
        let log = File::open(dir.path().join("a.db-wal")).unwrap();
        assert_eq!(mark.is_whole_in(&log), Ok(()));
        let (later, _) = LogMark::of_index(&File::open(dir.path().join("a.db-shm")).unwrap()).unwrap();
        assert!(!later.continues(&mark) && later.frames > 0);
        assert!(later.is_whole_in(&log).is_ok());
    }
}
