//! Submitting over the API: what is asked for, and an answer that comes while it is done.

use super::api::{
    ErrorBody, ErrorCode, InputFault, OpenSubmission, SubmitChecked, SubmitProgress, SubmitWarning, TrackItem,
};
use super::api_error::ApiError;
use super::kept_input::{Incoming, Kept};
use super::live::Live;
use super::resolve::no_such_provider;
use super::service::Service;
use super::tracking::user_fields;
use crate::config::Config;
use crate::domain::shape;
use crate::domain::tracked::Lineage;
use crate::engine::intake::Staged;
use crate::engine::queue::overrides;
use crate::engine::submit::{Progress, SubmitRequest};
use crate::engine::{ProviderError, SubmitError};
use crate::http::failure::{Failure, Quota, Verdict};
use crate::provider::input_checker::{CheckedInput, InputProblem, MOST_PROBLEMS, Overrides};
use crate::store::creations::Asked;
use crate::store::recording::Registered;
use crate::store::spool::Spooled;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What is to be submitted, beside the file itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitOptions {
    /// At which provider; may be left out if there is one only.
    pub provider: Option<String>,
    /// What the user wants, beside what the file says.
    pub overrides: Overrides,
    /// Such as `24h`, which it is if nothing is said.
    pub completion_window: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Seconds after its creation at which the provider is to delete the output.
    pub output_expires_after: Option<u64>,
    /// What is added to the request that creates the batch, in the provider's own words.
    pub params: Map<String, Value>,
    /// The file's name, for people.
    pub file_name: Option<String>,
    /// The file that a client uploaded before, if that is submitted.
    pub uploaded_file: Option<String>,
    /// Whether it waits in the queue if the provider takes no more for now.
    pub wait_for_quota: bool,
    /// Whether what is too large for one batch becomes several.
    pub split: bool,
    /// What whoever asks again is known by.
    pub asked: Option<Asked>,
    /// Name, labels and so on, as for `track`.
    pub options: TrackItem,
}

