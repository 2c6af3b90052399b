//! The load of the hunt: clients that register new batches at any daemon, by the API and by the command, as fast as they
//! are told, and others that untrack, reload, poll and read meanwhile.

use crate::client::Reply;
use crate::ledger::Ledger;
use crate::patience::{now, pause, within};
use crate::stage::{NAMES, Stage};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub struct Load<'a> {
    pub stage: &'a Stage<'a>,
    pub ledger: &'a Ledger,
    pub over: &'a AtomicBool,
    /// New batches a second.
    pub rate: u32,
    /// Whether configurations change.
    pub reloads: bool,
}

/// Threads that register one batch after the other: a daemon that is stopped keeps those that ask it.
pub const SINGLES: u32 = 8;

impl Load<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Does `act` so many times a second until it is over; what cannot be kept up with is left out.
    fn paced(&self, per_second: f64, mut act: impl FnMut()) {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        let mut next = now();
        while self.goes_on() {
            let at = now();
            if at < next {
                pause((next - at).min(Duration::from_millis(200)));
                continue;
            }
            next = (next + interval).max(at.checked_sub(CATCH_UP).unwrap_or(at));
            act();
        }
    }

    fn any(rng: &mut fastrand::Rng) -> &'static str {
        NAMES[rng.usize(..NAMES.len())]
    }

    /// A batch that ends soon; one in 150 goes on for ever.
    fn make(&self, rng: &mut fastrand::Rng) -> (String, &'static str) {
        let accounts = self.stage.setup.accounts;
        let account = accounts[rng.usize(..accounts.len())].0;
        let life = (rng.u32(..150) > 0).then(|| Duration::from_millis(rng.u64(..8000)));
        (self.stage.provider.make(account, life), account)
    }

    fn ask(&self, name: &str, method: &str, path: &str, body: &[u8]) -> Option<Reply> {
        let reply = self.stage.ask(name, method, path, body)?;
        let code = reply.json()["error"]["code"].as_str().unwrap_or("").to_owned();
        if reply.status == 500 || code == "state_damaged" || code == "internal" {
            let told = String::from_utf8_lossy(&reply.body).into_owned();
            self.ledger.wrong(format!("{method} {path} at {name}: {}: {told}", reply.status));
        }
        Some(reply)
    }

    fn simple(&self, operation: &'static str, name: &str, method: &str, path: &str, body: &[u8]) -> bool {
        let well = self.ask(name, method, path, body).is_some_and(|reply| reply.is_success());
        self.ledger.count(operation, well);
        well
    }

    /// Two fifths of the batches, one a request.
    pub fn singles(&self, mut rng: fastrand::Rng) {
        self.paced(f64::from(self.rate) * 0.4 / f64::from(SINGLES), || {
            let (id, account) = self.make(&mut rng);
            let body = json!({"provider": account, "check": false, "labels": {"team": "hunt"}});
            let path = format!("/v1/batches/{id}");
            let reply = self.ask(Self::any(&mut rng), "PUT", &path, body.to_string().as_bytes());
            let well = reply.is_some_and(|reply| reply.is_success() && reply.json()["id"] == id);
            if well {
                self.ledger.acknowledge(&id);
            }
            self.ledger.count("track", well);
        });
    }

    /// Two fifths of them, many a request.
    pub fn bundles(&self, mut rng: fastrand::Rng) {
        let size = (self.rate / 10).max(1);
        self.paced(f64::from(self.rate) * 0.4 / f64::from(size), || {
            let made: Vec<_> = (0..size).map(|_| self.make(&mut rng)).collect();
            let item =
                |(id, account): &(String, &str)| json!({"id": id, "provider": account, "check": false});
            let body = json!({"items": made.iter().map(item).collect::<Vec<Value>>()}).to_string();
            let reply = self.ask(Self::any(&mut rng), "POST", "/v1/batches/track", body.as_bytes());
            let told = reply.filter(Reply::is_success).map(|reply| reply.json());
            for item in told.iter().filter_map(|told| told["data"].as_array()).flatten() {
                if item["error"].is_null() {
                    self.ledger.acknowledge(item["id"].as_str().unwrap_or(""));
                }
            }
            self.ledger.count("track many", told.is_some());
        });
    }

    /// A fifth of them, by the command.
    pub fn commands(&self, mut rng: fastrand::Rng) {
        self.paced(1.0, || {
            let accounts = self.stage.setup.accounts;
            let account = accounts[rng.usize(..accounts.len())].0;
            let ids: Vec<String> = (0..(self.rate / 5).max(1))
                .map(|_| self.stage.provider.make(account, Some(Duration::from_millis(rng.u64(..8000)))))
                .collect();
            let arguments = ["track", "-", "--provider", account, "--no-check"];
            let well = self.command(Self::any(&mut rng), &arguments, ids.join("\n").as_bytes());
            if well {
                for id in &ids {
                    self.ledger.acknowledge(id);
                }
            }
            self.ledger.count("$ track -", well);
        });
    }

    /// What else people do.
    pub fn others(&self, mut rng: fastrand::Rng) {
        self.paced(5.0, || {
            let name = Self::any(&mut rng);
            match rng.u32(..100) {
                0..30 => self.untrack(name, &mut rng),
                30..35 if self.reloads => {
                    self.stage.configure(name, rng.u32(..12));
                    self.simple("reload", name, "POST", "/v1/reload", b"");
                }
                30..55 => {
                    let path = format!("/v1/batches/{}/poll", self.some(&mut rng));
                    self.simple("poll", name, "POST", &path, b"");
                }
                55..60 => drop(self.simple("poll all", name, "POST", "/v1/poll", b"")),
                60..75 => drop(self.simple("list", name, "GET", "/v1/batches?limit=50", b"")),
                75..85 => drop(self.simple("retry", name, "POST", "/v1/deliveries/retry", b"{}")),
                _ => drop(self.simple("status", name, "GET", "/v1/status", b"")),
            }
        });
    }

    fn some(&self, rng: &mut fastrand::Rng) -> String {
        let entries = self.ledger.open();
        let known = &entries.drawn_from;
        if known.is_empty() { "batch_none".to_owned() } else { known[rng.usize(..known.len())].clone() }
    }

    /// One of the newest, which may be active yet.
    fn untrack(&self, name: &str, rng: &mut fastrand::Rng) {
        let id = {
            let mut entries = self.ledger.open();
            let Some(back) = entries.drawn_from.len().checked_sub(1 + rng.usize(..20)) else { return };
            let id = entries.drawn_from[back].clone();
            entries.untracked.insert(id.clone());
            id
        };
        self.simple("untrack", name, "DELETE", &format!("/v1/batches/{id}"), b"");
    }

    /// Runs a command to its end; whether it says that it is done.
    fn command(&self, name: &str, arguments: &[&str], input: &[u8]) -> bool {
        let mut command = self.stage.command(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What it is given fits a pipe, and so does what it says.
        let _ = child.stdin.take().unwrap().write_all(input);
        let status = within(COMMAND_LIMIT, || child.try_wait().unwrap());
        if status.is_none() {
            let _ = child.kill();
        }
        let mut said = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said);
        let _ = child.wait();
        let sane = match status {
            None => Err(format!("it hung for {COMMAND_LIMIT:?}")),
            Some(status) => match status.code() {
                Some(code) if SANE_CODES.contains(&code) => Ok(()),
                Some(code) => Err(format!("it exited with {code}")),
                None => Err(format!("it died of signal {:?}", status.signal())),
            },
        };
        if let Err(what) = sane {
            self.ledger.wrong(format!("{} at {name}: {what}: {said}", arguments.join(" ")));
        }
        status.is_some_and(|status| status.success())
    }
}

