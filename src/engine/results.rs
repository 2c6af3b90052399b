//! The results of one batch as a stream: every part fetched step by step, resumed where a connection breaks, in the
//! provider's own bytes or in OpenAI's form.

mod body;
mod convert;
mod tally;

pub use tally::Shortage;

use super::{Account, Engine, ProviderError};
use crate::domain::batch::Batch;
use crate::domain::cost::Told;
use crate::domain::status::Status;
use crate::domain::tracked::SavedResults;
use crate::http::call::Answer;
use crate::http::failure::Failure;
use crate::http::memory::{self, Room};
use crate::provider::records::{BadRecords, Splitter};
use crate::provider::results::{Fetch, FetchStep, Form, Part};
use body::Body;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tally::Tally;

/// How long it is waited, time after time, for a file whose name comes later than the end of its batch.
const LATE_NAME_WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// How long it is waited before results that were short are fetched once more.
const SHORTAGE_WAIT: Duration = Duration::from_secs(1);
/// Under which keys services and their lines have the submitter's id.
const ID_KEYS: [&str; 4] = ["custom_id", "key", "recordId", "batch_request_id"];

/// What is longer is taken apart no more than need be, in bytes: as values it would take many times as much memory.
const LONG_LINE: usize = 256 * 1024;
/// How much of what came is worked on at once, in bytes: of many short lines much more may be made.
const PIECE: usize = 64 * 1024;

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
    /// No results, but the requests as they were sent.
    Input,
}

/// What a whole stream of results held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that were given.
    pub lines: u64,
    /// Of those, lines of requests that did not succeed; `None`: they were not read (raw bytes).
    pub failed: Option<u64>,
    /// The tokens of all lines, where all that succeeded tell them and each was read.
    pub told: Option<Told>,
    /// Lines that nobody can read, which were given as errors.
    pub unreadable: u64,
    /// Lines that tell nothing of which request they belong to.
    pub without_id: u64,
}

/// Why a stream of results ends before all has been given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// The provider, or the way to it.
    #[error("{0}")]
    Failed(Failure),
    /// There are fewer results than there should be.
    #[error(transparent)]
    Short(#[from] Shortage),
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
    wanted: Wanted,
    format: Format,
    keep: Keep,
    /// What is still to be fetched, the next one last.
    parts: Vec<Part>,
    now: Option<Current>,
    summary: Summary,
    /// Whether a line in OpenAI's form means to its reader just what that says.
    gives_lines: bool,
    /// The lines come from batchd's own copy, which is in OpenAI's form and has so many lines.
    saved: Option<u64>,
    tally: Tally,
    /// What is missing, known before anything is given.
    shortage: Option<Shortage>,
    /// Whether what was given last lacks the end of its line.
    is_line_open: bool,
}

/// The part that is being fetched.
struct Current {
    part: Part,
    fetch: Box<dyn Fetch>,
    /// Records seen of it so far.
    index: u64,
    stream: Option<(Body, Splitter)>,
    /// Records that have come whole.
    had: VecDeque<Bytes>,
    /// What has come and has not been worked on.
    ahead: Bytes,
    /// The beginning of a line that has not come whole yet, where bytes are given as they come.
    begun: BytesMut,
    /// Held for as long as a long line is.
    room: Option<Room>,
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
        saved: &SavedResults,
    ) -> Result<std::io::Result<Results>, ProviderError> {
        let account = self.account(provider)?;
        // In a directory that several daemons share it is known by its place there.
        let path = crate::sync::read(&self.shared.results_dir).join(&saved.path);
        Ok(Results::of_copy(account, batch.clone(), wanted, saved, &path).await)
    }
}

