//! The connection that writes to the server: transactions one after the other, over all daemons.
//!
//! Every transaction first locks the row `head`, so that commits of all daemons are in one order and events are numbered
//! in it, and then counts up in this daemon's own row. That is its heartbeat; it is refused once the daemon was given up
//! by the others; and it tells afterwards whether a commit was made whose answer was lost.

use super::super::error::StoreError;
use super::super::sql::Sql;
use super::member::{Member, number};
use super::session::Session;
use jiff::Timestamp;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(in super::super) struct ServerWriter {
    session: Session,
    member: Member,
    /// The number of its last commit.
    commits: i64,
    /// The number of a commit of which nobody knows whether it was made.
    in_doubt: Option<i64>,
    /// Why nothing is written any more.
    refused: Option<StoreError>,
}

impl ServerWriter {
    pub(super) fn new(session: Session, member: Member) -> Self {
        Self { session, member, commits: 0, in_doubt: None, refused: None }
    }

    pub(in super::super) fn sql(&self) -> Sql<'_> {
        Sql::Server(&self.session)
    }

    /// Opens a transaction that comes after all others.
    pub(in super::super) fn begin(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.open(&format!("{BEGIN}{LIMITS}{LAST_IN_LINE}"), now)
    }

    fn open(&mut self, statements: &str, now: Timestamp) -> Result<(), StoreError> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        if self.session.is_in_transaction() {
            // Left open only by a panic between two statements.
            self.session.control("ROLLBACK")?;
        }
        if let Some(commit) = self.in_doubt {
            self.was_made(commit, now)?;
        }
        let told = self.session.told(&format!("{statements}{}", self.member.beat(self.commits + 1, now)))?;
        if told.counts.last() == Some(&1) {
            return Ok(());
        }
        let known = self.member.read(&self.session);
        let _ = self.session.control("ROLLBACK");
        match known? {
            Some((commits, false)) => {
                // The database went back in time, or forth.
                tracing::warn!(
                    expected = self.commits,
                    commits,
                    "the state was replaced by an older or newer one"
                );
                self.commits = commits;
                Err(StoreError::Unreachable("the database was replaced".to_owned()))
            }
            _ => Err(self.given_up()),
        }
    }

    /// Commits. If the answer is lost, the next one tells whether it was made.
    pub(in super::super) fn commit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let commit = self.commits + 1;
        let Err(error) = self.session.control("COMMIT") else {
            self.commits = commit;
            return Ok(());
        };
        if !matches!(error, StoreError::Unreachable(_)) {
            return Err(error);
        }
        self.in_doubt = Some(commit);
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.was_made(commit, now) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(error),
                Err(StoreError::Unreachable(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
                Err(_) => {
                    return Err(StoreError::Unreachable(
                        "the connection was lost while it was written, and it is not known whether it was"
                            .to_owned(),
                    ));
                }
            }
        }
    }

    /// Whether that commit was made; whatever had been under way is over then. Tells by writing, so that a server which
    /// is another's copy has it too.
    fn was_made(&mut self, commit: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.session.give_up();
        let told = self.session.told(&format!(
            "{BEGIN}{LIMITS}UPDATE members SET commits = commits + 1, seen_at = {} WHERE id = '{}' AND dead = 0 \
             RETURNING commits",
            now.as_millisecond(),
            self.member.id
        ))?;
        let Some(commits) = number(&told, 0, 0) else {
            let known = self.member.read(&self.session);
            let _ = self.session.control("ROLLBACK");
            let was_made = known?.is_some_and(|(commits, _)| commits >= commit);
            self.in_doubt = None;
            self.given_up();
            return Ok(was_made);
        };
        self.session.control("COMMIT")?;
        self.in_doubt = None;
        self.commits = commits;
        Ok(commits > commit)
    }

    fn given_up(&mut self) -> StoreError {
        let error = StoreError::GivenUp;
        self.refused = Some(error.clone());
        error
    }

    pub(in super::super) fn roll_back(&mut self) {
        if self.session.is_in_transaction()
            && let Err(error) = self.session.control("ROLLBACK")
        {
            tracing::debug!("failed to roll back: {error}");
        }
    }

    /// Shows the others that this daemon lives, if it had nothing to write.
    pub(in super::super) fn beat(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.open(&format!("{BEGIN}{LIMITS}SET LOCAL synchronous_commit = off; "), now)?;
        self.commit(now)
    }

    /// Leaves the others.
    pub(in super::super) fn close(self) -> Result<(), StoreError> {
        self.member.leave(&self.session)
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ";
/// A daemon that is stopped with the lock in its hand holds up the others for as long as the last of these. What may be
/// lost with the server alone is no commit, whatever the role's settings say.
const LIMITS: &str = "SET LOCAL lock_timeout = '8s'; SET LOCAL statement_timeout = '9s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; ";
const LAST_IN_LINE: &str = "SELECT sequence FROM head FOR UPDATE; ";
/// How long it is asked whether a commit was made whose answer was lost, before its caller is told that nobody knows.
const SETTLED_WITHIN: Duration = Duration::from_secs(8);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
