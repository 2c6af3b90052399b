//! What is known of the files that clients have uploaded; their content is in `uploads`.

use super::column::{count, instant, maybe_at, ms};
use super::error::StoreError;
use super::sql::{Row, Sql};
use super::state::Store;
use super::transaction::Tx;
use super::uploads::Uploaded;
use super::value::{Value, named};
use crate::failpoint;
use jiff::Timestamp;
use std::ops::Range;

/// A file that a client has uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub id: String,
    /// As its client calls it.
    pub name: String,
    pub bytes: u64,
    /// The digest of its content, in hexadecimal digits.
    pub sha256: String,
    pub created_at: Timestamp,
    /// From when on it is gone, as its client wanted.
    pub expires_at: Option<Timestamp>,
    /// The user who uploaded it, where the socket told.
    pub owner: Option<String>,
}

/// Which files a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePage {
    /// Only what comes after this file in the list.
    pub after: Option<String>,
    /// The oldest first.
    pub ascending: bool,
    /// At most so many.
    pub limit: u32,
}

/// What became of a wish to delete a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// A batch that was created from it still runs, or is being created.
    InUse,
    /// There is no such file.
    Absent,
}

impl Store {
    /// Registers what was uploaded; from then on it is there. `false`: with it there would be more than `most` bytes, and
    /// nothing is kept.
    pub async fn add_file(
        &self,
        uploaded: Uploaded,
        file: StoredFile,
        most: u64,
    ) -> Result<bool, StoreError> {
        failpoint::reach("files.named", || file.id.clone());
        let added = self
            .write(move |tx| {
                if total(tx)?.saturating_add(file.bytes) > most {
                    return Ok(false);
                }
                insert(tx, &file)?;
                Ok(true)
            })
            .await?;
        failpoint::reach("files.registered", String::new);
        if added {
            uploaded.keep();
        }
        Ok(added)
    }

    /// How many bytes all files have.
    pub async fn file_bytes(&self) -> Result<u64, StoreError> {
        self.read(total).await
    }

    /// The file with this id, unless it has expired at `now`.
    pub async fn file(&self, id: String, now: Timestamp) -> Result<Option<StoredFile>, StoreError> {
        self.read(move |connection| find(connection, &id, now)).await
    }

    /// A page of the files that have not expired at `now`; the flag says whether there are more. `None`: the list has no
    /// file to go on after.
    pub async fn files(
        &self,
        page: FilePage,
        now: Timestamp,
    ) -> Result<Option<(Vec<StoredFile>, bool)>, StoreError> {
        self.read(move |connection| {
            let after: Option<i64> = match &page.after {
                None => None,
                Some(id) => {
                    match connection.row("SELECT pk FROM files WHERE id = ?1", [id], |row| row.get("pk"))? {
                        None => return Ok(None),
                        found => found,
                    }
                }
            };
            let (direction, order, edge) =
                if page.ascending { (">", "ASC", i64::MIN) } else { ("<", "DESC", i64::MAX) };
            let wanted = i64::from(page.limit) + 1;
            let mut found = connection.rows(
                &format!(
                    "SELECT {COLUMNS} FROM files
                     WHERE pk {direction} ?1 AND (expires_at IS NULL OR expires_at > ?2)
                     ORDER BY pk {order} LIMIT ?3"
                ),
                (after.unwrap_or(edge), ms(now), wanted),
                read,
            )?;
            let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
            let more = found.len() > most;
            found.truncate(most);
            Ok(Some((found, more)))
        })
        .await
    }

