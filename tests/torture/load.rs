//! The load of the torture: clients that do everything there is, over the socket and by the commands, while the daemon
//! dies under them.

use crate::client::{Reply, ask, request};
use crate::ledger::Ledger;
use crate::patience::{pause, within};
use crate::stage::Stage;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub struct Load<'a> {
    pub stage: &'a Stage,
    pub ledger: &'a Ledger,
    /// Whether clients also ask to delete histories.
    pub deletes: bool,
    pub over: &'a AtomicBool,
    pub tags: &'a AtomicU64,
}

impl Load<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Requests over the socket, of every kind, until it is over.
    pub fn requests(&self, mut rng: fastrand::Rng) {
        while self.goes_on() {
            if UnixStream::connect(self.stage.socket()).is_err() {
                pause(Duration::from_millis(5));
                continue;
            }
            match rng.u32(..100) {
                0..18 => self.track(&mut rng),
                18..24 => self.track_many(&mut rng),
                24..36 => self.submit(&mut rng),
                36..40 => self.create(&mut rng),
                40..46 => self.simple("poll", "POST", &self.some_path(&mut rng, "poll"), b""),
                46..49 => self.simple("poll all", "POST", "/v1/poll", b""),
                49..54 => self.results(&mut rng),
                54..57 => self.backup(),
                57..61 => self.reload(&mut rng),
                61..64 => self.discover(),
                64..68 => self.untrack(&mut rng),
                68..71 => self.simple("cancel", "POST", &self.some_path(&mut rng, "cancel"), b""),
                71..88 => self.hang_up(&mut rng),
                88..91 => self.simple("status", "GET", "/v1/status", b""),
                91..94 => self.simple("list", "GET", "/v1/batches?limit=50", b""),
                94..97 => self.simple("retry", "POST", "/v1/deliveries/retry", b"{}"),
                _ => self.simple("metrics", "GET", "/metrics", b""),
            }
            pause(Duration::from_millis(rng.u64(..12)));
        }
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<Reply> {
        let reply = ask(&self.stage.socket(), method, path, body, REQUEST_LIMIT)?;
        // What is passed through keeps the provider's own status.
        let passed = path.starts_with("/providers/");
        if reply.status == 500 && !passed || reply.status == 503 && body_code(&reply) == "state_damaged" {
            let told = String::from_utf8_lossy(&reply.body).into_owned();
            self.ledger.open().wrong.push(format!("{method} {path}: {}: {told}", reply.status));
        }
        Some(reply)
    }

    fn simple(&self, name: &'static str, method: &str, path: &str, body: &[u8]) {
        let reply = self.ask(method, path, body);
        self.ledger.count(name, reply.is_some_and(|reply| reply.is_success()));
    }

    fn acknowledge(&self, id: String, how: &'static str) {
        self.ledger.open().acknowledged.insert(id, how);
    }

    fn some_id(&self, rng: &mut fastrand::Rng) -> String {
        let entries = self.ledger.open();
        let known: Vec<&String> = entries.acknowledged.keys().collect();
        if known.is_empty() { "batch_none".to_owned() } else { known[rng.usize(..known.len())].clone() }
    }

    /// The same, with its provider, so that it means one batch whether it is tracked or not.
    fn some_named(&self, rng: &mut fastrand::Rng) -> String {
        let id = self.some_id(rng);
        self.stage
            .provider
            .account_of(&id)
            .map_or_else(|| format!("one:{id}"), |account| format!("{account}:{id}"))
    }

    fn some_path(&self, rng: &mut fastrand::Rng, operation: &str) -> String {
        format!("/v1/batches/{}/{operation}", self.some_id(rng))
    }

    /// A batch that ends soon; one in twelve goes on for ever.
    fn make(&self, rng: &mut fastrand::Rng) -> (String, &'static str) {
        let account = if rng.bool() { "one" } else { "two" };
        let life = (rng.u32(..12) > 0).then(|| Duration::from_millis(rng.u64(..4000)));
        (self.stage.provider.make(account, life), account)
    }

    fn track(&self, rng: &mut fastrand::Rng) {
        let (id, account) = self.make(rng);
        let body = json!({"provider": account, "check": rng.bool(), "name": format!("job {id}"),
            "labels": {"team": "torture"}});
        let reply = self.ask("PUT", &format!("/v1/batches/{id}"), body.to_string().as_bytes());
        let well = reply.is_some_and(|reply| reply.is_success() && reply.json()["id"] == id);
        if well {
            self.acknowledge(id, "track");
        }
        self.ledger.count("track", well);
    }

    fn track_many(&self, rng: &mut fastrand::Rng) {
        let made: Vec<_> = (0..rng.usize(2..30)).map(|_| self.make(rng)).collect();
        let items: Vec<Value> =
            made.iter().map(|(id, account)| json!({"id": id, "provider": account, "check": false})).collect();
        let body = json!({"items": items}).to_string();
        let reply = self.ask("POST", "/v1/batches/track", body.as_bytes());
        let well = reply.as_ref().is_some_and(Reply::is_success);
        let told = reply.filter(Reply::is_success).map(|reply| reply.json()).unwrap_or_default();
        for item in told["data"].as_array().into_iter().flatten() {
            if item["error"].is_null() {
                self.acknowledge(item["id"].as_str().unwrap_or("").to_owned(), "track many");
            }
        }
        self.ledger.count("track many", well);
    }

    fn tag(&self) -> String {
        let tag = format!("t{}", self.tags.fetch_add(1, Ordering::SeqCst));
        self.ledger.open().submitted.insert(tag.clone(), None);
        tag
    }

    fn submitted(&self, tag: String, id: &str, how: &'static str) {
        self.acknowledge(id.to_owned(), how);
        self.ledger.open().submitted.insert(tag, Some(id.to_owned()));
    }

    fn submit(&self, rng: &mut fastrand::Rng) {
        let tag = self.tag();
        let account = if rng.bool() { "one" } else { "two" };
        let path = format!("/v1/submit?provider={account}&metadata=tag%3D{tag}&file_name=in.jsonl");
        let reply = self.ask("POST", &path, input(rng).as_bytes());
        let last = reply.and_then(|reply| {
            let text = String::from_utf8(reply.body).ok()?;
            serde_json::from_str::<Value>(text.lines().last()?).ok()
        });
        let id = last.as_ref().and_then(|last| last["id"].as_str()).filter(|id| id.starts_with("batch_"));
        if let Some(id) = id {
            self.submitted(tag, id, "submit");
        }
        self.ledger.count("submit", id.is_some());
    }

    /// A creation that is passed through: what the provider's own client does.
    fn create(&self, rng: &mut fastrand::Rng) {
        let boundary = "torture-boundary";
        let form = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{boundary}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\r\n--{boundary}--\r\n",
            input(rng)
        );
        let asked = request("POST", "/providers/one/v1/files", form.as_bytes());
        let asked = String::from_utf8(asked).unwrap_or_default();
        let asked = asked.replace("application/json", &format!("multipart/form-data; boundary={boundary}"));
        let file = self.raw(asked.as_bytes()).and_then(|text| {
            let at = text.find("file-")?;
            Some(text.get(at..at + 13)?.to_owned())
        });
        let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions",
            "completion_window": "24h"});
        let reply = file
            .is_some()
            .then(|| self.ask("POST", "/providers/one/v1/batches", body.to_string().as_bytes()));
        let told = reply.flatten().filter(Reply::is_success).map(|reply| reply.json()).unwrap_or_default();
        if let Some(id) = told["id"].as_str() {
            self.acknowledge(id.to_owned(), "create");
        }
        self.ledger.count("create", told["id"].is_string());
    }

    /// Sends bytes and takes what comes.
    fn raw(&self, bytes: &[u8]) -> Option<String> {
        let mut stream = UnixStream::connect(self.stage.socket()).ok()?;
        stream.set_read_timeout(Some(REQUEST_LIMIT)).ok()?;
        stream.write_all(bytes).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        String::from_utf8(answer).ok()
    }

    fn results(&self, rng: &mut fastrand::Rng) {
        let Some(id) = self.stage.provider.any_ended(rng.usize(..)) else { return };
        self.simple("results", "GET", &format!("/v1/batches/{id}/results"), b"");
    }

    fn backup(&self) {
        let before = self.ledger.open().kept();
        let reply = self.ask("GET", "/v1/backup", b"");
        let whole = reply.filter(Reply::is_success);
        if let Some(reply) = &whole {
            let mut entries = self.ledger.open();
            // Enough of them are kept to be opened at the end.
            if entries.backups.len() < 200 {
                let path = self.stage.path(&format!("backup-{}.db", entries.backups.len()));
                std::fs::write(&path, &reply.body).unwrap();
                entries.backups.push((path, before));
            }
        }
        self.ledger.count("backup", whole.is_some());
    }

    fn reload(&self, rng: &mut fastrand::Rng) {
        self.stage.configure(rng.u32(..12));
        self.simple("reload", "POST", "/v1/reload", b"");
    }

    fn discover(&self) {
        let reply = self.ask("POST", "/v1/discover", br#"{"track":true,"since":"1h"}"#);
        let told = reply.filter(Reply::is_success).map(|reply| reply.json());
        for batch in told.iter().filter_map(|told| told["data"].as_array()).flatten() {
            if !batch["batchd"]["tracked_at"].is_null() {
                self.acknowledge(batch["id"].as_str().unwrap_or("").to_owned(), "discover");
            }
        }
        self.ledger.count("discover", told.is_some());
    }

    fn untrack(&self, rng: &mut fastrand::Rng) {
        let id = self.some_id(rng);
        let purge = self.deletes && rng.bool();
        {
            let mut entries = self.ledger.open();
            if purge { &mut entries.purged } else { &mut entries.untracked }.insert(id.clone());
        }
        self.simple("untrack", "DELETE", &format!("/v1/batches/{id}?purge={purge}"), b"");
    }

    /// A client that goes away in the middle of a request, or before its answer.
    fn hang_up(&self, rng: &mut fastrand::Rng) {
        let asked = match rng.u32(..7) {
            0 => {
                let (id, account) = self.make(rng);
                let body = json!({"provider": account, "check": rng.bool()}).to_string();
                request("PUT", &format!("/v1/batches/{id}"), body.as_bytes())
            }
            1 => {
                let tag = self.tag();
                let path = format!("/v1/submit?provider=one&metadata=tag%3D{tag}");
                request("POST", &path, input(rng).as_bytes())
            }
            2 => request("GET", "/v1/backup", b""),
            3 => request("POST", "/v1/discover", br#"{"track":true}"#),
            4 => request("POST", "/v1/poll", b""),
            5 => request("GET", &self.some_path(rng, "results"), b""),
            _ => request("POST", "/v1/reload", b""),
        };
        let Ok(mut stream) = UnixStream::connect(self.stage.socket()) else { return };
        let sent = if rng.bool() { asked.len() } else { rng.usize(..asked.len()) };
        let _ = stream.write_all(&asked[..sent]);
        pause(Duration::from_millis(rng.u64(..25)));
        self.ledger.count("hang up", true);
    }

    /// Has the daemon take the configuration that stands there in the end.
    pub fn calm_reload(&self) {
        self.simple("reload", "POST", "/v1/reload", b"");
    }

    /// Reads the log as it grows, and remembers it.
    pub fn follow(&self) {
        let mut after = 0;
        while self.goes_on() {
            let reply = self.ask("GET", &format!("/v1/events?after={after}&limit=1000"), b"");
            let told = reply.filter(Reply::is_success).map(|reply| reply.json()).unwrap_or_default();
            let mut entries = self.ledger.open();
            for event in told["data"].as_array().into_iter().flatten() {
                let (Some(sequence), Some(id)) = (event["sequence"].as_u64(), event["id"].as_str()) else {
                    entries.wrong.push(format!("an event without a number: {event}"));
                    continue;
                };
                entries.read.insert(sequence, id.to_owned());
                after = after.max(sequence);
            }
            drop(entries);
            pause(Duration::from_millis(50));
        }
    }

    /// Commands, one after the other, until it is over.
    pub fn commands(&self, mut rng: fastrand::Rng) {
        let rng = &mut rng;
        while self.goes_on() {
            match rng.u32(..13) {
                0 | 1 => {
                    let (id, account) = self.make(rng);
                    if self.command("$ track", &["track", &id, "--provider", account], b"").is_some() {
                        self.acknowledge(id, "$ track");
                    }
                }
                2 => {
                    let ids: Vec<String> = (0..40)
                        .map(|_| self.stage.provider.make("two", Some(Duration::from_secs(1))))
                        .collect();
                    let lines = ids.join("\n");
                    let arguments = ["track", "-", "--provider", "two", "--no-check"];
                    if self.command("$ track -", &arguments, lines.as_bytes()).is_some() {
                        for id in ids {
                            self.acknowledge(id, "$ track -");
                        }
                    }
                }
                3 => {
                    let tag = self.tag();
                    let file = self.stage.path("in.jsonl");
                    std::fs::write(&file, input(rng)).unwrap();
                    let metadata = format!("tag={tag}");
                    let arguments =
                        ["submit", file.to_str().unwrap(), "--provider", "two", "--metadata", &metadata];
                    if let Some(told) = self.command("$ submit", &arguments, b"") {
                        let id = told.split_whitespace().find(|word| word.starts_with("batch_"));
                        self.submitted(tag, id.unwrap_or("no id was printed"), "$ submit");
                    }
                }
                4 => {
                    let file = self.stage.path("results.jsonl");
                    let Some(id) = self.stage.provider.any_ended(rng.usize(..)) else { continue };
                    let id = format!("{}:{id}", self.stage.provider.account_of(&id).unwrap_or_default());
                    let _ = self.command(
                        "$ results",
                        &["results", &id, "-o", file.to_str().unwrap(), "--force"],
                        b"",
                    );
                }
                5 => {
                    let before = self.ledger.open().kept();
                    let number = self.tags.fetch_add(1, Ordering::SeqCst);
                    let file = self.stage.path(&format!("by-command-{number}.db"));
                    if self.command("$ backup", &["backup", file.to_str().unwrap()], b"").is_some() {
                        self.ledger.open().backups.push((file, before));
                    } else if file.exists() {
                        self.ledger.open().wrong.push("`backup` failed and left a file".to_owned());
                    }
                }
                6 => drop(self.command("$ wait", &["wait", &self.some_named(rng), "--timeout", "2s"], b"")),
                7 => drop(self.command("$ discover", &["discover", "--track", "--since", "1h"], b"")),
                8 => drop(self.command("$ poll", &["poll", &self.some_named(rng)], b"")),
                9 => drop(self.command("$ show", &["show", &self.some_named(rng), "--json"], b"")),
                10 => drop(self.command("$ reload", &["reload"], b"")),
                11 => drop(self.command("$ deliveries", &["deliveries", "--json", "--limit", "20"], b"")),
                _ => drop(self.command("$ status", &["status"], b"")),
            }
            pause(Duration::from_millis(rng.u64(..40)));
        }
    }

    /// Runs a command to its end; gives what it printed if it says that it is done.
    fn command(&self, name: &'static str, arguments: &[&str], input: &[u8]) -> Option<String> {
        let mut command = self.stage.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What it is given fits a pipe, and so does what it says.
        let _ = child.stdin.take().unwrap().write_all(input);
        let stdout = child.stdout.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let mut stdout = stdout;
            let _ = stdout.read_to_string(&mut text);
            text
        });
        let status = within(COMMAND_LIMIT, || child.try_wait().unwrap());
        if status.is_none() {
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        let well = status.is_some_and(|status| status.success());
        let sane = match status {
            None => Err(format!("it hung for {COMMAND_LIMIT:?}")),
            Some(status) => match status.code() {
                Some(code) if SANE_CODES.contains(&code) => Ok(()),
                Some(code) => Err(format!("it exited with {code}")),
                None => Err(format!("it died of signal {:?}", status.signal())),
            },
        };
        if let Err(what) = sane {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            self.ledger.open().wrong.push(format!("{}: {what}: {told}", arguments.join(" ")));
        }
        self.ledger.count(name, well);
        let said = said.join().unwrap();
        well.then_some(said)
    }
}

fn body_code(reply: &Reply) -> String {
    reply.json()["error"]["code"].as_str().unwrap_or("").to_owned()
}

/// A file of requests.
fn input(rng: &mut fastrand::Rng) -> String {
    let line = |number: u32| {
        json!({"custom_id": format!("c{number}"), "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": "hello"}]}})
    };
    let lines: BTreeSet<u32> = (0..rng.u32(1..6)).collect();
    lines.into_iter().map(|number| line(number).to_string() + "\n").collect()
}

const REQUEST_LIMIT: Duration = Duration::from_secs(20);
const COMMAND_LIMIT: Duration = Duration::from_secs(40);
/// What a command may say whose daemon comes and goes: done, failed, how a batch ended, no such batch, no daemon, a
/// timeout.
const SANE_CODES: [i32; 8] = [0, 1, 3, 4, 5, 66, 69, 124];
