//! A provider whose answers are as large as they may be, of the worst documents there are: the daemon's memory stays
//! bounded, and what can be read is read (`docs/design.md#memory`).

use crate::world::{World, now, until, until_within};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Decoded into values, a few of this length are more than the daemon may take; an answer may be four times as long.
const LENGTH: usize = 8 * 1024 * 1024;
/// Nothing is optimised here.
const PATIENCE: Duration = Duration::from_mins(5);
/// What the daemon may take in all, in KiB.
const MOST: u64 = 256 * 1024;

/// What stands in a batch under `junk`, by the first word of its id.
fn junk(kind: &str) -> String {
    let repeated = |text: &str| text.repeat(LENGTH / text.len());
    match kind {
        "zeros" => format!("[{}0]", repeated("0,")),
        "empties" => format!("[{}0]", repeated("[],")),
        "deep" => format!("{}{}", "[".repeat(LENGTH / 2), "]".repeat(LENGTH / 2)),
        "escapes" => format!("\"{}\"", repeated("\\u0041\\n")),
        "digits" => "7".repeat(LENGTH),
        "keys" => {
            let mut text = "{".to_owned();
            for number in 0..1_000_000 {
                let _ = write!(text, "\"key{number}\":{number},");
            }
            text.push_str("\"z\":0}");
            text
        }
        _ => "null".to_owned(),
    }
}

fn batch(id: &str, junk: &str) -> String {
    let status = if id.starts_with("done") { "completed" } else { "in_progress" };
    let file = id.strip_prefix("done_").map_or("null".to_owned(), |file| format!("\"file-{file}\""));
    format!(
        r#"{{"id":"{id}","object":"batch","endpoint":"/v1/chat/completions","created_at":1795000000,"junk":{junk},
        "metadata":{{"junk":{junk}}},"status":"{status}","output_file_id":{file}}}"#
    )
}

#[derive(Clone, Default)]
struct Hostile {
    answered: Arc<Mutex<BTreeMap<String, u32>>>,
    documents: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
}

impl Hostile {
    fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let this = this.clone();
                std::thread::spawn(move || this.serve(&stream.unwrap()));
            }
        });
        address
    }

    fn answered(&self, path: &str) -> u32 {
        self.answered.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// One document of each kind, whatever the id.
    fn document(&self, kind: &str, make: impl FnOnce() -> Vec<u8>) -> Arc<Vec<u8>> {
        self.documents.lock().unwrap().entry(kind.to_owned()).or_insert_with(|| Arc::new(make())).clone()
    }

    /// One request, one answer; whoever asks may go away at any time.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1)?.split('?').next()?.to_owned();
        let mut stream = stream;
        let head = |more: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n{more}\r\n")
        };
        if let Some(id) = path.strip_prefix("/v1/batches/") {
            let kind = id.split('_').next()?;
            if kind == "gzip" {
                let document = self.document("gzip", || {
                    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                    encoder.write_all(&vec![b' '; 1 << 26]).unwrap();
                    encoder.finish().unwrap()
                });
                stream.write_all(head("content-encoding: gzip\r\n").as_bytes()).ok()?;
                stream.write_all(&document).ok()?;
            } else {
                let junk = self.document(kind, || junk(kind).into_bytes());
                // Half of the junk twice is as long as it may be.
                let half = if junk.len() > 1000 && kind != "deep" { "null" } else { "0" };
                let text = batch(id, "JUNK").replacen("JUNK", "\u{1}", 1).replace("JUNK", half);
                let (before, after) = text.split_once('\u{1}')?;
                stream.write_all(head("").as_bytes()).ok()?;
                for part in [before.as_bytes(), &junk, after.as_bytes()] {
                    stream.write_all(part).ok()?;
                }
            }
        } else if path == "/v1/batches" {
            let document = self.document("list", || {
                let items: Vec<String> =
                    (0..100_000).map(|number| batch(&format!("listed_{number}"), "[1,2,3,4,5,6]")).collect();
                let mut text = format!(r#"{{"object":"list","has_more":false,"data":[{}]"#, items.join(","))
                    .into_bytes();
                text.truncate(LENGTH - 10);
                text.extend_from_slice(b"\"}]}");
                text
            });
            stream.write_all(head("").as_bytes()).ok()?;
            stream.write_all(&document).ok()?;
        } else {
            stream.write_all(head("").as_bytes()).ok()?;
            let file = path.strip_prefix("/v1/files/file-")?.strip_suffix("/content")?;
            let (piece, times) = match file {
                "endless" => ("x".repeat(1 << 20), 200),
                "junk" => ("x\n".repeat(1 << 19), 8),
                "numbers" => (format!("{}0", "0.25,".repeat(1 << 20)), 5),
                "picture" => (picture(), 1),
                _ => (String::new(), 0),
            };
            if file == "numbers" {
                stream
                    .write_all(br#"{"custom_id":"a","response":{"status_code":200,"body":{"data":["#)
                    .ok()?;
            }
            for time in 0..times {
                if file == "numbers" && time > 0 {
                    stream.write_all(b",").ok()?;
                }
                stream.write_all(piece.as_bytes()).ok()?;
            }
            if file == "numbers" {
                stream.write_all(b"]}},\"error\":null,\"id\":\"r\"}\n").ok()?;
            }
        }
        stream.flush().ok()?;
        *self.answered.lock().unwrap().entry(path).or_default() += 1;
        Some(())
    }
}

