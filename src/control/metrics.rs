//! What Prometheus scrapes (`docs/contract.md#metrics`), made anew for each scrape from what the parts count.

use super::api_error::ApiError;
use super::reports::UNTRACKED;
use super::service::Service;
use crate::domain::event::EventType;
use crate::domain::status::Status;
use crate::domain::time::since;
use crate::http::failure::Failure;
use crate::store::CommitStats;
use crate::store::outbox::DeliveryState;
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

impl Service {
    /// The metrics in the `OpenMetrics` text format; what was spent only if `with_cost`.
    pub async fn metrics(&self, with_cost: bool) -> Result<String, ApiError> {
        let live = self.live()?;
        let now = self.clock.now();
        let mut registry = Registry::default();

        let batches = gauges(&mut registry, "batchd_batches", "Batches known, by provider and status");
        let mut known: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for (provider, status, count) in self.store.counts_of_tracked().await? {
            *known.entry((provider, status.map_or(UNTRACKED, Status::as_str))).or_default() += count;
        }
        for ((provider, status), count) in known {
            set(&batches, &vec![("provider", provider), ("status", status.to_owned())], float(count));
        }

        let polls = counters(&mut registry, "batchd_polls", "Polls of providers, by provider and result");
        let succeeded = gauges(
            &mut registry,
            "batchd_last_poll_success_timestamp_seconds",
            "When a provider last answered as it should",
        );
        let repaired = counters(
            &mut registry,
            "batchd_schedule_repaired",
            "Batches found missing from the schedule in memory, or wrongly on it, by provider",
        );
        for poller in live.engine.snapshot() {
            add(&repaired, &vec![("provider", poller.name.clone())], poller.repaired);
            // From zero: what a series begins with, `increase()` does not count.
            for result in iter::once("ok").chain(Failure::CLASSES) {
                add(&polls, &vec![("provider", poller.name.clone()), ("result", result.to_owned())], 0);
            }
            for (result, count) in poller.polls {
                add(&polls, &vec![("provider", poller.name.clone()), ("result", result.to_owned())], count);
            }
            if let Some(at) = poller.state.last_success_at {
                set(&succeeded, &vec![("provider", poller.name)], seconds(at));
            }
        }
        registry.register("batchd_poll_lag_seconds", "How late polls began", live.engine.lag());

        let events = counters(&mut registry, "batchd_events", "Events recorded, by type");
        let none = EventType::ALL.into_iter().map(|kind| (kind, 0));
        for (kind, count) in none.chain(self.store.recorded_by_type()) {
            add(&events, &vec![("type", kind.to_string())], count);
        }

        let deliveries =
            counters(&mut registry, "batchd_deliveries", "Attempts at deliveries, by webhook and outcome");
        for (webhook, outcome, count) in live.dispatcher.deliveries_total() {
            add(&deliveries, &vec![("webhook", webhook), ("outcome", outcome.to_owned())], count);
        }
        let pending =
            gauges(&mut registry, "batchd_pending_deliveries", "Deliveries owed, by webhook and state");
        let oldest = gauges(
            &mut registry,
            "batchd_oldest_pending_delivery_seconds",
            "How long the oldest delivery that is owed has waited",
        );
        // A webhook without deliveries shows as zero, so that an alert has a series to watch.
        for webhook in live.config().webhooks.keys() {
            for state in DeliveryState::ALL.into_iter().filter(|state| state.is_owed()) {
                let labels = vec![("webhook", webhook.clone()), ("state", state.as_str().to_owned())];
                set(&pending, &labels, 0.0);
            }
            set(&oldest, &vec![("webhook", webhook.clone())], 0.0);
        }
        for (webhook, backlog) in self.store.backlogs().await? {
            for (state, count) in backlog.counts.into_iter().filter(|(state, _)| state.is_owed()) {
                let labels = vec![("webhook", webhook.clone()), ("state", state.as_str().to_owned())];
                set(&pending, &labels, float(count));
            }
            let waited = backlog.oldest.map_or(0.0, |at| since(at, now).as_secs_f64());
            set(&oldest, &vec![("webhook", webhook)], waited);
        }

        if with_cost {
            let name = "batchd_cost_usd";
            let help = "What ended batches cost in US dollars, by provider and model";
            let spent = Family::<Labels, Counter<f64, AtomicU64>>::default();
            registry.register(name, help, spent.clone());
            for each in self.store.spent_ever().await? {
                let labels = vec![("provider", each.provider), ("model", each.model)];
                spent.get_or_create(&labels).inc_by(each.amount.number().as_f64().unwrap_or_default());
            }
        }

        registry.register(
            "batchd_commit_seconds",
            "How long commits to the database took",
            Commits(self.store.commit_stats()),
        );
        // Only where several daemons may share the state: each tells what it does itself.
        if self.store.server().is_some() {
            let leases =
                gauges(&mut registry, "batchd_lease", "1 for each part of the work that this daemon does");
            let offset = gauge(
                &mut registry,
                "batchd_clock_offset_seconds",
                "How far this daemon's clock is ahead of the database server's",
            );
            for member in self.store.members().into_iter().filter(|member| member.is_this) {
                offset.set(
                    Duration::from_millis(member.offset_ms.unsigned_abs())
                        .as_secs_f64()
                        .copysign(if member.offset_ms < 0 { -1.0 } else { 1.0 }),
                );
                for scope in member.scopes {
                    set(&leases, &vec![("scope", scope)], 1.0);
                }
            }
        }
        let reloaded = gauge(
            &mut registry,
            "batchd_config_last_reload_successful",
            "Whether the last reload of the configuration was taken",
        );
        reloaded.set(if live.reload_error().is_none() { 1.0 } else { 0.0 });
        let build = gauges(&mut registry, "batchd_build_info", "Always 1; the label tells the version");
        set(&build, &vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
        process(&mut registry, seconds(live.started_at));

        let mut text = String::new();
        encode(&mut text, &registry).map_err(|error| {
            ApiError::new(super::api::ErrorCode::Internal, format!("cannot write the metrics: {error}"))
        })?;
        Ok(text)
    }
}

/// The same in Prometheus' own text format (0.0.4), which names a counter by its sample: `_total` and all.
pub fn as_prometheus_text(openmetrics: &str) -> String {
    let counters: BTreeSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(about), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", about, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The store's own count of its commits, as a histogram.
#[derive(Debug)]
struct Commits(CommitStats);

impl EncodeMetric for Commits {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let CommitStats { count, seconds_total, buckets } = &self.0;
        encoder.encode_histogram::<NoLabelSet>(*seconds_total, *count, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn set(family: &Gauges, labels: &Labels, value: f64) {
    family.get_or_create(labels).set(value);
}

fn add(family: &Counters, labels: &Labels, count: u64) {
    family.get_or_create(labels).inc_by(count);
}

/// The process's own, as Prometheus' client libraries name them. What the sandbox hides is left out.
fn process(registry: &mut Registry, started: f64) {
    gauge(registry, "process_start_time_seconds", "When the process began").set(started);
    if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
        #[expect(clippy::cast_precision_loss, reason = "seconds of processor time are few")]
        let spent = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let counter: Counter<f64, AtomicU64> = Counter::default();
        counter.inc_by(spent(usage.user_time()) + spent(usage.system_time()));
        registry.register("process_cpu_seconds", "Processor time used", counter);
    }
    if let Some(kilobytes) = resident_kilobytes() {
        gauge(registry, "process_resident_memory_bytes", "Memory in use").set(kilobytes * 1024.0);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(registry, "process_open_fds", "Open files and connections").set(float(files.count() as u64));
    }
}

fn resident_kilobytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^52 do not occur")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 bits")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_named_by_its_sample_in_prometheus_text() {
        let mut registry = Registry::default();
        let counted = counters(&mut registry, "batchd_polls", "Polls");
        add(&counted, &vec![("provider", "a # TYPE b counter".to_owned())], 3);
        gauge(&mut registry, "batchd_polls_late", "Late").set(1.0);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(
            as_prometheus_text(&text),
            "# HELP batchd_polls_total Polls.\n# TYPE batchd_polls_total counter\n\
             batchd_polls_total{provider=\"a # TYPE b counter\"} 3\n\
             # HELP batchd_polls_late Late.\n# TYPE batchd_polls_late gauge\nbatchd_polls_late 1.0\n"
        );
    }
}
