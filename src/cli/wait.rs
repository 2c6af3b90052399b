//! `batchd wait`: blocks until batches have ended; its exit code says how.

use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow, pause};
use super::ids::{self, parse_id};
use super::source::Extent;
use super::view::{BatchView, EventView, columns};
use super::{Context, interrupted};
use crate::control::api::{ErrorCode, TrackItem};
use crate::control::client::Client;
use crate::control::client_error::ClientError;
use crate::domain::batch::BatchErrors;
use crate::domain::duration::{self, human};
use crate::domain::outcome::Outcome;
use crate::domain::printable::clean;
use crate::domain::status::Status;
use crate::domain::time::since;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;
use unicode_width::UnicodeWidthStr;

/// Block until batches have ended; the exit code says how
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  batchd wait batch_68fd8e2f1c0c8190 && python evaluate.py
  batchd wait --any --timeout 2h anthropic:msgbatch_01Hkc batch_68fd8e2f

Exit codes:
  0    completed; with a warning if some requests failed
  3    failed, or every request failed; with --strict, any
  4    expired
  5    cancelled
  124  timed out
With several batches the first of these that applies is used: 66 (no provider
knows the id), 77 (key refused), 3, 4, 5, 124.
The daemon may restart meanwhile.
Interrupted with Ctrl-C, it ends with 130.")]
pub struct Arguments {
    /// Ids, also as PROVIDER:ID; a batch that is not tracked yet is tracked
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<String>,
    /// Return when the first of them has ended
    #[arg(long)]
    any: bool,
    /// A batch with failed requests counts as failed
    #[arg(long)]
    strict: bool,
    /// Give up after this long, such as 2h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print the ended batches as one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(mut arguments: Arguments, context: &mut Context) -> Result<Exit, Error> {
    arguments.ids = ids::every(&arguments.ids, &mut context.ui)?;
    let client = context.client().await?;
    let began = Instant::now();
    // The end of the log before the first check: what happens after that check is in the stream.
    let after = client.status().await?.events;
    let mut waiting = Waiting::new(&arguments, &client);
    let mut stop = pin!(interrupted());

    let deadline = arguments.timeout.map(|timeout| began + timeout);
    // The first check happens even with a timeout of 0.
    let first_check = deadline.map(|deadline| deadline.max(began + FIRST_CHECK_TIMEOUT));
    let end = tokio::select! {
        () = waiting.check_all(context) => End::Done,
        () = until(first_check) => End::TimedOut,
        () = &mut stop => End::Interrupted,
    };
    let end = match end {
        End::Done if !waiting.is_over() => tokio::select! {
            biased;
            done = waiting.follow(after, context) => done.map(|()| End::Done)?,
            () = until(deadline) => End::TimedOut,
            () = &mut stop => End::Interrupted,
        },
        end => end,
    };

    context.ui.clear_progress();
    if arguments.json {
        let mut list = context.ui.json_list();
        for batch in waiting.items.iter().filter_map(Item::ended) {
            list.entry(&mut context.ui, batch);
        }
        let ids: Vec<&str> =
            waiting.items.iter().filter_map(Item::ended).map(|batch| BatchView(batch).id()).collect();
        list.end(&mut context.ui, &Extent::whole(&ids));
    }
    let live = waiting.items.iter().filter(|item| item.is_live()).count();
    match end {
        End::Interrupted => {
            context.ui.note("Interrupted. The daemon is still watching; run wait again.");
            return Ok(Exit::Interrupted);
        }
        End::TimedOut if live > 0 => {
            let timeout = arguments.timeout.unwrap_or_default();
            let (batches, have) = if live == 1 { ("batch", "has") } else { ("batches", "have") };
            context.ui.error(&Error::new(
                Exit::TimedOut,
                format!("{live} {batches} {have} not ended within {}", human(timeout)),
            ));
        }
        End::TimedOut | End::Done => {}
    }
    let fates: Vec<Fate> = waiting.items.iter().map(|item| item.fate(arguments.strict)).collect();
    Ok(conclusion(&fates, matches!(end, End::TimedOut)))
}

