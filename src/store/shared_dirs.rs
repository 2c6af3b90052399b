//! Directories that all daemons of one state have: a mark tells one that they share from one that each machine has of its
//! own (`docs/scaling.md#shared-directories`).

use super::error::StoreError;
use super::state::Store;
use super::threads::off_thread;
use super::value::named;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why a directory cannot be used for what all daemons are to find there.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unshared {
    #[error(
        "`{key}` is {}, which is not the directory that the other daemons with this state use: {found}; mount theirs there, \
         or, if what was in it is gone for good, write the line `{mark}` to the file {MARK} in it",
        dir.display()
    )]
    Another { key: &'static str, dir: PathBuf, found: &'static str, mark: String },
    #[error(
        "`{key}` is {}, which the daemons of another state use (by the file {MARK} in it); name another directory",
        dir.display()
    )]
    Others { key: &'static str, dir: PathBuf },
    #[error("`{key}` is {}, which cannot be used: {what}", dir.display())]
    Unusable { key: &'static str, dir: PathBuf, what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Sees to it that `dir`, which the configuration calls `key`, is the one that all daemons use who share the state. The
    /// first of them marks it. Nothing, where the state is in a file.
    pub async fn share_directory(&self, key: &'static str, dir: &Path) -> Result<(), Unshared> {
        if !self.is_on_server() {
            return Ok(());
        }
        let cluster: String = self
            .read(|connection| connection.one("SELECT cluster FROM batchd", [], |row| row.get("cluster")))
            .await?;
        let known = self.mark_of(key).await?;
        let unusable =
            |error: io::Error| Unshared::Unusable { key, dir: dir.to_owned(), what: error.to_string() };
        let found = {
            let dir = dir.to_owned();
            off_thread(move || read(&dir)).await?.map_err(unusable)?
        };
        let another = |found, mark: String| Unshared::Another { key, dir: dir.to_owned(), found, mark };
        match (known, found) {
            (Some(known), Some(found)) if known == found => Ok(()),
            (_, Some(found)) if found.split(' ').next() != Some(cluster.as_str()) => {
                Err(Unshared::Others { key, dir: dir.to_owned() })
            }
            (Some(known), Some(_)) => Err(another("another mark is in it", known)),
            (Some(known), None) => Err(another("there is no mark in it", known)),
            (None, Some(found)) => self.agree_on(key, found, another).await,
            (None, None) => {
                let mark = format!("{cluster} {:016x}", fastrand::u64(..));
                let at = dir.to_owned();
                let written = off_thread(move || write(&at, &mark)).await?.map_err(unusable)?;
                let agreed = self.agree_on(key, written, another).await;
                if agreed.is_err() {
                    let _ = std::fs::remove_file(dir.join(MARK));
                }
                agreed
            }
        }
    }

    async fn mark_of(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        self.read(move |connection| {
            connection.row("SELECT mark FROM directories WHERE name = ?1", [key], |row| row.get("mark"))
        })
        .await
    }

    /// Notes the mark for the others, unless one of them has noted another meanwhile.
    async fn agree_on(
        &self,
        key: &'static str,
        mark: String,
        another: impl FnOnce(&'static str, String) -> Unshared,
    ) -> Result<(), Unshared> {
        let wanted = mark.clone();
        let noted: String = self
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO directories (name, mark) VALUES (:name, :mark) ON CONFLICT (name) DO NOTHING",
                    named! { ":name": key, ":mark": mark },
                )?;
                tx.one("SELECT mark FROM directories WHERE name = ?1", [key], |row| row.get("mark"))
            })
            .await?;
        if noted == wanted { Ok(()) } else { Err(another("another mark is in it", noted)) }
    }
}

/// The mark in a directory, if there is one.
fn read(dir: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(dir.join(MARK)) {
        Ok(file) => file.take(LONGEST).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text.trim().to_owned()))
}

/// Writes a mark, unless somebody else has; the one that is there.
fn write(dir: &Path, mark: &str) -> io::Result<String> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(MARK);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(format!("{mark}\n").as_bytes())?;
            file.sync_all()?;
            Ok(mark.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(read(dir)?.unwrap_or_default()),
        Err(error) => Err(error),
    }
}

/// The file with the mark.
pub const MARK: &str = ".batchd-cluster";
/// Of a mark, in bytes.
const LONGEST: u64 = 200;
