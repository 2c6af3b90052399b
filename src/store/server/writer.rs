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
use super::session::{Hints, Session};
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
}

impl ServerWriter {
    pub(super) fn new(session: Session, member: Member, holdings: Holdings, lease: Duration) -> Self {
        Self {
            session,
            member,
            commits: 0,
            in_doubt: None,
            refused: None,
            holdings,
            lease,
            lookout: Lookout::default(),
            scopes: BTreeMap::new(),
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
        self.open(&format!("{BEGIN}{LIMITS}{member}{LAST_IN_LINE}"), now)
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
        let sent = self.holdings.steady();
        let Err(error) = self.session.control("COMMIT") else {
            self.commits = commit;
            self.beaten = Instant::now();
            self.holdings.answered(sent);
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

    /// Shows the others that this daemon lives, looks at what they do, and takes and gives back what is to be.
    pub(in super::super) fn tend(&mut self, now: Timestamp) -> Result<Tended, StoreError> {
        if self.refused.is_some() {
            self.join_anew(now)?;
        }
        if self.beaten.elapsed() >= BEAT_EVERY {
            let offset = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            self.open(&format!("{BEGIN}{LIMITS}SET LOCAL synchronous_commit = off; "), now)?;
            self.session.control(&format!(
                "UPDATE members SET offset_ms = {} - {offset} WHERE id = '{}'",
                now.as_millisecond(),
                self.member.id
            ))?;
            self.commit(now)?;
        }
        self.session.listen(&self.member.id)?;
        let steady = self.holdings.steady();
        let Seen { sequence, acts, mut held, members, letters, taken } =
            self.lookout.look(&self.session, &self.member.id, self.lease, steady)?;
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
        Ok(Tended { sequence, letters: std::mem::take(&mut self.letters), members, gained })
    }

    /// Begins afresh as another member, after the others have given up this one: what it did is theirs by now.
    fn join_anew(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.holdings.set(BTreeSet::new());
        self.session.give_up();
        let member = Member::new(&self.member.name, self.member.place.clone());
        member.join(&self.session, now)?;
        tracing::warn!(
            name = self.member.name,
            "the other daemons had given up this one; it joins them anew"
        );
        (self.member, self.commits, self.in_doubt, self.refused) = (member, 0, None, None);
        (self.lookout, self.leaving) = (Lookout::default(), BTreeMap::new());
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
            Ok(()) => self.commit(now),
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
    pub(in super::super) fn write_letters(&self, changes: &AfterCommit) -> Result<(), StoreError> {
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
/// A daemon that is stopped with the lock in its hand holds up the others for as long as the last of these. What may be
/// lost with the server alone is no commit, whatever the role's settings say. Some hundred rows are looked up by an index, not
/// by reading a table from end to end, which is what a server believes to be cheaper on a disk that turns.
const LIMITS: &str = "SET LOCAL lock_timeout = '8s'; SET LOCAL statement_timeout = '9s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'; \
    SET LOCAL random_page_cost = 1.1; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; ";
const LAST_IN_LINE: &str = "SELECT sequence FROM head FOR UPDATE; ";
/// How long it is asked whether a commit was made whose answer was lost, before its caller is told that nobody knows.
const SETTLED_WITHIN: Duration = Duration::from_secs(8);
/// How often the others see that this daemon lives, if it writes nothing.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How long what is under way in a scope has before that is given back.
const LEFT_AFTER: Duration = Duration::from_secs(3);
const LETTERS_IN_ONE: usize = 1000;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
