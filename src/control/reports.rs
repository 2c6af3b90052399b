//! The health of the daemon, its providers and its webhooks, and the operations that repair it.

use super::api::ErrorCode;
use super::api::{
    CheckAnswer, ConfigReport, CostReport, DeliveryView, LogStepReport, MemberReport, ProviderReport,
    ReloadAnswer, StatusReport, TestAnswer, WebhookReport,
};
use super::api_error::ApiError;
use super::live::removed_webhooks;
use super::resolve::no_such_provider;
use super::service::{Service, delivery_number, delivery_view};
use crate::config::{Config, WebhookConfig};
use crate::domain::batch::RequestCounts;
use crate::domain::cost::{CURRENCY, Usd};
use crate::domain::event::{Draft, EventType};
use crate::domain::status::Status;
use crate::domain::time::{from_millis, since};
use crate::domain::tracked::{BatchKey, Origin, Tracked};
use crate::engine::ProviderError;
use crate::engine::poller::Snapshot;
use crate::http::failure::Verdict;
use crate::notify::Exchange;
use crate::notify::last_failure::{self, LastFailure};
use crate::store::MemberView;
use crate::store::jobs::{BACKUP, JobRun};
use crate::store::outbox::{Backlog, DeliveryFilter, DeliveryState, WebhookState};
use crate::store::providers::ProviderState;
use crate::webhook::{DeliveryOutcome, EventBody};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A loop that has not completed a pass for this long is late. No loop sleeps longer than half of it.
pub const LATE: Duration = Duration::from_secs(45);

/// Why a webhook is off that a person switched off.
pub const BY_HAND: &str = "switched off by hand";

/// What stands in the place of a status for batches that were untracked before they ended.
pub(super) const UNTRACKED: &str = "untracked";