/// What became of one of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It could not be waited for.
    Trouble(Exit),
    /// It has ended, so.
    Ended(Exit),
    /// It has not ended.
    Live,
}

/// The exit code of one batch that has ended (`docs/contract.md#exit-codes`).
pub fn verdict(status: Status, outcome: Option<Outcome>, strict: bool) -> Exit {
    match outcome {
        Some(Outcome::Partial) if strict => Exit::BatchFailed,
        Some(Outcome::Succeeded | Outcome::Partial) => Exit::Ok,
        Some(Outcome::AllFailed | Outcome::Failed) => Exit::BatchFailed,
        Some(Outcome::Expired | Outcome::ExpiredWithOutput) => Exit::BatchExpired,
        Some(Outcome::Cancelled | Outcome::CancelledWithOutput) => Exit::BatchCancelled,
        // A word of a later daemon: the status is what there is.
        None => match status {
            Status::Failed => Exit::BatchFailed,
            Status::Expired => Exit::BatchExpired,
            Status::Cancelled => Exit::BatchCancelled,
            _ => Exit::Ok,
        },
    }
}

/// The exit code of the whole: the first that could not be waited for, else the worst end.
pub fn conclusion(fates: &[Fate], timed_out: bool) -> Exit {
    let trouble = fates.iter().find_map(|fate| match fate {
        Fate::Trouble(exit) => Some(*exit),
        Fate::Ended(_) | Fate::Live => None,
    });
    if let Some(exit) = trouble {
        return exit;
    }
    let worst = [Exit::BatchFailed, Exit::BatchExpired, Exit::BatchCancelled]
        .into_iter()
        .find(|exit| fates.contains(&Fate::Ended(*exit)));
    let late = timed_out && fates.contains(&Fate::Live);
    worst.unwrap_or(if late { Exit::TimedOut } else { Exit::Ok })
}

enum End {
    Done,
    TimedOut,
    Interrupted,
}

/// One of the batches that are waited for.
struct Item {
    /// As it was given.
    given: String,
    state: State,
}

enum State {
    Unseen,
    Live(Value),
    Ended(Value),
    Trouble(Exit),
}

struct Waiting<'a> {
    arguments: &'a Arguments,
    client: &'a Client,
    items: Vec<Item>,
    /// Widths of provider and id in what is printed.
    widths: (usize, usize),
    /// Those that have been reported as lost.
    lost: Vec<String>,
}

