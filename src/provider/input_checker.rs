//! Judges a local file of requests line by line and forms a batch's input from it: pure, and in flat memory.

pub use super::input_problem::{InputProblem, MOST_PROBLEMS};
pub use super::pieces::Piece;

use super::Provider;
use super::input_problem::InputProblems;
use super::line::{Head, Text};
use super::model_names;
use super::pieces::{Limits, Pieces, megabytes_of};
use super::submit::{Framing, Intake, LineForm, ModelPlace, OPENAI_LINE, RequestLine};
use crate::http::failure::Failure;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the user wants, beside what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The endpoint; absent, the file tells it.
    pub endpoint: Option<String>,
    /// The model of every request, in place of what they name.
    pub model: Option<String>,
    /// What is taken off the beginning of the models that the requests name, with the slash behind it.
    pub model_prefix: Option<String>,
}

impl Overrides {
    /// The model of a request that names `given`.
    fn model_for<'a>(&'a self, given: Option<&'a str>) -> Option<&'a str> {
        let model = self.model.as_deref().or(given)?;
        let bare =
            self.model_prefix.as_deref().and_then(|prefix| model.strip_prefix(prefix)?.strip_prefix('/'));
        Some(bare.filter(|bare| !bare.is_empty()).unwrap_or(model))
    }
}

/// A file that may be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedInput {
    pub endpoint: String,
    /// The one model of all requests, where there is one.
    pub model: Option<String>,
    pub requests: u64,
    /// How long the input is, in bytes.
    pub bytes: u64,
    /// What was left out in translation, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads a file piece by piece.
///
/// It holds one line at most, a hash of every id, and what there is to tell: some 25 bytes a request.
#[derive(Debug)]
pub struct InputChecker {
    overrides: Overrides,
    intake: Intake,
    /// Known from the first good line on.
    endpoint: Option<String>,
    named: Named,
    /// The beginning of a line whose end has not come yet.
    open: Vec<u8>,
    /// Whether the rest of the present line is passed over.
    skipping: bool,
    begun: bool,
    lines: u64,
    requests: u64,
    bytes: u64,
    ids: BTreeMap<u64, u32>,
    dropped: BTreeMap<String, Dropped>,
    problems: InputProblems,
    /// The batches that it has to be split into.
    pieces: Pieces,
    /// Empty lines that are no fault if nothing follows them: the first and the last.
    blank: Option<(u64, u64)>,
    /// Nothing that follows could make it any better.
    hopeless: bool,
}

/// The models that the requests name.
#[derive(Debug)]
enum Named {
    Unseen,
    Nothing,
    One(String),
    Several,
}

/// A part of requests that was left out.
#[derive(Debug)]
struct Dropped {
    first: u64,
    count: u64,
}

impl InputChecker {
    /// Begins to judge a file for `provider`.
    pub fn new(provider: &dyn Provider, overrides: Overrides) -> Result<Self, Failure> {
        let endpoint = overrides.endpoint.as_deref();
        let intake = provider.intake(endpoint.unwrap_or(provider.default_endpoint()))?;
        Ok(Self {
            overrides,
            intake,
            endpoint: None,
            named: Named::Unseen,
            open: Vec::new(),
            skipping: false,
            begun: false,
            lines: 0,
            requests: 0,
            bytes: 0,
            ids: BTreeMap::new(),
            dropped: BTreeMap::new(),
            problems: InputProblems::default(),
            pieces: Pieces::default(),
            blank: None,
            hopeless: false,
        })
    }

    /// The endpoint of the batch, once a good line has come.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// How many bytes of a line wait for its end.
    pub fn held(&self) -> u64 {
        self.open.len() as u64
    }

