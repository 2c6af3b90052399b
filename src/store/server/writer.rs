//! The connection that writes to the server: transactions one after the other, over all daemons.
//!
//! Every transaction first locks the row `head`, so that commits of all daemons are in one order and events are numbered
//! in it, and then counts up in this daemon's own row. That is its heartbeat; it is refused once the daemon was given up
//! by the others; and it tells afterwards whether a commit was made whose answer was lost.

use super::super::error::StoreError;
use super::super::holdings::Holdings;
use super::super::outbox::recovering;
use super::super::sql::Sql;
use super::super::transaction::AfterCommit;
use super::leases::{self, Letter, Lookout, MemberView, Seen};
use super::member::{Member, number, quoted};
use super::migrate;
use super::session::{Hints, Session};
use super::steps::{self, Known, Timeline};
use crate::domain::ownership::{Act, MemberId, Scope};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(in super::super) struct ServerWriter {
    session: Session,
    member: Member,
    /// The number of its last commit.
    commits: i64,
    /// That of its last one that was on disk when it was answered: a mere sign of life may be lost with the server.
    kept: i64,
    /// What it knows of the newest that the server had.
    known: Known,
    timeline: Timeline,
    /// The number of the newest event of the transaction that is open.
    newest: i64,
    /// Whether the server has fewer commits of this daemon's than it has answered.
    has_lost: bool,
    /// The number of a commit of which nobody knows whether it was made.
    in_doubt: Option<i64>,
    /// Why nothing is written any more.
    refused: Option<StoreError>,
    holdings: Holdings,
    /// After how much silence a member is given up.
    lease: Duration,
    lookout: Lookout,
    /// What it could do, as it was declared last.
    scopes: BTreeMap<Scope, u64>,
    /// Whether the others have it.
    is_declared: bool,
    /// Whether it stops, and takes nothing more.
    is_leaving: bool,
    /// What others wrote and nobody has been told of yet.
    letters: Vec<Letter>,
    /// What is given back soon, and when: what was under way there ends before.
    leaving: BTreeMap<Scope, Instant>,
    /// When the last commit was sent.
    beaten: Instant,
}

/// What was found at a look at the others.
#[derive(Debug, Default)]
pub(in super::super) struct Tended {
    /// The number of the newest event.
    pub(in super::super) sequence: i64,
    pub(in super::super) letters: Vec<Letter>,
    pub(in super::super) members: Vec<MemberView>,
    /// Webhooks that became this daemon's.
    pub(in super::super) gained: Vec<Scope>,
    /// Whether what this daemon remembers of the state may be wrong: it begins afresh.
    pub(in super::super) is_afresh: bool,
}

impl ServerWriter {
    pub(super) fn new(
        session: Session,
        (member, known, timeline): (Member, Known, Timeline),
        holdings: Holdings,
        lease: Duration,
    ) -> Self {
        Self {
            session,
            member,
            commits: 0,
            kept: 0,
            known,
            timeline,
            newest: 0,
            has_lost: false,
            in_doubt: None,
            refused: None,
            holdings,
            lease,
            lookout: Lookout::default(),
            scopes: BTreeMap::new(),
            is_declared: true,
            is_leaving: false,
            letters: Vec::new(),
            leaving: BTreeMap::new(),
            beaten: Instant::now(),
        }
    }

    /// What tells that others have written to this daemon.
    pub(in super::super) fn hints(&self) -> Arc<Hints> {
        self.session.hints()
    }

