//! What the sandbox has in memory: batches and files of every vendor, and the making of new ones.

use super::batch::{Asked, Batch, Part, ResultLine};
use super::chance::{self, Order};
use super::ending::Ending;
use super::input::{Form, Input};
use super::memory::{Content, Memory};
use super::newest_first::NewestFirst;
use super::plan::Sketch;
use super::refusal::Refusal;
use super::vendor::Vendor;
use super::{SandboxOptions, Speed};
use crate::clock::Clock;
use crate::domain::duration;
use crate::sync::lock;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Everything that the simulated services keep.
#[derive(Debug)]
pub struct Store {
    /// Bounds what is kept.
    pub memory: Memory,
    clock: Clock,
    seed: u64,
    speed: Speed,
    most_batches: usize,
    quota: Option<u64>,
    serials: AtomicU64,
    requests: AtomicU64,
    state: Mutex<State>,
}

/// What is kept, behind one lock that is never held across an await.
#[derive(Debug, Default)]
pub struct State {
    pub batches: BTreeMap<Vendor, NewestFirst<Arc<Batch>>>,
    /// Files of OpenAI and Mistral, which share `/v1/files`.
    pub files: NewestFirst<Arc<File>>,
    /// Files of Gemini, by `files/…`.
    pub gemini_files: NewestFirst<Arc<File>>,
}

/// A file that was uploaded, or that a batch leaves when it ends.
#[derive(Debug)]
pub struct File {
    /// In the vendor's shape.
    pub id: String,
    /// Grows with each file.
    pub serial: u64,
    pub name: String,
    /// What it is for, in OpenAI's and Mistral's words.
    pub purpose: String,
    pub mime: String,
    pub source: Source,
}

#[derive(Debug)]
pub enum Source {
    /// What was uploaded, and when.
    Upload(Arc<Content>, Timestamp),
    /// What a batch leaves; not there before it has ended.
    Result(Arc<Batch>, Part),
}

impl File {
    /// When the file came to be; `None` if it is not there at `now`.
    pub fn created_at(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.source {
            Source::Upload(_, at) => Some(*at),
            Source::Result(batch, part) => {
                let moment = batch.at(now);
                moment.ended_at.filter(|_| batch.leaves(*part, &moment))
            }
        }
    }

    pub fn size(&self, now: Timestamp) -> u64 {
        match &self.source {
            Source::Upload(content, _) => content.len() as u64,
            Source::Result(batch, part) => batch.size(*part, batch.at(now)),
        }
    }
}

