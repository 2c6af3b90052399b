//! What batches cost: recorded once for a batch, and summed up by month, provider and model.

use super::column::{self, Pk, from_json, json, maybe_json, ms};
use super::error::StoreError;
use super::given::Given;
use super::sql::Row;
use super::state::Store;
use super::transaction::Tx;
use super::value::named;
use super::{row, telling};
use crate::domain::cost::{Cost, SpentByModel, Usd, spent};
use crate::domain::prices::{Buyer, Prices};
use crate::domain::time::from_seconds;
use crate::domain::tracked::Tracked;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was spent in a month on one model at one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    pub provider: String,
    pub model: String,
    pub amount: Usd,
}

/// What was spent in one month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Month {
    pub spending: Vec<Spending>,
    /// By label, as `key=value`, of the batches that are still kept.
    pub labels: BTreeMap<String, Usd>,
}

impl Store {
    /// Ended batches are priced by these from now on; those that have a cost keep it.
    pub fn set_prices(&self, prices: Arc<Prices>) {
        if let Ok(writer) = self.writer() {
            writer.core.set_prices(prices);
        }
    }

    /// Prices the ended batches that have tokens and no cost yet, some hundred a transaction. How many got one.
    pub async fn price_ended(&self, prices: Arc<Prices>) -> Result<u64, StoreError> {
        let (mut after, mut settled) = (Pk::MIN, 0);
        while !prices.is_empty() {
            let in_force = prices.clone();
            let chunk = self.read(move |connection| {
                connection.rows(
                    &row::select_with(
                        "spent",
                        &format!("WHERE {UNPRICED} AND pk > ?1 ORDER BY pk LIMIT {PRICED_AT_ONCE}"),
                    ),
                    [after],
                    |row| {
                        let (pk, tracked) = row::read(row)?;
                        let told = maybe_json(row, "spent")?.unwrap_or_default();
                        Ok((pk, of(&in_force, &tracked, None, &told).is_some()))
                    },
                )
            });
            let chunk = chunk.await?;
            let Some((last, _)) = chunk.last() else { break };
            after = *last;
            let found: Vec<Pk> =
                chunk.into_iter().filter(|(_, has_price)| *has_price).map(|(pk, _)| pk).collect();
            if found.is_empty() {
                continue;
            }
            let chunk = self.write(move |tx| {
                let mut news = 0;
                for pk in found {
                    news += u64::from(settle(tx, pk)?);
                }
                Ok(news)
            });
            settled += chunk.await?;
        }
        Ok(settled)
    }

    /// What was spent ever, by provider and model.
    pub async fn spent_ever(&self) -> Result<Vec<Spending>, StoreError> {
        self.read(|connection| {
            let all = connection.rows("SELECT provider, model, amount FROM spending", [], spending)?;
            let mut sums: BTreeMap<(String, String), Usd> = BTreeMap::new();
            for Spending { provider, model, amount } in all {
                add(&mut sums, (provider, model), amount);
            }
            Ok(sums
                .into_iter()
                .map(|((provider, model), amount)| Spending { provider, model, amount })
                .collect())
        })
        .await
    }

    /// What was spent in the month of `at`.
    pub async fn spent_in_month(&self, at: Timestamp) -> Result<Month, StoreError> {
        self.read(move |connection| {
            let spending = connection.rows(
                "SELECT provider, model, amount FROM spending WHERE month = ?1",
                [month(at)],
                spending,
            )?;
            let mut labels = BTreeMap::new();
            let first = at.to_zoned(TimeZone::UTC).first_of_month().and_then(|day| day.start_of_day());
            let first = first.map_or(i64::MIN, |day| ms(day.timestamp()));
            let labelled = row::select("WHERE over_at >= ?1 AND cost IS NOT NULL AND labels <> '{}'");
            for (_, tracked) in connection.rows(&labelled, [first], row::read)? {
                if let Some(cost) = tracked.cost.as_ref().filter(|_| month(end(&tracked)) == month(at)) {
                    for (key, value) in &tracked.labels {
                        add(&mut labels, format!("{key}={value}"), cost.amount());
                    }
                }
            }
            Ok(Month { spending, labels })
        })
        .await
    }

