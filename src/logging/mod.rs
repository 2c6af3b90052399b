//! The log: one line a record on stderr, readable on a terminal, with priorities under journald, JSON on request.

use super::ui::clean;
use crate::clock::Clock;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text; with journald's priorities where stderr is the journal.
    #[default]
    Auto,
    /// Text with times, whatever stderr is.
    Text,
    /// A JSON object a line.
    Json,
}

/// Reads a format's word; completions know the words.
pub fn parse_format() -> impl clap::builder::TypedValueParser<Value = Format> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(["auto", "text", "json"]).map(|word| match word.as_str() {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => Format::Auto,
    })
}

/// Keeps the log running; what is still to be written is written when it is dropped, within a second.
#[derive(Debug)]
#[must_use = "the log ends where this is dropped"]
pub struct Guard {
    queue: Queue,
}

/// Starts the log of this process.
///
/// `level` is what is told unless `RUST_LOG` says otherwise. Writing never waits for stderr: where its reader is
/// stuck, records are dropped, counted, and the count is written when it reads again.
pub fn init(format: Format, level: LevelFilter) -> Guard {
    let under_journal = is_journal();
    let terminal = std::io::stderr().is_terminal();
    let shape = Shape {
        json: format == Format::Json,
        priorities: under_journal && format != Format::Text,
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        targets: level >= LevelFilter::DEBUG,
    };
    let clock = Clock::system();
    let now = clock.clone();
    let queue = Queue::start(std::io::stderr(), move |count| shape.notice(count, &now));
    let layer = Lines { shape, clock, queue: queue.clone() };
    let directives = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let (filter, complaint) = match directives.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::default().add_directive(level.into()), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::default().add_directive(level.into()), Some(error.to_string())),
    };
    let capped = tracing_subscriber::filter::filter_fn(|metadata| !is_capped(metadata));
    // A second log in one process (a test's) is the first one's guest.
    let _ = tracing_subscriber::registry().with(layer.with_filter(capped)).with(filter).try_init();
    if let Some(complaint) = complaint {
        tracing::warn!(error = complaint, "RUST_LOG makes no sense and is ignored");
    }
    log_panics();
    Guard { queue }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.drain(Duration::from_secs(1));
    }
}

/// A panic is one record, so that it too is one line.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.payload().downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(place, %backtrace, "panicked: {message}");
        } else {
            tracing::error!(place, "panicked: {message}");
        }
    }));
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent properties of a line")]
struct Shape {
    json: bool,
    /// journald's `<N>` first; it has the time itself.
    priorities: bool,
    colour: bool,
    targets: bool,
}

/// One record with the fields of the spans around it.
#[derive(Debug)]
struct Line<'a> {
    at: String,
    level: Level,
    target: &'a str,
    fields: Fields,
}

/// Fields in the order in which they were given; the message apart.
#[derive(Clone, Debug, Default)]
struct Fields {
    message: String,
    pairs: Vec<(String, Value)>,
}

impl Shape {
    /// The record that says how many are missing.
    fn notice(self, count: u64, clock: &Clock) -> String {
        let message = "log records were dropped because stderr was not read".to_owned();
        let fields = Fields { message, pairs: vec![("dropped".to_owned(), count.into())] };
        self.render(&Line { at: stamp(clock), level: Level::WARN, target: module_path!(), fields })
    }

    fn render(self, line: &Line<'_>) -> String {
        let mut text = String::new();
        if self.priorities {
            let _ = write!(text, "<{}>", priority(line.level));
        }
        if self.json {
            Self::render_json(line, &mut text);
        } else {
            self.render_text(line, &mut text);
        }
        text.push('\n');
        text
    }

    fn render_json(line: &Line<'_>, text: &mut String) {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), line.at.as_str().into());
        object.insert("level".to_owned(), line.level.as_str().to_ascii_lowercase().into());
        object.insert("target".to_owned(), line.target.into());
        object.insert("message".to_owned(), line.fields.message.as_str().into());
        for (name, value) in &line.fields.pairs {
            // A field never hides what every record has.
            let mut name = name.clone();
            while object.contains_key(&name) {
                name.push('_');
            }
            object.insert(name, value.clone());
        }
        text.push_str(&Value::Object(object).to_string());
    }