impl Service {
    /// The daemon's health in one answer.
    pub async fn status(&self) -> Result<StatusReport, ApiError> {
        let live = self.live()?;
        let config = live.config();
        let now = self.clock.now();
        let pollers = live.engine.snapshot();
        let counted = self.store.counts_of_tracked().await?;
        let state = self.state_of(&config.state.dir, &counted).await?;
        let mut orphans = BTreeMap::new();
        for (provider, status, count) in counted {
            if status.is_some_and(|status| !status.is_terminal()) && !config.providers.contains_key(&provider)
            {
                *orphans.entry(provider).or_default() += count;
            }
        }
        let troubles = self.not_ready().await;
        let mut cost = state.cost.clone();
        // Where nobody has given a price, none is missing.
        if let Some(cost) = cost.as_mut().filter(|_| !config.prices.is_empty()) {
            cost.unpriced = self.store.unpriced().await?;
        }
        Ok(StatusReport {
            pid: Some(std::process::id()),
            started_at: Some(live.started_at.to_string()),
            uptime_seconds: Some(since(live.started_at, now).as_secs()),
            config_file: config
                .file
                .as_ref()
                .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string()),
            ready: troubles.is_empty(),
            troubles,
            // What other daemons poll is on no schedule of this one.
            active: match self.store.server() {
                Some(_) => state.active,
                None => pollers.iter().map(|poller| poller.active).sum(),
            },
            due: pollers.iter().map(|poller| poller.due).sum(),
            late_seconds: pollers.iter().map(|poller| poller.late.as_secs()).max().unwrap_or_default(),
            warnings: config.warnings.iter().cloned().chain(self.files_lie_apart(&config)).collect(),
            reload_error: live.reload_error(),
            orphans,
            removed_webhooks: removed_webhooks(&config, &self.store).await?,
            providers: self.providers()?,
            webhooks: self.webhooks().await?,
            cost,
            ..state
        })
    }

    /// What the state in `dir` tells of itself, whether a daemon runs or not.
    pub async fn state(&self, dir: &Path) -> Result<StatusReport, ApiError> {
        let counted = self.store.counts_of_tracked().await?;
        self.state_of(dir, &counted).await
    }

    /// The same, with the batches `counted` by provider and status.
    async fn state_of(
        &self,
        dir: &Path,
        counted: &[(String, Option<Status>, u64)],
    ) -> Result<StatusReport, ApiError> {
        let now = self.clock.now();
        let mut batches = BTreeMap::new();
        let mut active = 0;
        for (_, status, count) in counted {
            *batches.entry(status.map_or(UNTRACKED, Status::as_str).to_owned()).or_default() += *count;
            if status.is_some_and(|status| !status.is_terminal()) {
                active += *count;
            }
        }
        let (backups, jobs): (Vec<JobRun>, Vec<JobRun>) =
            self.store.job_runs().await?.into_iter().partition(|run| run.name == BACKUP);
        let jobs = jobs.into_iter().map(|run| {
            json!({
                "name": run.name,
                "started_at": run.started_at.to_string(),
                "finished_at": run.finished_at.to_string(),
                "error": run.error,
            })
        });
        let providers = self.store.provider_states().await?.into_iter();
        let mut backlogs: BTreeMap<String, Backlog> = self.store.backlogs().await?.into_iter().collect();
        let mut webhooks: Vec<WebhookReport> = Vec::new();
        for (name, state) in self.store.webhook_states().await? {
            let backlog = backlogs.remove(&name).unwrap_or_default();
            let failing = state.failures > 0;
            let failure = if failing { last_failure::recorded(&self.store, &name).await? } else { None };
            webhooks.push(webhook_report(&name, None, &state, failure, &backlog, now));
        }
        let others = backlogs.iter();
        webhooks.extend(
            others.map(|(name, owed)| webhook_report(name, None, &WebhookState::default(), None, owed, now)),
        );
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: None,
            last_backup_at: backups.first().map(|run| run.finished_at.to_string()),
            started_at: None,
            uptime_seconds: None,
            config_file: None,
            state_dir: dir.display().to_string(),
            ready: false,
            troubles: Vec::new(),
            batches,
            active,
            due: 0,
            late_seconds: 0,
            events: self.store.last_sequence().await?,
            warnings: Vec::new(),
            reload_error: None,
            orphans: BTreeMap::new(),
            removed_webhooks: BTreeMap::new(),
            submissions: self.open_submissions().await?,
            failed_downloads: self.store.failed_downloads().await?.iter().map(ToString::to_string).collect(),
            cost: Some(self.cost_of_month(now).await?),
            held_from_pruning: self.store.held_back(),
            providers: providers.map(|(name, state)| remembered_provider(&name, state)).collect(),
            webhooks,
            jobs: jobs.collect(),
            database: self.store.server(),
            members: self.store.members().into_iter().map(member).collect(),
            log_step: self.store.newest_step().await?.map(|step| LogStepReport {
                behind: step.behind,
                goes_on: step.goes_on,
                at: step.at.to_string(),
            }),
        })
    }

    /// That daemons with one state do not find each other's uploads, if they do not.
    fn files_lie_apart(&self, config: &Config) -> Option<String> {
        let others = self.store.members().len() > 1 && !config.keeps_files_apart();
        others.then(|| {
            "what clients upload to /v1/files is kept by the daemon that takes it and not found by the others: name a \
             directory that all of them have in `files.dir`, or have each client keep to one daemon"
                .to_owned()
        })
    }

    /// What the batches cost that ended in the month of `now`.
    async fn cost_of_month(&self, now: Timestamp) -> Result<CostReport, ApiError> {
        let month = self.store.spent_in_month(now).await?;
        let mut amount = Usd::default();
        let mut providers: BTreeMap<String, Usd> = BTreeMap::new();
        for each in month.spending {
            amount = amount.plus(each.amount).unwrap_or(amount);
            let sum = providers.entry(each.provider).or_default();
            *sum = sum.plus(each.amount).unwrap_or(*sum);
        }
        let numbers = |sums: BTreeMap<String, Usd>| sums.into_iter().map(|(key, sum)| (key, sum.number()));
        Ok(CostReport {
            month: now.strftime("%Y-%m").to_string(),
            currency: CURRENCY.to_owned(),
            amount: amount.number(),
            providers: numbers(providers).collect(),
            labels: numbers(month.labels).collect(),
            unpriced: BTreeMap::new(),
        })
    }

    /// What keeps the daemon from being ready, one sentence each: the state, or a loop that is late.
    pub async fn not_ready(&self) -> Vec<String> {
        let Some(live) = &self.live else { return vec!["the daemon is not running".to_owned()] };
        let mut troubles = live.troubles();
        if let Err(error) = self.store.healthy().await {
            troubles.push(error.to_string());
        }
        troubles.extend(live.late(LATE).into_iter().map(|name| format!("the loop {name} is stuck")));
        troubles
    }

    /// Every provider and how it stands.
    pub fn providers(&self) -> Result<Vec<ProviderReport>, ApiError> {
        Ok(self.live()?.engine.snapshot().into_iter().map(provider_report).collect())
    }

    /// A live call to every provider, or to one.
    pub async fn check_providers(&self, name: Option<&str>) -> Result<Vec<CheckAnswer>, ApiError> {
        let live = self.live()?;
        let config = live.config();
        let names: Vec<&String> = match name {
            Some(name) => {
                vec![config.providers.get_key_value(name).ok_or_else(|| no_such_provider(name, &config))?.0]
            }
            None => config.providers.keys().collect(),
        };
        let checks = names.into_iter().map(async |name| {
            let begun = self.clock.now();
            let result = live.engine.check(name).await;
            check_answer(&config, name, result, since(begun, self.clock.now()))
        });
        Ok(futures_util::future::join_all(checks).await)
    }

    /// Every webhook and how it stands.
    pub async fn webhooks(&self) -> Result<Vec<WebhookReport>, ApiError> {
        let live = self.live()?;
        let config = live.config();
        let states: BTreeMap<String, WebhookState> = self.store.webhook_states().await?.into_iter().collect();
        let healths = live.dispatcher.health().into_iter();
        let mut healths: BTreeMap<String, (WebhookState, Option<LastFailure>)> =
            healths.map(|health| (health.name, (health.state, health.last_failure))).collect();
        let mut backlogs: BTreeMap<String, Backlog> = self.store.backlogs().await?.into_iter().collect();
        let now = self.clock.now();
        Ok(config
            .webhooks
            .values()
            .map(|webhook| {
                let (state, failure) = healths
                    .remove(&webhook.name)
                    .unwrap_or_else(|| (states.get(&webhook.name).cloned().unwrap_or_default(), None));
                let backlog = backlogs.remove(&webhook.name).unwrap_or_default();
                let target = live.target(&webhook.name).unwrap_or_default();
                webhook_report(&webhook.name, Some((webhook, target)), &state, failure, &backlog, now)
            })
            .collect())
    }

    /// Switches a webhook off (what it is owed is held) or on again.
    pub async fn switch_webhook(&self, name: &str, on: bool) -> Result<WebhookReport, ApiError> {
        self.known_webhook(name)?;
        let dispatcher = &self.live()?.dispatcher;
        if on {
            dispatcher.enable(name).await?;
        } else {
            dispatcher.disable(name, BY_HAND).await?;
        }
        tracing::info!(webhook = name, "switched {} by hand", if on { "on" } else { "off" });
        let mut reports = self.webhooks().await?;
        let at = reports.iter().position(|report| report.name == name);
        at.map(|at| reports.swap_remove(at))
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the webhook is gone"))
    }

    /// Sends a real event that is marked as a test, and gives what came back.
    pub async fn test_webhook(&self, name: &str, event: Option<&str>) -> Result<TestAnswer, ApiError> {
        self.known_webhook(name)?;
        let word = event.unwrap_or("batch.completed");
        let kind = EventType::from_word(word).ok_or_else(|| {
            let words: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
            ApiError::invalid(format!("`{word}` is not a type of event; one of {}", words.join(", ")))
                .param("event")
        })?;
        let live = self.live()?;
        let now = self.clock.now();
        let draft = Draft::test(&sample(kind, now), kind, &live.nonce(), now);
        let body = draft.body(0);
        let tried = live.dispatcher.test(name, EventBody { id: &draft.id, body: &body }).await;
        let tried = tried.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the webhook is gone"))?;
        Ok(test_answer(draft.id, tried))
    }

    /// What is in force, and what a reload would make of it.
    pub fn config(&self) -> Result<ConfigReport, ApiError> {
        Ok(self.live()?.config_report())
    }

    pub async fn reload(&self) -> Result<ReloadAnswer, ApiError> {
        self.live()?.reload().await
    }

    /// Sends a delivery again, now.
    pub async fn retry(&self, id: &str) -> Result<DeliveryView, ApiError> {
        let dispatcher = &self.live()?.dispatcher;
        let pk = delivery_number(id)?;
        let due = self.store.retry(vec![pk], self.clock.now()).await? == [true];
        let filter =
            DeliveryFilter { after: Some(pk.saturating_add(1)), limit: Some(1), ..DeliveryFilter::default() };
        let found = self.store.deliveries(filter).await?.0.pop().filter(|delivery| delivery.pk == pk);
        let delivery = found.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no delivery {id}"))
                .hint("`batchd deliveries` lists them")
        })?;
        if due {
            dispatcher.probe(Some(&delivery.webhook));
            return Ok(delivery_view(delivery, None));
        }
        Err(match delivery.state {
            DeliveryState::Held => ApiError::new(
                ErrorCode::NotFound,
                format!("delivery {id} is held because its webhook is disabled"),
            )
            .hint(format!("`batchd webhooks enable {}` sends what was held", delivery.webhook)),
            _ => ApiError::new(ErrorCode::DeliveryInFlight, format!("delivery {id} is being sent right now"))
                .hint("`batchd deliveries` shows how it went; try again if it failed"),
        })
    }

    /// Sends again all that was given up.
    pub async fn retry_dead(&self, webhook: Option<String>) -> Result<u64, ApiError> {
        let dispatcher = &self.live()?.dispatcher;
        if let Some(name) = &webhook {
            self.known_webhook(name)?;
        }
        let retried = self.store.retry_dead(webhook.clone(), self.clock.now()).await?;
        dispatcher.probe(webhook.as_deref());
        Ok(retried)
    }

    fn known_webhook(&self, name: &str) -> Result<(), ApiError> {
        let config = self.live()?.config();
        if config.webhooks.contains_key(name) {
            return Ok(());
        }
        let known: Vec<&str> = config.webhooks.keys().map(String::as_str).collect();
        let refusal = ApiError::new(ErrorCode::UnknownWebhook, format!("no webhook `{name}` is configured"));
        Err(refusal.param("webhook").hint(if known.is_empty() {
            "no webhooks are configured; set SLACK_WEBHOOK_URL or write a [webhooks.NAME] table".to_owned()
        } else {
            format!("configured: {}", known.join(", "))
        }))
    }
}