    pub(in super::super) fn sql(&self) -> Sql<'_> {
        Sql::Server(&self.session)
    }

    /// Opens a transaction that comes after all others.
    pub(in super::super) fn begin(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let member = format!("SET LOCAL batchd.member = '{}'; ", self.member.id);
        let last_in_line = format!("SELECT 'head', sequence, {} FROM head FOR UPDATE; ", self.timeline.0);
        self.open(&format!("{BEGIN}{LIMITS}{member}{last_in_line}"), now)
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
        self.newest = 0;
        let told = self.session.told(&format!("{statements}{}", self.member.beat(self.commits + 1, now)))?;
        let head =
            told.rows.iter().find(|row| row.first().is_some_and(|word| word.as_deref() == Some("head")));
        if let Some(head) = head {
            let sequence = head.get(1).and_then(|text| text.as_ref()?.parse().ok()).unwrap_or_default();
            if self.known.is_ahead_of(sequence, head.get(2).and_then(|text| text.as_deref())) {
                let _ = self.session.control("ROLLBACK");
                return Err(self.went_back(false));
            }
        }
        if told.counts.last() == Some(&1) {
            return Ok(());
        }
        let own = self.member.read(&self.session);
        let _ = self.session.control("ROLLBACK");
        Err(match own? {
            Some((commits, false)) if commits < self.kept => self.went_back(true),
            Some((commits, false)) => {
                self.commits = commits;
                StoreError::Unreachable("the server was restarted".to_owned())
            }
            None if self.row_was_there() => self.went_back(true),
            Some((_, true)) | None => self.given_up(),
        })
    }

    /// Whether this daemon's row is missing although it has to be there: those of daemons that are gone are kept for a day.
    fn row_was_there(&self) -> bool {
        self.holdings.silence().is_some_and(|silence| silence < ROW_IS_KEPT)
    }

    /// The server has lost commits: nothing more is written before this daemon has begun afresh.
    fn went_back(&mut self, has_lost: bool) -> StoreError {
        self.has_lost |= has_lost;
        let error = StoreError::Unreachable(
            "the server is another one, or an older copy, and this daemon begins afresh".to_owned(),
        );
        self.refused = Some(error.clone());
        error
    }

    /// Commits. If the answer is lost, the next one tells whether it was made.
    pub(in super::super) fn commit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let commit = self.commits + 1;
        let sent = self.holdings.steady();
        let Err(error) = self.session.control("COMMIT") else {
            (self.commits, self.kept) = (commit, commit);
            self.beaten = Instant::now();
            self.holdings.answered(sent);
            self.known.saw(self.newest, 0);
            return Ok(());
        };
        if !matches!(error, StoreError::Unreachable(_)) {
            return Err(error);
        }
        self.in_doubt = Some(commit);
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.was_made(commit, now) {
                Ok(true) => {
                    self.known.saw(self.newest, 0);
                    return Ok(());
                }
                Ok(false) => return Err(error),
                Err(StoreError::Unreachable(_)) if Instant::now() < until => pause(),
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
            let known = known?;
            self.in_doubt = None;
            if known.is_none() && self.row_was_there() {
                self.went_back(true)
            } else {
                self.given_up()
            };
            return Ok(known.is_some_and(|(commits, _)| commits >= commit));
        };
        if commits <= self.kept {
            // It lacks even what had been answered before.
            let _ = self.session.control("ROLLBACK");
            self.in_doubt = None;
            self.went_back(true);
            return Ok(false);
        }
        self.session.control("COMMIT")?;
        self.in_doubt = None;
        (self.commits, self.kept) = (commits, commits);
        Ok(commits > commit)
    }

    fn given_up(&mut self) -> StoreError {
        let error = StoreError::GivenUp;
        self.refused = Some(error.clone());
        error
    }

    pub(in super::super) fn roll_back(&mut self) {
        if !self.session.is_in_transaction() {
            // If it was lost with its connection, the next statement is none of its own any more.
            self.session.forget_lost();
        } else if let Err(error) = self.session.control("ROLLBACK") {
            tracing::debug!("failed to roll back: {error}");
            self.session.give_up();
        }
    }

    /// Shows the others that this daemon lives, looks at what they do, and takes and gives back what is to be.
    pub(in super::super) fn tend(&mut self, now: Timestamp) -> Result<Tended, StoreError> {
        if let Some(error @ StoreError::Outdated { .. }) = &self.refused {
            return Err(error.clone());
        }
        if self.refused.is_some() {
            self.join_anew(now)?;
            return Ok(Tended { is_afresh: true, sequence: self.known.sequence, ..Tended::default() });
        }
        if self.beaten.elapsed() >= BEAT_EVERY.min(self.lease / BEATS_IN_A_LEASE) {
            let offset = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            let kept = self.kept;
            self.open(&format!("{BEGIN}{LIMITS}SET LOCAL synchronous_commit = off; "), now)?;
            self.session.control(&format!(
                "UPDATE members SET offset_ms = {} - {offset} WHERE id = '{}'",
                now.as_millisecond(),
                self.member.id
            ))?;
            self.commit(now)?;
            self.kept = kept;
        }
        if !self.is_declared {
            self.declare_again(now)?;
        }
        self.session.listen(&self.member.id)?;
        let steady = self.holdings.steady();
        let Seen { sequence, step, timeline, oldest_writer, acts, mut held, members, letters, taken } =
            self.lookout.look(&self.session, &self.member.id, self.lease, steady, self.timeline)?;
        if self.known.is_ahead_of(sequence, timeline.as_deref()) {
            return Err(self.went_back(false));
        }
        if oldest_writer > migrate::newest() {
            self.holdings.set(BTreeSet::new());
            let error = StoreError::Outdated { found: oldest_writer, known: migrate::newest() };
            self.refused = Some(error.clone());
            return Err(error);
        }
        let is_afresh = step > self.known.step;
        if is_afresh {
            // Another daemon has found that commits were lost: what others had made known may not be there.
            self.holdings.forget();
        }
        self.known.saw(sequence, step);
        // Kept until they are told, whatever fails between.
        self.letters.extend(letters);
        if taken.len() >= leases::LETTERS_AT_ONCE {
            // There may be more.
            self.hints().heard.notify_one();
        }
        if !taken.is_empty() {
            self.session.control(&format!("DELETE FROM mail WHERE pk IN ({})", taken.join(", ")))?;
        }
        self.leaving.retain(|scope, _| held.contains(scope));
        let mut claims = Vec::new();
        for act in acts {
            match act {
                Act::Bury(id, commits) => self.bury(&id, commits)?,
                Act::Claim(_) if self.is_leaving => {}
                Act::Claim(scope) => claims.push(scope),
                Act::Release(scope) => {
                    self.leaving.entry(scope).or_insert_with(|| Instant::now() + LEFT_AFTER);
                }
                Act::Want(scope, to) => self.session.control(&leases::want(&scope, &to))?,
            }
        }
        let gained = if claims.is_empty() { Vec::new() } else { self.claim(claims, now)? };
        held.extend(gained.iter().cloned());
        held.retain(|scope| !self.leaving.contains_key(scope));
        self.holdings.set(held);
        self.give_back(false, now)?;
        Ok(Tended { sequence, letters: std::mem::take(&mut self.letters), members, gained, is_afresh })
    }

    /// Begins afresh as another member, after the others have given up this one, so that what it did is theirs by now, or
    /// after the server has lost commits.
    fn join_anew(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.holdings.begin_afresh();
        self.session.give_up();
        let member = Member::new(&self.member.name, self.member.place.clone());
        let known = member.join(&self.session, now, || {
            steps::follow(&self.session, self.timeline, &self.known, self.has_lost, now.as_millisecond())
        })?;
        if self.refused == Some(StoreError::GivenUp) {
            tracing::warn!(
                name = self.member.name,
                "the other daemons had given up this one; it joins them anew"
            );
        }
        (self.member, self.commits, self.kept, self.in_doubt, self.refused) = (member, 0, 0, None, None);
        (self.known, self.has_lost) = (known, false);
        self.letters.clear();
        (self.lookout, self.leaving) = (Lookout::default(), BTreeMap::new());
        self.declare_again(now)
    }

    /// Tells the others what they have not heard.
    fn declare_again(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let scopes = self.scopes.clone();
        self.declare(&scopes, now)
    }

    fn bury(&self, id: &MemberId, commits: u64) -> Result<(), StoreError> {
        let told = self.session.told(&format!(
            // Its row is locked while it commits: it lives.
            "UPDATE members SET dead = 1 WHERE id IN (SELECT id FROM members \
             WHERE id = {} AND dead = 0 AND commits = {commits} FOR UPDATE SKIP LOCKED)",
            quoted(&id.0)
        ))?;
        if told.counts.first() == Some(&1) {
            tracing::warn!(
                member = id.0,
                "another daemon has been silent for {} s: what it did is taken over",
                self.lease.as_secs()
            );
        }
        Ok(())
    }

    /// Has these told at the next look: what they say could not be read.
    pub(in super::super) fn keep(&mut self, letters: Vec<Letter>) {
        self.letters.splice(0..0, letters);
    }

    /// Why nothing is written any more, whatever comes.
    pub(in super::super) fn is_over(&self) -> Option<StoreError> {
        self.refused.clone().filter(|error| matches!(error, StoreError::Outdated { .. }))
    }

    /// Takes what is still free of these, and makes due what its owner before had under way.
    fn claim(&mut self, scopes: Vec<Scope>, now: Timestamp) -> Result<Vec<Scope>, StoreError> {
        self.begin(now)?;
        let taken = self.claim_in_transaction(scopes, now);
        match taken {
            Ok(gained) => {
                self.commit(now)?;
                for scope in &gained {
                    tracing::info!(%scope, "this daemon does {scope} from now on");
                }
                Ok(gained)
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn claim_in_transaction(&self, scopes: Vec<Scope>, now: Timestamp) -> Result<Vec<Scope>, StoreError> {
        let mut gained = Vec::new();
        for scope in scopes {
            let told = self.session.told(&leases::claim(&scope, &self.member.id))?;
            if told.counts.first() != Some(&1) {
                continue;
            }
            // What others have written to the owner before is seen in what is read now.
            let name = quoted(&scope.to_string());
            self.session.control(&format!("DELETE FROM mail WHERE scope = {name}"))?;
            if let Scope::Webhook(name) = &scope {
                recovering::recover(&self.sql(), Some(name), now)?;
            }
            gained.push(scope);
        }
        Ok(gained)
    }

    /// Gives back what is to go and has had its time; `at_once`: all of it.
    fn give_back(&mut self, at_once: bool, now: Timestamp) -> Result<(), StoreError> {
        let due: Vec<Scope> = self
            .leaving
            .iter()
            .filter(|(_, at)| at_once || **at <= Instant::now())
            .map(|(scope, _)| scope.clone())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.begin(now)?;
        let statements: Vec<String> =
            due.iter().map(|scope| leases::release(scope, &self.member.id)).collect();
        if let Err(error) = self.session.control(&statements.join("; ")) {
            self.roll_back();
            return Err(error);
        }
        self.commit(now)?;
        for scope in &due {
            self.leaving.remove(scope);
            tracing::info!(%scope, "gave back {scope}, which another daemon is to do");
        }
        Ok(())
    }

    /// Tells the others what this daemon could do.
    pub(in super::super) fn declare(
        &mut self,
        scopes: &BTreeMap<Scope, u64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.scopes.clone_from(scopes);
        self.is_declared = false;
        self.begin(now)?;
        let mut statements = format!(
            "UPDATE members SET scopes = {} WHERE id = '{}'",
            quoted(&leases::written_scopes(scopes)),
            self.member.id
        );
        for scope in scopes.keys() {
            let name = quoted(&scope.to_string());
            let _ = write!(statements, "; INSERT INTO leases (scope) VALUES ({name}) ON CONFLICT DO NOTHING");
        }
        match self.session.control(&statements) {
            Ok(()) => {
                self.commit(now)?;
                self.is_declared = true;
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Gives back what is idle at once, as this daemon stops: the webhooks that have nothing under way, and the rest, which
    /// needs no end; `all`: those that have too.
    pub(in super::super) fn step_down(&mut self, all: bool, now: Timestamp) -> Result<(), StoreError> {
        self.is_leaving = true;
        if all {
            self.begin(now)?;
            return match self.session.control(&leases::release_all(&self.member.id)) {
                Ok(()) => self.commit(now),
                Err(error) => {
                    self.roll_back();
                    Err(error)
                }
            };
        }
        let held = self.holdings.held();
        self.holdings.set(BTreeSet::new());
        let busy = self.session.told("SELECT DISTINCT webhook FROM deliveries WHERE state = 'inflight'")?;
        let busy: BTreeSet<String> =
            busy.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        for scope in held {
            let is_busy = matches!(&scope, Scope::Webhook(name) if busy.contains(name));
            if !is_busy {
                self.leaving.insert(scope, Instant::now());
            }
        }
        self.give_back(true, now)
    }

    /// Writes, in the transaction that is open, what it changed for the owners of what is not this daemon's.
    pub(in super::super) fn write_letters(&mut self, changes: &AfterCommit) -> Result<(), StoreError> {
        self.newest = changes.newest;
        let held = self.holdings.held();
        let mut rows = Vec::new();
        for change in &changes.rescheduled {
            let scope = Scope::Account(change.provider.clone());
            if !held.contains(&scope) {
                rows.push(format!("({}, 'checks', {})", quoted(&scope.to_string()), change.pk));
            }
        }
        for webhook in &changes.webhooks {
            let scope = Scope::Webhook(webhook.clone());
            if !held.contains(&scope) {
                rows.push(format!("({}, 'due', NULL)", quoted(&scope.to_string())));
            }
        }
        for (scope, kind, batch) in &changes.letters {
            if !held.contains(scope) {
                let batch = batch.map_or_else(|| "NULL".to_owned(), |pk| pk.to_string());
                rows.push(format!("({}, '{kind}', {batch})", quoted(&scope.to_string())));
            }
        }
        if changes.all_webhooks {
            self.session.send_control(format!(
                "INSERT INTO mail (scope, kind) SELECT scope, 'due' FROM leases \
                 WHERE scope LIKE 'webhook:%' AND owner IS DISTINCT FROM '{}'",
                self.member.id
            ))?;
        }
        for some in rows.chunks(LETTERS_IN_ONE) {
            // Whoever owns a scope next reads all of it.
            self.session.send_control(format!(
                "INSERT INTO mail (scope, kind, batch) SELECT scope, kind, CAST(batch AS BIGINT) \
                 FROM (VALUES {}) AS letters (scope, kind, batch) \
                 WHERE scope IN (SELECT leases.scope FROM leases WHERE owner IS NOT NULL)",
                some.join(", ")
            ))?;
        }
        if changes.all_webhooks || !rows.is_empty() {
            // Who hears it need not wait for the next look. Commits follow each other anyway, which is what it costs.
            self.session.send_control(format!("NOTIFY batchd, '{}'", self.member.id))?;
        }
        Ok(())
    }

    /// Leaves the others.
    pub(in super::super) fn close(self) -> Result<(), StoreError> {
        self.member.leave(&self.session)
    }
}

/// Waits for a moment, on a thread of blocking work.
fn pause() {
    #[expect(clippy::disallowed_methods, reason = "no task waits on this thread")]
    std::thread::sleep(PAUSE);
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ";
/// A daemon that is stopped with the lock in its hand holds up the others for as long as the last of the time limits; one
/// that is stopped while it waits for the lock does so after it. What may be lost with the server alone is no commit,
/// whatever the role's settings say. Some hundred rows are looked up by an index, not by reading a table from end to end,
/// which is what a server believes to be cheaper on a disk that turns.
const LIMITS: &str = "SET LOCAL lock_timeout = '8s'; SET LOCAL statement_timeout = '9s'; \
    SET LOCAL idle_in_transaction_session_timeout = '1200ms'; \
    SET LOCAL random_page_cost = 1.1; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; ";
/// How long it is asked whether a commit was made whose answer was lost, before its caller is told that nobody knows.
const SETTLED_WITHIN: Duration = Duration::from_secs(8);
/// Well below the time for which the row of one that was given up is kept.
const ROW_IS_KEPT: Duration = Duration::from_hours(12);
/// How often the others see that this daemon lives, if it writes nothing.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// It is seen so often at least before it would be given up.
const BEATS_IN_A_LEASE: u32 = 5;
/// How long what is under way in a scope has before that is given back.
const LEFT_AFTER: Duration = Duration::from_secs(3);
const LETTERS_IN_ONE: usize = 1000;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