/// A line of results with a picture in it, of the length that such lines have.
fn picture() -> String {
    format!(
        "{{\"id\":\"r\",\"custom_id\":\"a\",\"response\":{{\"status_code\":200,\"body\":{{\"b64_json\":\"{}\"}}}},\"error\":null}}\n",
        "A".repeat(4 << 20)
    )
}

/// The most memory that the process ever had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn world(hostile: &Hostile) -> World {
    let world = World::new();
    let address = hostile.start();
    world.configure(&format!(
        "[providers.hostile]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}/v1\"\n"
    ));
    world
}

#[test]
fn the_worst_answers_to_polls_take_little_memory() {
    let hostile = Hostile::default();
    let world = world(&hostile);
    let daemon = world.daemon();
    let mut ids = Vec::new();
    for (kind, times) in
        [("zeros", 6), ("empties", 1), ("deep", 1), ("escapes", 1), ("digits", 1), ("keys", 1), ("gzip", 1)]
    {
        ids.extend((0..times).map(|number| format!("{kind}_{number}")));
    }
    let mut arguments = vec!["track", "--provider", "hostile", "--no-check"];
    arguments.extend(ids.iter().map(String::as_str));
    world.ok(&arguments);
    for id in &ids {
        let bound = until_within(PATIENCE, "the batch has been polled", || {
            let batch = world.json(&["show", id, "--json"]);
            (batch["status"] == "in_progress" || !batch["batchd"]["last_error"].is_null()).then_some(batch)
        });
        assert!(peak(daemon.pid()) < MOST, "{} KiB after {id}", peak(daemon.pid()));
        let trouble = bound["batchd"]["last_error"].as_str().unwrap_or_default();
        // Whoever waits for the others for too long tries again.
        let is_too_long = id.starts_with("gzip") && trouble.contains("longer than");
        assert!(
            bound["status"] == "in_progress" || is_too_long || trouble.contains("within"),
            "{id}: {trouble}"
        );
    }
    daemon.terminate();
}

#[test]
fn a_client_that_does_not_read_its_long_line_keeps_nobody_from_theirs() {
    let hostile = Hostile::default();
    let world = world(&hostile);
    let daemon = world.daemon();
    world.ok(&["track", "--provider", "hostile", "done_picture"]);
    // More than the socket takes of an answer that nobody reads.
    let mut deaf = UnixStream::connect(world.socket()).unwrap();
    deaf.write_all(
        b"GET /v1/batches/done_picture/results HTTP/1.1\r\nhost: localhost\r\nauthorization: none\r\n\r\n",
    )
    .unwrap();
    let mut first = [0];
    deaf.read_exact(&mut first).unwrap();
    until("its line has come", || (hostile.answered("/v1/files/file-picture/content") > 0).then_some(()));
    let started = now();
    for _ in 0..2 {
        let results = world.batchd(&["results", "--provider", "hostile", "done_picture"]);
        assert!(results.status.success(), "{}", String::from_utf8_lossy(&results.stderr));
        assert!(results.stdout.len() > 4 << 20 && results.stdout.ends_with(b"}\n"));
    }
    // Without room for the line it would be waited for until a minute is over.
    assert!(started.elapsed() < Duration::from_mins(1));
    drop(deaf);
    daemon.terminate();
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn the_worst_lists_and_results_take_little_memory() {
    if cfg!(debug_assertions) {
        println!(
            "skipped: without optimisation its hundreds of megabytes take minutes; `cargo test --release` runs it"
        );
        return;
    }
    let hostile = Hostile::default();
    let world = world(&hostile);
    let daemon = world.daemon();
    let listed = world.batchd(&["discover", "--provider", "hostile", "--since", "3650d", "--json"]);
    let told = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(hostile.answered("/v1/batches") > 0, "{told}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    assert!(listed["data"].as_array().is_some_and(|data| data.len() > 5000), "{told}");
    assert!(peak(daemon.pid()) < MOST, "{} KiB after the list", peak(daemon.pid()));
    for file in ["endless", "junk", "numbers"] {
        let id = format!("done_{file}");
        world.batchd(&["track", "--provider", "hostile", &id]);
        let results: Vec<_> = (0..3)
            .map(|_| {
                let mut command = world.command();
                command.args(["results", "--provider", "hostile", &id]);
                command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                std::thread::spawn(move || command.output().unwrap())
            })
            .collect();
        for output in results.into_iter().map(|output| output.join().unwrap()) {
            let told = String::from_utf8_lossy(&output.stderr);
            let is_whole = output.stdout.ends_with(b"\n") || output.stdout.is_empty();
            assert!(is_whole, "{file}: {told}");
            match file {
                "numbers" => assert!(output.stdout.len() > 20 << 20, "{} bytes: {told}", output.stdout.len()),
                "endless" => assert!(told.contains("longer than"), "{told}"),
                _ => assert!(output.stdout.len() > 8 << 20, "{told}"),
            }
        }
        assert!(peak(daemon.pid()) < MOST, "{} KiB after {file}", peak(daemon.pid()));
    }
    daemon.terminate();
}
