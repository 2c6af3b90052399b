//! Resubmitting: the requests of an ended batch that did not succeed become a batch of their own
//! (`docs/contract.md#resubmitting`).

use super::access::Access;
use super::api::ErrorCode;
use super::api_error::ApiError;
use super::kept_input::{Incoming, Kept};
use super::live::Live;
use super::query::{Query, waits_for_quota};
use super::resolve::judged_text;
use super::respond::{Answer, Shared, owner};
use super::results::incomplete;
use super::routes::Route;
use super::service::Service;
use super::submit::{PROGRESS, refusal};
use crate::domain::shape;
use crate::domain::status::Status;
use crate::domain::tracked::{Lineage, Tracked};
use crate::domain::user_fields::{UserFields, name_again};
use crate::engine::results::{Format, Unfinished, Wanted};
use crate::engine::submit::{RESUBMITS, SubmitRequest};
use crate::provider::fates::{Fates, Only, Selected, Selection};
use crate::provider::submit::{MARKER, ModelPlace};
use crate::store::creations::Asked;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, routing};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The routes that resubmit.
pub(super) fn routes() -> Vec<Route> {
    let row = |path: &str, handler| {
        Route::new(Method::POST, path, Access::Changes, handler).query(&["only", "again", "wait"])
    };
    vec![
        row("/v1/batches/{id}/resubmit", routing::post(resubmit).layer(DefaultBodyLimit::disable())),
        row(
            "/v1/batches/{id}/{rest}/resubmit",
            routing::post(resubmit_long).layer(DefaultBodyLimit::disable()),
        ),
    ]
}

async fn resubmit(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    answer(&shared, &id, &query, request).await
}

async fn resubmit_long(
    State(shared): State<Shared>,
    Path((id, rest)): Path<(String, String)>,
    query: Query,
    request: Request,
) -> Answer<Response> {
    answer(&shared, &format!("{id}/{rest}"), &query, request).await
}

async fn answer(shared: &Shared, id: &str, query: &Query, request: Request) -> Answer<Response> {
    let id = judged_text(id)?;
    let only = match query.text("only") {
        None => Only::default(),
        Some(word) => Only::from_word(&word).ok_or_else(|| {
            let message = format!("only: `{word}` is none of failed, expired, cancelled, missing");
            ApiError::invalid(message).param("only")
        })?,
    };
    let wait = match request.headers().get("x-batchd-wait") {
        Some(word) => waits_for_quota(Some(word.to_str().unwrap_or_default()), "x-batchd-wait")?,
        None => waits_for_quota(query.text("wait").as_deref(), "wait")?,
    };
    let owner = owner(request.extensions());
    let input = given_input(request.into_body()).await?;
    let wish = Wish { only, again: query.flag("again")?, wait, owner, input };
    let batch = Box::pin(shared.service.resubmit(id, wish)).await?;
    let waits = !batch["batchd"]["waiting_for"].is_null();
    Ok((if waits { StatusCode::ACCEPTED } else { StatusCode::OK }, Json(batch)).into_response())
}

/// The input in the body of the request, if there is one.
async fn given_input(body: Body) -> Result<Option<Incoming>, ApiError> {
    let reason = |error: &(dyn std::error::Error + 'static)| {
        std::iter::successors(Some(error), |error| error.source())
            .last()
            .map_or_else(String::new, ToString::to_string)
    };
    let mut pieces = body.into_data_stream().map_err(move |error| reason(&error)).boxed();
    loop {
        match pieces.next().await {
            None => return Ok(None),
            Some(Ok(piece)) if piece.is_empty() => {}
            Some(first) => return Ok(Some(stream::iter([first]).chain(pieces).boxed())),
        }
    }
}

/// How a batch is resubmitted.
pub(super) struct Wish {
    only: Only,
    /// Also if it was resubmitted before.
    again: bool,
    /// Whether it waits if the provider takes no more for now.
    wait: bool,
    owner: Option<String>,
    /// The input, if whoever asks has it.
    input: Option<Incoming>,
}

