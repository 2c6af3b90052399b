//! The form of an upload: its file goes to the disk as it comes, and is there once the whole form is as it should be.

use super::api::ErrorCode;
use super::api_error::ApiError;
use crate::config::{FilesConfig, compact_size};
use crate::domain::time::later;
use crate::rng::Rng;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::files::StoredFile;
use crate::store::uploads::Upload;
use crate::sync::lock;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest as _, Multipart, Request};
use futures_util::{Stream, StreamExt as _};
use http::header::CONTENT_LENGTH;
use jiff::Timestamp;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

/// Takes an upload in as the file `id`; it is registered when this returns.
pub(super) async fn take_in(
    store: &Store,
    settings: &FilesConfig,
    id: String,
    owner: Option<String>,
    now: Timestamp,
    request: Request,
) -> Result<StoredFile, ApiError> {
    let room = settings.max_bytes.saturating_sub(store.file_bytes().await?);
    let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|told: u64| told > room.saturating_add(MAX_FORM)) {
        return Err(no_room(settings.max_bytes));
    }
    let (parts, body) = request.into_parts();
    let pieces = Pieces::of(body);
    let request = Request::from_parts(parts, Body::from_stream(pieces.clone()));
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| {
        ApiError::invalid(format!(
            "an upload is a multipart/form-data with the fields `purpose` and `file`: {rejection}"
        ))
    })?;
    let mut fields = Fields::default();
    let mut file: Option<(String, Upload)> = None;
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(|error| cut(&error))? {
        count += 1;
        if count > MAX_FIELDS {
            return Err(ApiError::invalid(format!("the form has more than {MAX_FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if file.is_some() {
                return Err(ApiError::invalid("the form has more than one `file`").param("file"));
            }
            let given = file_name(field.file_name().unwrap_or_default());
            let begun = store.begin_upload(&id).await.map_err(unkept)?;
            file = Some((given, write(begun, field, room, settings.max_bytes).await?));
        } else {
            let value = text(field, &name).await?;
            fields.note(&name, value)?;
        }
    }
    drop(form);
    pieces.end().await?;
    let Some((name, upload)) = file else {
        return Err(ApiError::invalid("the form has no field `file`").param("file"));
    };
    let expires_at = fields.judged(now)?;
    let uploaded = upload.finish().await.map_err(unkept)?;
    let file = StoredFile {
        id,
        name,
        bytes: uploaded.bytes,
        sha256: uploaded.sha256.clone(),
        created_at: now,
        expires_at,
        owner,
    };
    if store.add_file(uploaded, file.clone(), settings.max_bytes).await? {
        Ok(file)
    } else {
        Err(no_room(settings.max_bytes))
    }
}

/// A new id of a kept file.
pub(super) fn new_id(rng: &Rng) -> String {
    format!("{OWN_PREFIX}{:016x}{:08x}", rng.bits(), rng.bits() >> 32)
}

/// What the ids of uploaded files begin with: no service's own ids do.
pub(super) const OWN_PREFIX: &str = "file-bd";

/// The text fields of the form.
#[derive(Debug, Default)]
struct Fields {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Fields {
    /// Takes a field; what is wrong whatever else comes is said at once.
    fn note(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        match name {
            "purpose" => {
                if value != "batch" {
                    let value = value.escape_debug();
                    return Err(ApiError::invalid(format!(
                        "files are kept for batches only: the purpose is `batch`, not `{value}`"
                    ))
                    .param("purpose"));
                }
                self.purpose = Some(value);
            }
            "expires_after[anchor]" => self.anchor = Some(value),
            "expires_after[seconds]" => self.seconds = Some(value),
            // Clients may have fields of their own.
            _ => {}
        }
        Ok(())
    }

    /// When the file is to expire, if its client wants that.
    fn judged(self, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
        if self.purpose.is_none() {
            return Err(ApiError::invalid("the form has no field `purpose`; it is `batch`").param("purpose"));
        }
        if self.anchor.is_none() && self.seconds.is_none() {
            return Ok(None);
        }
        if self.anchor.as_deref() != Some("created_at") {
            let what = "`expires_after[anchor]` is `created_at`, and there must be one";
            return Err(ApiError::invalid(what).param("expires_after[anchor]"));
        }
        let seconds = self.seconds.and_then(|text| text.parse().ok());
        if let Some(seconds) = seconds.filter(|seconds| EXPIRY.contains(seconds)) {
            return Ok(Some(later(now, Duration::from_secs(seconds))));
        }
        let (least, most) = (EXPIRY.start(), EXPIRY.end());
        let what = format!("`expires_after[seconds]` is a whole number from {least} to {most}");
        Err(ApiError::invalid(what).param("expires_after[seconds]"))
    }
}

async fn write(mut upload: Upload, mut field: Field<'_>, room: u64, most: u64) -> Result<Upload, ApiError> {
    let mut pieces = Vec::new();
    let mut gathered = 0;
    loop {
        let piece = field.chunk().await.map_err(|error| cut(&error))?;
        let is_last = piece.is_none();
        gathered += piece.as_ref().map_or(0, Bytes::len);
        pieces.extend(piece);
        if upload.bytes().saturating_add(gathered as u64) > room {
            return Err(no_room(most));
        }
        if gathered >= WRITTEN_AT_ONCE || is_last {
            gathered = 0;
            let written = upload.add(std::mem::take(&mut pieces)).await;
            upload = written.map_err(unkept)?;
        }
        if is_last {
            return Ok(upload);
        }
    }
}

async fn text(mut field: Field<'_>, name: &str) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| cut(&error))? {
        if text.len() + piece.len() > MAX_TEXT {
            return Err(ApiError::invalid(format!("a field is longer than {MAX_TEXT} bytes")).param(name));
        }
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).map_err(|_| ApiError::invalid("a field is not text").param(name))
}

/// The name that a client gives, without a path.
fn file_name(given: &str) -> String {
    let bare = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = bare.chars().filter(|letter| !letter.is_control()).take(255).collect();
    if plain.is_empty() { "requests.jsonl".to_owned() } else { plain }
}

/// The form ends before it should, or is none.
fn cut(error: &MultipartError) -> ApiError {
    broken_off(error)
}

fn broken_off(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let reason = std::iter::successors(Some(error), |error| error.source()).last();
    let reason = reason.map_or_else(String::new, ToString::to_string);
    ApiError::invalid(format!("the upload cannot be read to its end: {reason}")).hint("nothing of it is kept")
}

/// What keeps content from being written.
pub(super) fn unkept(error: StoreError) -> ApiError {
    match error {
        StoreError::Full => ApiError::new(ErrorCode::StorageFull, StoreError::Full.to_string())
            .param("file")
            .hint("make space on the file system of the state directory, then upload it again"),
        other => other.into(),
    }
}

pub(super) fn no_room(most: u64) -> ApiError {
    let most = compact_size(most);
    let message = format!("with this file there would be more than {most} of uploaded files");
    ApiError::new(ErrorCode::StorageFull, message)
        .param("file")
        .hint("delete files, or raise files.max_bytes")
}

/// A body that gives one piece at a time: the reader of forms would otherwise take in all that has arrived before it
/// goes on, which from a fast client is tens of megabytes.
#[derive(Clone)]
struct Pieces(Arc<Mutex<PieceByPiece>>);

struct PieceByPiece {
    pieces: BodyDataStream,
    has_given: bool,
}

impl Pieces {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(PieceByPiece { pieces: body.into_data_stream(), has_given: false })))
    }

    /// What comes behind the form is not its: but a request that breaks off there, or says that it is longer than it is,
    /// is none.
    async fn end(mut self) -> Result<(), ApiError> {
        let mut behind = 0;
        while let Some(piece) = self.next().await {
            let piece = piece.map_err(|error| broken_off(&error))?;
            behind += piece.len() as u64;
            if behind > MAX_FORM {
                return Err(
                    ApiError::invalid("there is too much behind the form").hint("nothing of it is kept")
                );
            }
        }
        Ok(())
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = lock(&self.0);
        if std::mem::take(&mut body.has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut body.pieces).poll_next(context);
        body.has_given = matches!(polled, Poll::Ready(Some(Ok(_))));
        polled
    }
}

