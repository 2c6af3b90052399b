//! What a seed means: which batches there are, what goes wrong and when, and what people do meanwhile.

use super::disk::{DiskTrouble, Doom};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Something that holds for a while.
#[derive(Clone, Debug)]
pub struct Window<T> {
    pub from: Duration,
    pub to: Duration,
    pub what: T,
}

/// What holds at `now`, if anything does.
pub fn current<T>(windows: &[Window<T>], now: Duration) -> Option<&T> {
    windows.iter().find(|window| window.from <= now && now < window.to).map(|window| &window.what)
}

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Slow(Duration),
    /// Answers with this status.
    Says(u16),
    /// Too many requests: again after so many seconds.
    Overrun(u64),
    /// Takes the connection and says nothing.
    Silent,
    /// Takes the message and loses the answer.
    Forgetful,
    Away,
    Flapping,
}

/// What is wrong with a whole account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Silent,
    Away,
    /// So many of a hundred answers are errors or nonsense.
    Errors(u32),
    /// Too many requests, until the window ends.
    Held,
    /// The key is refused.
    Refuses,
    /// The list shows how things were so long ago.
    Lags(Duration),
    /// Pages overlap.
    Overlaps,
    /// Answers come late.
    Slow(Duration),
    /// What is created is created, and the answer is lost.
    Forgetful,
}

/// What is odd about one batch for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// It is said to run, although it has ended.
    Revived,
    /// It is not there.
    Gone,
    /// A word that nobody knows.
    Word,
    /// Its counts go backwards.
    Counts,
}

/// One batch at a provider.
#[derive(Clone, Debug)]
pub struct Life {
    pub account: &'static str,
    pub id: String,
    pub created: Duration,
    /// `None`: it outlives the simulation.
    pub takes: Option<Duration>,
    pub ending: &'static str,
    /// How long after the end its files are named.
    pub files_after: Duration,
    pub quirks: Vec<Window<Quirk>>,
}