    /// Takes the next bytes of the file and adds to `input` what is to be sent of them.
    ///
    /// `false`: there is enough to complain of; more need not come.
    pub fn push(&mut self, provider: &dyn Provider, piece: &[u8], input: &mut Vec<u8>) -> bool {
        let mut rest = piece;
        if !self.begun && !rest.is_empty() {
            self.begun = true;
            if let Some(what) = not_lines(rest) {
                self.give_up(what);
            }
        }
        while !self.hopeless {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if self.skipping || self.open.len() + rest.len() > MAX_LINE {
                    self.skip();
                } else {
                    self.open.extend_from_slice(rest);
                }
                break;
            };
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.skipping || self.open.len() + line.len() > MAX_LINE {
                self.skip();
                self.skipping = false;
                self.lines += 1;
            } else if self.open.is_empty() {
                self.line(provider, line, false, input);
            } else {
                let mut whole = std::mem::take(&mut self.open);
                whole.extend_from_slice(line);
                self.line(provider, &whole, false, input);
                whole.clear();
                // One long line must not keep its memory for ever.
                whole.shrink_to(USUAL_LINE);
                self.open = whole;
            }
            rest = after;
        }
        !self.hopeless
    }

    /// The file has ended.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in its order, up to [`MOST_PROBLEMS`] and a word that there may be more.
    pub fn finish(
        self,
        provider: &dyn Provider,
        input: &mut Vec<u8>,
    ) -> Result<CheckedInput, Vec<InputProblem>> {
        let limits = Limits::of(&self.intake);
        let (checked, pieces) = self.finish_in_pieces(provider, input)?;
        if pieces.len() > 1 {
            return Err(vec![InputProblem::of_file(limits.tell(&pieces))]);
        }
        Ok(checked)
    }

    /// The same for a file that may be split: into what, is told beside it.
    ///
    /// # Errors
    ///
    /// As for [`InputChecker::finish`]; that it is too large for one batch is none.
    pub fn finish_in_pieces(
        mut self,
        provider: &dyn Provider,
        input: &mut Vec<u8>,
    ) -> Result<(CheckedInput, Vec<Piece>), Vec<InputProblem>> {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() && !self.hopeless {
            self.line(provider, &open, true, input);
        }
        if self.requests == 0 && self.problems.is_empty() {
            self.give_up("has no requests: it is empty".to_owned());
        }
        let model = match (self.overrides.model_for(None), self.named) {
            (Some(model), _) => Some(model.to_owned()),
            (None, Named::One(model)) => Some(model),
            (None, _) => None,
        };
        if self.intake.own.model == ModelPlace::Job && model.is_none() && self.problems.is_empty() {
            self.problems.add("names no model: give it with --model");
        }
        if !self.problems.is_empty() {
            return Err(self.problems.into_list());
        }
        let warnings = self.dropped.iter().map(|(what, dropped)| dropped.tell(what)).collect();
        let checked = CheckedInput {
            model,
            endpoint: self.endpoint.unwrap_or_default(),
            requests: self.requests,
            bytes: self.bytes,
            warnings,
        };
        Ok((checked, self.pieces.into_list()))
    }

    /// The present line is longer than any that is read.
    fn skip(&mut self) {
        if !self.skipping {
            self.skipping = true;
            self.open = Vec::new();
            self.complain_of_blank();
            let what = format!("is longer than the {} MiB that batchd reads of one line", MAX_LINE >> 20);
            self.complain_of(self.lines + 1, &what);
        }
    }

    fn line(&mut self, provider: &dyn Provider, line: &[u8], is_last: bool, input: &mut Vec<u8>) {
        self.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            let first = self.blank.map_or(self.lines, |(first, _)| first);
            self.blank = Some((first, self.lines));
            return;
        }
        self.complain_of_blank();
        let before = input.len();
        if let Err(what) = self.request(provider, line, is_last, input) {
            self.complain_of(self.lines, &what);
        }
        if self.pieces.are_several() {
            // It is read on to tell what the pieces are, and is not sent as it is.
            input.truncate(before);
        }
    }

    /// Something follows the empty lines.
    fn complain_of_blank(&mut self) {
        if let Some((first, last)) = self.blank.take() {
            self.complain(first, last, "is empty; each line holds one request");
        }
    }

    /// One request; what is wrong with it is the error.
    fn request(
        &mut self,
        provider: &dyn Provider,
        line: &[u8],
        is_last: bool,
        input: &mut Vec<u8>,
    ) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|error| {
            format!(
                "is not valid UTF-8 (byte {} of the line); save the file as UTF-8",
                error.valid_up_to() + 1
            )
        })?;
        let head = Head::read(text, &self.intake.own).map_err(|error| not_json(&error, is_last))?;
        let is_addressed =
            (head.url.is_some() || head.method.is_some()) && !head.is_about_a_file(&self.intake.own);
        let form = if is_addressed || self.intake.own == OPENAI_LINE { OPENAI_LINE } else { self.intake.own };
        let is_openai = form == OPENAI_LINE;
        let request = if is_openai { &head.body } else { &head.own_body };
        let Some(request) = request else { return Err(head.no_request(&self.intake.own)) };
        if !request.is_object {
            return Err(format!("has a `{}` that is no object", form.body));
        }
        let told = if is_openai { head.address()?.to_owned() } else { told_by(&form, request)?.to_owned() };
        self.settle_endpoint(provider, &told, is_openai)?;
        let endpoint = self.endpoint.as_deref().unwrap_or_default();
        // Where nothing in a request tells what it is for, the user says it.
        let tells = is_openai || (form.body != "body" && !told.is_empty());
        if told != endpoint && tells {
            let what = if is_openai { "has the url" } else { "is a request for" };
            return Err(format!(
                "{what} `{told}`, and the endpoint is `{endpoint}`; one batch is for one endpoint"
            ));
        }
        if form.body == "body"
            && let Some(what) = request.misfit(endpoint)
        {
            return Err(format!("is no request for {endpoint}: its `{}` {what}", form.body));
        }
        let id = if is_openai { &head.id } else { &head.own_id };
        self.note_id(&form, id.as_ref())?;
        let given = request.model().map_err(|kind| format!("has a `model` that is {kind}, not a text"))?;
        let model = self.overrides.model_for(given).map(str::to_owned);
        self.note_model(&form, model.as_deref())?;
        if self.overrides.model.is_none() {
            self.note_foreign_model(provider, model.as_deref().unwrap_or_default());
        }

        let renamed = model.as_deref().filter(|model| {
            form.model != ModelPlace::Job
                && given != Some(*model)
                && (is_openai || given.is_some() || form.model == ModelPlace::Request)
        });
        let translated = is_openai && !self.intake.takes_openai;
        let before = self.bytes;
        if !translated && renamed.is_none() {
            self.add(line, input);
            return self.counted(before);
        }
        let mut object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| not_json(&error, is_last))?;
        if let (Some(model), Some(Value::Object(body))) = (renamed, object.get_mut(form.body)) {
            body.insert("model".to_owned(), model.into());
        }
        if translated {
            let line = RequestLine { object, number: self.lines };
            let made =
                provider.translate(line).map_err(|problem| format!("cannot be translated: {problem}"))?;
            for what in made.dropped {
                self.note_dropped(what);
            }
            object = made.object;
        }
        self.add_object(&object, text.len(), input)?;
        self.counted(before)
    }

    /// The first line settles what the file does not leave to the user.
    fn settle_endpoint(
        &mut self,
        provider: &dyn Provider,
        told: &str,
        is_openai: bool,
    ) -> Result<(), String> {
        if self.endpoint.is_some() {
            return Ok(());
        }
        let endpoint = match &self.overrides.endpoint {
            Some(endpoint) => endpoint.clone(),
            None if told.is_empty() && !is_openai => provider.default_endpoint().to_owned(),
            None => told.to_owned(),
        };
        let known = self.intake.endpoints;
        if !known.is_empty() && !known.contains(&endpoint.as_str()) {
            self.hopeless = true;
            return Err(format!("is for `{endpoint}`, and this provider's batches are for {}", list(known)));
        }
        match provider.intake(&endpoint) {
            Ok(intake) => self.intake = intake,
            Err(failure) => {
                self.hopeless = true;
                return Err(format!("is for `{endpoint}`: {failure}"));
            }
        }
        self.endpoint = Some(endpoint);
        Ok(())
    }

    fn note_id(&mut self, form: &LineForm, id: Option<&Text<'_>>) -> Result<(), String> {
        let key = form.id;
        let id = match id {
            Some(Text::Text(id)) => id,
            Some(Text::Other("null")) | None if form.id_needed => return Err(format!("has no `{key}`")),
            Some(Text::Other("null")) | None => return Ok(()),
            Some(Text::Other(kind)) => {
                return Err(format!("has a `{key}` that is {kind}; write it as text, in quotes"));
            }
        };
        let rule = self.intake.custom_id;
        if id.is_empty() {
            return Err(format!("has an empty `{key}`"));
        }
        if let Some(longest) = rule.longest
            && id.chars().nth(longest).is_some()
        {
            return Err(format!("has a `{key}` of more than {longest} characters"));
        }
        if rule.plain && !id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-')) {
            let id = shown(id);
            return Err(format!(
                "has the `{key}` `{id}`; here it may hold letters, digits, `_` and `-` only"
            ));
        }
        // 64 bits: of a million different ids two have the same hash once in some ten million files.
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        match self.ids.entry(hasher.finish()) {
            Entry::Occupied(first) => {
                Err(format!("has the same `{key}` as line {}: `{}`", first.get(), shown(id)))
            }
            Entry::Vacant(free) => {
                free.insert(u32::try_from(self.lines).unwrap_or(u32::MAX));
                Ok(())
            }
        }
    }

    fn note_model(&mut self, form: &LineForm, given: Option<&str>) -> Result<(), String> {
        if self.overrides.model.is_some() {
            return Ok(());
        }
        let must_name = form.model == ModelPlace::Request;
        if must_name && given.is_none() {
            return Err(format!("names no model in its `{}`; --model gives all of them one", form.body));
        }
        match (&self.named, given) {
            (Named::Unseen, None) => self.named = Named::Nothing,
            (Named::Unseen, Some(model)) => self.named = Named::One(model.to_owned()),
            (Named::One(first), Some(model)) if first == model => {}
            (Named::One(first), Some(model)) if self.intake.one_model => {
                let (first, model) = (shown(first), shown(model));
                return Err(format!(
                    "is for the model `{model}`, and the first line for `{first}`; here one batch is for one model"
                ));
            }
            (Named::Nothing, None) => {}
            _ => self.named = Named::Several,
        }
        Ok(())
    }

    /// A model that another company makes is most likely a file for another provider.
    fn note_foreign_model(&mut self, provider: &dyn Provider, model: &str) {
        let (Some(own), Some(vendor)) = (provider.models_of(), model_names::vendor(model)) else { return };
        if own != vendor {
            let model = shown(model);
            self.note_dropped(format!(
                "the model `{model}` is {vendor}'s, and this provider has {own}'s; --model gives all requests another"
            ));
        }
    }

    fn note_dropped(&mut self, what: String) {
        if let Some(dropped) = self.dropped.get_mut(&what) {
            dropped.count += 1;
        } else if self.dropped.len() < MOST_PROBLEMS {
            self.dropped.insert(what, Dropped { first: self.lines, count: 1 });
        }
    }

    /// Adds a request as it stands in the file.
    fn add(&mut self, request: &[u8], input: &mut Vec<u8>) {
        let before = input.len();
        self.begin(input);
        input.extend_from_slice(request);
        self.end(input, before);
    }

    /// Adds a request that was made from one of `length` bytes.
    fn add_object(
        &mut self,
        object: &Map<String, Value>,
        length: usize,
        input: &mut Vec<u8>,
    ) -> Result<(), String> {
        let before = input.len();
        if length > USUAL_LINE {
            // Growing in leaps, a long one would take twice its room.
            input.reserve_exact(length + length / 8);
        }
        self.begin(input);
        serde_json::to_writer(&mut *input, object)
            .map_err(|error| format!("cannot be written again: {error}"))?;
        self.end(input, before);
        Ok(())
    }

    fn begin(&self, input: &mut Vec<u8>) {
        if self.intake.framing == Framing::Array && self.requests > 0 {
            input.push(b',');
        }
    }

    fn end(&mut self, input: &mut Vec<u8>, before: usize) {
        if self.intake.framing == Framing::Lines {
            input.push(b'\n');
        }
        self.requests += 1;
        self.bytes += (input.len() - before) as u64;
    }

    /// The limits, once a request was added to `before` bytes.
    fn counted(&mut self, before: u64) -> Result<(), String> {
        let length = self.bytes - before;
        let longest = self.intake.max_line_bytes.or(self.intake.max_bytes);
        if let Some(most) = longest
            && length > most
        {
            return Err(format!("is longer than the {} MB that a request may have here", megabytes_of(most)));
        }
        if self.requests > MOST_REQUESTS {
            self.hopeless = true;
            return Err(format!(
                "is one request too many: a file has at most {MOST_REQUESTS}; split the file"
            ));
        }
        self.pieces.add(self.lines, length, Limits::of(&self.intake));
        Ok(())
    }

    fn complain_of(&mut self, line: u64, what: &str) {
        self.complain(line, line, what);
    }

    fn give_up(&mut self, what: String) {
        self.hopeless = true;
        self.problems.add(what);
    }

    fn complain(&mut self, first: u64, last: u64, what: &str) {
        self.problems.add_lines(first, last, what);
        if self.problems.is_enough() && !self.hopeless {
            self.hopeless = true;
            self.problems.add("was not checked any further");
        }
    }
}