impl<'a> Waiting<'a> {
    fn new(arguments: &'a Arguments, client: &'a Client) -> Self {
        let mut items: Vec<Item> = Vec::with_capacity(arguments.ids.len());
        for id in &arguments.ids {
            if !items.iter().any(|item| item.given == *id) {
                items.push(Item { given: id.clone(), state: State::Unseen });
            }
        }
        Self { arguments, client, items, widths: (0, 0), lost: Vec::new() }
    }

    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        let mut live = self.items.iter().filter(|item| item.is_live());
        live.next().is_none() || self.arguments.any && self.items.iter().any(|item| item.ended().is_some())
    }

    /// Checks each for the first time; tracks what is not tracked.
    async fn check_all(&mut self, context: &mut Context) {
        let client = self.client;
        let ids: Vec<String> = self.items.iter().map(|item| item.given.clone()).collect();
        let checks =
            stream::iter(ids).map(|id| async move { patiently(async || first(client, &id).await).await });
        let mut checks = pin!(checks.buffered(MAX_REQUESTS));
        let mut seen = Vec::with_capacity(self.items.len());
        while let Some(check) = checks.next().await {
            seen.push(check);
        }
        let found = seen.iter().filter_map(|check| check.as_ref().ok()).map(BatchView);
        self.widths = found.fold((0, 0), |(provider, id), batch| {
            (provider.max(clean(batch.provider()).width()), id.max(clean(batch.id()).width()))
        });
        for (place, check) in seen.into_iter().enumerate() {
            self.learn(place, check, context);
        }
    }

    /// Follows the events, and checks again from time to time whatever they say.
    async fn follow(&mut self, after: i64, context: &mut Context) -> Result<(), Error> {
        let mut events = pin!(follow(self.client.clone(), after));
        let mut again = tokio::time::interval(self.interval(context));
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        again.tick().await;
        while !self.is_over() {
            self.progress(context);
            tokio::select! {
                followed = events.next() => match followed {
                    Some(Followed::Event(event)) => self.hear(&event, context),
                    Some(Followed::Away(error)) => {
                        context.ui.note(&format!("{error}; waiting continues when it is back"));
                    }
                    Some(Followed::Back { announced }) => {
                        if announced {
                            context.ui.note("the daemon is back");
                        }
                        self.check_again(context).await;
                    }
                    Some(Followed::Reset(_)) => self.check_again(context).await,
                    Some(Followed::Refused(error)) => return Err(error.into()),
                    None => return Err(Error::new(Exit::Internal, "the event log can no longer be followed")),
                },
                _ = again.tick() => self.check_again(context).await,
            }
        }
        Ok(())
    }

    /// On a terminal progress is shown, which makes no events.
    fn interval(&self, context: &Context) -> Duration {
        let watched = context.ui.style().terminal && self.items.len() <= MAX_REQUESTS;
        if watched { WATCHED_INTERVAL } else { UNWATCHED_INTERVAL }
    }

    fn hear(&mut self, event: &Value, context: &mut Context) {
        let event = EventView(event);
        let Some(batch) = event.batch() else { return };
        let heard = |item: &Item| match &item.state {
            State::Live(known) => {
                let known = BatchView(known);
                // A submission has become a batch since it was seen last.
                let became = BatchView(batch.0).added("submission").as_str() == Some(known.id());
                event.key() == Some((known.provider(), known.id()))
                    || became && BatchView(batch.0).provider() == known.provider()
            }
            State::Unseen | State::Ended(_) | State::Trouble(_) => false,
        };
        let places: Vec<usize> = (0..self.items.len()).filter(|&place| heard(&self.items[place])).collect();
        for place in places {
            self.learn(place, Ok(batch.0.clone()), context);
        }
    }

    async fn check_again(&mut self, context: &mut Context) {
        let client = self.client;
        let live = self.items.iter().enumerate().filter_map(|(place, item)| match &item.state {
            State::Live(batch) => Some((place, BatchView(batch).key())),
            State::Unseen | State::Ended(_) | State::Trouble(_) => None,
        });
        let checks = stream::iter(live.collect::<Vec<_>>())
            .map(|(place, key)| async move { (place, client.batch(&key, false).await) });
        let checks: Vec<_> = checks.buffered(MAX_REQUESTS).collect().await;
        for (place, check) in checks {
            match check {
                // The stream of events says that the daemon is away, once.
                Err(error) if error.is_outage() => {}
                Ok(batch) if is_untracked(&batch) => {
                    let gone = Error::new(Exit::Failed, "it was untracked meanwhile");
                    self.trouble(place, gone, context);
                }
                check => self.learn(place, check, context),
            }
            if self.is_over() {
                break;
            }
        }
    }

    /// Takes in what a check found, and reports the batch's end.
    fn learn(&mut self, place: usize, check: Result<Value, ClientError>, context: &mut Context) {
        let batch = match check {
            Ok(batch) => batch,
            Err(error) => return self.trouble(place, error.into(), context),
        };
        let view = BatchView(&batch);
        if !view.is_over() {
            if view.added("lost") == true && !self.lost.contains(&view.key()) {
                context.ui.warn(&format!("{}: its provider no longer knows it; still waiting", view.key()));
                self.lost.push(view.key());
            }
            self.items[place].state = State::Live(batch);
            return;
        }
        if self.arguments.any && self.items.iter().any(|item| item.ended().is_some()) {
            // The first one's end is what was asked for.
            self.items[place].state = State::Live(batch);
            return;
        }
        if !self.arguments.json {
            let cells = [
                (clean(view.provider()), self.widths.0),
                (clean(view.id()), self.widths.1),
                (clean(view.status()), "in_progress".len()),
                (clean(view.outcome().unwrap_or_default()), 0),
            ];
            let cells: Vec<(&str, usize)> =
                cells.iter().map(|(text, width)| (text.as_ref(), *width)).collect();
            context.ui.line(columns(&cells).trim_end());
            context.ui.flush();
        }
        if view.status() == Status::Failed.as_str() {
            let errors: Option<BatchErrors> = serde_json::from_value(view.field("errors").clone()).ok();
            for error in errors.iter().flat_map(|errors| &errors.data).take(MAX_ERRORS) {
                context.ui.warn(&format!("{}: {error}", view.key()));
            }
        }
        if outcome(view) == Some(Outcome::Partial) {
            // Where an error file has more than the counts say, the counts do not know how many.
            let failed = view.counts().filter(|counts| counts.failed > 0).map_or_else(
                || "some requests failed; `batchd results --errors` prints them".to_owned(),
                |counts| format!("{} of {} requests failed", counts.failed, counts.total),
            );
            context.ui.warn(&format!("{}: {failed}", view.key()));
        }
        self.items[place].state = State::Ended(batch);
    }

    fn trouble(&mut self, place: usize, error: Error, context: &mut Context) {
        let item = &mut self.items[place];
        let error = error.about(&item.given);
        context.ui.error(&error);
        item.state = State::Trouble(error.kind);
    }

    fn progress(&self, context: &mut Context) {
        let live: Vec<BatchView<'_>> = self.items.iter().filter_map(Item::live).collect();
        let Some(&first) = live.first() else { return };
        let mut text = if live.len() == 1 {
            let mut text = format!("{}  {}", clean(&first.key()), clean(first.status()));
            let progress = first.progress();
            if !progress.is_empty() {
                let _ = write!(text, "  {progress}");
            }
            text
        } else {
            let counted = live.iter().filter(|batch| !batch.is_uncounted());
            let all = counted.filter_map(|batch| batch.counts());
            let (done, total) =
                all.fold((0, 0), |(done, total), counts| (done + counts.done(), total + counts.total));
            let mut text = format!("{} of {} batches still running", live.len(), self.items.len());
            if total > 0 {
                let _ = write!(text, "  {done}/{total} requests");
            }
            text
        };
        let last = live.iter().filter_map(|batch| batch.time("eta")).max();
        let left = last.map(|eta| since(context.clock.now(), eta)).filter(|left| !left.is_zero());
        if let Some(left) = left {
            let _ = write!(text, "  about {} left", human(left));
        }
        context.ui.progress(&text);
    }
}