/// The configuration file, as far as it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a table of the file that is there or not")]
pub struct Form {
    pub beta: bool,
    pub ends: bool,
    pub ops: bool,
    pub concurrency: u32,
    /// The address that `pipeline` points to.
    pub moved: bool,
    pub discover: bool,
    pub retain_days: u64,
    /// The longest time between two checks of a batch, in minutes.
    pub longest: u64,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Each key is `ACCOUNT:ID`.
    Track {
        key: String,
        check: bool,
    },
    TrackMany {
        keys: Vec<String>,
        check: bool,
    },
    Untrack {
        key: String,
        purge: bool,
    },
    Poll(String),
    PollAll,
    Cancel(String),
    Discover(&'static str),
    Submit {
        account: &'static str,
        number: u32,
    },
    Hook(String),
    Reload(Form),
    Disable(&'static str),
    Enable(&'static str),
    RetryDead,
    Read,
    /// Batchd's clock is wrong by so much from now on.
    Clock(SignedDuration),
    Suspend(Duration),
    /// The machine sleeps until then.
    Sleep(Duration),
    Doom(Doom),
    /// A stop in the ordinary way, and a start after so long.
    Restart(Duration),
    /// From now on nothing goes wrong any more.
    Peace,
    /// Gaps and traffic count from now on.
    Measure,
    Judge,
}

/// An act, when it is done, and after how many polls of its request whoever does it goes away.
#[derive(Clone, Debug)]
pub struct Step {
    pub at: Duration,
    pub act: Act,
    pub patience: Option<u32>,
}

/// All that a seed means.
#[derive(Debug)]
pub struct Plan {
    pub form: Form,
    pub lives: Vec<Life>,
    pub trouble: BTreeMap<&'static str, Vec<Window<Trouble>>>,
    pub moods: BTreeMap<String, Vec<Window<Mood>>>,
    pub disk: Vec<Window<DiskTrouble>>,
    pub steps: Vec<Step>,
    /// When everything has calmed down.
    pub peace: Duration,
}

pub const ACCOUNTS: [&str; 2] = ["alpha", "beta"];

impl Plan {
    /// Some days of everything. The machine sleeps for most of each day, because a simulated hour costs a tenth of a
    /// second or more: every loop of the daemon comes round every few seconds.
    pub fn of(seed: u64, days: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let awake = rng.u64(4 * MINUTE..10 * MINUTE);
        let length = Duration::from_secs(days * DAY);
        let mut draw = Draw { rng, length: length.as_secs(), awake };
        let form = Form {
            beta: true,
            ends: true,
            ops: true,
            concurrency: draw.rng.u32(1..4),
            moved: false,
            discover: draw.one_in(3),
            retain_days: if draw.one_in(3) { 1 } else { 90 },
            longest: 6,
        };
        let lives = draw.lives();
        let trouble = ACCOUNTS.into_iter().map(|account| (account, draw.troubles())).collect();
        let moods = ["pipeline", "pipeline-moved", "ends", "ops"]
            .into_iter()
            .map(|webhook| (webhook.to_owned(), draw.moods()))
            .collect();
        let disk = draw.windows(3, 2 * HOUR, |rng| {
            [DiskTrouble::Full, DiskTrouble::Full, DiskTrouble::Unreadable][rng.usize(0..3)]
        });
        let mut steps = draw.steps(form, &lives);
        draw.clock(&mut steps);
        draw.deaths(&mut steps);
        steps.retain(|step| step.at < length);
        for day in 0..days {
            let at = Duration::from_secs(day * DAY + awake);
            let act = Act::Sleep(Duration::from_secs((day + 1) * DAY));
            steps.push(Step { at, act, patience: None });
        }
        // No delivery waits for longer than a day and a quarter.
        for (minutes, act) in [
            (0, Act::Peace),
            (10, Act::Sleep(length + Duration::from_secs(31 * HOUR))),
            (31 * 60 + 3, Act::Measure),
            (31 * 60 + 15, Act::Judge),
        ] {
            let at = length + Duration::from_secs(minutes * MINUTE);
            steps.push(Step { at, act, patience: None });
        }
        steps.sort_by_key(|step| step.at);
        Self { form, lives, trouble, moods, disk, steps, peace: length }
    }
}

impl Plan {
    /// Whether batchd has to believe a clock that is years ahead, because it is not set back for a day
    /// (`docs/contract.md#what-is-never-lost`): then all that has ended is too old to be kept.
    pub fn is_a_wrong_year_believed(&self) -> bool {
        let far = SignedDuration::from_hours(i64::try_from(self.form.retain_days).unwrap() * 24 - 48);
        let mut ahead_since = None;
        for step in &self.steps {
            let wrong = match step.act {
                Act::Clock(wrong) => wrong,
                Act::Peace => SignedDuration::ZERO,
                _ => continue,
            };
            // A minute for the passes at which it is noticed.
            if ahead_since.is_some_and(|since| step.at >= since + Duration::from_secs(DAY - MINUTE)) {
                return true;
            }
            ahead_since = (wrong > far).then_some(step.at);
        }
        false
    }
}

struct Draw {
    rng: fastrand::Rng,
    /// In seconds.
    length: u64,
    /// For how long the machine is awake each day, in seconds.
    awake: u64,
}

impl Draw {
    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(0..count) == 0
    }

    /// Between `least` and `most` seconds; short ones as likely as ones ten times as long.
    fn span(&mut self, least: u64, most: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "seconds of some days")]
        let (least, most) = (least.max(1) as f64, most.max(2) as f64);
        Duration::from_secs_f64(least * (most / least).powf(self.rng.f64()))
    }

    /// Some time at which the machine is awake.
    fn time(&mut self) -> Duration {
        let day = self.rng.u64(0..self.length / DAY);
        Duration::from_millis(day * DAY * 1000 + self.rng.u64(0..self.awake * 1000))
    }