    /// How many ended batches have tokens and no price for them, by `PROVIDER/MODEL`; of the newest thousand.
    pub async fn unpriced(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.read(|connection| {
            let unpriced = connection.rows(
                &format!(
                    "SELECT provider, coalesce(batch ->> '$.model', '') AS model, count(*) AS count FROM batches
                     WHERE {UNPRICED} AND pk IN (SELECT pk FROM batches WHERE {UNPRICED} ORDER BY pk DESC LIMIT 1000)
                     GROUP BY 1, 2"
                ),
                [],
                |row| {
                    let (provider, model): (String, String) = (row.get("provider")?, row.get("model")?);
                    Ok((format!("{provider}/{model}"), column::count(row, "count")?))
                },
            )?;
            Ok(unpriced.into_iter().collect())
        })
        .await
    }
}

/// What `tracked` costs: by the prices that `before` was reckoned by, else by those in force.
pub(super) fn of(
    prices: &Prices,
    tracked: &Tracked,
    before: Option<&Cost>,
    told: &SpentByModel,
) -> Option<Cost> {
    let Some(spent) = spent(&tracked.batch, told) else { return before.cloned() };
    if let Some(cost) = before {
        return cost.again(&spent).or_else(|| before.cloned());
    }
    let buyer = Buyer { provider: &tracked.key.provider, kind: &tracked.kind };
    prices.cost(buyer, &spent)
}

/// The same of a check; what has not ended keeps what it has.
pub(super) fn of_check(
    prices: &Prices,
    tracked: &Tracked,
    before: Option<&Cost>,
    told: &SpentByModel,
) -> Option<Cost> {
    if tracked.batch.status.is_terminal() { of(prices, tracked, before, told) } else { before.cloned() }
}

/// The batches of these rows, each with the tokens by model that its results have told.
pub(super) fn load_spent(
    tx: &Tx<'_>,
    batches: &[Pk],
) -> Result<BTreeMap<Pk, (Tracked, SpentByModel)>, StoreError> {
    let found = tx.rows_of(
        &row::select_with("spent", ", given(wanted INT) WHERE pk = given.wanted"),
        &Given::each(batches.iter().copied()),
        |row| {
            let (pk, tracked) = row::read(row)?;
            Ok((pk, (tracked, maybe_json(row, "spent")?.unwrap_or_default())))
        },
    )?;
    Ok(found.into_iter().collect())
}

/// Writes what the batch of a row costs, if that is known by now. Whether it is news.
pub(super) fn settle(tx: &Tx<'_>, pk: Pk) -> Result<bool, StoreError> {
    let Some((mut tracked, told)) = load_spent(tx, &[pk])?.remove(&pk) else { return Ok(false) };
    let cost = of_check(&tx.prices, &tracked, tracked.cost.as_ref(), &told);
    if cost == tracked.cost {
        return Ok(false);
    }
    tracked.cost = cost;
    let stored = tracked.cost.as_ref().map(json).transpose()?;
    tx.send("UPDATE batches SET cost = :cost WHERE pk = :pk", named! { ":pk": pk, ":cost": stored })?;
    count(tx, std::iter::once(&tracked))?;
    Ok(true)
}

/// Adds what these batches cost to what was spent, unless it has been.
pub(super) fn count<'t>(tx: &Tx<'_>, batches: impl Iterator<Item = &'t Tracked>) -> Result<(), StoreError> {
    let costs = batches.filter_map(|tracked| {
        let models = &tracked.cost.as_ref()?.models;
        let amounts = models.iter().map(|(model, cost)| (model.clone(), cost.amount));
        Some((telling::fence(&tracked.key), tracked, amounts.collect::<ByModel>()))
    });
    let costs: Vec<(i64, &Tracked, ByModel)> = costs.collect();
    if costs.is_empty() {
        return Ok(());
    }
    let before = tx.rows_of(
        "SELECT about, cost FROM counted, given(wanted INT) WHERE about = given.wanted",
        &Given::each(costs.iter().map(|(about, ..)| *about)),
        |row| Ok((row.get("about")?, from_json(row, "cost")?)),
    )?;
    let before: BTreeMap<i64, ByModel> = before.into_iter().collect();
    let (mut counted, mut more) = (Given::default(), Vec::new());
    for (about, tracked, amounts) in &costs {
        let before = before.get(about);
        if before == Some(amounts) {
            continue;
        }
        counted.push(vec![(*about).into(), json(amounts)?.into()]);
        let (none, month) = (ByModel::new(), month(end(tracked)));
        let before = before.unwrap_or(&none);
        let models: BTreeSet<&String> = amounts.keys().chain(before.keys()).collect();
        for model in models {
            let share = |of: &ByModel| of.get(model).copied().unwrap_or_default();
            if let Some(amount) = share(amounts).minus(share(before)) {
                more.push(((month.clone(), tracked.key.provider.clone(), model.clone()), amount));
            }
        }
    }
    tx.set(
        "INSERT INTO counted (about, cost) SELECT given.about, given.cost FROM given(about INT, cost TEXT)
         WHERE TRUE ON CONFLICT (about) DO UPDATE SET cost = excluded.cost",
        &counted,
    )?;
    spend(tx, more)
}

