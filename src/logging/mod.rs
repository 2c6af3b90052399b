//! The log: one line a record on stderr, readable on a terminal, with priorities under journald, JSON on request.

mod line;
mod queue;
mod recurring;

use crate::clock::Clock;
use line::{Fields, Line, Shape, stamp};
use queue::Queue;
pub use recurring::Recurring;
use std::io::IsTerminal;
use std::time::Duration;
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

const CHATTY: &str = "tokio_cron_scheduler";

const CAPPED: [&str; 6] = ["hyper", "reqwest", "rustls", "h2", "tokio_util::codec", "aws_"];

#[cfg(test)]
mod tests {
    use super::*;
    use queue::Order;
    use std::sync::mpsc::sync_channel;
    use std::sync::{Arc, Mutex};

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
                "{\"timestamp\":\"2026-11-18T11:06:40.000Z\",\"level\":\"info\",\"target\":\"batchd::logging::tests\",\"message\":\"a\\nb\",\"level_\":\"x\",\"n\":1.5}\n"
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
}