    /// Up to `most` windows, one after the other, all over before the end.
    fn windows<T>(
        &mut self,
        most: u32,
        longest: u64,
        mut what: impl FnMut(&mut fastrand::Rng) -> T,
    ) -> Vec<Window<T>> {
        let mut windows: Vec<Window<T>> = Vec::new();
        for _ in 0..self.rng.u32(0..=most) {
            let from = self.time();
            let to = (from + self.span(20, longest)).min(Duration::from_secs(self.length));
            windows.push(Window { from, to, what: what(&mut self.rng) });
        }
        windows.sort_by_key(|window| window.from);
        windows
    }

    fn lives(&mut self) -> Vec<Life> {
        let mut lives = Vec::new();
        for number in 0..7 {
            // Every other one has a namesake at the other account.
            let accounts: &[&str] = if number % 2 == 0 { &ACCOUNTS } else { &[ACCOUNTS[number / 2 % 2]] };
            for account in accounts {
                let lasts = number == 6;
                let created = if lasts { Duration::ZERO } else { self.time() };
                let at_once = self.one_in(6);
                let longest = 30 * HOUR;
                let takes = if at_once { Duration::ZERO } else { self.span(MINUTE, longest) };
                // Every other one ends while somebody is awake to see it.
                let seen = self.time().checked_sub(created).filter(|_| !at_once && self.rng.bool());
                let takes = seen.unwrap_or(takes);
                let takes = (!lasts).then_some(takes);
                let mut quirks = self
                    .windows(2, 6 * HOUR, |rng| [Quirk::Gone, Quirk::Word, Quirk::Counts][rng.usize(0..3)]);
                if let Some(takes) = takes
                    && self.one_in(2)
                {
                    // By then the end has been seen, on the morning after it.
                    let morning = (created + takes).as_secs() / DAY + 1;
                    let from = Duration::from_secs(morning * DAY + 3 * MINUTE);
                    let to = (from + self.span(2 * HOUR, 60 * HOUR)).min(Duration::from_secs(self.length));
                    quirks.insert(0, Window { from, to, what: Quirk::Revived });
                }
                lives.push(Life {
                    account,
                    id: format!("batch_{number:024}"),
                    created,
                    takes,
                    ending: ["completed", "completed", "failed", "expired", "cancelled"]
                        [self.rng.usize(0..5)],
                    files_after: Duration::from_secs([0, 0, 20, 300][self.rng.usize(0..4)]),
                    quirks,
                });
            }
        }
        lives
    }

    fn troubles(&mut self) -> Vec<Window<Trouble>> {
        self.windows(14, 4 * HOUR, |rng| match rng.u32(0..12) {
            0 => Trouble::Silent,
            1 => Trouble::Away,
            2..=4 => Trouble::Errors(rng.u32(10..90)),
            5 => Trouble::Held,
            6 => Trouble::Refuses,
            7 => Trouble::Lags(Duration::from_secs(rng.u64(5..200))),
            8 => Trouble::Overlaps,
            9 => Trouble::Slow(Duration::from_secs(rng.u64(1..40))),
            _ => Trouble::Forgetful,
        })
    }

    fn moods(&mut self) -> Vec<Window<Mood>> {
        self.windows(8, 8 * HOUR, |rng| match rng.u32(0..10) {
            0 => Mood::Slow(Duration::from_secs(rng.u64(1..14))),
            1 => Mood::Says(500),
            2 => Mood::Says(404),
            3 => Mood::Says(410),
            4 => Mood::Overrun(rng.u64(1..5000)),
            5 => Mood::Silent,
            6 => Mood::Forgetful,
            7 => Mood::Away,
            8 => Mood::Says(401),
            _ => Mood::Flapping,
        })
    }