impl Dropped {
    fn tell(&self, what: &str) -> String {
        match self.count {
            1 => format!("line {}: {what}", self.first),
            count => format!("line {} and {} more: {what}", self.first, count - 1),
        }
    }
}

/// The endpoint that a request in the service's own form tells; `""`: nothing tells it.
fn told_by(form: &LineForm, request: &super::line::Request<'_>) -> Result<&'static str, String> {
    let told = form.tells.iter().find(|(key, _)| request.has(key)).map(|(_, endpoint)| *endpoint);
    if form.tells.is_empty() || form.body == "body" {
        return Ok(told.unwrap_or_default());
    }
    told.ok_or_else(|| {
        let keys: Vec<&str> = form.tells.iter().map(|(key, _)| *key).collect();
        format!("is no request: its `{}` has no {}", form.body, list(&keys))
    })
}

/// What is wrong with a file that does not begin as lines of JSON do.
fn not_lines(beginning: &[u8]) -> Option<String> {
    let what = match beginning {
        [0xef, 0xbb, 0xbf, ..] => {
            "begins with a byte order mark (BOM), which providers do not take; save it as UTF-8 without one"
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is in UTF-16; save it as UTF-8 without a byte order mark",
        [0x1f, 0x8b, ..] => "is compressed; `zcat FILE | batchd submit -` sends what is in it",
        [b'P', b'K', 3, 4, ..] => "is a zip archive; submit what is in it",
        [b'[', ..] => "is one JSON array, not one JSON object a line; `jq -c '.[]' FILE` makes lines of it",
        _ => return None,
    };
    Some(what.to_owned())
}

/// What is wrong with a line that is not JSON.
fn not_json(error: &serde_json::Error, is_last: bool) -> String {
    if error.is_eof() {
        let cut = if is_last { ": the file is cut off, or still being written" } else { "" };
        return format!("ends in the middle of a JSON object{cut}");
    }
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    if error.is_data() {
        return what.to_owned();
    }
    format!("is not JSON: {what} (column {})", error.column())
}

/// A text of the file, short enough to be shown.
fn shown(text: &str) -> String {
    let text = super::answer::shorten(text);
    if text.chars().nth(60).is_some() { text.chars().take(60).chain(['…']).collect() } else { text }
}

/// `a`, `b` or `c`.
fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// It bounds the memory: a line that is translated is held three times for a moment. No service takes a longer one.
const MAX_LINE: usize = 64 << 20;
/// What a line may keep of memory once it is over.
const USUAL_LINE: usize = 1 << 20;
/// The most that is read of a file, which bounds the memory for the ids.
const MOST_REQUESTS: u64 = 4_000_000;
