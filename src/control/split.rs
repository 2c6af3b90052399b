//! A file that is too large for one batch becomes several: each piece is a submission of its own, and of a run that broke
//! off the next one creates only what is missing (`docs/contract.md#splitting`).

use super::api::{ErrorCode, SubmitProgress};
use super::api_error::ApiError;
use super::kept_input::Kept;
use super::service::Service;
use super::submit::{PROGRESS, line, refusal, told_of};
use crate::domain::shape;
use crate::domain::tracked::Tracked;
use crate::engine::queue::overrides;
use crate::engine::submit::SubmitRequest;
use crate::failpoint;
use crate::provider::input_checker::Piece;
use crate::store::creations::Asked;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::io;
use tokio::sync::mpsc;

/// One run of a file that is split.
struct Run {
    service: Service,
    order: SubmitRequest,
    /// The file's name as its owner knows it.
    given: String,
    wait: bool,
    kept: Kept,
    pieces: Vec<Piece>,
    /// What tells this file with all that was given from another.
    digest: String,
    lines: mpsc::Sender<Bytes>,
}

/// Why a run ends before its end.
enum Ended {
    Refused(ApiError),
    /// Whoever asked is gone.
    Left,
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl Service {
    /// Submits a file as one batch a piece, and tells how it goes: lines of JSON, among them each batch, the last of which
    /// is a batch or an error.
    pub(super) async fn submit_in_pieces(
        &self,
        order: SubmitRequest,
        kept: Kept,
        given: String,
        wait: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, Infallible>>, ApiError> {
        let live = self.live()?;
        let planned =
            live.engine.plan_pieces(&order.provider, overrides(&order.lineage), &kept.content).await;
        let (checked, pieces) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.forget_input(kept.file.id).await;
                return Err(refusal(error, &order.provider, &given));
            }
        };
        let mut head = told_of(&checked);
        head.push(line(&json!({"object": "submission.split", "pieces": pieces.len()})));
        let (lines, told) = mpsc::channel(PROGRESS);
        let digest = digest(&order, &kept.file.sha256)?;
        let run = Run { service: self.clone(), order, given, wait, kept, pieces, digest, lines };
        live.tasks().spawn_tracked(run.complete());
        let rest = stream::unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
        Ok(stream::iter(head).chain(rest).map(Ok).boxed())
    }
}

impl Run {
    async fn complete(self) {
        let original = self.kept.file.id.clone();
        let ended = Box::pin(self.create_all()).await;
        // What is left of it is in the pieces, unless it is the only one.
        if self.pieces.len() > 1 || ended.is_err() {
            self.service.forget_input(original).await;
        }
        if let Err(Ended::Refused(error)) = ended {
            tracing::warn!(provider = self.order.provider, "{}", error.message);
            let _ = self.lines.send(line(&error.into_body())).await;
        }
    }

    async fn create_all(&self) -> Result<(), Ended> {
        let live = self.service.live()?;
        let one_at_a_time = Asked { key: Some(format!("{SPLIT}{}", self.digest)), request: String::new() };
        let _turn = live.creating.begin(&one_at_a_time, false, &live.tasks().stopping()).await?;
        let mut made: Vec<String> = Vec::new();
        for (number, piece) in (1..).zip(&self.pieces) {
            let name = self.name_of(number);
            let tracked = match self.create(number, piece, &name).await {
                Ok(tracked) => tracked,
                Err(Ended::Left) => return Err(Ended::Left),
                Err(Ended::Refused(error)) => return Err(self.broken_off(&name, &made, error).into()),
            };
            made.push(format!("{name} is {}", tracked.key.id));
            let _ = self.lines.send(line(&shape::batch(&tracked))).await;
            failpoint::reach("split.piece", || name);
        }
        self.service.store.forget_asked(self.key_of_all()).await.map_err(ApiError::from)?;
        Ok(())
    }