impl Store {
    /// Nothing yet.
    pub fn new(options: &SandboxOptions) -> Self {
        Self {
            memory: Memory::new(options.memory),
            clock: options.clock.clone(),
            seed: options.seed,
            speed: options.speed,
            most_batches: options.batches,
            quota: options.quota,
            serials: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The batch of `vendor` called `id`.
    pub fn batch(&self, vendor: Vendor, id: &str) -> Option<Arc<Batch>> {
        self.state().batches.get(&vendor)?.get(id).cloned()
    }

    /// A number that was not given before.
    pub fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// The source of what looks random about the thing with `serial`.
    pub fn chance(&self, serial: u64) -> fastrand::Rng {
        chance::draw(self.seed, serial)
    }

    /// An id for the next answer. These are counted apart, so that polling more often changes no batch.
    pub fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("req_{}", chance::hex(&mut chance::draw(!self.seed, number), 24))
    }

    /// A word that only this sandbox can make from `text`: it stands in signed addresses.
    pub fn signature(&self, text: &str) -> String {
        chance::hex(&mut chance::draw(self.seed, chance::of_text(text)), 32)
    }

    /// Reads the requests of a new batch, off the runtime's threads if there are many.
    pub async fn read(&self, content: Arc<Content>, form: Form) -> Result<Input, Refusal> {
        if content.len() < LARGE {
            return Ok(Input::read(content, form));
        }
        tokio::task::spawn_blocking(move || Input::read(content, form))
            .await
            .map_err(|_| Refusal::new(http::StatusCode::INTERNAL_SERVER_ERROR, "the input could not be read"))
    }

    /// Keeps a new batch, which begins to live now; `result_line` writes its results.
    ///
    /// # Errors
    ///
    /// The metadata asks for an end that there is none, or there are too many batches.
    pub fn open(
        &self,
        vendor: Vendor,
        asked: Asked,
        input: Input,
        result_line: ResultLine,
    ) -> Result<Arc<Batch>, Refusal> {
        let (ending, working) = wish(vendor, &asked, &input)?;
        self.has_room(vendor, u64::from(input.count()))?;
        let defective: Vec<bool> = input.requests.iter().map(|request| request.defect.is_some()).collect();
        let held = self.memory.reserve(1024 + defective.len() * PER_REQUEST)?;

        let serial = self.serial();
        let mut chance = self.chance(serial);
        let order = Order::new(input.count(), &mut chance);
        let sketch = Sketch {
            ending,
            valid: input.problems.is_empty(),
            defective: &defective,
            order,
            working,
            window: Duration::from_hours(asked.window_hours),
            speed: self.speed.factor(),
        };
        let mut plan = sketch.draw(&mut chance);
        if vendor != Vendor::OpenAi {
            // Only OpenAI says that results are being written.
            let work = plan.working;
            plan.working += std::mem::take(&mut plan.finalizing);
            // What is half done when it is cancelled stays half done.
            let longer = plan.working.as_secs_f64() / work.as_secs_f64().max(f64::MIN_POSITIVE);
            plan.cancels_itself = plan
                .cancels_itself
                .map(|at| plan.validating + at.saturating_sub(plan.validating).mul_f64(longer));
        }
        if vendor == Vendor::Gemini {
            plan.cancelling = Duration::ZERO;
        }
        let (id, output_file, error_file) = match vendor {
            Vendor::OpenAi => (
                format!("batch_{}", chance::hex(&mut chance, 32)),
                format!("file-{}", chance::alphanumeric(&mut chance, 22)),
                format!("file-{}", chance::alphanumeric(&mut chance, 22)),
            ),
            Vendor::Anthropic => (
                format!("msgbatch_01{}", chance::alphanumeric(&mut chance, 22)),
                String::new(),
                String::new(),
            ),
            Vendor::Gemini => {
                let name = chance::lowercase(&mut chance, 36);
                (format!("batches/{name}"), format!("files/batch-{name}"), String::new())
            }
            Vendor::Mistral => {
                (chance::uuid(&mut chance), chance::uuid(&mut chance), chance::uuid(&mut chance))
            }
        };
        let batch = Arc::new(Batch {
            vendor,
            id,
            created_at: self.now(),
            asked,
            input,
            plan,
            output_file,
            error_file,
            result_line,
            order,
            seed: chance.u64(..),
            cancel_asked: OnceLock::new(),
            sizes: OnceLock::new(),
            _held: held,
        });
        self.keep(serial, &batch)?;
        Ok(batch)
    }

    /// Refuses a batch of so many requests if with it there would be more unfinished ones than the quota has room for.
    fn has_room(&self, vendor: Vendor, requests: u64) -> Result<(), Refusal> {
        let Some(limit) = self.quota else { return Ok(()) };
        let now = self.now();
        let used: u64 = self
            .state()
            .batches(vendor)
            .before(u64::MAX)
            .filter(|(_, batch)| !batch.at(now).status.is_terminal())
            .map(|(_, batch)| u64::from(batch.input.count()))
            .sum();
        if used + requests <= limit {
            return Ok(());
        }
        let message = match vendor {
            Vendor::OpenAi => format!(
                "Enqueued request limit reached in organization org-sandbox. Limit: {limit} enqueued requests, used \
                 {used}. Please try again once some in_progress batches have been completed."
            ),
            Vendor::Anthropic => format!(
                "This request would exceed your organization's limit of {limit} batch requests in the processing \
                 queue; it currently has {used}."
            ),
            Vendor::Gemini => format!(
                "You exceeded your current quota. Quota exceeded for metric: batch_enqueued_requests, limit: {limit}, \
                 used: {used}"
            ),
            Vendor::Mistral => {
                format!("Too many pending requests in your workspace: limit {limit}, currently {used}.")
            }
        };
        Err(Refusal::new(http::StatusCode::TOO_MANY_REQUESTS, message).coded("token_limit_exceeded"))
    }

    /// Keeps an uploaded file under `id`.
    pub fn upload(&self, cabinet: Cabinet, file: File) -> Arc<File> {
        let file = Arc::new(file);
        let mut state = self.state();
        state.cabinet(cabinet).insert(file.serial, &file.id, file.clone());
        file
    }

    /// The file called `id`, if it is there by now.
    pub fn file(&self, cabinet: Cabinet, id: &str) -> Option<Arc<File>> {
        let now = self.now();
        self.state().cabinet(cabinet).get(id).filter(|file| file.created_at(now).is_some()).cloned()
    }

    fn keep(&self, serial: u64, batch: &Arc<Batch>) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.batches.values().map(NewestFirst::len).sum::<usize>() >= self.most_batches {
            return Err(Refusal::invalid(format!(
                "the sandbox keeps at most {} batches; delete some or start it again",
                self.most_batches
            ))
            .coded("failed_precondition"));
        }
        state.batches.entry(batch.vendor).or_default().insert(serial, &batch.id, batch.clone());
        let cabinet = if batch.vendor == Vendor::Gemini { Cabinet::Gemini } else { Cabinet::Shared };
        for (id, part) in [(&batch.output_file, Part::Output), (&batch.error_file, Part::Error)] {
            if id.is_empty() {
                continue;
            }
            let serial = self.serial();
            let suffix = if part == Part::Output { "output" } else { "error" };
            let file = File {
                id: id.clone(),
                serial,
                name: format!("{}_{suffix}.jsonl", batch.id.trim_start_matches("batches/")),
                purpose: if batch.vendor == Vendor::OpenAi { "batch_output" } else { "batch" }.to_owned(),
                mime: "application/jsonl".to_owned(),
                source: Source::Result(batch.clone(), part),
            };
            state.cabinet(cabinet).insert(serial, id, Arc::new(file));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cabinet {
    /// `/v1/files`, of OpenAI and Mistral.
    Shared,
    Gemini,
}

impl State {
    pub fn cabinet(&mut self, cabinet: Cabinet) -> &mut NewestFirst<Arc<File>> {
        match cabinet {
            Cabinet::Shared => &mut self.files,
            Cabinet::Gemini => &mut self.gemini_files,
        }
    }

    pub fn batches(&mut self, vendor: Vendor) -> &mut NewestFirst<Arc<Batch>> {
        self.batches.entry(vendor).or_default()
    }
}

/// How the batch shall end and how long it shall work, as far as it was said: by metadata, by its name, by the name
/// of the model that all or a line's request goes to.
fn wish(vendor: Vendor, asked: &Asked, input: &Input) -> Result<(Ending, Option<Duration>), Refusal> {
    let noted = |key: &str| asked.metadata.as_ref()?.get(key)?.as_str();
    let names = [asked.name.as_deref(), asked.model.as_deref()];
    let mut ending = names.into_iter().flatten().find_map(Ending::in_name).or(input.ending);
    let mut working = names.into_iter().flatten().find_map(super::ending::duration_in_name).or(input.working);
    if let Some(word) = noted("sandbox_outcome") {
        let found = Ending::from_word(word).ok_or_else(|| {
            let words = Ending::words();
            Refusal::wrong("metadata", format!("sandbox_outcome `{word}` is none of {words}"))
        })?;
        ending = Some(found);
    }
    if let Some(text) = noted("sandbox_duration") {
        let found = duration::parse(text)
            .map_err(|bad| Refusal::wrong("metadata", format!("sandbox_duration: {bad}")))?;
        working = Some(found);
    }
    let ending = match (vendor, ending.unwrap_or_default()) {
        // Anthropic judges each request by itself; a batch there cannot fail.
        (Vendor::Anthropic, Ending::Failed) => Ending::AllFailed,
        // Gemini keeps no results of an expired batch.
        (Vendor::Gemini, Ending::Expired) => Ending::ExpiredEmpty,
        (_, ending) => ending,
    };
    Ok((ending, working.map(|working| working.max(Duration::from_secs(1)))))
}

/// From here on, input is read on a thread of its own.
const LARGE: usize = 256 * 1024;
/// What the record of one request costs, roughly.
const PER_REQUEST: usize = 64;