    fn render_text(self, line: &Line<'_>, text: &mut String) {
        let paint = |code: &str, part: &str| {
            if self.colour { format!("\x1b[{code}m{part}\x1b[0m") } else { part.to_owned() }
        };
        if !self.priorities {
            let level = paint(colour_of(line.level), &format!("{:>5}", line.level.as_str()));
            let _ = write!(text, "{} {level} ", paint("2", &line.at));
        }
        if self.targets {
            let _ = write!(text, "{} ", paint("2", &format!("{}:", line.target)));
        }
        text.push_str(&clean(&line.fields.message));
        for (name, value) in &line.fields.pairs {
            let value = match value {
                Value::String(word) if is_plain(word) => word.clone(),
                Value::String(words) => quoted(words),
                other => other.to_string(),
            };
            let _ = write!(text, " {}{value}", paint("2", &format!("{}=", clean(name))));
        }
    }
}

/// Turns records into lines and puts them into the queue.
struct Lines {
    shape: Shape,
    clock: Clock,
    queue: Queue,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                for (name, value) in &outer.pairs {
                    if !fields.pairs.iter().any(|(own, _)| own == name) {
                        fields.pairs.push((name.clone(), value.clone()));
                    }
                }
            }
        }
        let metadata = event.metadata();
        let line =
            Line { at: stamp(&self.clock), level: *metadata.level(), target: metadata.target(), fields };
        self.queue.put(self.shape.render(&line));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| error.source());
        self.add(field, causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").into());
    }
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        } else if let Some((_, old)) = self.pairs.iter_mut().find(|(name, _)| name == field.name()) {
            *old = value;
        } else {
            self.pairs.push((field.name().to_owned(), value));
        }
    }
}

/// Lines on their way to stderr; a thread of its own writes them.
#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
    /// The writer's answer to [`Order::Drain`].
    drained: Arc<Mutex<Receiver<()>>>,
}

#[derive(Debug)]
enum Order {
    Write(String),
    Drain,
}

impl Queue {
    fn start(mut to: impl Write + Send + 'static, notice: impl Fn(u64) -> String + Send + 'static) -> Self {
        let (lines, orders) = sync_channel::<Order>(CAPACITY);
        let (done, drained) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let missing = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                while let Ok(order) = orders.recv() {
                    match order {
                        Order::Write(line) => {
                            let _ = to.write_all(line.as_bytes());
                        }
                        Order::Drain => {
                            let _ = done.try_send(());
                        }
                    }
                    let count = missing.swap(0, Ordering::Relaxed);
                    if count > 0 {
                        let _ = to.write_all(notice(count).as_bytes());
                    }
                }
            })
            // Without the thread the queue is closed and `put` writes nothing: a daemon without a log still works.
            .ok();
        Self { lines, dropped, drained: Arc::new(Mutex::new(drained)) }
    }

    fn put(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Order::Write(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was put is written, but no longer than `limit`.
    fn drain(&self, limit: Duration) {
        let drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        // A full queue takes no order yet; nothing is received on the way there, so this waits.
        for _ in 0..100 {
            if self.lines.try_send(Order::Drain).is_ok() {
                break;
            }
            let _ = drained.recv_timeout(limit / 100);
        }
        let _ = drained.recv_timeout(limit);
    }
}

/// Records that are not wanted whatever `RUST_LOG` says: of libraries that would log headers, and with them keys,
/// below `INFO`; of one that tells its own doings as news, below `WARN`.
fn is_capped(metadata: &Metadata<'_>) -> bool {
    let level = *metadata.level();
    let of = |prefix: &str| metadata.target().starts_with(prefix);
    level > Level::INFO && CAPPED.into_iter().any(of) || level > Level::WARN && of(CHATTY)
}

/// Whether stderr is the journal: `JOURNAL_STREAM` names its device and inode.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

fn stamp(clock: &Clock) -> String {
    format!("{:.3}", clock.now())
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && !word
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control() || matches!(letter, '"' | '=' | '\\'))
}

fn quoted(words: &str) -> String {
    let escaped = words.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", clean(&escaped))
}

const CHATTY: &str = "tokio_cron_scheduler";

const CAPPED: [&str; 6] = ["hyper", "reqwest", "rustls", "h2", "tokio_util::codec", "aws_"];