impl Service {
    /// Takes the file in, then creates the batch while the answer is read: lines of JSON, the last of which is the
    /// batch or an error. The file is read even if the request is invalid, because clients read answers only after that.
    /// `length`: how many bytes it has, where that is told beforehand.
    ///
    /// # Errors
    ///
    /// What is wrong with the request or the file; then nothing was asked of the provider.
    pub async fn submit(
        &self,
        request: Result<SubmitOptions, ApiError>,
        owner: Option<String>,
        mut file: Incoming,
        length: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Infallible>>, ApiError> {
        let live = self.live()?;
        let mut given = String::new();
        let order = request.and_then(|request| {
            given = given_name(request.file_name.as_deref().unwrap_or_default());
            let how = (request.wait_for_quota, request.split);
            Ok((understand(request, &live.config(), owner, self.clock.now())?, how))
        });
        let (order, (wait, split)) = match order {
            Ok(order) => order,
            Err(refusal) => {
                live.engine.pass_over(&mut file).await;
                return Err(refusal);
            }
        };
        if !wait && !split {
            let staged = live.engine.take_in_ahead(&order, overrides(&order.lineage), file, length).await;
            let staged = staged.map_err(|error| refusal(error, &order.provider, &given))?;
            return Ok(self.create(live, order, staged, given, false));
        }
        let kept = self.keep_input(file, order.file_name.clone(), order.owner.clone()).await?;
        if split {
            return self.submit_in_pieces(order, kept, given, wait).await;
        }
        let (order, staged) = self.stage_kept(live, order, kept, &given).await?;
        Ok(self.create(live, order, staged, given, true))
    }

    /// Checks an input that is kept, for a submission from it; what is not accepted is not kept any longer.
    pub(super) async fn stage_kept(
        &self,
        live: &Live,
        mut order: SubmitRequest,
        kept: Kept,
        given: &str,
    ) -> Result<(SubmitRequest, Staged), ApiError> {
        let pieces = kept.content.pieces().map_err(|error| error.to_string()).boxed();
        match live.engine.take_in(&order.provider, overrides(&order.lineage), pieces).await {
            Ok(staged) => {
                order.uploaded_file = Some(kept.file.id);
                Ok((order, staged))
            }
            Err(error) => {
                self.forget_input(kept.file.id).await;
                Err(refusal(error, &order.provider, given))
            }
        }
    }

    /// Creates a batch from an input that is kept, or has it wait; if nothing comes of it, it is not kept any longer.
    pub(super) async fn submit_kept(
        &self,
        live: &Live,
        order: SubmitRequest,
        staged: Staged,
        progress: mpsc::Sender<Progress>,
        wait: bool,
    ) -> Result<Registered, SubmitError> {
        let kept = order.uploaded_file.clone();
        let result = if wait {
            Box::pin(live.engine.submit_or_wait(order, staged, progress)).await
        } else {
            Box::pin(live.engine.submit(order, staged, progress)).await
        };
        if let (Err(error), Some(id)) = (&result, kept)
            && !matches!(error, SubmitError::Lost { .. })
        {
            self.forget_input(id).await;
        }
        result
    }

    /// The same with a file that was uploaded before, all at once: the batch, and what was left out in translation.
    pub(super) async fn submit_uploaded(
        &self,
        request: SubmitOptions,
        owner: Option<String>,
        content: &Spooled,
    ) -> Result<(Registered, Vec<String>), ApiError> {
        let live = self.live()?;
        let given = given_name(request.file_name.as_deref().unwrap_or_default());
        let wait = request.wait_for_quota;
        let order = understand(request, &live.config(), owner, self.clock.now())?;
        let provider = order.provider.clone();
        let pieces = content.pieces().map_err(|error| error.to_string()).boxed();
        let told = |error| uploaded_refusal(error, &provider, &given);
        let staged = live.engine.take_in(&provider, overrides(&order.lineage), pieces).await.map_err(told)?;
        let warnings = staged.checked.warnings.clone();
        // Nobody watches, and it runs to its end.
        let (progress, _watching) = mpsc::channel(PROGRESS);
        let registered = if wait {
            Box::pin(live.engine.submit_or_wait(order, staged, progress)).await
        } else {
            Box::pin(live.engine.submit(order, staged, progress)).await
        };
        Ok((registered.map_err(told)?, warnings))
    }

    /// Batches whose creation was not answered, and that are not found yet.
    pub(super) async fn open_submissions(&self) -> Result<Vec<OpenSubmission>, ApiError> {
        let open = self.store.submissions().await?;
        let lost = open.into_iter().filter(|submission| submission.lost_at.is_some());
        Ok(lost
            .map(|submission| OpenSubmission {
                provider: submission.provider,
                file_name: submission.file_name,
                requests: submission.requests,
                begun_at: submission.begun_at.to_string(),
                candidates: submission.candidates,
                trouble: submission.trouble,
            })
            .collect())
    }
}

impl Service {
    /// Creates the batch, and tells how it goes.
    ///
    /// The work is a task of its own: whoever goes away ends what could be repeated, and nothing else.
    fn create(
        &self,
        live: &Arc<Live>,
        order: SubmitRequest,
        staged: Staged,
        given: String,
        wait: bool,
    ) -> BoxStream<'static, Result<Bytes, Infallible>> {
        let lines = told_of(&staged.checked);
        let (told, mut progress) = mpsc::channel(PROGRESS);
        let (done, mut answer) = oneshot::channel();
        let (service, engine) = (self.clone(), live.clone());
        live.tasks().spawn_tracked(async move {
            let provider = order.provider.clone();
            let result = service.submit_kept(&engine, order, staged, told, wait).await;
            if let Err(error) = &result {
                tracing::warn!(provider, "{given} was not submitted: {error}");
            }
            let result = result.map_err(|error| refusal(error, &provider, &given));
            // Whoever asked may be gone; the batch is tracked all the same.
            let _ = done.send(result);
        });
        let rest = stream::poll_fn(move |context| {
            use std::future::Future as _;
            use std::task::Poll;
            match progress.poll_recv(context) {
                Poll::Ready(Some(step)) => return Poll::Ready(Some(line(&SubmitProgress::from(step)))),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
            if answer.is_terminated() {
                return Poll::Ready(None);
            }
            std::pin::Pin::new(&mut answer).poll(context).map(|result| Some(last_line(result.ok())))
        });
        stream::iter(lines).chain(rest).map(Ok).boxed()
    }
}

/// What is told of a file that was checked.
pub(super) fn told_of(checked: &CheckedInput) -> Vec<Bytes> {
    let mut lines: Vec<Bytes> = checked.warnings.iter().map(|text| line(&SubmitWarning::new(text))).collect();
    lines.push(line(&SubmitChecked::new(checked.requests, &checked.endpoint, checked.model.as_deref())));
    lines
}

/// The batch, or why there is none.
fn last_line(result: Option<Result<Registered, ApiError>>) -> Bytes {
    let defect = || ApiError::new(ErrorCode::Internal, "submitting panicked; see the log");
    match result.unwrap_or_else(|| Err(defect())) {
        Ok(registered) => line(&shape::batch(&registered.tracked)),
        Err(refusal) => line::<ErrorBody>(&refusal.into_body()),
    }
}

pub(super) fn line<T: Serialize>(value: &T) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn understand(
    request: SubmitOptions,
    config: &Config,
    owner: Option<String>,
    now: jiff::Timestamp,
) -> Result<SubmitRequest, ApiError> {
    let provider = match request.provider {
        Some(name) if config.providers.contains_key(&name) => name,
        Some(name) => return Err(no_such_provider(&name, config)),
        None => only_provider(config)?,
    };
    let completion_window = request.completion_window.unwrap_or_else(|| "24h".to_owned());
    let is_window =
        completion_window.len() <= 16 && completion_window.bytes().all(|c| c.is_ascii_alphanumeric());
    if !is_window || completion_window.is_empty() {
        return Err(ApiError::invalid("a completion window is written like 24h").param("completion_window"));
    }
    let is_endpoint = |endpoint: &String| endpoint.starts_with('/') && endpoint.len() <= 200;
    if request.overrides.endpoint.as_ref().is_some_and(|endpoint| !is_endpoint(endpoint)) {
        return Err(ApiError::invalid("an endpoint is a path such as /v1/chat/completions").param("endpoint"));
    }
    Ok(SubmitRequest {
        provider,
        file_name: file_name(request.file_name.as_deref().unwrap_or_default()),
        completion_window,
        metadata: request.metadata,
        user_fields: user_fields(request.options, config, now)?,
        owner,
        output_expires_after: request.output_expires_after,
        params: request.params,
        uploaded_file: request.uploaded_file,
        lineage: Lineage {
            endpoint: request.overrides.endpoint,
            model: request.overrides.model,
            model_prefix: request.overrides.model_prefix,
            ..Lineage::default()
        },
        asked: request.asked,
    })
}

fn only_provider(config: &Config) -> Result<String, ApiError> {
    let mut names = config.providers.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(no_such_provider("", config)),
        (Some(_), Some(_)) => {
            let names: Vec<&str> = config.providers.keys().map(String::as_str).collect();
            Err(ApiError::invalid("several providers are configured; the request names none")
                .param("provider")
                .hint(format!("choose one with --provider: {}", names.join(", "))))
        }
    }
}

