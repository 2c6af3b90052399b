//! The results of one batch as a stream: every part fetched step by step, resumed where a connection breaks, in the
//! provider's own bytes or in OpenAI's form.

mod body;

use super::{Account, Engine, ProviderError};
use crate::domain::batch::{Batch, Usage};
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::provider::openai_results::output_line;
use crate::provider::records::{BadRecords, Splitter};
use crate::provider::results::{Fetch, FetchStep, Form, Part, Record};
use body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};
use std::sync::Arc;

/// In which form results are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// OpenAI's output lines, whatever the provider.
    #[default]
    OpenAi,
    /// The provider's own bytes.
    Raw,
}

/// Which requests' results are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// What the provider gives as output; where it keeps no errors apart, that is everything.
    #[default]
    Output,
    /// Only what failed: what the provider keeps apart as errors, or what failed among the output.
    Failures,
    /// Output and errors, one after the other.
    Everything,
}

/// What a whole stream of results held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that were given.
    pub lines: u64,
    /// Of those, lines of requests that did not succeed; `None`: they were not read (raw bytes).
    pub failed: Option<u64>,
    /// The tokens of all lines, where all that succeeded tell them and each was read.
    pub usage: Option<Usage>,
}

/// Which records of the parts that are fetched are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    All,
    Failures,
    Successes,
}

/// Results on their way. Nothing runs unless it is asked for the next piece.
pub struct Results {
    account: Arc<Account>,
    batch: Batch,
    format: Format,
    keep: Keep,
    /// What is still to be fetched, the next one last.
    parts: Vec<Part>,
    now: Option<Current>,
    summary: Summary,
    /// Whether every line that succeeded told its tokens.
    all_told: bool,
    /// The lines come from batchd's own copy, which is in OpenAI's form.
    saved: bool,
}

/// The part that is being fetched.
struct Current {
    part: Part,
    fetch: Box<dyn Fetch>,
    /// Records seen of it so far.
    index: u64,
    stream: Option<(Body, Splitter)>,
}

impl Engine {
    /// Opens the results of a batch that has ended; whatever is wrong with the first request shows here.
    ///
    /// `None`: the batch has no such results.
    pub async fn results(
        &self,
        provider: &str,
        batch: &Batch,
        wanted: Wanted,
        format: Format,
    ) -> Result<Option<Results>, ProviderError> {
        let account = self.account(provider)?;
        let opened = Results::open(account, batch.clone(), wanted, format).await;
        opened.map_err(|failure| ProviderError::Provider { provider: provider.to_owned(), failure })
    }
}

impl Engine {
    /// The results as they were downloaded, in OpenAI's form.
    pub async fn saved_results(
        &self,
        provider: &str,
        batch: &Batch,
        wanted: Wanted,
        path: &str,
    ) -> Result<std::io::Result<Results>, ProviderError> {
        let account = self.account(provider)?;
        Ok(Results::of_copy(account, batch.clone(), wanted, path).await)
    }
}

impl Results {
    async fn open(
        account: Arc<Account>,
        batch: Batch,
        wanted: Wanted,
        format: Format,
    ) -> Result<Option<Self>, Failure> {
        let has = |part| account.adapter.results(&batch, part).map(|fetch| fetch.is_some());
        let (parts, keep) = match wanted {
            Wanted::Output => (vec![Part::Output], Keep::All),
            Wanted::Failures if has(Part::Errors)? => (vec![Part::Errors], Keep::All),
            Wanted::Failures => (vec![Part::Output], Keep::Failures),
            Wanted::Everything => (vec![Part::Errors, Part::Output], Keep::All),
        };
        let mut results = Self {
            account,
            batch,
            format,
            keep,
            parts,
            now: None,
            summary: Summary {
                lines: 0,
                failed: (format == Format::OpenAi || keep != Keep::All).then_some(0),
                usage: Some(Usage::default()),
            },
            all_told: format == Format::OpenAi,
            saved: false,
        };
        Ok(results.begin().await?.then_some(results))
    }

    /// The copy of the results that was downloaded, for when the provider has them no more.
    async fn of_copy(
        account: Arc<Account>,
        batch: Batch,
        wanted: Wanted,
        path: &str,
    ) -> std::io::Result<Self> {
        let body = Body::of_file(path).await?;
        let apart = account.adapter.results(&batch, Part::Errors).is_ok_and(|fetch| fetch.is_some());
        let stream = Some((body, Splitter::new(Form::Lines)));
        Ok(Self {
            account,
            batch,
            format: Format::OpenAi,
            keep: match wanted {
                Wanted::Failures => Keep::Failures,
                Wanted::Output if apart => Keep::Successes,
                Wanted::Output | Wanted::Everything => Keep::All,
            },
            parts: Vec::new(),
            now: Some(Current { part: Part::Output, fetch: Box::new(Nothing), index: 0, stream }),
            summary: Summary { lines: 0, failed: Some(0), usage: None },
            all_told: false,
            saved: true,
        })
    }

    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// What has been given so far; complete once [`Results::next`] has said that there is no more.
    pub fn summary(&self) -> Summary {
        let told = self.all_told && self.summary.failed.is_some_and(|failed| failed < self.summary.lines);
        Summary { usage: self.summary.usage.filter(|_| told), ..self.summary }
    }