/// What a form may have around its file, in bytes.
const MAX_FORM: u64 = 256 << 10;
const MAX_FIELDS: u32 = 32;
/// The longest text field, in bytes.
const MAX_TEXT: usize = 4096;
/// How much is gathered before it is written, in bytes.
const WRITTEN_AT_ONCE: usize = 256 << 10;
/// After how many seconds a file may expire, as at OpenAI: an hour to thirty days.
pub(super) const EXPIRY: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn judged(fields: &[(&str, &str)]) -> Result<Option<Timestamp>, Option<String>> {
        let mut form = Fields::default();
        for (name, value) in fields {
            form.note(name, (*value).to_owned()).map_err(|refusal| refusal.param)?;
        }
        form.judged(NOW).map_err(|refusal| refusal.param)
    }

    #[test]
    fn a_file_may_expire_as_at_openai() {
        let batch = ("purpose", "batch");
        let (anchor, seconds) = ("expires_after[anchor]", "expires_after[seconds]");
        assert_eq!(judged(&[batch, ("other", "x")]), Ok(None));
        assert_eq!(
            judged(&[batch, (seconds, "3600"), (anchor, "created_at")]),
            Ok(Some(later(NOW, Duration::from_hours(1))))
        );
        let wrong = |param: &str| Err(Some(param.to_owned()));
        assert_eq!(judged(&[]), wrong("purpose"));
        assert_eq!(judged(&[("purpose", "vision")]), wrong("purpose"));
        assert_eq!(judged(&[batch, (seconds, "3600")]), wrong(anchor));
        assert_eq!(judged(&[batch, (seconds, "3600"), (anchor, "now")]), wrong(anchor));
        for bad in ["3599", "2592001", "-1", "1e4", ""] {
            assert_eq!(judged(&[batch, (anchor, "created_at"), (seconds, bad)]), wrong(seconds), "{bad}");
        }
        assert_eq!(judged(&[batch, (anchor, "created_at")]), wrong(seconds));
    }

    #[test]
    fn a_name_is_no_path() {
        for (given, name) in
            [("a.jsonl", "a.jsonl"), ("../x/a", "a"), ("C:\\b", "b"), ("a\nb", "ab"), ("", "requests.jsonl")]
        {
            assert_eq!(file_name(given), name);
        }
    }

    #[tokio::test]
    async fn a_body_is_not_taken_in_all_at_once() {
        let all = futures_util::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>("piece")));
        let mut pieces = Pieces::of(Body::from_stream(all));
        for _ in 0..3 {
            assert!(pieces.next().now_or_never().flatten().is_some());
            assert!(pieces.next().now_or_never().is_none(), "between two pieces it waits");
        }
        assert!(pieces.next().await.is_none());
    }
}