impl Item {
    fn is_live(&self) -> bool {
        matches!(self.state, State::Unseen | State::Live(_))
    }

    fn live(&self) -> Option<BatchView<'_>> {
        match &self.state {
            State::Live(batch) => Some(BatchView(batch)),
            State::Unseen | State::Ended(_) | State::Trouble(_) => None,
        }
    }

    fn ended(&self) -> Option<&Value> {
        match &self.state {
            State::Ended(batch) => Some(batch),
            State::Unseen | State::Live(_) | State::Trouble(_) => None,
        }
    }

    fn fate(&self, strict: bool) -> Fate {
        match &self.state {
            State::Unseen | State::Live(_) => Fate::Live,
            State::Trouble(exit) => Fate::Trouble(*exit),
            State::Ended(batch) => {
                let view = BatchView(batch);
                let status = view.status().parse().unwrap_or(Status::Completed);
                Fate::Ended(verdict(status, outcome(view), strict))
            }
        }
    }
}

fn outcome(batch: BatchView<'_>) -> Option<Outcome> {
    serde_json::from_value(batch.added("outcome").clone()).ok()
}

fn is_untracked(batch: &Value) -> bool {
    !BatchView(batch).is_over() && !BatchView(batch).added("untracked_at").is_null()
}

/// A tracked batch as it stands; one that is not tracked, or not any more, is tracked by this.
async fn first(client: &Client, id: &str) -> Result<Value, ClientError> {
    let item = TrackItem { id: id.to_owned(), ..TrackItem::default() };
    match client.batch(id, false).await {
        Ok(batch) if !is_untracked(&batch) => Ok(batch),
        Ok(_) => client.track(&item).await,
        Err(error) if error.code() == Some(ErrorCode::BatchNotFound) => client.track(&item).await,
        Err(error) => Err(error),
    }
}

