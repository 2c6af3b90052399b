//! Inputs that are kept among the uploaded files before anything is created from them, because they are needed for longer
//! than one request: while they wait for quota, or are split.

use super::api::ErrorCode;
use super::api_error::ApiError;
use super::service::Service;
use super::upload::{self, no_room, unkept};
use crate::store::files::StoredFile;
use crate::store::spool::Spooled;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

/// A file on its way in: what breaks it off is a sentence.
pub type Incoming = BoxStream<'static, Result<Bytes, String>>;

/// An input that is kept, and what is in it.
#[derive(Debug)]
pub(super) struct Kept {
    pub file: StoredFile,
    pub content: Spooled,
}

impl Service {
    /// Keeps an input as a file of its own.
    pub(super) async fn keep_input(
        &self,
        mut input: Incoming,
        name: String,
        owner: Option<String>,
    ) -> Result<Kept, ApiError> {
        let live = self.live()?;
        let most = live.config().files.max_bytes;
        let room = most.saturating_sub(self.store.file_bytes().await?);
        let id = upload::new_id(&live.parts.rng);
        let mut upload = self.store.begin_upload(&id).await.map_err(unkept)?;
        let (mut pieces, mut gathered) = (Vec::new(), 0);
        loop {
            let piece = match input.next().await {
                Some(Ok(piece)) => Some(piece),
                Some(Err(how)) => {
                    let cut = ApiError::new(ErrorCode::InvalidInput, format!("{name} was cut off: {how}"));
                    return Err(cut.param("file").hint("nothing was submitted; try again"));
                }
                None => None,
            };
            let is_last = piece.is_none();
            gathered += piece.as_ref().map_or(0, Bytes::len);
            pieces.extend(piece);
            if upload.bytes().saturating_add(gathered as u64) > room {
                live.engine.pass_over(&mut input).await;
                return Err(no_room(most));
            }
            if gathered >= WRITTEN_AT_ONCE || is_last {
                gathered = 0;
                upload = upload.add(std::mem::take(&mut pieces)).await.map_err(unkept)?;
            }
            if is_last {
                break;
            }
        }
        let uploaded = upload.finish().await.map_err(unkept)?;
        let file = StoredFile {
            id: id.clone(),
            name,
            bytes: uploaded.bytes,
            sha256: uploaded.sha256.clone(),
            created_at: self.clock.now(),
            expires_at: None,
            owner,
        };
        if !self.store.add_file(uploaded, file.clone(), most).await? {
            return Err(no_room(most));
        }
        let content = self.store.file_content(&id, file.bytes).await?;
        let content = content
            .ok_or_else(|| ApiError::new(ErrorCode::FileMissing, format!("what was kept of {id} is gone")))?;
        Ok(Kept { file, content })
    }

    /// Forgets an input that nothing was created from. One that a batch needs stays.
    pub(super) async fn forget_input(&self, id: String) {
        if let Err(error) = self.store.delete_file(id, self.clock.now()).await {
            tracing::warn!(%error, "cannot delete an input that nothing was created from");
        }
    }
}

/// How much is gathered before it is written, in bytes.
const WRITTEN_AT_ONCE: usize = 256 << 10;