    /// Creates the batch of one piece, unless it is there from a run before.
    async fn create(&self, number: usize, piece: &Piece, name: &str) -> Result<Tracked, Ended> {
        let (service, store) = (&self.service, &self.service.store);
        let live = service.live()?;
        let asked =
            Asked { key: Some(format!("{}{number}", self.key_of_all())), request: self.digest.clone() };
        let before = store.asked_before(asked.clone(), service.clock.now()).await.map_err(ApiError::from)?;
        if let Some(before) = before {
            let Some(key) = before.batch else {
                let message = format!("it is not known yet whether the provider created `{name}`");
                return Err(ApiError::new(ErrorCode::CreationInProgress, message).into());
            };
            if let Some((_, tracked)) = store.get(key).await.map_err(ApiError::from)? {
                return Ok(tracked);
            }
        }
        if self.lines.is_closed() {
            return Err(Ended::Left);
        }
        let mut order = self.order.clone();
        order.asked = Some(asked);
        let kept = if self.pieces.len() == 1 {
            let (file, content) = (self.kept.file.clone(), self.kept.content.clone());
            Kept { file, content }
        } else {
            order.user_fields.name = Some(name.to_owned());
            let stem = self.order.file_name.trim_end_matches(".jsonl");
            order.file_name = format!("{stem}-{number}.jsonl");
            let lines = lines_of(self.kept.content.pieces(), piece.first, piece.last).boxed();
            service.keep_input(lines, order.file_name.clone(), order.owner.clone()).await?
        };
        let provider = order.provider.clone();
        let (order, staged) = service.stage_kept(live, order, kept, &self.given).await?;
        let (told, mut progress) = mpsc::channel(PROGRESS);
        let creating = service.submit_kept(live, order, staged, told, self.wait);
        tokio::pin!(creating);
        let created = loop {
            tokio::select! {
                created = &mut creating => break created,
                Some(step) = progress.recv() => {
                    // Whoever watches sees the next one.
                    let _ = self.lines.try_send(line(&SubmitProgress::from(step)));
                }
                () = self.lines.closed() => progress.close(),
            }
        };
        let registered = created.map_err(|error| refusal(error, &provider, &self.given))?;
        Ok(registered.tracked)
    }

    fn key_of_all(&self) -> String {
        format!("{SPLIT}{} ", self.digest)
    }

    fn name_of(&self, number: usize) -> String {
        let base = match &self.order.user_fields.name {
            Some(name) => name,
            None => self.order.file_name.trim_end_matches(".jsonl"),
        };
        if self.pieces.len() == 1 { base.to_owned() } else { format!("{base}-{number}") }
    }

    /// A piece was not created: what there is by now, and what to do.
    fn broken_off(&self, name: &str, made: &[String], error: ApiError) -> ApiError {
        let (count, total) = (made.len(), self.pieces.len());
        if total == 1 {
            return error;
        }
        let there = match made {
            [] => "none of the pieces is created".to_owned(),
            made => format!("{count} of {total} pieces are created ({})", made.join(", ")),
        };
        let message = format!("`{name}` was not created: {}; {there}", error.message);
        ApiError { message, ..error }
            .hint("run the same command again within a day: it creates only the pieces that are missing")
    }
}

/// A hash of the file and of all that was given, but for what another run of the same command has anew.
fn digest(order: &SubmitRequest, sha256: &str) -> Result<String, ApiError> {
    let mut order = SubmitRequest { owner: None, uploaded_file: None, ..order.clone() };
    order.user_fields.deadline = None;
    let order = serde_json::to_string(&order)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let digest = Sha256::new().chain_update(sha256).chain_update([0]).chain_update(order);
    Ok(data_encoding::HEXLOWER.encode(&digest.finalize()))
}

/// The lines from `first` to `last` of a file, from 1.
fn lines_of(
    pieces: BoxStream<'static, io::Result<Bytes>>,
    first: u64,
    last: u64,
) -> impl futures_util::Stream<Item = Result<Bytes, String>> {
    stream::unfold((pieces, 1_u64), move |(mut pieces, mut number)| async move {
        if number > last {
            return None;
        }
        let piece = match pieces.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error.to_string()), (pieces, u64::MAX))),
        };
        let (mut begin, mut end) = (if number >= first { Some(0) } else { None }, piece.len());
        for newline in memchr::memchr_iter(b'\n', &piece) {
            number += 1;
            if number == first {
                begin = Some(newline + 1);
            }
            if number == last + 1 {
                end = newline + 1;
                break;
            }
        }
        let part = begin.map_or_else(Bytes::new, |begin| piece.slice(begin.min(end)..end));
        Some((Ok(part), (pieces, number)))
    })
}

/// What the keys of pieces begin with: no header can hold it.
const SPLIT: &str = "\u{1}split ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_cut_out_whole_whatever_the_pieces(
            lines in prop::collection::vec("[a-c]{0,5}", 1..20),
            cut in 1_usize..12,
            from in 0_usize..20,
            many in 1_usize..20,
            ends: bool,
        ) {
            let (from, many) = (from % lines.len(), many);
            let to = (from + many).min(lines.len());
            let mut whole = lines.join("\n");
            if ends {
                whole.push('\n');
            }
            let mut wanted = lines[from..to].join("\n");
            if ends || to < lines.len() {
                wanted.push('\n');
            }
            let pieces: Vec<io::Result<Bytes>> =
                whole.as_bytes().chunks(cut).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let cut_out = lines_of(stream::iter(pieces).boxed(), from as u64 + 1, to as u64);
            let got: Vec<Result<Bytes, String>> = futures_util::FutureExt::now_or_never(cut_out.collect()).unwrap();
            let got: Vec<Bytes> = got.into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(String::from_utf8(got.concat()).unwrap(), wanted);
        }
    }
}