pub(super) fn provider_report(poller: Snapshot) -> ProviderReport {
    ProviderReport {
        kind: poller.kind,
        base_url: poller.base_url,
        key: poller.key,
        active: poller.active,
        health: provider_health(&poller.state, poller.held_until.is_some()).to_owned(),
        held_until: poller.held_until.map(|at| at.to_string()),
        in_flight: poller.in_flight,
        ..remembered_provider(&poller.name, poller.state)
    }
}

/// What is remembered of a provider, without the daemon that knows the rest.
fn remembered_provider(name: &str, state: ProviderState) -> ProviderReport {
    ProviderReport {
        health: provider_health(&state, false).to_owned(),
        last_error: state.last_error,
        last_success_at: state.last_success_at.map(|at| at.to_string()),
        ..ProviderReport::unknown(name)
    }
}

fn provider_health(state: &ProviderState, held: bool) -> &'static str {
    if state.refused_since.is_some() {
        "refused"
    } else if held {
        "held"
    } else if state.silent_since.is_some() {
        "unreachable"
    } else if state.last_success_at.is_some() {
        "ok"
    } else {
        "untried"
    }
}

/// A webhook and how it stands; without its configuration, and where that points, what is remembered of it.
fn webhook_report(
    name: &str,
    configured: Option<(&WebhookConfig, String)>,
    state: &WebhookState,
    failure: Option<LastFailure>,
    backlog: &Backlog,
    now: Timestamp,
) -> WebhookReport {
    let (health, reason) = webhook_health(state, now);
    let webhook = configured.as_ref().map(|(webhook, _)| *webhook);
    WebhookReport {
        name: name.to_owned(),
        kind: webhook.map(|webhook| webhook.kind.clone()).unwrap_or_default(),
        events: webhook.iter().flat_map(|webhook| &webhook.events).map(ToString::to_string).collect(),
        severity: webhook.map(|webhook| webhook.severity.to_string()).unwrap_or_default(),
        signed: webhook.is_some_and(|webhook| !webhook.secrets.is_empty()),
        on_request: webhook.is_some_and(|webhook| webhook.on_request),
        target: configured.map(|(_, target)| target).unwrap_or_default(),
        health: health.to_owned(),
        reason,
        failures: state.failures,
        failing_since: state.failing_since.map(|at| at.to_string()),
        last_failure_at: failure.as_ref().map(|failure| failure.at.to_string()),
        last_error: failure.map(|failure| failure.error),
        paused_until: state.paused_until.filter(|until| *until > now).map(|at| at.to_string()),
        last_success_at: state.last_success_at.map(|at| at.to_string()),
        backlog: backlog.counts.iter().map(|(state, count)| (state.as_str().to_owned(), *count)).collect(),
    }
}

