//! What pages are dressed with: styles, a script and an icon, embedded, under names that change with what is in them.

use crate::control::api::ErrorCode;
use crate::control::api_error::ApiError;
use crate::control::respond::Answer;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// One file.
pub(super) struct Asset {
    /// With a digest in it: what is under a name never changes.
    pub(super) name: String,
    kind: &'static str,
    text: &'static str,
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("style.css")));
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("live", "js", "text/javascript; charset=utf-8", include_str!("live.js")));
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("icon.svg")));

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, text: &'static str) -> Self {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8]);
        Self { name: format!("{stem}-{digest}.{extension}"), kind, text }
    }
}

pub(super) async fn file(Path(name): Path<String>) -> Answer<Response> {
    let found = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name);
    let asset =
        found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no such file of the dashboard"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((headers, asset.text).into_response())
}
