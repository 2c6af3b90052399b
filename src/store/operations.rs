//! Operations as the writer runs them: each as if it were alone, and those of which many wait as one set.
//!
//! An operation runs in a savepoint, and an error takes back it alone. A set runs in one too; if that fails, each of its
//! operations is run by itself, so that one that cannot be written is refused and the others are not.

use super::column::Pk;
use super::error::StoreError;
use super::sql::Sql;
use super::transaction::Tx;
use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// Answers the caller; with an error if what was done is not there after all.
pub(super) type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// Something to write.
pub(super) enum Write {
    /// An operation, or its refusal if there is no transaction to run it in.
    Alone(Alone),
    InSet(InSet),
}

type Alone = Box<dyn FnOnce(Result<&mut Tx<'_>, StoreError>) -> Done + Send>;

/// What became of an operation before the commit.
pub(super) struct Done {
    failure: Option<StoreError>,
    answer: Answer,
}

/// An operation of a kind of which many wait at once.
pub(super) trait Many: Send + Sized + 'static {
    type Answer: Send + 'static;

    /// Of operations with the same key one is in a set; `None`: nothing can be the same.
    fn key(&self) -> Option<Pk>;

    /// Does all of them; what each gives, in their order.
    fn all(tx: &mut Tx<'_>, operations: &[Self]) -> Result<Vec<Self::Answer>, StoreError>;
}

/// Such an operation while it waits, whatever its kind.
pub(super) struct InSet {
    operation: Box<dyn Any + Send>,
    run: RunSet,
    refuse: fn(InSet) -> Answer,
}

type RunSet = fn(&mut Tx<'_>, Vec<InSet>, &mut Vec<Answer>) -> Result<(), StoreError>;

struct Waiting<M: Many> {
    operation: M,
    reply: oneshot::Sender<Result<M::Answer, StoreError>>,
}

/// What waits to be run as sets, each kind at the place of its first.
#[derive(Default)]
pub(super) struct Sets(Vec<Vec<InSet>>);

impl Write {
    /// `operation`, whose result goes to `reply`.
    pub(super) fn alone<T, F>(operation: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        Self::Alone(Box::new(move |transaction| {
            let result = transaction.and_then(operation);
            let failure = result.as_ref().err().cloned();
            Done { failure, answer: answering(reply, result) }
        }))
    }

    /// The same of an operation that is run with its like.
    pub(super) fn in_set<M: Many>(
        operation: M,
        reply: oneshot::Sender<Result<M::Answer, StoreError>>,
    ) -> Self {
        Self::InSet(InSet {
            operation: Box::new(Waiting { operation, reply }),
            run: run_set::<M>,
            refuse: refuse_one::<M>,
        })
    }

    /// The answer where it was not run.
    pub(super) fn refused(self, error: &StoreError) -> Answer {
        match self {
            Self::Alone(alone) => alone(Err(error.clone())).answer,
            Self::InSet(one) => (one.refuse)(one),
        }
    }
}

/// Answers with `result`, if it stands. A caller that has gone away needs no answer.
fn answering<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, StoreError>>,
    result: Result<T, StoreError>,
) -> Answer {
    Box::new(move |undone| {
        let _ = reply.send(undone.map_or(result, Err));
    })
}

impl Sets {
    /// Puts `one` to its like.
    pub(super) fn add(&mut self, one: InSet) {
        let like = self.0.iter_mut().find(|set| set.first().is_some_and(|first| first.is_like(&one)));
        match like {
            Some(set) => set.push(one),
            None => self.0.push(vec![one]),
        }
    }

    /// Runs what waits. An error is the whole transaction's.
    pub(super) fn run(&mut self, tx: &mut Tx<'_>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        let mut sets = std::mem::take(&mut self.0).into_iter();
        let result = sets.try_for_each(|set| (set[0].run)(tx, set, answers));
        answers.extend(sets.flatten().map(|one| (one.refuse)(one)));
        result
    }

    /// Answers what waits, as there is no transaction to run it in.
    pub(super) fn refuse(self) -> impl Iterator<Item = Answer> {
        self.0.into_iter().flatten().map(|one| (one.refuse)(one))
    }
}

impl InSet {
    fn is_like(&self, other: &Self) -> bool {
        (*self.operation).type_id() == (*other.operation).type_id()
    }
}

fn waiting<M: Many>(one: InSet) -> Option<Waiting<M>> {
    one.operation.downcast().ok().map(|waiting| *waiting)
}

fn refuse_one<M: Many>(one: InSet) -> Answer {
    let reply = waiting::<M>(one).map(|waiting| waiting.reply);
    Box::new(move |undone| {
        if let Some(reply) = reply {
            let _ = reply.send(Err(undone.unwrap_or(StoreError::Closed)));
        }
    })
}

/// Runs one operation in its savepoint. An error of its own is its own; an error here is the whole transaction's.
pub(super) fn run(tx: &mut Tx<'_>, write: Alone, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
    let sql = tx.sql();
    if let Err(error) = sql.begin_operation() {
        answers.push(write(Err(error.clone())).answer);
        return Err(error);
    }
    let before = tx.after_commit.mark();
    // A panic drops the caller's reply: it hears of it, its neighbours do not.
    let failure = match catch_unwind(AssertUnwindSafe(|| write(Ok(&mut *tx)))) {
        Ok(Done { failure: Some(failure), answer }) => {
            answers.push(answer);
            failure
        }
        Ok(Done { failure: None, answer }) => match sql.end_operation() {
            Ok(()) => {
                answers.push(answer);
                return Ok(());
            }
            // A statement that nobody waited for had failed.
            Err(late) => {
                let told = late.clone();
                answers.push(Box::new(move |undone| answer(Some(undone.unwrap_or(told)))));
                late
            }
        },
        Err(_) => StoreError::Internal("a write panicked".to_owned()),
    };
    tx.after_commit.back_to(&before);
    take_back(&sql, failure)
}

/// Runs operations of one kind, in as few sets as their keys allow.
fn run_set<M: Many>(tx: &mut Tx<'_>, set: Vec<InSet>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
    let mut rest: Vec<Waiting<M>> = set.into_iter().filter_map(waiting).collect();
    while !rest.is_empty() {
        let mut keys = BTreeSet::new();
        let fits = |one: &Waiting<M>| one.operation.key().is_none_or(|key| keys.insert(key));
        // Later ones of the same key come after it, and so does what came after those.
        let count = rest.iter().map(fits).take_while(|fits| *fits).count().max(1);
        let later = rest.split_off(count);
        let result = run_some(tx, rest, answers);
        rest = later;
        if let Err(error) = result {
            answers.extend(rest.into_iter().map(|one| answering(one.reply, Err(error.clone()))));
            return Err(error);
        }
    }
    Ok(())
}

/// Runs operations as one set, or if that fails, each by itself.
fn run_some<M: Many>(
    tx: &mut Tx<'_>,
    some: Vec<Waiting<M>>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    let sql = tx.sql();
    let (operations, replies): (Vec<M>, Vec<_>) =
        some.into_iter().map(|Waiting { operation, reply }| (operation, reply)).unzip();
    let before = tx.after_commit.mark();
    let done = sql.begin_operation().and_then(|()| {
        let done = catch_unwind(AssertUnwindSafe(|| M::all(tx, &operations)));
        let done = done.unwrap_or_else(|_| {
            Err(StoreError::Internal("a write panicked; the log tells where".to_owned()))
        })?;
        sql.end_operation().map(|()| done)
    });
    let error = match done {
        Ok(done) => {
            answers.extend(replies.into_iter().zip(done).map(|(reply, done)| answering(reply, Ok(done))));
            return Ok(());
        }
        Err(error) => error,
    };
    tx.after_commit.back_to(&before);
    let refuse = |replies: Vec<oneshot::Sender<_>>, error: &StoreError, answers: &mut Vec<Answer>| {
        answers.extend(replies.into_iter().map(|reply| answering(reply, Err(error.clone()))));
    };
    if let Err(error) = take_back(&sql, error.clone()) {
        refuse(replies, &error, answers);
        return Err(error);
    }
    if operations.len() == 1 {
        refuse(replies, &error, answers);
        return Ok(());
    }
    let mut each = operations.into_iter().zip(replies);
    let result =
        each.try_for_each(|(operation, reply)| run_some(tx, vec![Waiting { operation, reply }], answers));
    if let Err(error) = &result {
        refuse(each.map(|(_, reply)| reply).collect(), error, answers);
    }
    result
}

/// Takes back the operation that has failed. An error is the whole transaction's.
fn take_back(sql: &Sql<'_>, failure: StoreError) -> Result<(), StoreError> {
    // On a damaged file nothing else is written either.
    if !sql.is_in_transaction() || matches!(failure, StoreError::Damaged(_)) {
        return Err(failure);
    }
    sql.take_back_operation()
}
