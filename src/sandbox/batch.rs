//! One simulated batch: what was asked for, what will become of it, and its result lines.

use super::answer::Tokens;
use super::chance::{self, Order};
use super::input::Input;
use super::life::{Moment, Plan};
use super::memory::Reservation;
use super::vendor::Vendor;
use crate::domain::status::Status;
use axum::body::Body;
use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

/// A batch; nothing in it changes but the recorded wish to cancel it.
#[derive(Debug)]
pub struct Batch {
    pub vendor: Vendor,
    /// In the vendor's shape.
    pub id: String,
    pub created_at: Timestamp,
    /// What the call that created it said.
    pub asked: Asked,
    pub input: Input,
    /// What becomes of it.
    pub plan: Plan,
    /// The id of the file with results.
    pub output_file: String,
    /// The id of the file with errors, where the vendor has one.
    pub error_file: String,
    pub(super) result_line: ResultLine,
    pub(super) order: Order,
    pub(super) seed: u64,
    pub(super) cancel_asked: OnceLock<Timestamp>,
    pub(super) sizes: OnceLock<[u64; 2]>,
    pub(super) _held: Reservation,
}

/// What the call that created a batch said, as far as it is shown again.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The path that the requests go to.
    pub endpoint: String,
    /// The model, where it is named once for all.
    pub model: Option<String>,
    /// The files with the requests; none if they came inline.
    pub input_files: Vec<String>,
    /// The caller's own notes.
    pub metadata: Option<Map<String, Value>>,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The completion window, in hours at speed 1.
    pub window_hours: u64,
}

/// What became of one request of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Succeeded,
    /// It failed.
    Errored,
    /// The window closed first.
    Expired,
    /// The batch was cancelled first.
    Cancelled,
}

/// One of the two files that a batch may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Output,
    Error,
}

/// One request of an ended batch, for its result line.
#[derive(Debug)]
pub struct Ended<'a> {
    pub batch: &'a Batch,
    /// The line that asked.
    pub line: Value,
    /// Its index in the input, from 0.
    pub index: usize,
    pub fate: Fate,
    /// When the batch ended.
    pub at: Timestamp,
}

/// Writes a request of an ended batch as a line of the vendor's results.
pub type ResultLine = fn(&Ended<'_>) -> Value;

impl Ended<'_> {
    /// The source of this line's ids.
    pub fn chance(&self) -> Rng {
        chance::draw(self.batch.seed, self.index as u64 + 1)
    }

    pub fn answer(&self) -> Value {
        let form = &self.batch.input.form;
        let body = form.body(&self.line);
        let model = body["model"].as_str().or(self.batch.asked.model.as_deref()).unwrap_or("sandbox");
        form.task().answer(body, model, self.at.as_second(), &mut self.chance())
    }

    pub fn reason(&self) -> Reason {
        self.batch.reason(self.index)
    }
}

#[derive(Clone, Debug)]
pub struct Reason {
    /// The field at fault; without one the fault is the service's.
    pub param: Option<&'static str>,
    pub message: String,
}

impl Batch {
    /// Where it stands at `now`.
    pub fn at(&self, now: Timestamp) -> Moment {
        self.plan.at(self.created_at, self.cancel_asked.get().copied(), now)
    }

    /// Records that a cancellation was asked for at `now`; a second time changes nothing.
    pub fn cancel(&self, now: Timestamp) {
        let _ = self.cancel_asked.set(now);
    }

    /// Whether it leaves `part`: it has ended, and there are lines to stand in it.
    pub fn leaves(&self, part: Part, moment: &Moment) -> bool {
        let some = |count: u32, fate: Fate| count > 0 && fate.part(self.vendor) == Some(part);
        let unreached = Fate::unreached(moment.status);
        some(moment.succeeded(), Fate::Succeeded) && moment.status.is_terminal()
            || some(moment.errored, Fate::Errored) && moment.status.is_terminal()
            || unreached.is_some_and(|fate| some(moment.remaining(), fate))
    }

    /// The tokens of the requests that have succeeded.
    pub fn tokens(&self, moment: &Moment) -> (u64, u64) {
        (0..moment.done)
            .filter(|place| !self.fails(*place))
            .filter_map(|place| self.input.requests.get(self.order.request(place)))
            .map(|request| request.tokens)
            .fold((0, 0), |(input, output), tokens: Tokens| {
                (input + u64::from(tokens.input), output + u64::from(tokens.output))
            })
    }

