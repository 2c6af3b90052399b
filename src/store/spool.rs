//! Room beside the database for bytes on their way: files without a name, which are gone when nobody holds them.

use super::error::StoreError;
use super::room::Room;
use super::state::Store;
use super::threads::off_thread;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Bytes that are being gathered on the disk of the state. However the process ends, nothing of them is left.
#[derive(Debug)]
pub struct Spool {
    file: File,
    length: u64,
    room: Room,
}

/// Gathered bytes.
#[derive(Clone, Debug)]
pub struct Spooled {
    file: Arc<File>,
    length: u64,
}

impl Store {
    /// An empty spool. Blocks for a moment.
    pub fn spool(&self) -> Result<Spool, StoreError> {
        // Nobody but this process can open a file that has no name.
        let file = tempfile::tempfile_in(&self.0.dir).map_err(StoreError::from)?;
        Ok(Spool { file, length: 0, room: Room::in_dir(&self.0.dir) })
    }

    /// Puts `bytes` on the disk of the state, to be read from there piece by piece: a reader who is slow then holds no
    /// memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] before the disk is.
    pub async fn set_aside(&self, bytes: Bytes) -> Result<Spooled, StoreError> {
        let store = self.clone();
        off_thread(move || {
            let mut spool = store.spool()?;
            spool.add(&bytes)?;
            Ok(spool.finish())
        })
        .await?
    }
}

impl Spool {
    /// Adds bytes. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] before the disk is: what the database needs is left to it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.room.take(bytes.len() as u64)?;
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// What was gathered.
    pub fn finish(self) -> Spooled {
        Spooled { file: Arc::new(self.file), length: self.length }
    }
}

impl Spooled {
    /// The first `length` bytes of a file that nobody changes any more.
    pub(super) fn of(file: File, length: u64) -> Self {
        Self { file: Arc::new(file), length }
    }

    /// How many bytes there are.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// All of them from the beginning, piece by piece.
    pub fn pieces(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let Self { file, length } = self.clone();
        let read = move |(file, at): (Arc<File>, u64)| async move {
            if at >= length {
                return Ok(None);
            }
            let most = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
            let reading = file.clone();
            let piece = off_thread(move || {
                let mut piece = vec![0; most];
                reading.read_exact_at(&mut piece, at)?;
                Ok::<_, io::Error>(Bytes::from(piece))
            });
            let piece = piece.await.map_err(io::Error::other)??;
            let next = at + piece.len() as u64;
            Ok(Some((piece, (file, next))))
        };
        stream::try_unfold((file, 0), read).boxed()
    }
}

/// What is read at once.
const PIECE: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_gathered_is_read_again_as_often_as_is_wanted_and_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let mut spool = store.spool().unwrap();
        let line = [b'x'; 1000];
        for _ in 0..700 {
            spool.add(&line).unwrap();
        }
        assert_eq!(names(), before);
        let spooled = spool.finish();
        assert_eq!(spooled.length(), 700_000);
        for _ in 0..2 {
            let pieces: Vec<Bytes> = spooled.pieces().map(Result::unwrap).collect().await;
            assert!(
                pieces.iter().all(|piece| piece.len() <= PIECE && piece.iter().all(|byte| *byte == b'x'))
            );
            assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 700_000);
        }
        let nothing: Vec<_> = store.spool().unwrap().finish().pieces().collect().await;
        assert!(nothing.is_empty());
        let aside = store.set_aside(Bytes::from_static(b"a long line\n")).await.unwrap();
        let pieces: Vec<Bytes> = aside.pieces().map(Result::unwrap).collect().await;
        assert_eq!(pieces.concat(), b"a long line\n");
    }
}