impl Service {
    /// Submits the requests of an ended batch that did not succeed as a batch of their own.
    pub(super) async fn resubmit(&self, text: &str, wish: Wish) -> Result<Value, ApiError> {
        let live = self.live()?;
        let key = self.find(text).await?.1.key;
        let one_at_a_time = Asked { key: Some(format!("\u{1}resubmit {key}")), request: String::new() };
        let _turn = live.creating.begin(&one_at_a_time, false, &live.tasks().stopping()).await?;
        let parent = self.ended(&key).await?;
        if !wish.again {
            self.not_resubmitted(&parent).await?;
        }
        let fates = self.fates(live, &parent).await?;
        let (input, is_fetched) = match wish.input {
            Some(input) => (input, false),
            None => self.input_of(live, &parent).await?,
        };
        let account =
            live.engine.account(&key.provider).map_err(|error| ApiError::from_provider(error, &key.id))?;
        let intake = account
            .adapter
            .intake(&parent.batch.endpoint)
            .map_err(|failure| ApiError::from_failure(&key.provider, &failure, &key.id))?;
        let selection = Arc::new(Mutex::new(Selection::new(fates, wish.only, intake.own)));
        let file_name =
            format!("{}.jsonl", name_again(parent.name.as_deref().unwrap_or(&key.id)).replace('/', "-"));
        let selected = selected_lines(input, selection.clone());
        let kept = self.keep_input(selected.boxed(), file_name.clone(), wish.owner.clone()).await?;
        let (selected, foreign) = {
            let selection = crate::sync::lock(&selection);
            (selection.selected, selection.foreign())
        };
        if let Err(error) = judge(&parent, &selected, foreign, wish.only) {
            self.forget_input(kept.file.id).await;
            return Err(error);
        }
        let is_model_apart = intake.own.model == ModelPlace::Job;
        let mut order = order(&parent, file_name, wish.owner, is_model_apart);
        if is_fetched && !intake.takes_openai && !intake.own.tells.is_empty() {
            // What was translated tells its endpoint in the service's own words.
            order.lineage.endpoint = None;
        }
        self.create_again(live, order, kept, wish.wait, &selected).await
    }

    async fn create_again(
        &self,
        live: &Live,
        order: SubmitRequest,
        kept: Kept,
        wait: bool,
        selected: &Selected,
    ) -> Result<Value, ApiError> {
        let (provider, given) = (order.provider.clone(), order.file_name.clone());
        let (order, staged) = self.stage_kept(live, order, kept, &given).await?;
        let warnings = staged.checked.warnings.clone();
        // Nobody watches, and it runs to its end.
        let (progress, _watching) = mpsc::channel(PROGRESS);
        let created = self.submit_kept(live, order, staged, progress, wait).await;
        let registered = created.map_err(|error| refusal(error, &provider, &given))?;
        let mut batch = shape::batch(&registered.tracked);
        batch["batchd"]["resubmitted"] = json!({
            "requests": selected.requests(),
            "failed": selected.failed,
            "expired": selected.expired,
            "cancelled": selected.cancelled,
            "missing": selected.missing,
        });
        if !warnings.is_empty() {
            batch["batchd"]["warnings"] = warnings.into();
        }
        Ok(batch)
    }

    /// Refuses a batch that was resubmitted, or is just being.
    async fn not_resubmitted(&self, parent: &Tracked) -> Result<(), ApiError> {
        let id = &parent.key.id;
        let refused = |what: String| {
            Err(ApiError::new(ErrorCode::AlreadyResubmitted, what)
                .hint("--again (over the API: again=true) resubmits it once more"))
        };
        // As it is stored: what a check shows knows nothing of it.
        let stored = self.store.get(parent.key.clone()).await?.map(|(_, tracked)| tracked.resubmitted_by);
        let by = stored.unwrap_or_default();
        if !by.is_empty() {
            return refused(format!("batch `{id}` was resubmitted as {}", by.join(", ")));
        }
        let open = self.store.submissions().await?;
        if open.iter().any(|submission| {
            submission.provider == parent.key.provider && submission.lineage.resubmits.as_ref() == Some(id)
        }) {
            return refused(format!(
                "batch `{id}` was resubmitted, and it is not known yet whether the provider created the batch"
            ));
        }
        Ok(())
    }