/// What came of sending the event `event_id` as a test.
pub(super) fn test_answer(event_id: String, tried: Exchange) -> TestAnswer {
    TestAnswer {
        delivered: tried.outcome == DeliveryOutcome::Delivered,
        event_id,
        http_status: tried.status,
        error: tried.error,
        excerpt: tried.excerpt,
        milliseconds: u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX),
    }
}

pub(super) fn check_answer(
    config: &Config,
    name: &str,
    result: Result<(), ProviderError>,
    took: Duration,
) -> CheckAnswer {
    let mut answer = CheckAnswer {
        name: name.to_owned(),
        ok: result.is_ok(),
        refused: false,
        error: None,
        hint: None,
        milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    let Err(error) = result else { return answer };
    let base_url = config.providers.get(name).map(|provider| provider.base_url.clone()).unwrap_or_default();
    let ProviderError::Provider { failure, .. } = &error else {
        answer.error = Some(error.to_string());
        return answer;
    };
    answer.error = Some(failure.to_string());
    answer.refused = failure.verdict() == Verdict::Refused;
    answer.hint = Some(match failure.verdict() {
        Verdict::Refused => format!("the key is wrong or lacks rights: see providers.{name}.api_key"),
        Verdict::Missing => format!("there is no batch API at {base_url}: see providers.{name}.base_url"),
        Verdict::Hold(_) => "too many requests at the moment; the key and the address are right".to_owned(),
        Verdict::Again => format!("check {base_url}, and that the network reaches it"),
    });
    answer
}

fn webhook_health(state: &WebhookState, now: Timestamp) -> (&'static str, Option<String>) {
    if let Some(reason) = &state.disabled {
        ("disabled", Some(reason.clone()))
    } else if let Some(until) = state.paused_until.filter(|until| *until > now) {
        ("paused", Some(format!("its receiver asked for a pause until {until}")))
    } else if state.failures > 0 {
        // `failures`, `failing_since` and `last_error` say the rest.
        ("failing", None)
    } else {
        ("ok", None)
    }
}

/// A batch that does not exist, for tests.
pub(super) fn sample(kind: EventType, now: Timestamp) -> Tracked {
    let key = BatchKey { provider: "example".to_owned(), id: "batch_batchd_test".to_owned() };
    let mut tracked = Tracked::new(key, "openai", "/v1/chat/completions", Origin::Hand, now);
    tracked.name = Some("batchd test".to_owned());
    tracked.next_poll_at = None;
    let status = if let EventType::Batch(status) = kind { status } else { Status::InProgress };
    let (completed, failed) = match status {
        Status::Completed => (118, 2),
        Status::Failed | Status::Validating => (0, 0),
        _ => (60, 0),
    };
    let batch = &mut tracked.batch;
    batch.status = status;
    batch.model = Some("example-model".to_owned());
    "file-example".clone_into(&mut batch.input_file_id);
    batch.created_at = now.as_second() - 5321;
    batch.in_progress_at = Some(now.as_second() - 5300);
    batch.request_counts = Some(RequestCounts { total: 120, completed, failed });
    let ended = Some(now.as_second());
    match status {
        Status::Completed => {
            batch.completed_at = ended;
            batch.output_file_id = Some("file-example-output".to_owned());
            batch.error_file_id = Some("file-example-errors".to_owned());
        }
        Status::Failed => batch.failed_at = ended,
        Status::Expired => batch.expired_at = ended,
        Status::Cancelled => batch.cancelled_at = ended,
        _ => {}
    }
    tracked
}

fn member(member: MemberView) -> MemberReport {
    MemberReport {
        name: member.name,
        version: member.version,
        place: member.place,
        joined_at: from_millis(member.joined_at).to_string(),
        seen_at: from_millis(member.seen_at).to_string(),
        clock_offset_ms: member.offset_ms,
        scopes: member.scopes,
        differs: member.differs,
        this: member.is_this,
    }
}
