//! What is remembered of each webhook across restarts, and what switching one off or on does to what it is owed.

use super::super::column::{maybe_at, ms};
use super::super::error::StoreError;
use super::super::given::Given;
use super::super::sql::{Row, Sql};
use super::super::state::Store;
use super::super::telling;
use super::super::transaction::Tx;
use super::super::value::named;
use super::delivery::REACHABLE;
use crate::domain::event::Draft;
use crate::domain::ownership::Scope;
use crate::domain::route::Routes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is remembered of a webhook across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// Why it is switched off, if it is.
    pub disabled: Option<String>,
    /// Whether it was switched off by a person (who alone switches it on again).
    pub by_hand: bool,
    /// Failures in a row.
    pub failures: u32,
    pub failing_since: Option<Timestamp>,
    /// Until when its receiver wants to be left alone.
    pub paused_until: Option<Timestamp>,
    /// When it last accepted something.
    pub last_success_at: Option<Timestamp>,
    /// A short keyed hash of where it points: if that changes, what was held is sent there.
    pub fingerprint: Option<String>,
    /// Since when the trouble lasts that others were told of; `None`: nothing was told, or its end was too.
    pub told_since: Option<Timestamp>,
    /// Of which deliveries that were given up others were told: when that began …
    pub deaths_since: Option<Timestamp>,
    /// … and when they were told last.
    pub deaths_told_at: Option<Timestamp>,
}

impl Store {
    /// What is remembered of every webhook.
    pub async fn webhook_states(&self) -> Result<Vec<(String, WebhookState)>, StoreError> {
        self.read(states).await
    }

    /// Whether another daemon, which shares the state, has switched the webhook on or off since this was asked last.
    pub fn was_switched_elsewhere(&self, webhook: &str) -> bool {
        self.0.daemon.as_ref().is_some_and(|daemon| daemon.writer.core.was_switched(webhook))
    }

    /// What is remembered of one webhook.
    pub async fn webhook_state(&self, webhook: String) -> Result<WebhookState, StoreError> {
        self.read(move |connection| Ok(load_webhook(connection, &webhook)?.unwrap_or_default())).await
    }

    /// Saves what is to be remembered of `webhook`. Switching it off holds what is pending, switching it on
    /// releases what is held, in the same transaction.
    pub async fn set_webhook_state(
        &self,
        webhook: String,
        state: WebhookState,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let was_off = load_webhook(tx, &webhook)?.is_some_and(|state| state.disabled.is_some());
            save_webhook(tx, &webhook, &state)?;
            if was_off != state.disabled.is_some() {
                tx.write_letter(Scope::Webhook(webhook.clone()), "switched", None);
            }
            if state.disabled.is_some() {
                hold(tx, &webhook)?;
            } else if was_off {
                release(tx, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Holds what is owed to webhooks that are not in `configured`, and releases what is held of those that are and
    /// are not switched off.
    pub async fn align_webhooks(
        &self,
        configured: Vec<String>,
        now: Timestamp,
    ) -> Result<Vec<(String, WebhookState)>, StoreError> {
        self.write(move |tx| {
            // Those of which nothing is remembered but that they are owed something get a row too.
            tx.send(
                "INSERT INTO webhooks (name) SELECT DISTINCT webhook FROM deliveries
                 WHERE state <> 'delivered' ON CONFLICT DO NOTHING",
                [],
            )?;
            // Where several daemons share the state, one of them may have a webhook that this one does not.
            let elsewhere = match tx.sql() {
                Sql::File(_) => String::new(),
                Sql::Server(_) => format!(
                    " WHERE NOT {}",
                    declared(" AND id <> coalesce(current_setting('batchd.member', true), '')")
                ),
            };
            tx.send(&format!("UPDATE webhooks SET configured = 0{elsewhere}"), [])?;
            for webhook in &configured {
                tx.send(
                    "INSERT INTO webhooks (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET configured = 1",
                    [webhook],
                )?;
            }
            hold_unreachable(tx)?;
            release(tx, now)?;
            states(tx)
        })
        .await
    }

    /// The webhooks that no daemon has in its configuration at present, of those that share the state, and that count as
    /// configured.
    pub async fn undeclared_webhooks(&self) -> Result<Vec<String>, StoreError> {
        if !self.is_on_server() {
            return Ok(Vec::new());
        }
        self.read(|connection| {
            let of = format!("SELECT name FROM webhooks WHERE configured = 1 AND NOT {}", declared(""));
            connection.rows(&of, [], |row| row.get("name"))
        })
        .await
    }

    /// Has these webhooks count as configured no more, unless a daemon has one of them meanwhile, and holds what they are
    /// owed.
    pub async fn unconfigure(&self, webhooks: Vec<String>) -> Result<(), StoreError> {
        self.write(move |tx| {
            for webhook in &webhooks {
                tx.send(
                    &format!("UPDATE webhooks SET configured = 0 WHERE name = ?1 AND NOT {}", declared("")),
                    [webhook],
                )?;
            }
            hold_unreachable(tx)
        })
        .await
    }

    /// Records a finding about `webhook`, with its deliveries to the others, and in the same transaction whether an
    /// episode of it is told of (since when) or over.
    pub async fn tell_of_webhook(
        &self,
        webhook: String,
        told_since: Option<Timestamp>,
        finding: Draft,
        routes: Arc<Routes>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            telling::record(tx, &finding, None, &routes)?;
            tx.send(
                "INSERT INTO webhooks (name, told_since) VALUES (:name, :told_since)
                 ON CONFLICT (name) DO UPDATE SET told_since = :told_since",
                named! { ":name": webhook, ":told_since": told_since.map(ms) },
            )?;
            Ok(())
        })
        .await
    }
}

fn states(connection: &Sql<'_>) -> Result<Vec<(String, WebhookState)>, StoreError> {
    connection.rows(&format!("{SELECT} ORDER BY name"), [], |row| Ok((row.get("name")?, webhook_state(row)?)))
}

/// The condition that a daemon has a webhook of `webhooks` in its configuration, of those `which` share the state.
fn declared(which: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM members WHERE dead = 0{which}
           AND strpos(scopes, '\"webhook:' || webhooks.name || '\"') > 0)"
    )
}