    /// Somebody has read the file, so it is kept for longer.
    pub async fn use_file(&self, id: String, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.send("UPDATE files SET used_at = ?2 WHERE id = ?1 AND used_at < ?2", (id, ms(now)))?;
            Ok(())
        })
        .await
    }

    /// Deletes a file, unless a batch needs it.
    pub async fn delete_file(&self, id: String, now: Timestamp) -> Result<Deletion, StoreError> {
        let deletion = self
            .write({
                let id = id.clone();
                move |tx| {
                    if find(tx, &id, now)?.is_none() {
                        return Ok(Deletion::Absent);
                    }
                    let deleted =
                        tx.execute(&format!("DELETE FROM files WHERE id = ?1 AND NOT {NEEDED}"), [&id])?;
                    Ok(if deleted > 0 { Deletion::Deleted } else { Deletion::InUse })
                }
            })
            .await?;
        if deletion == Deletion::Deleted {
            self.remove_contents(vec![id]).await?;
        }
        Ok(deletion)
    }

    /// Deletes the files that were last used in `unused` (Unix milliseconds), or that have expired at `now`, and whatever
    /// of contents belongs to none. What a batch needs stays. Returns how many went.
    pub async fn prune_files(&self, unused: Vec<Range<i64>>, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0;
        loop {
            let parts = unused.clone();
            let ids = self.write_freeing(move |tx| take_old(tx, &parts, now)).await?;
            if ids.is_empty() {
                break;
            }
            gone += ids.len() as u64;
            self.remove_contents(ids).await?;
            tokio::task::yield_now().await;
        }
        self.sweep_contents(now).await?;
        Ok(gone)
    }

    /// Which of `ids` are those of files.
    pub(super) async fn known_files(&self, ids: Vec<String>) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            let mut known = Vec::new();
            for id in ids {
                if connection.one(
                    "SELECT EXISTS (SELECT 1 FROM files WHERE id = ?1) AS known",
                    [&id],
                    |row| row.get::<bool>("known"),
                )? {
                    known.push(id);
                }
            }
            Ok(known)
        })
        .await
    }
}

fn total(connection: &Sql<'_>) -> Result<u64, StoreError> {
    let bytes: i64 =
        connection.one("SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes FROM files", [], |row| {
            row.get("bytes")
        })?;
    Ok(bytes.unsigned_abs())
}

fn insert(tx: &Tx<'_>, file: &StoredFile) -> Result<(), StoreError> {
    tx.send(
        "INSERT INTO files (id, name, bytes, sha256, created_at, expires_at, used_at, owner)
         VALUES (:id, :name, :bytes, :sha256, :created_at, :expires_at, :created_at, :owner)",
        named! {
            ":id": file.id,
            ":name": file.name,
            ":bytes": i64::try_from(file.bytes).unwrap_or(i64::MAX),
            ":sha256": file.sha256,
            ":created_at": ms(file.created_at),
            ":expires_at": file.expires_at.map(ms),
            ":owner": file.owner,
        },
    )?;
    Ok(())
}

fn find(connection: &Sql<'_>, id: &str, now: Timestamp) -> Result<Option<StoredFile>, StoreError> {
    connection.row(
        &format!("SELECT {COLUMNS} FROM files WHERE id = ?1 AND (expires_at IS NULL OR expires_at > ?2)"),
        (id, ms(now)),
        read,
    )
}

fn read(row: &Row<'_>) -> Result<StoredFile, StoreError> {
    Ok(StoredFile {
        id: row.get("id")?,
        name: row.get("name")?,
        bytes: count(row, "bytes")?,
        sha256: row.get("sha256")?,
        created_at: instant(row, "created_at")?,
        expires_at: maybe_at(row, "expires_at")?,
        owner: row.get("owner")?,
    })
}

/// Deletes the rows of some files whose time is over; their ids.
fn take_old(tx: &mut Tx<'_>, unused: &[Range<i64>], now: Timestamp) -> Result<Vec<String>, StoreError> {
    let mut old = vec!["expires_at <= ?".to_owned()];
    let mut values: Vec<Value> = vec![ms(now).into()];
    for part in unused {
        old.push("used_at >= ? AND used_at < ?".to_owned());
        values.extend([part.start.into(), part.end.into()]);
    }
    let sql = format!(
        "DELETE FROM files WHERE pk IN (
           SELECT pk FROM files WHERE ({}) AND NOT {NEEDED} LIMIT {DELETED_AT_ONCE}) RETURNING id",
        old.join(" OR ")
    );
    tx.rows(&sql, values.as_slice(), |row| row.get("id"))
}

const COLUMNS: &str = "id, name, bytes, sha256, created_at, expires_at, owner";
/// Whether a batch that was created from the file of the row still runs, or is being created.
const NEEDED: &str = "(
     EXISTS (SELECT 1 FROM batches WHERE batches.uploaded_file = files.id AND batches.active = 1)
     OR EXISTS (SELECT 1 FROM submissions WHERE submissions.uploaded_file = files.id))";
/// With few rows a transaction whoever wants to write meanwhile comes in between.
const DELETED_AT_ONCE: usize = 200;