/// The file's name as its owner knows it, without the path.
fn given_name(given: &str) -> String {
    let bare = given.rsplit('/').next().unwrap_or_default();
    let plain: String = bare.chars().filter(|letter| !letter.is_control()).take(100).collect();
    match plain.as_str() {
        "" | "-" => "requests.jsonl".to_owned(),
        _ => plain,
    }
}

/// A name that every provider takes and that says what it is sent: OpenAI wants `.jsonl` at its end, and what stood
/// there for another form (`array.json`, `chat.jsonl.gz`) no longer holds.
fn file_name(given: &str) -> String {
    const FORMS: [&str; 11] =
        [".jsonl", ".ndjson", ".jsonlines", ".json", ".txt", ".gz", ".zst", ".bz2", ".xz", ".br", ".zip"];
    let name = given_name(given);
    let mut stem = name.as_str();
    let without_form = |stem: &str| {
        FORMS.iter().find_map(|form| {
            let at = stem.len().checked_sub(form.len()).filter(|at| *at > 0)?;
            stem.get(at..)?.eq_ignore_ascii_case(form).then_some(at)
        })
    };
    while let Some(at) = without_form(stem) {
        stem = &stem[..at];
    }
    format!("{stem}.jsonl")
}

/// The same for a client of OpenAI's API, which shows one message: of the faults of the file the first stands there.
fn uploaded_refusal(error: SubmitError, provider: &str, file: &str) -> ApiError {
    let SubmitError::Input(problems) = error else { return refusal(error, provider, file) };
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    let more = match problems.len() {
        0 | 1 => String::new(),
        2 => " (and 1 more problem)".to_owned(),
        count => format!(" (and {} more problems)", count - 1),
    };
    let message = format!("{file} is not accepted: {first}{more}");
    let refusal = ApiError::new(ErrorCode::InvalidInput, message).param("input_file_id");
    ApiError { faults: faults(&problems), ..refusal }
}

