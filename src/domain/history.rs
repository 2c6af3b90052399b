//! What a batch that has ended teaches of those to come: how long its like take, and who its like are.

use super::batch::Batch;
use super::status::Status;
use super::tracked::Tracked;

/// A stretch of a batch's life whose end is worth foreseeing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From its creation to its end.
    Work,
    /// From the last request's end to the batch's.
    Finalizing,
    /// From the wish to cancel to the end.
    Cancelling,
}

/// Batches that may be expected to take about as long; a coarser class leaves more open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The provider's name in the configuration.
    pub provider: String,
    /// What of their life.
    pub stage: Stage,
    /// Where their requests go; `None`: anywhere.
    pub endpoint: Option<String>,
    /// Their model, `""` where the provider does not tell; `None`: any.
    pub model: Option<String>,
    /// How many digits the number of their requests has, 0 where the provider does not tell; `None`: any.
    pub size: Option<u8>,
}

/// What one batch teaches of its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// Of which class; nothing of it is left open.
    pub class: Class,
    /// How long it took, or was watched without an end.
    pub seconds: f64,
    /// Whether it came to its end by itself; otherwise all that is known is that it took no less.
    pub ended: bool,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Work, Self::Finalizing, Self::Cancelling];

    /// The word under which it is kept.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
        }
    }

    /// The stage that exactly `word` names, if any.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }

    /// The stage of a batch in `status`.
    pub const fn of(status: Status) -> Self {
        match status {
            Status::Finalizing => Self::Finalizing,
            Status::Cancelling => Self::Cancelling,
            _ => Self::Work,
        }
    }
}

impl Class {
    /// The class of the stage that `tracked` is in.
    pub fn of(tracked: &Tracked) -> Self {
        Self::exactly(&tracked.key.provider, &tracked.batch, Stage::of(tracked.batch.status))
    }

    /// The finest class of `batch` in `stage`.
    pub fn exactly(provider: &str, batch: &Batch, stage: Stage) -> Self {
        Self {
            provider: provider.to_owned(),
            stage,
            endpoint: Some(batch.endpoint.clone()),
            model: Some(batch.model.clone().unwrap_or_default()),
            size: Some(Self::size_of(batch.request_counts.map_or(0, |counts| counts.total))),
        }
    }

    /// The size class of a batch with `total` requests.
    pub fn size_of(total: u64) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 20")]
        total.checked_ilog10().map_or(0, |log| log as u8 + 1)
    }

    /// Whether all of `finer` are of this class too.
    pub fn holds(&self, finer: &Self) -> bool {
        fn open_or_same<T: PartialEq>(own: Option<&T>, theirs: Option<&T>) -> bool {
            own.is_none() || own == theirs
        }
        self.provider == finer.provider
            && self.stage == finer.stage
            && open_or_same(self.endpoint.as_ref(), finer.endpoint.as_ref())
            && open_or_same(self.model.as_ref(), finer.model.as_ref())
            && open_or_same(self.size.as_ref(), finer.size.as_ref())
    }

    /// The next coarser class: of any size, then of any model, then at any endpoint.
    pub fn coarser(&self) -> Option<Self> {
        let mut coarser = self.clone();
        if coarser.size.take().is_some()
            || coarser.model.take().is_some()
            || coarser.endpoint.take().is_some()
        {
            Some(coarser)
        } else {
            None
        }
    }

    /// This class and every coarser one.
    pub fn line(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::coarser)
    }
}

impl std::fmt::Display for Class {
    /// `openai, gpt-5-mini, 100 to 999 requests`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.provider)?;
        let told = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        // The path says little beside a model.
        if let Some(word) = told(&self.model).or_else(|| told(&self.endpoint)) {
            write!(f, ", {word}")?;
        }
        match self.size {
            Some(1) => f.write_str(", 1 to 9 requests")?,
            Some(size @ 2..) => {
                let least = 10_u128.pow(u32::from(size).min(38) - 1);
                write!(f, ", {least} to {} requests", least * 10 - 1)?;
            }
            Some(0) | None => {}
        }
        Ok(())
    }
}

