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
use std::time::Duration;
use tokio::sync::watch;

/// Bytes that are being gathered on the disk of the state. However the process ends, nothing of them is left.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    length: u64,
    room: Room,
    /// Who reads what is gathered while it is.
    followed: Option<watch::Sender<Gathered>>,
}

/// How much has been gathered.
#[derive(Clone, Copy, Debug, Default)]
struct Gathered {
    length: u64,
    is_whole: bool,
}

/// Bytes that are read while they are gathered.
#[derive(Debug)]
pub struct Following {
    file: Arc<File>,
    gathered: watch::Receiver<Gathered>,
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
        Ok(Spool { file: Arc::new(file), length: 0, room: Room::in_dir(&self.0.dir), followed: None })
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
        (&*self.file).write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.tell(false);
        Ok(())
    }

    /// How many bytes there are.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The same bytes, to be read while they are gathered.
    pub fn follow(&mut self) -> Following {
        let gathered = self.followed.get_or_insert_default().subscribe();
        self.tell(false);
        Following { file: Arc::clone(&self.file), gathered }
    }

    /// What was gathered.
    pub fn finish(self) -> Spooled {
        self.tell(true);
        Spooled { file: self.file, length: self.length }
    }

    fn tell(&self, is_whole: bool) {
        if let Some(followed) = &self.followed {
            followed.send_replace(Gathered { length: self.length, is_whole });
        }
    }
}

impl Following {
    /// The first `length` bytes as they come, piece by piece. Its end says that all were gathered, and not more than one
    /// byte besides; an error, that there are others, that they are not gathered to their end, or that none has come for
    /// as long as `patience`.
    pub fn pieces(self, length: u64, patience: Duration) -> BoxStream<'static, io::Result<Bytes>> {
        let read = move |(mut following, at): (Self, u64)| async move {
            let end = loop {
                let Gathered { length: gathered, is_whole } = *following.gathered.borrow_and_update();
                if gathered > length + 1 || (is_whole && gathered < length) {
                    return Err(io::Error::other("it is not as long as was promised"));
                }
                let end = gathered.min(length);
                if end > at {
                    break end;
                }
                if is_whole {
                    return Ok(None);
                }
                match tokio::time::timeout(patience, following.gathered.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(io::Error::other("it is not gathered to its end")),
                    Err(_) => return Err(io::Error::other("it is gathered too slowly")),
                }
            };
            let piece = piece_of(&following.file, at, end).await?;
            let next = at + piece.len() as u64;
            Ok(Some((piece, (following, next))))
        };
        stream::try_unfold((self, 0), read).boxed()
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
            let piece = piece_of(&file, at, length).await?;
            let next = at + piece.len() as u64;
            Ok(Some((piece, (file, next))))
        };
        stream::try_unfold((file, 0), read).boxed()
    }
}

/// The first of the bytes from `at` to `end`.
async fn piece_of(file: &Arc<File>, at: u64, end: u64) -> io::Result<Bytes> {
    let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
    let file = Arc::clone(file);
    let read = off_thread(move || {
        let mut piece = vec![0; most];
        file.read_exact_at(&mut piece, at)?;
        Ok::<_, io::Error>(Bytes::from(piece))
    });
    read.await.map_err(io::Error::other)?
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

    /// What is read of a spool of so many bytes by whoever was promised `length`; `None`: there was an error.
    async fn followed(bytes: usize, length: u64, is_finished: bool) -> Option<usize> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).unwrap();
        let mut spool = store.spool().unwrap();
        let mut pieces = spool.follow().pieces(length, Duration::from_mins(1));
        let reading = async {
            let mut read = 0;
            while let Some(piece) = pieces.next().await {
                read += piece.ok()?.len();
            }
            Some(read)
        };
        let gathering = async {
            for _ in 0..bytes {
                spool.add(b"x").unwrap();
                tokio::task::yield_now().await;
            }
            is_finished.then(|| spool.finish())
        };
        tokio::join!(reading, gathering).0
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_read_while_it_is_gathered_ends_only_where_that_is_finished_as_promised() {
        assert_eq!(followed(300, 300, true).await, Some(300));
        assert_eq!(followed(301, 300, true).await, Some(300));
        assert_eq!(followed(300, 300, false).await, None);
        for other in [0, 299, 302, 400] {
            assert_eq!(followed(other, 300, true).await, None, "{other}");
        }
    }
}