/// Holds what is pending of webhooks that are not configured, or switched off.
fn hold_unreachable(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.send(
        "UPDATE deliveries SET state = 'held' WHERE state = 'pending' AND state <> 'delivered'
           AND webhook NOT IN (SELECT name FROM webhooks WHERE configured = 1 AND disabled IS NULL)",
        [],
    )
}

/// Holds what is pending of `webhook`.
pub(super) fn hold(tx: &Tx<'_>, webhook: &str) -> Result<(), StoreError> {
    tx.send("UPDATE deliveries SET state = 'held' WHERE webhook = ?1 AND state = 'pending'", [webhook])
}

/// Makes due what is held of webhooks that are configured and switched on.
fn release(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let released: Vec<String> = tx.rows(
        &format!(
            "UPDATE deliveries SET state = 'pending', due_at = ?1, wait = 0
             WHERE state = 'held' AND state <> 'delivered' AND {REACHABLE} RETURNING webhook"
        ),
        [ms(now)],
        |row| row.get("webhook"),
    )?;
    for webhook in released {
        tx.tell_webhook(&webhook);
    }
    Ok(())
}

fn load_webhook(connection: &Sql<'_>, webhook: &str) -> Result<Option<WebhookState>, StoreError> {
    connection.row(&format!("{SELECT} WHERE name = ?1"), [webhook], webhook_state)
}

/// What is remembered of these webhooks.
pub(super) fn load_webhooks<'n>(
    connection: &Sql<'_>,
    names: impl Iterator<Item = &'n str>,
) -> Result<BTreeMap<String, WebhookState>, StoreError> {
    let found = connection.rows_of(
        &format!("{SELECT}, given(wanted TEXT) WHERE name = given.wanted"),
        &Given::each(names.map(str::to_owned)),
        |row| Ok((row.get("name")?, webhook_state(row)?)),
    )?;
    Ok(found.into_iter().collect())
}

pub(super) fn save_webhook(
    connection: &Sql<'_>,
    webhook: &str,
    state: &WebhookState,
) -> Result<(), StoreError> {
    connection.send("INSERT INTO webhooks (name, disabled, by_hand, failures, failing_since, paused_until, last_success_at,
               fingerprint, told_since, deaths_since, deaths_told_at)
             VALUES (:name, :disabled, :by_hand, :failures, :failing_since, :paused_until, :last_success_at,
               :fingerprint, :told_since, :deaths_since, :deaths_told_at)
             ON CONFLICT (name) DO UPDATE SET disabled = excluded.disabled, by_hand = excluded.by_hand,
               failures = excluded.failures, failing_since = excluded.failing_since,
               paused_until = excluded.paused_until, last_success_at = excluded.last_success_at,
               fingerprint = excluded.fingerprint, told_since = excluded.told_since,
               deaths_since = excluded.deaths_since, deaths_told_at = excluded.deaths_told_at", named! {
            ":name": webhook,
            ":disabled": state.disabled,
            ":by_hand": state.by_hand,
            ":failures": state.failures,
            ":failing_since": state.failing_since.map(ms),
            ":paused_until": state.paused_until.map(ms),
            ":last_success_at": state.last_success_at.map(ms),
            ":fingerprint": state.fingerprint,
            ":told_since": state.told_since.map(ms),
            ":deaths_since": state.deaths_since.map(ms),
            ":deaths_told_at": state.deaths_told_at.map(ms),
        })
}

/// Reads a row that [`SELECT`] gives.
fn webhook_state(row: &Row<'_>) -> Result<WebhookState, StoreError> {
    Ok(WebhookState {
        disabled: row.get("disabled")?,
        by_hand: row.get("by_hand")?,
        failures: row.get("failures")?,
        failing_since: maybe_at(row, "failing_since")?,
        paused_until: maybe_at(row, "paused_until")?,
        last_success_at: maybe_at(row, "last_success_at")?,
        fingerprint: row.get("fingerprint")?,
        told_since: maybe_at(row, "told_since")?,
        deaths_since: maybe_at(row, "deaths_since")?,
        deaths_told_at: maybe_at(row, "deaths_told_at")?,
    })
}

const SELECT: &str = "SELECT name, disabled, by_hand, failures, failing_since, paused_until, last_success_at, \
     fingerprint, told_since, deaths_since, deaths_told_at FROM webhooks";