fn faults(problems: &[InputProblem]) -> Vec<InputFault> {
    let fault = |problem: &InputProblem| InputFault {
        code: "invalid_input".to_owned(),
        line: problem.lines.first().map(|(first, _)| *first),
        message: problem.to_string(),
        param: None,
    };
    problems.iter().map(fault).collect()
}

pub(super) fn refusal(error: SubmitError, provider: &str, file: &str) -> ApiError {
    match error {
        SubmitError::Input(problems) => {
            let refusal = ApiError::new(ErrorCode::InvalidInput, tell(file, &problems)).param("file");
            ApiError { faults: faults(&problems), ..refusal }
        }
        SubmitError::Cut(how) => ApiError::new(ErrorCode::InvalidInput, format!("{file} was cut off: {how}"))
            .param("file")
            .hint("nothing was submitted; try again"),
        SubmitError::Stopping | SubmitError::Abandoned => {
            ApiError::new(ErrorCode::Unavailable, "the daemon is stopping; nothing was submitted")
                .hint("submit it again once the daemon runs")
        }
        SubmitError::Lost { provider, failure } => ApiError::new(
            ErrorCode::ProviderFailed,
            format!("provider `{provider}` did not answer whether it created the batch: {failure}"),
        )
        .hint(
            "it may have: batchd keeps searching for the batch and tracks it once found; see `batchd status`",
        )
        .hint("do not submit the file again before that is settled"),
        SubmitError::Provider(ProviderError::Provider { failure, .. }) => not_created(provider, &failure),
        SubmitError::Provider(error) => ApiError::from_provider(error, file),
    }
}

/// The provider said no, or was not reached.
fn not_created(provider: &str, failure: &Failure) -> ApiError {
    if let Some(quota) = failure.quota() {
        return quota_exceeded(provider, failure, *quota);
    }
    if matches!(failure, Failure::Unsupported(_)) || failure.verdict() == Verdict::Refused {
        return ApiError::from_failure(provider, failure, "");
    }
    ApiError::new(
        ErrorCode::ProviderFailed,
        format!("provider `{provider}` did not create the batch: {failure}"),
    )
    .hint("nothing was created; you can submit it again")
}

/// The provider takes no more for now.
fn quota_exceeded(provider: &str, failure: &Failure, quota: Quota) -> ApiError {
    let numbers: Vec<String> = [
        quota.limit.map(|limit| format!("limit {limit}")),
        quota.usage.map(|usage| format!("in use {usage}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let numbers = if numbers.is_empty() { String::new() } else { format!(" ({})", numbers.join(", ")) };
    let message =
        format!("provider `{provider}` takes no more for now, its quota is used up{numbers}: {failure}");
    ApiError::new(ErrorCode::QuotaExceeded, message).hint(
        "nothing was created; `batchd submit --wait-for-quota` (over the API: header x-batchd-wait: quota) has it \
         wait for its turn",
    )
}

/// Everything that is wrong with a file.
fn tell(file: &str, problems: &[InputProblem]) -> String {
    match problems {
        [only] => format!("{file} is not accepted: {only}"),
        several => {
            let told = several.len().min(MOST_PROBLEMS);
            let mut text = format!("{file} is not accepted, {told} problems:");
            for problem in several {
                text.push_str("\n  ");
                text.push_str(&problem.to_string());
            }
            text
        }
    }
}

impl From<Progress> for SubmitProgress {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Uploading(bytes, total) => Self::new("uploading", Some(bytes), Some(total)),
            Progress::Creating => Self::new("creating", None, None),
            Progress::Searching => Self::new("searching", None, None),
        }
    }
}

/// Steps that may wait to be told; what does not fit is not missed.
pub(super) const PROGRESS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_told_a_name_that_fits_what_it_gets() {
        for (given, told) in [
            ("chat.jsonl", "chat.jsonl"),
            ("dir/chat.jsonl", "chat.jsonl"),
            ("array.json", "array.jsonl"),
            ("chat.jsonl.gz", "chat.jsonl"),
            ("chat.JSONL.GZ", "chat.jsonl"),
            ("chat.ndjson.zst", "chat.jsonl"),
            ("v1.2", "v1.2.jsonl"),
            ("größe", "größe.jsonl"),
            (".json", ".json.jsonl"),
            ("-", "requests.jsonl"),
            ("", "requests.jsonl"),
        ] {
            assert_eq!(file_name(given), told, "{given}");
        }
        assert_eq!(given_name("dir/array.json"), "array.json", "a problem is told of the file that there is");
    }
}