    /// The next bytes, whole lines unless they are raw; `None`: that was all.
    ///
    /// After a failure there is nothing more to be had.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            if self.now.is_none() {
                match self.begin().await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(failure) => return Some(Err(self.over(failure))),
                }
            }
            match self.step().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Some(Ok(bytes)),
                Ok(None) => self.now = None,
                Err(failure) => return Some(Err(self.over(failure))),
            }
        }
    }

    fn over(&mut self, failure: Failure) -> Failure {
        self.parts.clear();
        self.now = None;
        failure
    }

    /// Turns to the next part that there is; `false`: there is none.
    async fn begin(&mut self) -> Result<bool, Failure> {
        while let Some(part) = self.parts.pop() {
            if let Some(fetch) = self.account.adapter.results(&self.batch, part)? {
                let mut current = Current { part, fetch, index: 0, stream: None };
                // The first stream is opened at once: what is wrong is told before anything is given.
                if let Advance::Records(records) = current.advance(&self.account).await? {
                    current.stream = Some((Body::of_records(records), Splitter::new(Form::Lines)));
                }
                self.now = Some(current);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One piece of the present part; empty ones are nothing yet, `None` is the part's end.
    async fn step(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(current) = &mut self.now else { return Ok(None) };
        let Some((body, splitter)) = &mut current.stream else {
            return match current.advance(&self.account).await? {
                Advance::Opened => Ok(Some(Bytes::new())),
                Advance::Records(records) => self.convert(records).map(Some),
                Advance::Done => Ok(None),
            };
        };
        let malformed = |bad: BadRecords| Failure::Malformed(bad.to_string());
        let piece = body.next(&self.account).await.transpose()?;
        let as_it_is = self.format == Format::Raw && self.keep == Keep::All && body.is_lines();
        let records = match &piece {
            Some(piece) => splitter.push(piece).map_err(malformed)?,
            None => splitter.finish().map_err(malformed)?.into_iter().collect(),
        };
        if as_it_is {
            let count = records.len() as u64;
            current.index += count;
            self.summary.lines += count;
            if piece.is_none() {
                current.stream = None;
            }
            return Ok(Some(piece.unwrap_or_default()));
        }
        if piece.is_none() {
            current.stream = None;
        }
        self.convert(records).map(Some)
    }

    /// The records as they are to be given, each on a line.
    fn convert(&mut self, records: Vec<Bytes>) -> Result<Bytes, Failure> {
        let Some(current) = &mut self.now else { return Ok(Bytes::new()) };
        let mut given = BytesMut::new();
        for record in records {
            let index = current.index;
            current.index += 1;
            let bad = |what: &str| Failure::Malformed(format!("record {} of the results: {what}", index + 1));
            if self.format == Format::Raw && self.keep == Keep::All {
                given.extend_from_slice(&record);
                given.put_u8(b'\n');
                self.summary.lines += 1;
                continue;
            }
            let object: Map<String, Value> =
                serde_json::from_slice(&record).map_err(|_| bad("it is not a JSON object"))?;
            let line = if self.saved {
                output_line(&object)
            } else {
                let record = Record { object: &object, index, part: current.part, batch: &self.batch };
                self.account.adapter.output_line(record)
            };
            let line = line.map_err(|what| bad(&what))?;
            let succeeded = line.result.is_success();
            let unwanted = match self.keep {
                Keep::All => false,
                Keep::Failures => succeeded,
                Keep::Successes => !succeeded,
            };
            if unwanted {
                continue;
            }
            self.summary.lines += 1;
            if succeeded {
                match (line.usage, &mut self.summary.usage) {
                    (Some(usage), Some(total)) => add(total, usage),
                    _ => self.all_told = false,
                }
            } else {
                self.summary.failed = self.summary.failed.map(|failed| failed + 1);
            }
            match self.format {
                Format::Raw => given.extend_from_slice(&record),
                Format::OpenAi => {
                    let mut writer = (&mut given).writer();
                    serde_json::to_writer(&mut writer, &line.to_json())
                        .map_err(|_| bad("it cannot be written"))?;
                }
            }
            given.put_u8(b'\n');
        }
        Ok(given.freeze())
    }
}

/// A way that leads nowhere.
#[derive(Debug)]
struct Nothing;

impl Fetch for Nothing {
    fn next(&mut self, _answer: Option<&Answer>) -> Result<FetchStep, Failure> {
        Ok(FetchStep::Done)
    }
}

/// What a step of a [`Fetch`] has come to.
enum Advance {
    Opened,
    Records(Vec<Bytes>),
    Done,
}

impl Current {
    /// Goes on until there is a stream, some records, or nothing more.
    async fn advance(&mut self, account: &Account) -> Result<Advance, Failure> {
        let mut answer = None;
        loop {
            match self.fetch.next(answer.as_ref())? {
                FetchStep::Send(call) => answer = Some(body::send_with_retries(account, call).await?),
                FetchStep::Stream(call, form) => {
                    let body = Body::open(account, call, form == Form::Lines).await?;
                    self.stream = Some((body, Splitter::new(form)));
                    return Ok(Advance::Opened);
                }
                FetchStep::Records(records) => return Ok(Advance::Records(records)),
                FetchStep::Done => return Ok(Advance::Done),
            }
        }
    }
}

fn add(total: &mut Usage, usage: Usage) {
    let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
    add(&mut total.input_tokens, usage.input_tokens);
    add(&mut total.input_tokens_details.cached_tokens, usage.input_tokens_details.cached_tokens);
    add(&mut total.output_tokens, usage.output_tokens);
    add(&mut total.output_tokens_details.reasoning_tokens, usage.output_tokens_details.reasoning_tokens);
    add(&mut total.total_tokens, usage.total_tokens);
}
