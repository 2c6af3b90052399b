//! `batchd list --watch` on a terminal: a live screen with arrows, a filter, details, and what can be done to a batch.

use super::error::Error;
use super::exit::Exit;
use super::follow::{Followed, follow};
use super::keyboard::{Key, Keyboard};
use super::list_columns::{self, Sort, table};
use super::quantity::of;
use super::show::page;
use super::source::{Source, every};
use super::style::{Style, Tone};
use super::table::{shorten, shorten_middle};
use super::view::BatchView;
use super::{Context, interrupted};
use crate::control::client::{Client, Query};
use crate::domain::printable::clean;
use crate::domain::time::since;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

/// What is watched.
pub struct Watched<'a> {
    pub client: Client,
    pub query: Query,
    pub keys: &'a [list_columns::Key],
    pub sort: Option<Sort>,
    pub limit: Option<u64>,
}

/// Shows the list until somebody ends it.
pub async fn run(watched: &Watched<'_>, context: &mut Context) -> Result<Exit, Error> {
    let after = watched.client.status().await?.events;
    let mut events = pin!(follow(watched.client.clone(), after));
    let mut clock = tokio::time::interval(REDRAW_INTERVAL);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
        .map_err(|error| Error::io("signals", &error))?;
    let mut stop = pin!(interrupted());
    let mut screen = Screen::default();
    // Dropped at the end of this function, whatever ends it: then the terminal is as it was.
    let mut keyboard = Keyboard::take()?;
    let mut action: Option<BoxFuture<'static, String>> = None;
    let mut stale = true;
    loop {
        if std::mem::take(&mut stale) {
            let read = read(watched, &screen.filter);
            tokio::select! {
                () = &mut stop => return Ok(Exit::Ok),
                read = read => match read {
                    Ok((batches, more)) => screen.take(watched, batches, more, context.clock.now()).await,
                    Err(error) if error.kind == Exit::Unreachable => {
                        screen.trouble = Some(format!("{}; trying again", error.message));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        screen.draw(watched, context);
        if !context.ui.is_open() {
            return Ok(Exit::Ok);
        }
        let acted = async {
            match &mut action {
                Some(action) => action.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut stop => return Ok(Exit::Ok),
            _ = clock.tick() => stale = true,
            _ = resized.recv() => {}
            said = acted => {
                screen.message = Some(said);
                action = None;
                stale = true;
            }
            followed = events.next() => match followed {
                Some(Followed::Refused(error)) => return Err(error.into()),
                Some(Followed::Away(error)) => screen.trouble = Some(format!("{error}; trying again")),
                _ => stale = true,
            },
            key = keyboard.next() => match screen.press(key) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(Exit::Ok),
                Wish::Read => stale = true,
                wish if action.is_some() => {
                    let _ = wish;
                    screen.message = Some("one thing at a time: the last one is still under way".to_owned());
                }
                Wish::Details(id) => match watched.client.batch(&id, true).await {
                    Ok(batch) => screen.mode = Mode::Details { batch: Box::new(batch), top: 0 },
                    Err(error) => screen.message = Some(error.to_string()),
                },
                Wish::Poll(id) => action = Some(poll(watched.client.clone(), id).boxed()),
                Wish::Cancel(id) => action = Some(cancel(watched.client.clone(), id).boxed()),
                Wish::Retry(id) => action = Some(retry(watched.client.clone(), id).boxed()),
            },
        }
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit,
    Read,
    Details(String),
    Poll(String),
    Cancel(String),
    Retry(String),
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    List,
    /// The filter is being written.
    Filter,
    /// Whether the batch of this key, known by this name, is to be cancelled is asked.
    Cancel(String, String),
    Details {
        batch: Box<Value>,
        /// The first line that is shown.
        top: usize,
    },
}

/// What the screen shows.
#[derive(Debug, Default)]
struct Screen {
    /// As listed, then those that have ended since.
    batches: Vec<Value>,
    /// Those that have ended while they were watched, with when that was seen.
    ended: Vec<(Timestamp, Value)>,
    more: bool,
    selected: usize,
    /// The first row that is shown.
    top: usize,
    filter: String,
    mode: Mode,
    message: Option<String>,
    trouble: Option<String>,
}

impl Screen {
    /// Takes in a new list; what is not in it any more is looked up, for how it has ended is news.
    async fn take(&mut self, watched: &Watched<'_>, listed: Vec<Value>, more: bool, now: Timestamp) {
        self.trouble = None;
        let key = |batch: &Value| BatchView(batch).key();
        let selected = self.batches.get(self.selected).map(key);
        let is_listed = |batch: &Value| listed.iter().any(|other| key(other) == key(batch));
        for before in &self.batches {
            let known = self.ended.iter().any(|(_, ended)| key(ended) == key(before));
            if known || is_listed(before) || BatchView(before).is_over() {
                continue;
            }
            if let Ok(batch) = watched.client.batch(&key(before), false).await
                && BatchView(&batch).is_over()
            {
                self.ended.push((now, batch));
            }
        }
        self.ended.retain(|(at, batch)| since(*at, now) < STAYS && !is_listed(batch));
        let filter = self.filter.to_lowercase();
        let fits = |batch: &Value| {
            let view = BatchView(batch);
            let name = view.added("name").as_str().unwrap_or_default();
            filter.is_empty() || [view.id(), name].iter().any(|text| text.to_lowercase().contains(&filter))
        };
        let ended = self.ended.iter().rev().map(|(_, batch)| batch).filter(|batch| fits(batch)).cloned();
        self.batches = ended.chain(listed).collect();
        if let Some(sort) = watched.sort {
            sort.sort(&mut self.batches, now);
        }
        self.more = more;
        // The same batch stays selected wherever it now stands.
        let place = self.batches.iter().position(|batch| Some(key(batch)) == selected);
        self.selected = place.unwrap_or(self.selected).min(self.batches.len().saturating_sub(1));
    }

    fn press(&mut self, key: Key) -> Wish {
        if key == Key::Interrupt {
            return Wish::Quit;
        }
        self.message = None;
        match std::mem::take(&mut self.mode) {
            Mode::List => self.press_list(key),
            Mode::Filter => {
                match key {
                    Key::Enter => return Wish::Read,
                    Key::Escape => self.filter.clear(),
                    Key::Backspace => {
                        self.filter.pop();
                        self.mode = Mode::Filter;
                    }
                    Key::Letter(letter) => {
                        self.filter.push(letter);
                        self.mode = Mode::Filter;
                    }
                    _ => self.mode = Mode::Filter,
                }
                Wish::Read
            }
            Mode::Cancel(id, _) => {
                if matches!(key, Key::Letter('y' | 'Y')) {
                    return Wish::Cancel(id);
                }
                self.message = Some("not cancelled".to_owned());
                Wish::Nothing
            }
            Mode::Details { batch, top } => {
                let top = match key {
                    Key::Up | Key::Letter('k') => top.saturating_sub(1),
                    Key::Down | Key::Letter('j') => top + 1,
                    Key::PageUp => top.saturating_sub(PAGE),
                    Key::PageDown | Key::Letter(' ') => top + PAGE,
                    Key::Home => 0,
                    Key::Letter('q') | Key::Escape | Key::Enter | Key::Backspace => return Wish::Nothing,
                    _ => top,
                };
                self.mode = Mode::Details { batch, top };
                Wish::Nothing
            }
        }
    }

    fn press_list(&mut self, key: Key) -> Wish {
        let last = self.batches.len().saturating_sub(1);
        let batch = self.batches.get(self.selected).map(BatchView);
        let this = batch.map(BatchView::key);
        let name = batch.map(known_as).unwrap_or_default();
        let step = |selected: usize, by: isize| selected.saturating_add_signed(by).min(last);
        match (key, this) {
            (Key::Letter('q'), _) => return Wish::Quit,
            (Key::Escape, _) if !self.filter.is_empty() => {
                self.filter.clear();
                return Wish::Read;
            }
            (Key::Letter('/'), _) => self.mode = Mode::Filter,
            (Key::Up | Key::Letter('k'), _) => self.selected = step(self.selected, -1),
            (Key::Down | Key::Letter('j'), _) => self.selected = step(self.selected, 1),
            (Key::PageUp, _) => self.selected = step(self.selected, -PAGE.cast_signed()),
            (Key::PageDown | Key::Letter(' '), _) => self.selected = step(self.selected, PAGE.cast_signed()),
            (Key::Home | Key::Letter('g'), _) => self.selected = 0,
            (Key::End | Key::Letter('G'), _) => self.selected = last,
            (Key::Enter, Some(id)) => return Wish::Details(id),
            (Key::Letter('p'), Some(id)) => {
                self.message = Some(format!("checking {name} …"));
                return Wish::Poll(id);
            }
            (Key::Letter('c'), Some(id)) => self.mode = Mode::Cancel(id, name),
            (Key::Letter('r'), Some(id)) => return Wish::Retry(id),
            _ => {}
        }
        Wish::Nothing
    }

    fn draw(&mut self, watched: &Watched<'_>, context: &mut Context) {
        let style = context.ui.measure();
        let (width, height) =
            (usize::from(style.width.unwrap_or(80)), usize::from(style.height.unwrap_or(24)));
        let now = context.clock.now();
        let room = height.saturating_sub(3).max(1);
        let mut lines = vec![self.title(context, now)];
        match &mut self.mode {
            Mode::Details { batch, top } => {
                let text = page(batch, now, &context.zone, style);
                let all: Vec<&str> = text.lines().collect();
                *top = (*top).min(all.len().saturating_sub(room));
                lines.extend(all.into_iter().skip(*top).take(room + 1).map(str::to_owned));
            }
            Mode::List | Mode::Filter | Mode::Cancel(..) => {
                lines.extend(self.rows(watched, context, style, now, room));
            }
        }
        lines.resize(height.saturating_sub(1), String::new());
        lines.push(self.foot(style, width));
        // Overwritten line by line, which does not flicker.
        let mut frame = String::from("\x1b[H");
        for (number, line) in lines.iter().take(height).enumerate() {
            let end = if number + 1 == height.min(lines.len()) { "" } else { "\r\n" };
            let _ = write!(frame, "{line}\x1b[K{end}");
        }
        frame.push_str("\x1b[J");
        context.ui.write(&frame);
        context.ui.flush();
    }

    fn title(&self, context: &Context, now: Timestamp) -> String {
        let style = context.ui.style();
        let live = self.batches.iter().filter(|batch| !BatchView(batch).is_over()).count();
        let ended = self.batches.len() - live;
        let mut text = format!("batchd  {}", of(live as u64, "active batch", "active batches"));
        if self.more {
            text.push_str(" and more");
        }
        if ended > 0 {
            let _ = write!(text, ", {ended} ended");
        }
        if !self.filter.is_empty() {
            let _ = write!(text, "  /{}", clean(&self.filter));
        }
        let at = now.to_zoned(context.zone.clone()).strftime("%H:%M:%S %Z").to_string();
        let width = usize::from(style.width.unwrap_or(80));
        let text = shorten(&text, width.saturating_sub(at.len() + 2)).into_owned();
        let blanks = width.saturating_sub(text.width() + at.len());
        format!("{}{}{}", style.paint(Tone::Strong, &text), " ".repeat(blanks), style.paint(Tone::Faint, &at))
    }

    /// The table's header and as many rows as there is room for, with the selected one among them.
    fn rows(
        &mut self,
        watched: &Watched<'_>,
        context: &Context,
        style: Style,
        now: Timestamp,
        room: usize,
    ) -> Vec<String> {
        if self.batches.is_empty() {
            let none = if self.filter.is_empty() {
                "no batch"
            } else {
                "no batch matches; Esc takes the filter away"
            };
            return vec![String::new(), none.to_owned()];
        }
        let rows = room.saturating_sub(1).max(1);
        self.top = self.top.clamp((self.selected + 1).saturating_sub(rows), self.selected);
        // What is out of sight takes part in no layout, so that a long list costs no more than a short one.
        let shown: Vec<Value> = self.batches.iter().skip(self.top).take(rows).cloned().collect();
        let table = table(watched.keys, &shown, now, &context.zone);
        let text = table.render(style);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() != shown.len() + 1 {
            // Too narrow for a table: the selected one comes first.
            let alone =
                list_columns::table(watched.keys, &shown[self.selected - self.top..], now, &context.zone);
            return alone.render(style).lines().take(room).map(str::to_owned).collect();
        }
        let bare = table.render(Style { colour: false, ..style });
        let place = self.selected - self.top + 1;
        if let Some(line) = bare.lines().nth(place) {
            lines[place] = format!("\x1b[7m{line}\x1b[0m");
        }
        lines
    }

    fn foot(&self, style: Style, width: usize) -> String {
        let (tone, text) = match (&self.mode, &self.trouble, &self.message) {
            (Mode::Filter, ..) => {
                (Tone::Plain, format!("/{}▏  Enter keeps it, Esc takes it away", self.filter))
            }
            // However narrow it is, what is asked and how to answer can be read.
            (Mode::Cancel(_, name), ..) => {
                let room = width.saturating_sub("cancel ? y/N".len());
                (Tone::Warning, format!("cancel {}? y/N", shorten_middle(name, room)))
            }
            (_, Some(trouble), _) => (Tone::Warning, trouble.clone()),
            (_, _, Some(message)) => (Tone::Plain, message.clone()),
            (Mode::Details { .. }, ..) => (Tone::Faint, "↑↓ scroll  Esc back".to_owned()),
            (Mode::List, ..) => {
                let fits = KEYS.iter().find(|keys| keys.width() <= width).unwrap_or(&KEYS[KEYS.len() - 1]);
                (Tone::Faint, (*fits).to_owned())
            }
        };
        style.paint(tone, &shorten(&clean(&text), width))
    }
}

/// The newest batches, and whether there are more.
async fn read(watched: &Watched<'_>, filter: &str) -> Result<(Vec<Value>, bool), Error> {
    let source = Source::Remote(watched.client.clone());
    let query =
        if filter.is_empty() { watched.query.clone() } else { watched.query.clone().with("search", filter) };
    let mut batches = Vec::new();
    let page = async |after: Option<&str>, size: u64| {
        let mut query = query.clone().with("limit", size.to_string());
        if let Some(after) = after {
            query = query.with("after", after);
        }
        source.batches(&query).await
    };
    let limit = watched.limit.unwrap_or(MOST).min(MOST);
    let extent = every(
        Some(limit),
        page,
        |listing| listing.last_id.clone(),
        |batch| {
            batches.push(batch);
            true
        },
    )
    .await?;
    Ok((batches, extent.has_more))
}

async fn poll(client: Client, id: String) -> String {
    match client.poll(&id).await {
        Ok(batch) => stands(&batch),
        Err(error) => error.to_string(),
    }
}

/// How a batch stands now, in a sentence.
fn stands(batch: &Value) -> String {
    let batch = BatchView(batch);
    format!("{} is {}", known_as(batch), batch.status())
}

async fn cancel(client: Client, id: String) -> String {
    match client.cancel(&id).await {
        Ok(batch) => stands(&batch),
        Err(error) => error.to_string(),
    }
}

/// Sends again what was given up of one batch's deliveries.
async fn retry(client: Client, id: String) -> String {
    let batch = match client.batch(&id, true).await {
        Ok(batch) => batch,
        Err(error) => return error.to_string(),
    };
    let deliveries = BatchView(&batch).added("deliveries").as_array().cloned().unwrap_or_default();
    let dead = deliveries
        .iter()
        .filter(|delivery| delivery["state"] == "dead")
        .filter_map(|each| each["id"].as_str());
    let mut sent = 0;
    for delivery in dead {
        if let Err(error) = client.retry_delivery(delivery).await {
            return error.to_string();
        }
        sent += 1;
    }
    let name = known_as(BatchView(&batch));
    match sent {
        0 => format!("{name} has no dead deliveries"),
        _ => format!("{name}: {} sent again", of(sent, "dead delivery is", "dead deliveries are")),
    }
}

/// What a batch is called in a sentence.
fn known_as(batch: BatchView<'_>) -> String {
    batch.added("name").as_str().map_or_else(|| batch.key(), str::to_owned)
}

/// The keys, for a terminal of any width; how to leave stands in each.
const KEYS: [&str; 4] = [
    "↑↓ move  Enter details  / filter  p check  c cancel  r retry deliveries  q quit",
    "↑↓ move  Enter details  / filter  p check  c cancel  q quit",
    "Enter details  / filter  p c r  q quit",
    "q quit",
];

/// How old the list may get.
const REDRAW_INTERVAL: Duration = Duration::from_secs(2);
/// How long one that has ended stays.
const STAYS: Duration = Duration::from_mins(5);
/// So many are read; a filter finds the others.
const MOST: u64 = 1000;
/// So many rows a page key goes.
const PAGE: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn screen(count: usize) -> Screen {
        let batch = |number| json!({"id": format!("batch_{number}"), "status": "in_progress", "batchd": {"provider": "p"}});
        Screen { batches: (0..count).map(batch).collect(), ..Screen::default() }
    }

    #[test]
    fn keys_do_what_the_foot_says() {
        let mut screen = screen(3);
        assert_eq!(screen.press(Key::Down), Wish::Nothing);
        assert_eq!(screen.press(Key::Enter), Wish::Details("p:batch_1".to_owned()));
        assert_eq!(screen.press(Key::Letter('p')), Wish::Poll("p:batch_1".to_owned()));
        assert_eq!(screen.press(Key::Letter('r')), Wish::Retry("p:batch_1".to_owned()));
        // Nothing is cancelled without a yes.
        assert_eq!(screen.press(Key::Letter('c')), Wish::Nothing);
        assert_eq!(screen.press(Key::Enter), Wish::Nothing);
        assert_eq!(screen.message.as_deref(), Some("not cancelled"));
        screen.press(Key::Letter('c'));
        assert_eq!(screen.press(Key::Letter('y')), Wish::Cancel("p:batch_1".to_owned()));
        screen.press(Key::End);
        screen.press(Key::Down);
        assert_eq!(screen.selected, 2);
        assert_eq!(screen.press(Key::Letter('q')), Wish::Quit);
        assert_eq!(screen.press(Key::Interrupt), Wish::Quit);
    }

    #[test]
    fn the_filter_is_written_and_taken_away() {
        let mut screen = screen(1);
        screen.press(Key::Letter('/'));
        for letter in "nq".chars() {
            assert_eq!(screen.press(Key::Letter(letter)), Wish::Read);
        }
        assert_eq!(screen.filter, "nq");
        screen.press(Key::Enter);
        assert_eq!(screen.press(Key::Letter('j')), Wish::Nothing);
        assert_eq!(screen.press(Key::Escape), Wish::Read);
        assert_eq!(screen.filter, "");
        let mut empty = Screen::default();
        assert_eq!(empty.press(Key::Enter), Wish::Nothing);
    }
}