/// Tries until the daemon is there.
async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let mut failures = 0;
    loop {
        match work().await {
            Err(error) if error.is_outage() => {
                failures += 1;
                tokio::time::sleep(pause(failures)).await;
            }
            done => return done,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How many of a failed batch's errors are shown.
const MAX_ERRORS: usize = 3;
/// How long the first check may take whatever the timeout.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once.
const MAX_REQUESTS: usize = 8;
/// How often batches are checked again where somebody watches the progress …
const WATCHED_INTERVAL: Duration = Duration::from_secs(5);
/// … and where nobody does.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_end_has_its_code() {
        let completed = |outcome, strict| verdict(Status::Completed, Some(outcome), strict);
        for strict in [false, true] {
            assert_eq!(completed(Outcome::Succeeded, strict), Exit::Ok);
            assert_eq!(completed(Outcome::AllFailed, strict), Exit::BatchFailed);
            assert_eq!(verdict(Status::Failed, Some(Outcome::Failed), strict), Exit::BatchFailed);
            assert_eq!(
                verdict(Status::Expired, Some(Outcome::ExpiredWithOutput), strict),
                Exit::BatchExpired
            );
            assert_eq!(
                verdict(Status::Cancelled, Some(Outcome::CancelledWithOutput), strict),
                Exit::BatchCancelled
            );
            assert_eq!(verdict(Status::Cancelled, None, strict), Exit::BatchCancelled);
        }
        assert_eq!(completed(Outcome::Partial, false), Exit::Ok);
        assert_eq!(completed(Outcome::Partial, true), Exit::BatchFailed);
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop::sample::select(vec![
            Fate::Live,
            Fate::Ended(Exit::Ok),
            Fate::Ended(Exit::BatchFailed),
            Fate::Ended(Exit::BatchExpired),
            Fate::Ended(Exit::BatchCancelled),
            Fate::Trouble(Exit::NoSuchBatch),
            Fate::Trouble(Exit::Refused),
        ])
    }

    proptest! {
        #[test]
        fn the_whole_is_the_first_trouble_or_the_worst_end(fates in prop::collection::vec(fate(), 0..6), timed_out: bool) {
            let exit = conclusion(&fates, timed_out);
            let first = fates.iter().find(|fate| matches!(fate, Fate::Trouble(_)));
            if let Some(Fate::Trouble(first)) = first {
                prop_assert_eq!(exit, *first);
            } else {
                let order = [3, 4, 5, 124, 0];
                let rank = |code: u8| order.iter().position(|each| *each == code).unwrap();
                for fate in &fates {
                    let code = match fate {
                        Fate::Ended(end) => end.code(),
                        Fate::Live if timed_out => 124,
                        _ => 0,
                    };
                    prop_assert!(rank(exit.code()) <= rank(code));
                }
                prop_assert!(exit == Exit::Ok || exit == Exit::TimedOut && timed_out || fates.contains(&Fate::Ended(exit)));
            }
        }
    }
}