/// Lines that may wait for a reader that is slow.
const CAPACITY: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Runs `work` with a log of this shape and returns the lines.
    fn logged(shape: Shape, work: impl FnOnce()) -> Vec<String> {
        let (sender, lines) = sync_channel(64);
        let queue = Queue {
            lines: sender,
            dropped: Arc::default(),
            drained: Arc::new(Mutex::new(sync_channel(1).1)),
        };
        let clock = Clock::simulated(jiff::Timestamp::constant(1_795_000_000, 0));
        let capped = tracing_subscriber::filter::filter_fn(|metadata| !is_capped(metadata));
        let layer = Lines { shape, clock, queue };
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(capped));
        tracing::subscriber::with_default(subscriber, work);
        lines
            .try_iter()
            .map(|order| match order {
                Order::Write(line) => line,
                Order::Drain => String::new(),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_one_line_with_all_of_its_fields() {
        let lines = logged(Shape::default(), || {
            let span = tracing::info_span!("poll", provider = "openai", batch = "batch_1");
            let _inside = span.enter();
            tracing::info!(status = "in_progress", done = 7, late = %"3 s", empty = "", "polled");
            tracing::warn!(batch = "batch_2", "two\nlines \x1b[2J and \"quotes\"");
            tracing::error!(error = &std::io::Error::other("a\nb") as &dyn std::error::Error, "failed");
        });
        assert_eq!(
            lines,
            [
                "2026-11-18T11:06:40.000Z  INFO polled status=in_progress done=7 late=\"3 s\" empty=\"\" provider=openai batch=batch_1\n",
                "2026-11-18T11:06:40.000Z  WARN two\\nlines \\u{1b}[2J and \"quotes\" batch=batch_2 provider=openai\n",
                "2026-11-18T11:06:40.000Z ERROR failed error=\"a\\nb\" provider=openai batch=batch_1\n",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_journal_gets_priorities_and_no_times() {
        let shape = Shape { priorities: true, ..Shape::default() };
        let lines = logged(shape, || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!(a = true, "i");
            tracing::debug!("d");
        });
        assert_eq!(lines, ["<3>e\n", "<4>w\n", "<6>i a=true\n", "<7>d\n"]);
    }

    #[tokio::test(start_paused = true)]
    async fn json_is_an_object_a_line() {
        let shape = Shape { json: true, ..Shape::default() };
        let lines = logged(shape, || tracing::info!(level = "x", n = 1.5, "a\nb"));
        assert_eq!(
            lines,
            [
                "{\"timestamp\":\"2026-11-18T11:06:40.000Z\",\"level\":\"info\",\"target\":\"batchd::cli::logging::tests\",\"message\":\"a\\nb\",\"level_\":\"x\",\"n\":1.5}\n"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn libraries_that_see_keys_are_capped() {
        let lines = logged(Shape::default(), || {
            tracing::debug!(target: "hyper_util::client", "authorization: Bearer x");
            tracing::trace!(target: "h2::codec", "headers");
            tracing::debug!(target: "aws_smithy_runtime::client", "x-amz-security-token: x");
            tracing::info!(target: "tokio_cron_scheduler::job", "Job creator created");
            tracing::info!(target: "reqwest", "fine");
            tracing::trace!(target: "batchd", "fine");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    /// A reader that is stuck until it is let go.
    struct Stuck {
        go: Receiver<()>,
        held: bool,
        written: Arc<Mutex<String>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if std::mem::take(&mut self.held) {
                let _ = self.go.recv();
            }
            self.written.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn f14_a_stuck_reader_costs_records_and_never_blocks() {
        let (go, stuck) = channel();
        let written = Arc::new(Mutex::new(String::new()));
        let reader = Stuck { go: stuck, held: true, written: Arc::clone(&written) };
        let queue = Queue::start(reader, |count| format!("{count} dropped\n"));
        for number in 0..CAPACITY + 100 {
            queue.put(format!("{number}\n"));
        }
        assert!(queue.dropped.load(Ordering::Relaxed) >= 99);
        go.send(()).unwrap();
        while queue.lines.try_send(Order::Drain).is_err() {
            std::thread::yield_now();
        }
        queue.drained.lock().unwrap().recv().unwrap();
        let written = written.lock().unwrap();
        assert!(written.contains(" dropped\n"), "{}", written.len());
        assert!(written.contains("\n8000\n"));
    }
}