/// What `batch`, which has ended, teaches: of its whole life, and of each stage whose beginning is known.
///
/// A cancellation ends what would have gone on, and so does the provider's window: of these only the least is known.
/// Nothing is learnt from a batch of which no end or an impossible one is told.
pub fn lessons(provider: &str, batch: &Batch) -> Vec<Lesson> {
    let Some(ended_at) = batch.ended_at() else { return Vec::new() };
    let ended = matches!(batch.status, Status::Completed | Status::Failed);
    let cancelled = batch.status == Status::Cancelled;
    let cut_at = if cancelled { batch.cancelling_at.unwrap_or(ended_at) } else { ended_at };
    let spans = [
        (Stage::Work, Some(batch.created_at), cut_at, ended),
        (Stage::Finalizing, batch.finalizing_at.filter(|at| *at <= cut_at), cut_at, ended),
        (Stage::Cancelling, batch.cancelling_at, ended_at, cancelled),
    ];
    spans
        .into_iter()
        .filter_map(|(stage, from, to, ended)| {
            let seconds = to.checked_sub(from?)?;
            #[expect(clippy::cast_precision_loss, reason = "within the bound it is exact")]
            (0..=MAX_LIFE_SECONDS).contains(&seconds).then(|| Lesson {
                class: Class::exactly(provider, batch, stage),
                seconds: (seconds as f64).max(1.0),
                ended,
            })
        })
        .collect()
}

/// No service lets a batch live longer than 60 days; whatever says so has its clock wrong.
const MAX_LIFE_SECONDS: i64 = 60 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::RequestCounts;

    fn batch(status: Status) -> Batch {
        let mut batch = Batch::unseen("batch_1", "/v1/responses", 1000);
        batch.status = status;
        batch.model = Some("gpt-5-mini".to_owned());
        batch.request_counts = Some(RequestCounts { total: 400, completed: 400, failed: 0 });
        batch
    }

    fn learnt(batch: &Batch) -> Vec<(Stage, f64, bool)> {
        let lessons = lessons("openai", batch);
        lessons.into_iter().map(|lesson| (lesson.class.stage, lesson.seconds, lesson.ended)).collect()
    }

    #[test]
    fn an_end_teaches_the_whole_and_its_last_stage() {
        let mut done = batch(Status::Completed);
        assert_eq!(learnt(&done), [], "no end is told");
        done.completed_at = Some(4600);
        assert_eq!(learnt(&done), [(Stage::Work, 3600.0, true)]);
        done.finalizing_at = Some(4500);
        assert_eq!(learnt(&done), [(Stage::Work, 3600.0, true), (Stage::Finalizing, 100.0, true)]);
        done.created_at = 5000;
        assert_eq!(learnt(&done), [(Stage::Finalizing, 100.0, true)], "it ended before it began");
    }

    #[test]
    fn what_was_cut_short_teaches_the_least_that_it_would_have_taken() {
        let mut cut = batch(Status::Cancelled);
        cut.cancelling_at = Some(1600);
        cut.cancelled_at = Some(1700);
        assert_eq!(learnt(&cut), [(Stage::Work, 600.0, false), (Stage::Cancelling, 100.0, true)]);
        let mut expired = batch(Status::Expired);
        expired.expired_at = Some(1000 + 86_400);
        assert_eq!(learnt(&expired), [(Stage::Work, 86_400.0, false)]);
    }

    #[test]
    fn a_class_has_a_line_of_coarser_ones() {
        let class = Class::exactly("openai", &batch(Status::InProgress), Stage::Work);
        let line: Vec<String> = class.line().map(|class| class.to_string()).collect();
        assert_eq!(
            line,
            [
                "openai, gpt-5-mini, 100 to 999 requests",
                "openai, gpt-5-mini",
                "openai, /v1/responses",
                "openai"
            ]
        );
        assert!(class.line().all(|coarser| coarser.holds(&class)));
        assert!(!class.holds(&class.coarser().unwrap()));
        assert_eq!([0, 1, 9, 10, 999, u64::MAX].map(Class::size_of), [0, 1, 1, 2, 3, 20]);
    }
}