/// Amounts by model.
type ByModel = BTreeMap<String, Usd>;
/// What is summed up: the batches of a month, a provider and a model.
type Sum = (String, String, String);

fn spend(tx: &Tx<'_>, more: Vec<(Sum, Usd)>) -> Result<(), StoreError> {
    let given = |(month, provider, model): &Sum| {
        vec![month.clone().into(), provider.clone().into(), model.clone().into()]
    };
    let wanted: BTreeSet<&Sum> = more.iter().map(|(sum, _)| sum).collect();
    let sums = tx.rows_of(
        "SELECT spending.month AS month, spending.provider AS provider, spending.model AS model, amount
         FROM spending, given(month TEXT, provider TEXT, model TEXT)
         WHERE spending.month = given.month AND spending.provider = given.provider AND spending.model = given.model",
        &wanted.into_iter().map(given).collect(),
        |row| {
            let text: String = row.get("amount")?;
            Ok(((row.get("month")?, row.get("provider")?, row.get("model")?), amount(&text)?))
        },
    )?;
    let mut sums: BTreeMap<Sum, Usd> = sums.into_iter().collect();
    for (of, more) in more {
        let sum = sums.entry(of.clone()).or_default();
        if let Some(new) = sum.plus(more) {
            *sum = new;
        } else {
            tracing::warn!(
                provider = of.1,
                model = of.2,
                "what was spent is more than can be added up; {more} dollars are left out"
            );
        }
    }
    let written = sums.iter().map(|(sum, amount)| {
        let mut row = given(sum);
        row.push(amount.to_string().into());
        row
    });
    tx.set(
        "INSERT INTO spending (month, provider, model, amount)
         SELECT given.month, given.provider, given.model, given.amount
         FROM given(month TEXT, provider TEXT, model TEXT, amount TEXT)
         WHERE TRUE ON CONFLICT (month, provider, model) DO UPDATE SET amount = excluded.amount",
        &written.collect(),
    )
}

fn spending(row: &Row<'_>) -> Result<Spending, StoreError> {
    let text: String = row.get("amount")?;
    Ok(Spending { provider: row.get("provider")?, model: row.get("model")?, amount: amount(&text)? })
}

fn amount(text: &str) -> Result<Usd, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged("column amount: it is no amount".to_owned()))
}

/// Adds up as far as it can be done exactly; no real sum comes near that.
fn add<K: Ord>(sums: &mut BTreeMap<K, Usd>, key: K, amount: Usd) {
    let sum = sums.entry(key).or_default();
    *sum = sum.plus(amount).unwrap_or(*sum);
}

/// When a batch ended: as its provider tells, else as it was seen.
fn end(tracked: &Tracked) -> Timestamp {
    tracked.batch.ended_at().and_then(from_seconds).unwrap_or(tracked.status_since)
}

/// The month in UTC, as `2026-11`.
fn month(at: Timestamp) -> String {
    let day = at.to_zoned(TimeZone::UTC).date();
    format!("{:04}-{:02}", day.year(), day.month())
}

/// Ended batches with tokens and without a cost; as the index has it.
const UNPRICED: &str = "cost IS NULL AND batch ->> '$.usage' IS NOT NULL
     AND status IN ('completed', 'failed', 'expired', 'cancelled')";
const PRICED_AT_ONCE: u32 = 200;