impl Results {
    async fn open(
        account: Arc<Account>,
        batch: Batch,
        wanted: Wanted,
        format: Format,
    ) -> Result<Option<Self>, Failure> {
        let gives_lines = account.adapter.gives_openai_lines();
        let mut results = Self {
            account,
            batch,
            wanted,
            format,
            keep: Keep::All,
            parts: Vec::new(),
            now: None,
            summary: Summary { told: (format == Format::OpenAi).then(Told::default), ..Summary::default() },
            gives_lines,
            saved: None,
            tally: Tally::default(),
            shortage: None,
            is_line_open: false,
        };
        results.await_file().await?;
        results.plan()?;
        results.summary.failed = (format == Format::OpenAi || results.keep != Keep::All).then_some(0);
        if results.shortage.is_some() {
            return Ok(Some(results));
        }
        Ok(results.begin().await?.then_some(results))
    }

    /// The copy of the results that was downloaded, for when the provider has them no more.
    async fn of_copy(
        account: Arc<Account>,
        batch: Batch,
        wanted: Wanted,
        saved: &SavedResults,
        path: &Path,
    ) -> std::io::Result<Self> {
        let body = Body::of_file(path).await?;
        let apart = account.adapter.results(&batch, Part::Errors).is_ok_and(|fetch| fetch.is_some());
        let stream = Some((body, Splitter::new(Form::Lines)));
        Ok(Self {
            account,
            batch,
            wanted,
            format: Format::OpenAi,
            keep: match wanted {
                Wanted::Failures => Keep::Failures,
                Wanted::Output if apart => Keep::Successes,
                Wanted::Output | Wanted::Everything | Wanted::Input => Keep::All,
            },
            parts: Vec::new(),
            now: Some(Current {
                part: Part::Output,
                fetch: Box::new(Nothing),
                index: 0,
                stream,
                had: VecDeque::new(),
                ahead: Bytes::new(),
                begun: BytesMut::new(),
                room: None,
            }),
            summary: Summary { failed: Some(0), ..Summary::default() },
            gives_lines: true,
            saved: Some(saved.lines),
            tally: Tally::default(),
            shortage: None,
            is_line_open: false,
        })
    }

    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// What is missing, if that is known before anything has been given.
    pub fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref()
    }

    /// The same; whoever takes it handles it in place of [`Results::next`].
    pub fn take_shortage(&mut self) -> Option<Shortage> {
        self.shortage.take()
    }

    /// What has been given so far; complete once [`Results::next`] has said that there is no more.
    pub fn summary(&self) -> Summary {
        let told = self.summary.failed.is_some_and(|failed| failed < self.summary.lines);
        Summary { told: self.summary.told.clone().filter(|_| told), ..self.summary }
    }

    /// The next bytes, whole lines unless they are raw; `None`: that was all.
    ///
    /// After a failure there is nothing more to be had.
    pub async fn next(&mut self) -> Option<Result<Bytes, Unfinished>> {
        if let Some(shortage) = self.shortage.take() {
            return Some(Err(self.over(Unfinished::Short(shortage))));
        }
        loop {
            let gone = match &self.now {
                None => self.begin().await,
                Some(_) => Ok(true),
            };
            match gone {
                Ok(true) => {}
                Ok(false) => match self.conclude().await {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(shortage) => return Some(Err(self.over(Unfinished::Short(shortage)))),
                },
                Err(failure) => return Some(Err(self.over(Unfinished::Failed(failure)))),
            }
            match self.step().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Some(Ok(self.follow(bytes))),
                Ok(None) => self.now = None,
                Err(failure) => return Some(Err(self.over(Unfinished::Failed(failure)))),
            }
        }
    }

    /// Lets others have long lines: what [`Results::next`] gave last is no longer in memory.
    pub fn make_room(&mut self) {
        if let Some(Current { room, stream, .. }) = &mut self.now
            && stream.as_ref().is_none_or(|(_, splitter)| splitter.held() <= memory::SMALL)
        {
            *room = None;
        }
    }

    fn over(&mut self, why: Unfinished) -> Unfinished {
        self.parts.clear();
        self.now = None;
        why
    }

    /// `bytes` behind what was given before: on a line of their own, if a second pass gives them.
    fn follow(&mut self, bytes: Bytes) -> Bytes {
        let is_broken = std::mem::replace(&mut self.is_line_open, !bytes.ends_with(b"\n"));
        if !(is_broken && self.tally.is_again()) {
            return bytes;
        }
        let mut apart = BytesMut::from(&b"\n"[..]);
        apart.extend_from_slice(&bytes);
        apart.freeze()
    }

    /// How many requests have results that are to be found in the output, where that is known.
    fn completed(&self) -> Option<u64> {
        let counted =
            matches!(self.wanted, Wanted::Output | Wanted::Everything) && self.batch.status != Status::Failed;
        Some(self.batch.request_counts.filter(|_| counted)?.completed)
    }

    /// Decides which parts are fetched, and what is kept of them.
    fn plan(&mut self) -> Result<(), Failure> {
        let has = |part| self.account.adapter.results(&self.batch, part).map(|fetch| fetch.is_some());
        (self.parts, self.keep) = match self.wanted {
            Wanted::Output | Wanted::Input => (vec![Part::Output], Keep::All),
            Wanted::Failures if has(Part::Errors)? => (vec![Part::Errors], Keep::All),
            Wanted::Failures => (vec![Part::Output], Keep::Failures),
            Wanted::Everything => (vec![Part::Errors, Part::Output], Keep::All),
        };
        Ok(())
    }

    /// Waits for the output of a batch with successes to be named, as some services do that after the end.
    async fn await_file(&mut self) -> Result<(), Failure> {
        let Some(completed) = self.completed().filter(|completed| *completed > 0) else { return Ok(()) };
        for wait in LATE_NAME_WAITS {
            if self.account.adapter.results(&self.batch, Part::Output)?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            self.refresh().await?;
        }
        if self.account.adapter.results(&self.batch, Part::Output)?.is_none() {
            self.shortage = Some(Shortage::no_file(completed));
        }
        Ok(())
    }

    /// Asks for the batch again: its files may have been named, and its counts corrected.
    async fn refresh(&mut self) -> Result<(), Failure> {
        let adapter = &self.account.adapter;
        let answer = body::send_with_retries(&self.account, adapter.retrieve(&self.batch.id)?).await?;
        let id = &self.batch.id;
        let sighting = self.account.read(&answer, |adapter| adapter.retrieved(id, &answer))?;
        let batch = &mut self.batch;
        batch.output_file_id = sighting.output_file_id.or(batch.output_file_id.take());
        batch.error_file_id = sighting.error_file_id.or(batch.error_file_id.take());
        batch.request_counts = sighting.request_counts.or(batch.request_counts);
        Ok(())
    }

    /// At the end: whether what has come is all. If not, it is fetched once more, which is told by `true`.
    async fn conclude(&mut self) -> Result<bool, Shortage> {
        if let Some(expected) = self.saved {
            let whole = self.tally.shortage(Some(expected)).is_none();
            let lines = self.tally.output();
            return if whole { Ok(false) } else { Err(Shortage::of_copy(lines, expected)) };
        }
        let Some(shortage) = self.tally.shortage(self.completed()) else { return Ok(false) };
        if self.tally.is_again() {
            return Err(shortage);
        }
        tracing::info!(batch = self.batch.id, "fetching results once more: {shortage}");
        tokio::time::sleep(SHORTAGE_WAIT).await;
        let ready = match self.refresh().await {
            Ok(()) => self.plan(),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = ready {
            tracing::info!(batch = self.batch.id, "the batch cannot be asked for again: {failure}");
            return Err(shortage);
        }
        if self.tally.begin_again() { Ok(true) } else { Err(shortage) }
    }

    /// Turns to the next part that there is; `false`: there is none.
    async fn begin(&mut self) -> Result<bool, Failure> {
        while let Some(part) = self.parts.pop() {
            let adapter = &self.account.adapter;
            let fetch = match self.wanted {
                Wanted::Input => Some(adapter.input(&self.batch)?),
                _ => adapter.results(&self.batch, part)?,
            };
            if let Some(fetch) = fetch {
                let mut current = Current {
                    part,
                    fetch,
                    index: 0,
                    stream: None,
                    had: VecDeque::new(),
                    ahead: Bytes::new(),
                    begun: BytesMut::new(),
                    room: None,
                };
                // The first stream is opened at once: what is wrong is told before anything is given.
                current.advance(&self.account).await?;
                self.now = Some(current);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One piece of the present part; empty ones are nothing yet, `None` is the part's end.
    async fn step(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(current) = &mut self.now else { return Ok(None) };
        if let Some(first) = current.had.pop_front() {
            let mut records = vec![first];
            let mut length = 0;
            while let Some(record) = current.had.front()
                && length < PIECE
            {
                length += record.len();
                records.extend(current.had.pop_front());
            }
            return Ok(Some(self.convert(records)));
        }
        let Some((body, splitter)) = &mut current.stream else {
            return Ok(current.advance(&self.account).await?.then(Bytes::new));
        };
        let malformed = |bad: BadRecords| Failure::Malformed(bad.to_string());
        let as_it_is =
            self.format == Format::Raw && self.keep == Keep::All && body.is_lines() && !self.tally.is_again();
        let piece = if splitter.is_behind() {
            Some(Bytes::new())
        } else if current.ahead.is_empty() {
            body.next(&self.account).await.transpose()?
        } else {
            Some(std::mem::take(&mut current.ahead))
        };
        let piece = piece.map(|mut piece| {
            current.ahead = piece.split_off(piece.len().min(PIECE));
            piece
        });
        if splitter.held() <= memory::SMALL {
            current.room = None;
        } else if current.room.is_none() {
            current.room = Some(memory::line().await?);
            splitter.expect(memory::LONG);
            if as_it_is {
                current.begun.reserve(memory::LONG);
            }
        }
        let records = match &piece {
            Some(piece) => splitter.push(piece).map_err(malformed)?,
            None => match splitter.finish() {
                Ok(last) => last.into_iter().collect(),
                Err(half @ BadRecords::Half(_)) => {
                    // Half a record is none.
                    current.begun.clear();
                    self.tally.cut(half.to_string());
                    Vec::new()
                }
                Err(bad) => return Err(malformed(bad)),
            },
        };
        if piece.is_none() {
            current.stream = None;
        }
        if !as_it_is {
            return Ok(Some(self.convert(records)));
        }
        for record in &records {
            self.tally.take(record, None, current.part);
        }
        let count = records.len() as u64;
        current.index += count;
        self.summary.lines += count;
        Ok(Some(current.lines_of(piece)))
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

impl Current {
    /// The lines that are whole with `piece`, which is the last one if there is none.
    fn lines_of(&mut self, piece: Option<Bytes>) -> Bytes {
        let Some(piece) = piece else { return self.begun.split().freeze() };
        let Some(end) = memchr::memrchr(b'\n', &piece).map(|place| place + 1) else {
            self.begun.extend_from_slice(&piece);
            return Bytes::new();
        };
        let whole = if self.begun.is_empty() {
            piece.slice(..end)
        } else {
            self.begun.extend_from_slice(&piece[..end]);
            self.begun.split().freeze()
        };
        self.begun.extend_from_slice(&piece[end..]);
        whole
    }

    /// Goes on until there is something to be read; `false`: there is nothing more.
    async fn advance(&mut self, account: &Account) -> Result<bool, Failure> {
        let mut answer = None;
        loop {
            match self.fetch.next(answer.as_ref())? {
                FetchStep::Send(call) => answer = Some(body::send_with_retries(account, call).await?),
                FetchStep::Stream(call, form) => {
                    let body = Body::open(account, call, form == Form::Lines).await?;
                    self.stream = Some((body, Splitter::new(form)));
                    return Ok(true);
                }
                FetchStep::Records(records) => {
                    self.had = records.into();
                    return Ok(true);
                }
                FetchStep::Done => return Ok(false),
            }
        }
    }
}