    /// The lines of `part`, of a batch that has ended: in the order of processing, which is not that of the input.
    pub fn lines(&self, part: Part, moment: Moment) -> impl Iterator<Item = Value> {
        (0..moment.total).filter_map(move |place| self.line(place, part, &moment))
    }

    /// Why each request that has failed by now did so.
    pub fn reasons(&self, moment: &Moment) -> impl Iterator<Item = Reason> {
        let failing = self.plan.failing.iter().take_while({
            let done = moment.done;
            move |place| **place < done
        });
        failing.map(|place| self.reason(self.order.request(*place)))
    }

    fn reason(&self, index: usize) -> Reason {
        let defect = self.input.requests.get(index).and_then(|request| request.defect.as_deref());
        Reason {
            param: defect.map(|defect| defect.param),
            message: defect.map_or_else(
                || "The sandbox was asked to let this request fail.".to_owned(),
                |defect| defect.message.clone(),
            ),
        }
    }

    /// Every request of a batch that has ended, in input order.
    pub fn in_input_order(&self, moment: &Moment) -> Vec<Ended<'_>> {
        let mut all: Vec<_> = (0..moment.total).filter_map(|place| self.ended(place, moment)).collect();
        all.sort_unstable_by_key(|ended| ended.index);
        all
    }

    pub fn size(&self, part: Part, moment: Moment) -> u64 {
        let count = |part| self.lines(part, moment).map(|line| line.to_string().len() as u64 + 1).sum();
        let sizes = self.sizes.get_or_init(|| [count(Part::Output), count(Part::Error)]);
        sizes[usize::from(part == Part::Error)]
    }

    fn fails(&self, place: u32) -> bool {
        self.plan.failing.binary_search(&place).is_ok()
    }

    /// What became of the request at `place`, if the batch has ended.
    fn fate(&self, place: u32, moment: &Moment) -> Option<Fate> {
        if place >= moment.done {
            return Fate::unreached(moment.status);
        }
        let fate = if self.fails(place) { Fate::Errored } else { Fate::Succeeded };
        moment.status.is_terminal().then_some(fate)
    }

    /// The request at `place`, if the batch has ended.
    fn ended(&self, place: u32, moment: &Moment) -> Option<Ended<'_>> {
        let (fate, at) = (self.fate(place, moment)?, moment.ended_at?);
        let index = self.order.request(place);
        Some(Ended { batch: self, line: self.input.line(index), index, fate, at })
    }

    /// The line of the request at `place`, if it stands in `part`.
    fn line(&self, place: u32, part: Part, moment: &Moment) -> Option<Value> {
        if self.fate(place, moment)?.part(self.vendor)? != part {
            return None;
        }
        let ended = self.ended(place, moment)?;
        Some((self.result_line)(&ended))
    }
}

impl Fate {
    /// What becomes of the requests that were not processed when a batch ended in `status`.
    fn unreached(status: Status) -> Option<Self> {
        match status {
            Status::Expired => Some(Self::Expired),
            Status::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The file that a request of this fate stands in (`docs/providers.md#file-formats`); `None` if it is told nowhere.
    fn part(self, vendor: Vendor) -> Option<Part> {
        match (vendor, self) {
            (Vendor::Anthropic, _) | (_, Self::Succeeded) | (Vendor::Gemini, Self::Errored) => {
                Some(Part::Output)
            }
            (Vendor::OpenAi, _) | (_, Self::Errored) => Some(Part::Error),
            (Vendor::Gemini | Vendor::Mistral, Self::Expired | Self::Cancelled) => None,
        }
    }
}

/// The lines of `part` as a body that is made while it is read.
pub fn stream(batch: &Arc<Batch>, part: Part, moment: Moment) -> Body {
    Body::from_stream(stream::unfold((batch.clone(), 0), move |(batch, mut place)| async move {
        let mut chunk = String::new();
        while place < moment.total && chunk.len() < CHUNK {
            if let Some(line) = batch.line(place, part, &moment) {
                chunk.push_str(&line.to_string());
                chunk.push('\n');
            }
            place += 1;
        }
        (!chunk.is_empty()).then(|| (Ok::<_, Infallible>(Bytes::from(chunk)), (batch, place)))
    }))
}

/// About as much of a body as is made at a time.
const CHUNK: usize = 64 * 1024;