/// Registers batches of `account` one after the other until each is acknowledged by some daemon, as a client that retries
/// what is refused; stops with `over`. Each is registered at the daemon that comes next; how long the slowest took.
pub fn insisting(stage: &Stage<'_>, ledger: &Ledger, account: &str, over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut turn = 0;
    while !over.load(Ordering::SeqCst) {
        let id = stage.provider.make(account, Some(Duration::from_millis(500)));
        let body = json!({"provider": account, "check": false}).to_string();
        let begun: Instant = now();
        loop {
            turn += 1;
            let name = NAMES[turn % NAMES.len()];
            match stage.ask(name, "PUT", &format!("/v1/batches/{id}"), body.as_bytes()) {
                Some(reply) if reply.is_success() => break ledger.acknowledge(&id),
                // It stops, starts, or cannot reach the server: the next one is asked.
                Some(reply) if reply.status == 503 => {}
                None => {}
                Some(reply) => {
                    let told = String::from_utf8_lossy(&reply.body).into_owned();
                    break ledger.wrong(format!("{id} at {name}: {}: {told}", reply.status));
                }
            }
            if begun.elapsed() > RETRIED_FOR {
                break ledger.wrong(format!("{id} is registered nowhere within {RETRIED_FOR:?}"));
            }
            pause(Duration::from_millis(20));
        }
        slowest = slowest.max(begun.elapsed());
        pause(Duration::from_millis(20));
    }
    slowest
}

/// Of what was missed, so much is made up for.
const CATCH_UP: Duration = Duration::from_secs(2);
const COMMAND_LIMIT: Duration = Duration::from_mins(1);
const RETRIED_FOR: Duration = Duration::from_secs(40);
/// What a command may say whose daemon comes and goes: done, failed, no daemon, the state cannot be written.
const SANE_CODES: [i32; 4] = [0, 1, 69, 73];
