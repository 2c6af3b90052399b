//! A plan carried out: one daemon after the other, each from what the one before it has left on the disk.

use super::disk::{self, Disk};
use super::invariants;
use super::operator::{HOOK_SECRET, Operator};
use super::outside::{Network, Outside};
use super::plan::{Act, Form, Plan, Step};
use super::provider::Providers;
use super::receiver::Receivers;
use axum::body::Body;
use batchd::clock::Clock;
use batchd::config::Config;
use batchd::config::environment::Env;
use batchd::control::assembly::catalog;
use batchd::control::live::Parts;
use batchd::control::server::socket_router;
use batchd::daemon::Running;
use batchd::failpoint;
use batchd::rng::Rng;
use batchd::store::Store;
use batchd::sync::lock;
use batchd::tasks::Tasks;
use http::Method;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A daemon of the simulation.
pub struct Daemon {
    running: Running,
    clock: Clock,
    pub operator: Operator,
}

impl Daemon {
    /// Starts one on whatever is on the disk; an error says why it does not start, as it may on a full one.
    pub async fn start(outside: &Arc<Outside>, seed: u64) -> Result<Self, String> {
        let clock = outside.begin();
        disk::attach(outside);
        let (state, file) = {
            let disk = lock(&outside.disk);
            (disk.state(), disk.config())
        };
        let tasks = Tasks::new(clock.clone());
        let env = Env::from([("KEY", "sk-simulated"), ("HOOK", HOOK_SECRET)]);
        let config = Config::load(Some(&file), &catalog(), &env).unwrap();
        let lives = {
            let mut ledger = lock(&outside.ledger);
            ledger.lives += 1;
            ledger.lives
        };
        let network = outside.clone();
        let parts = Parts {
            store: Store::open(&state, clock.clone()).map_err(|error| error.to_string())?,
            clock: clock.clone(),
            rng: Rng::seeded(seed ^ (u64::from(lives) << 32)),
            tasks: tasks.clone(),
            env,
            config_file: Some(file),
            connect: Arc::new(move |_| Ok(Arc::new(Network(network.clone())))),
        };
        let running = Running::without_sockets(parts, config).await.map_err(|error| error.to_string())?;
        let router = socket_router(running.service.clone(), tasks.stopping());
        outside.note(format_args!("a daemon starts, the {lives}."));
        Ok(Self { running, clock, operator: Operator { router, outside: outside.clone() } })
    }

    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// The configuration file in the form that the plan wants.
pub fn write_config(outside: &Outside, form: Form) {
    let mut text = format!(
        "[state]\ndir = \"{}\"\nretain = \"{}d\"\n\n[polling]\nmin_interval = \"1m\"\nmax_interval = \"{}m\"\n\
         concurrency = {}\n\n[providers.alpha]\nkind = \"openai\"\napi_key = {{ env = \"KEY\" }}\n\
         base_url = \"https://alpha.provider.invalid/v1\"\nwebhook_secret = {{ env = \"HOOK\" }}\n{}\n\
         [webhooks.pipeline]\nurl = \"https://receiver.invalid/{}\"\nevents = [\"batch.validating\", \
         \"batch.in_progress\", \"batch.finalizing\", \"batch.cancelling\", \"batch.completed\", \"batch.failed\", \
         \"batch.expired\", \"batch.cancelled\", \"batch.lost\", \"batch.stalled\", \"batch.overdue\", \
         \"provider.unreachable\", \"provider.unauthorized\", \"provider.recovered\"]\n\n",
        lock(&outside.disk).config().with_file_name("state").display(),
        form.retain_days,
        form.longest,
        form.concurrency,
        if form.discover { "discover = \"*/30 * * * *\"" } else { "" },
        if form.moved { "pipeline-moved" } else { "pipeline" },
    );
    if form.beta {
        text.push_str(
            "[providers.beta]\nkind = \"openai-compatible\"\napi_key = { env = \"KEY\" }\n\
             base_url = \"https://beta.provider.invalid/v1\"\nrequests_per_minute = 30\n\n",
        );
    }
    if form.ends {
        text.push_str("[webhooks.ends]\nurl = \"https://receiver.invalid/ends\"\n\n");
    }
    if form.ops {
        text.push_str("[webhooks.ops]\nkind = \"slack\"\nurl = \"https://receiver.invalid/ops\"\n\n");
    }
    let path = lock(&outside.disk).config();
    std::fs::write(&path, text).unwrap();
}

/// How a life ended.
enum End {
    Died,
    Stopped(Duration),
    Over,
}

/// Carries a plan out and judges it; panics if something that must not be is so. Gives the log of what happened.
pub fn live_through(seed: u64, plan: &Plan, aloud: bool) -> Vec<String> {
    let outside = outside_of(seed, plan, aloud);
    live_in(&outside, seed, plan);
    outside.log()
}

/// The same in a world that is there already.
pub fn live_in(outside: &Arc<Outside>, seed: u64, plan: &Plan) {
    let mut steps: VecDeque<Step> = plan.steps.clone().into();
    loop {
        let runtime = runtime();
        let end = runtime.block_on(async {
            let end = live(outside, seed, plan, &mut steps).await;
            outside.end(if let End::Stopped(pause) = end { pause } else { Duration::from_secs(2) });
            end
        });
        failpoint::watch(None);
        drop(runtime);
        lock(&outside.disk).tidy();
        if matches!(end, End::Over) {
            return;
        }
    }
}

/// A runtime on paused time.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// The world that a plan begins with.
pub fn outside_of(seed: u64, plan: &Plan, aloud: bool) -> Arc<Outside> {
    let providers = Providers::new(seed, &plan.lives, plan.trouble.clone());
    let outside =
        Outside::new(providers, Receivers::new(plan.moods.clone()), Disk::new(plan.disk.clone()), aloud);
    write_config(&outside, plan.form);
    outside
}

async fn live(outside: &Arc<Outside>, seed: u64, plan: &Plan, steps: &mut VecDeque<Step>) -> End {
    let daemon = match Daemon::start(outside, seed).await {
        Ok(daemon) => daemon,
        Err(why) => {
            outside.note(format_args!("no daemon starts: {why}"));
            return End::Stopped(Duration::from_mins(1));
        }
    };
    while let Some(step) = steps.pop_front() {
        let wait = step.at.saturating_sub(outside.now());
        tokio::select! {
            biased;
            () = outside.died() => {
                steps.push_front(step);
                return End::Died;
            }
            () = tokio::time::sleep(wait) => {}
        }
        outside.note(format_args!("{:?} {:?}", step.act, step.patience));
        match &step.act {
            Act::Doom(doom) => lock(&outside.disk).doom(Some(doom.clone())),
            Act::Clock(wrong) => outside.set_wrong(&daemon.clock, *wrong),
            Act::Suspend(by) => outside.suspend(&daemon.clock, *by),
            Act::Sleep(until) => outside.suspend(&daemon.clock, until.saturating_sub(outside.now())),
            Act::Measure => outside.providers.measure(outside.now()),
            Act::Restart(pause) => {
                daemon.stop().await;
                return End::Stopped(*pause);
            }
            Act::Reload(form) => {
                write_config(outside, *form);
                reload(&daemon, step.patience).await;
            }
            Act::Peace => {
                lock(&outside.disk).doom(None);
                outside.set_wrong(&daemon.clock, jiff::SignedDuration::ZERO);
                write_config(outside, Form { beta: true, ends: true, ops: true, moved: false, ..plan.form });
                invariants::peace(&daemon.operator).await;
            }
            Act::Judge => {
                invariants::judge(&daemon.operator, plan).await;
                daemon.stop().await;
                return End::Over;
            }
            act => daemon.operator.act(act, step.patience).await,
        }
        if outside.is_dead() {
            return End::Died;
        }
        daemon.operator.read_events().await;
        if outside.is_dead() {
            return End::Died;
        }
    }
    End::Over
}

async fn reload(daemon: &Daemon, patience: Option<u32>) {
    let _ = daemon.operator.call(patience, Method::POST, "/v1/reload", Body::empty()).await;
}