    fn steps(&mut self, mut form: Form, lives: &[Life]) -> Vec<Step> {
        let mut steps = Vec::new();
        for life in lives {
            for window in life.quirks.iter().filter(|window| window.what == Quirk::Revived) {
                let key = format!("{}:{}", life.account, life.id);
                let at = window.from + self.span(1, 40);
                let morning =
                    Duration::from_secs((window.from.as_secs() / DAY + 1) * DAY) + self.span(1, MINUTE);
                for at in [at, morning] {
                    steps.push(Step { at, act: Act::Poll(key.clone()), patience: None });
                }
            }
            // Most are tracked soon after they were made; some are left for discovery, or for nobody.
            if self.one_in(8) {
                continue;
            }
            let at = life.created + self.span(1, 20 * MINUTE);
            let key = format!("{}:{}", life.account, life.id);
            let act = if self.one_in(3) {
                let namesake = ACCOUNTS.map(|account| format!("{account}:{}", life.id));
                Act::TrackMany { keys: namesake.into(), check: self.one_in(2) }
            } else {
                Act::Track { key: key.clone(), check: self.one_in(2) }
            };
            steps.push(Step { at, act, patience: None });
            // Who was refused, or went away, tries again.
            let again = at + self.span(MINUTE, 8 * HOUR);
            steps.push(Step { at: again, act: Act::Track { key, check: false }, patience: None });
        }
        let mut number = 0;
        for _ in 0..40 {
            let life = &lives[self.rng.usize(0..lives.len())];
            let key = format!("{}:{}", life.account, life.id);
            let account = ACCOUNTS[self.rng.usize(0..2)];
            let webhook = ["pipeline", "ends", "ops"][self.rng.usize(0..3)];
            let act = match self.rng.u32(0..26) {
                0..=1 => Act::Track { key, check: true },
                2 => Act::Untrack { key, purge: self.one_in(3) },
                3..=4 => Act::Poll(key),
                5 => Act::PollAll,
                6 => Act::Cancel(key),
                7..=8 => Act::Discover(account),
                9..=13 => {
                    number += 1;
                    Act::Submit { account, number }
                }
                14..=16 => {
                    match self.rng.u32(0..5) {
                        0 => form.beta = !form.beta,
                        1 => form.ends = !form.ends,
                        2 => form.ops = !form.ops,
                        3 => form.moved = !form.moved,
                        _ => form.concurrency = self.rng.u32(1..4),
                    }
                    Act::Reload(form)
                }
                17 => Act::Disable(webhook),
                18..=19 => Act::Enable(webhook),
                20 => Act::RetryDead,
                21..=22 => Act::Hook(key),
                _ => Act::Read,
            };
            let patience = self.one_in(2).then(|| self.rng.u32(1..12));
            steps.push(Step { at: self.time(), act, patience });
        }
        steps.sort_by_key(|step| step.at);
        steps
    }

    fn clock(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..self.rng.u32(0..4) {
            let at = self.time();
            let act = match self.rng.u32(0..5) {
                0 => Act::Clock(SignedDuration::from_secs(self.rng.i64(-7200..86_400))),
                1 => Act::Clock(SignedDuration::from_hours(-56 * 365 * 24)),
                2 => Act::Clock(SignedDuration::from_hours(70 * 365 * 24)),
                _ => Act::Suspend(self.span(MINUTE, HOUR)),
            };
            let wrong = matches!(act, Act::Clock(_));
            steps.push(Step { at, act, patience: None });
            if wrong {
                let right = at + self.span(MINUTE, 30 * HOUR);
                steps.push(Step { at: right, act: Act::Clock(SignedDuration::ZERO), patience: None });
            }
        }
    }

    fn deaths(&mut self, steps: &mut Vec<Step>) {
        const PLACES: [&str; 6] = [
            "store.commit",
            "store.commit",
            "store.committed",
            "store.committed",
            "deliver.answered",
            "deliver.logged",
        ];
        for _ in 0..self.rng.u32(1..7) {
            let doom = Doom { place: PLACES[self.rng.usize(0..PLACES.len())], count: self.rng.u32(1..20) };
            let at = self.time();
            steps.push(Step { at, act: Act::Doom(doom), patience: None });
        }
        for _ in 0..self.rng.u32(0..3) {
            let pause = self.span(1, 4 * HOUR);
            let at = self.time();
            steps.push(Step { at, act: Act::Restart(pause), patience: None });
        }
    }
}