    /// What has become of the batch's requests.
    async fn fates(&self, live: &Live, parent: &Tracked) -> Result<Fates, ApiError> {
        let (provider, id) = (&parent.key.provider, &parent.key.id);
        let refused = |unfinished: Unfinished| match unfinished {
            Unfinished::Failed(failure) => ApiError::from_results(provider, &failure, id),
            Unfinished::Short(shortage) => incomplete(&shortage, id),
        };
        let mut fates = Fates::default();
        let without = parent.batch.status != Status::Completed
            && !parent.batch.has_output()
            && parent.batch.error_file_id.is_none();
        let opened = live.engine.all_results(parent).await;
        let mut results = match opened {
            Ok(Some(results)) => results,
            Ok(None) => return Ok(fates),
            // Of a batch that never ran, nothing is kept anywhere.
            Err(_) if without && parent.batch.request_counts.is_none_or(|counts| counts.completed == 0) => {
                return Ok(fates);
            }
            Err(unfinished) => return Err(refused(unfinished)),
        };
        while let Some(bytes) = results.next().await {
            let bytes = bytes.map_err(refused)?;
            crate::tasks::in_place(bytes.len(), || {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    fates.note(line);
                }
            });
            drop(bytes);
            results.make_room();
        }
        if fates.without_id > 0 {
            let message = format!(
                "{} of the results of `{id}` do not say which request they belong to, so nobody can tell which succeeded",
                fates.without_id
            );
            return Err(ApiError::new(ErrorCode::ResultsIncomplete, message));
        }
        Ok(fates)
    }

    /// The input of a batch: as it is kept here, or, which is told by `true`, as its provider keeps it.
    async fn input_of(&self, live: &Live, parent: &Tracked) -> Result<(Incoming, bool), ApiError> {
        let (provider, id) = (&parent.key.provider, &parent.key.id);
        let now = self.clock.now();
        if let Some(file) = &parent.uploaded_file
            && let Some(file) = self.store.file(file.clone(), now).await?
            && let Some(content) = self.store.file_content(&file.id, file.bytes).await?
        {
            self.store.use_file(file.id, now).await?;
            return Ok((content.pieces().map_err(|error| error.to_string()).boxed(), false));
        }
        let gone = |why: String| {
            ApiError::new(ErrorCode::FileMissing, format!("the input of `{id}` cannot be had: {why}"))
                .param("input")
                .hint("--input FILE gives it (over the API: the body of the request)")
        };
        if parent.batch.input_file_id.is_empty() {
            return Err(gone("it is not kept here, and its provider keeps none".to_owned()));
        }
        // Read as results are: resumed where a connection breaks.
        let opened = live.engine.results(provider, &parent.batch, Wanted::Input, Format::Raw).await;
        let mut results = match opened {
            Ok(Some(results)) => results,
            Ok(None) => return Err(gone("its provider does not give it".to_owned())),
            Err(error) => return Err(gone(error.to_string())),
        };
        let (sender, receiver) = mpsc::channel::<Result<Bytes, String>>(1);
        live.tasks().spawn_tracked(async move {
            while let Some(piece) = results.next().await {
                let piece = piece.map_err(|unfinished| unfinished.to_string());
                let is_over = piece.is_err();
                if sender.send(piece).await.is_err() || is_over {
                    return;
                }
                results.make_room();
            }
        });
        let pieces =
            stream::unfold(receiver, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        Ok((pieces.boxed(), true))
    }
}

/// The lines of `input` that are selected.
fn selected_lines(
    input: Incoming,
    selection: Arc<Mutex<Selection>>,
) -> impl futures_util::Stream<Item = Result<Bytes, String>> {
    stream::unfold(Some(input), move |input| {
        let selection = selection.clone();
        async move {
            let mut input = input?;
            let mut lines = Vec::new();
            match input.next().await {
                Some(Ok(piece)) => {
                    crate::tasks::in_place(piece.len(), || {
                        crate::sync::lock(&selection).push(&piece, &mut lines);
                    });
                    Some((Ok(lines.into()), Some(input)))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    crate::sync::lock(&selection).finish(&mut lines);
                    Some((Ok(lines.into()), None))
                }
            }
        }
    })
}

/// Whether what was selected is what is to be resubmitted.
fn judge(parent: &Tracked, selected: &Selected, foreign: u64, only: Only) -> Result<(), ApiError> {
    let id = &parent.key.id;
    let not_its_own = |what: String| {
        let message = format!("this is not the input of `{id}`: {what}");
        Err(ApiError::new(ErrorCode::InvalidInput, message).param("input"))
    };
    if selected.without_id > 0 {
        return not_its_own(format!("{} of its lines name no request by an id", selected.without_id));
    }
    if foreign > 0 {
        return not_its_own(format!("{foreign} requests that have results are not in it"));
    }
    if selected.requests() > 0 {
        return Ok(());
    }
    let what = match only {
        Only::Unsuccessful => format!("every request of `{id}` has succeeded; there is nothing to resubmit"),
        _ => format!("no request of `{id}` is of that kind; there is nothing to resubmit"),
    };
    Err(ApiError::new(ErrorCode::NothingToResubmit, what))
}

/// What is submitted: the requests with all that the batch was given.
fn order(parent: &Tracked, file_name: String, owner: Option<String>, is_model_apart: bool) -> SubmitRequest {
    let Lineage { endpoint, model, model_prefix, .. } = parent.lineage.clone();
    let mut metadata = parent.batch.metadata.clone().unwrap_or_default();
    metadata.remove(MARKER);
    metadata.insert(RESUBMITS.to_owned(), parent.key.id.clone());
    let known_model = parent.batch.model.clone().filter(|_| is_model_apart);
    SubmitRequest {
        provider: parent.key.provider.clone(),
        file_name,
        completion_window: parent.batch.completion_window.clone(),
        metadata,
        user_fields: UserFields {
            name: parent.name.as_deref().map(name_again),
            labels: parent.labels.clone(),
            notify_also: parent.notify.also.clone(),
            notify_nobody: parent.notify.nobody.then_some(true),
            deadline: None,
        },
        owner,
        lineage: Lineage {
            submission: None,
            resubmits: Some(parent.key.id.clone()),
            endpoint,
            model: model.or(known_model),
            model_prefix,
            quota_wait: None,
        },
        ..SubmitRequest::default()
    }
}
