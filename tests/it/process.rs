//! The real binary as a process: signals, kills, sockets, exit codes, and what is never lost.

use crate::world::{Daemon, KEY, SIGNING, World, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

fn verify(received: &crate::world::Received) {
    Webhook::new(SIGNING).unwrap().verify(&received.body, &received.headers).unwrap();
}

#[test]
fn a_tracked_batch_ends_and_both_webhooks_are_told() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    assert_eq!(
        world.ok(&["track", "batch_1", "--name", "nightly"]).split_whitespace().collect::<Vec<_>>(),
        ["openai", "batch_1", "in_progress"]
    );
    world.provider.complete("batch_1");
    let hook = &world.receiver.wait_for("/hooks", 1)[0];
    verify(hook);
    assert!(
        world.receiver.arrived("/hooks", 0) >= world.provider.answered_end("batch_1"),
        "told before it was seen"
    );
    let body = hook.json();
    assert_eq!(body["type"], "batch.completed");
    assert_eq!(body["id"], hook.id());
    assert_eq!(body["data"]["outcome"], "succeeded");
    assert_eq!(body["data"]["name"], "nightly");
    assert_eq!(body["data"]["previous_status"], "in_progress");
    assert_eq!(body["data"]["batch"]["output_file_id"], "file-out");
    let slack = world.receiver.wait_for("/slack", 1)[0].json();
    assert!(slack["text"].as_str().unwrap().contains("nightly"), "{slack}");
    assert_eq!(world.batchd(&["wait", "batch_1"]).status.code(), Some(0));
    daemon.terminate();
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "--label", "team=evals"]);
    daemon.kill();
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    let hook = &world.receiver.wait_for("/hooks", 1)[0];
    assert_eq!(hook.json()["data"]["labels"]["team"], "evals");
    let events = world.json(&["events", "batch_1", "--json"]);
    let kinds: Vec<&str> =
        events["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["batch.in_progress", "batch.completed"]);
    daemon.terminate();
}

/// `docs/delivery.md#crash-points` A2 and A4: what was recorded is sent after a kill, under the same id, with the same bytes.
#[test]
fn a4_what_is_owed_survives_a_kill() {
    let world = World::new();
    world.provider.complete("batch_1");
    world.receiver.hang(true);
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let before = world.receiver.wait_for("/hooks", 1)[0].clone();
    daemon.kill();
    world.receiver.hang(false);
    let daemon = world.daemon();
    let after = world.receiver.wait_for("/hooks", 2)[1].clone();
    verify(&after);
    assert_eq!(before.id(), after.id());
    assert_eq!(before.body, after.body);
    until("the delivery is recorded", || {
        let deliveries = world.json(&["deliveries", "--webhook", "pipeline", "--json"]);
        (deliveries["data"][0]["state"] == "delivered").then_some(())
    });
    let shown = world.json(&["show", "batch_1", "--json"]);
    let log = shown["batchd"]["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|delivery| delivery["webhook"] == "pipeline")
        .unwrap()["log"]
        .clone();
    assert_eq!(log[0]["outcome"], "unknown_crash", "{log}");
    assert_eq!(log[1]["trigger"], "startup", "{log}");
    daemon.terminate();
}

/// `docs/delivery.md#crash-points` A10, in small: kills at arbitrary moments lose nothing, and no event is told under two ids.
#[test]
fn a10_kills_at_any_moment_lose_nothing() {
    const ROUNDS: u64 = 12;
    let world = World::new();
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        let daemon = world.daemon();
        for number in 0..3 {
            let id = format!("batch_{round}_{number}");
            world.provider.complete(&id);
            // Not acknowledged is not promised.
            if world.batchd(&["track", &id]).status.success() {
                expected.insert(id);
            }
        }
        // An arbitrary moment, a different one each round.
        let moment = world.receiver.received("/hooks").len() + usize::try_from(round % 3).unwrap();
        until("some webhooks have come", || {
            (world.receiver.received("/hooks").len() >= moment.min(expected.len())).then_some(())
        });
        daemon.kill();
    }
    let daemon = world.daemon();
    let told = until("every end is told", || {
        let received = world.receiver.received("/hooks");
        let told: BTreeSet<String> =
            received.iter().map(|hook| hook.json()["data"]["id"].as_str().unwrap().to_owned()).collect();
        told.is_superset(&expected).then_some(received)
    });
    let ids: BTreeSet<(String, String)> = told
        .iter()
        .map(|hook| (hook.json()["data"]["id"].as_str().unwrap().to_owned(), hook.id().to_owned()))
        .collect();
    assert_eq!(ids.len(), expected.len(), "one id for each end, however often it was sent");
    daemon.terminate();
}

/// `docs/delivery.md#crash-points` A14, A15: what hangs does not keep the daemon.
#[test]
fn a15_sigterm_ends_it_even_with_a_request_that_hangs() {
    let world = World::new();
    world.provider.complete("batch_1");
    world.receiver.hang(true);
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    daemon.terminate();
    assert!(!world.socket().exists(), "the socket is removed");
}

/// `docs/delivery.md#processes-and-secrets` G1, G2.
#[test]
fn g1_g2_a_second_daemon_is_refused_and_a_dead_ones_place_is_taken() {
    let world = World::new();
    let first = world.daemon();
    let second = world.batchd(&["run"]);
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&first.pid().to_string()), "it names the holder: {text}");
    assert!(!first.is_over());
    first.kill();
    world.daemon().terminate();
}

#[test]
fn f1_a_refused_reload_changes_nothing_and_says_so() {
    let world = World::new();
    let daemon = world.daemon();
    let good = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(
        world.config(),
        good.replace("[webhooks.pipeline]", "[webhooks.pipeline]\ntimout = \"5s\""),
    )
    .unwrap();
    let refused = world.batchd(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("timout") && text.contains("timeout"), "{text}");
    let status = world.json(&["status", "--json"]);
    assert!(status["reload_error"].as_str().unwrap().contains("timout"), "{status}");
    // By signal: it says so in the log and goes on.
    daemon.signal(Signal::SIGHUP);
    until("the log tells", || daemon.log().contains("refused").then_some(()));
    std::fs::write(world.config(), good).unwrap();
    world.ok(&["reload"]);
    assert_eq!(world.json(&["status", "--json"])["reload_error"], Value::Null);
    daemon.terminate();
}

#[test]
fn f2_a_reload_brings_and_takes_webhooks_and_holds_what_is_owed() {
    let world = World::new();
    world.receiver.answer(503, "later");
    world.provider.complete("batch_1");
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    world.receiver.wait_for("/hooks", 1);
    let whole = std::fs::read_to_string(world.config()).unwrap();
    let without = {
        let (before, rest) = whole.split_once("[webhooks.pipeline]").unwrap();
        let (_, after) = rest.split_once("[webhooks.ops]").unwrap();
        format!("{before}[webhooks.ops]{after}")
    };
    std::fs::write(world.config(), without).unwrap();
    world.ok(&["reload"]);
    until("what is owed is held", || {
        let held = world.json(&["deliveries", "--state", "held", "--json"]);
        (held["data"][0]["webhook"] == "pipeline").then_some(())
    });
    world.receiver.answer(200, "ok");
    let seen = world.receiver.received("/hooks").len();
    std::fs::write(world.config(), whole).unwrap();
    world.ok(&["reload"]);
    verify(&world.receiver.wait_for("/hooks", seen + 1)[seen]);
    daemon.terminate();
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let world = World::new();
    let path = world.directory.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let daemon =
        Daemon::start(world.command().arg("run").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000"));
    let mut heard = String::new();
    let mut hear = |word: &str| {
        let mut buffer = [0; 4096];
        while !heard.contains(word) {
            let length =
                socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}; heard {heard}"));
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            heard.push('\n');
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    hear("RELOADING=1");
    hear("MONOTONIC_USEC=");
    daemon.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(daemon.end().success());
}

#[test]
fn a_passed_socket_is_taken_over_and_a_failed_start_is_answered() {
    let world = World::new();
    let activate = "/usr/bin/systemd-socket-activate";
    if !std::path::Path::new(activate).exists() {
        eprintln!("skipped: {activate} is not here");
        return;
    }
    let path = world.socket();
    let start = || {
        let mut command = std::process::Command::new(activate);
        command.arg(format!("--listen={}", path.display()));
        let plain = world.command();
        for (name, value) in plain.get_envs() {
            if let Some(value) = value {
                command.arg(format!("--setenv={}={}", name.to_str().unwrap(), value.to_str().unwrap()));
            }
        }
        command.arg(env!("CARGO_BIN_EXE_batchd")).arg("run");
        let daemon = Daemon::start(&mut command);
        until("the socket is there", || path.exists().then_some(()));
        daemon
    };
    let daemon = start();
    // The first client starts it.
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["ready"], true, "{status}");
    daemon.terminate();
    let _ = std::fs::remove_file(&path);

    let good = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), good.replace("[polling]", "[poling]")).unwrap();
    let daemon = start();
    // The client reads the socket's path from the same file; what is wrong elsewhere in it is not its business.
    let refused = world.batchd(&["--host", &format!("unix://{}", path.display()), "status"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("poling"), "{text}");
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert_eq!(daemon.end().code(), Some(78));
}

#[test]
fn f6_a_start_that_cannot_be_has_its_exit_code_and_says_what_to_do() {
    let world = World::new();
    let run = |what: &str, code: i32, word: &str| {
        let output = world.batchd(&["run"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{what}: {text}");
        assert!(text.contains(word), "{what}: {text}");
        text
    };
    let good = std::fs::read_to_string(world.config()).unwrap();

    std::fs::write(world.config(), good.replace("TEST_KEY", "NO_SUCH_VARIABLE")).unwrap();
    run("a missing variable", 78, "NO_SUCH_VARIABLE");
    std::fs::write(world.config(), good.replace("[api]", "[api]\nlisten = \"127.0.0.1:1\"")).unwrap();
    if !nix::unistd::Uid::effective().is_root() {
        run("a port that this user may not have", 1, "listen");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[api]\nlisten = \"{}\"", taken.local_addr().unwrap());
    std::fs::write(world.config(), good.replace("[api]", &listen)).unwrap();
    run("a port in use", 1, "another program listens there");
    std::fs::write(world.config(), &good).unwrap();

    let database = world.state().join("batchd.db");
    world.daemon().terminate();
    let sound = std::fs::read(&database).unwrap();
    std::fs::write(&database, "").unwrap();
    run("an emptied database", 65, "batchd.db");
    std::fs::write(&database, vec![b'x'; 8192]).unwrap();
    run("garbage", 65, "batchd.db");
    assert_eq!(std::fs::read(&database).unwrap(), vec![b'x'; 8192], "it is left as it was found");
    std::fs::write(&database, &sound).unwrap();
    world.daemon().terminate();

    std::fs::remove_dir_all(world.state()).unwrap();
    std::fs::write(world.state(), "a file where a directory should be").unwrap();
    run("a state that cannot be made", 73, "state");
}

#[test]
fn a_wrong_id_or_key_is_an_error_at_once_and_registers_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    assert_eq!(world.batchd(&["track", "batch_nobody_has"]).status.code(), Some(66));
    world.provider.fault(Some((401, "{\"error\":{\"message\":\"bad key\"}}")));
    assert_eq!(world.batchd(&["track", "batch_1"]).status.code(), Some(77));
    world.provider.fault(Some((500, "<html>")));
    let output = world.batchd(&["track", "batch_1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-check"), "{output:?}");
    let unknown = world.batchd(&["track", "batch_1", "--provider", "opnai"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("openai"), "{unknown:?}");
    assert_eq!(world.json(&["list", "--all", "--json"])["data"], json!([]));
    assert_eq!(world.batchd(&["show", "batch_1"]).status.code(), Some(66));
    // Without the check it is registered whatever the provider says.
    world.ok(&["track", "batch_1", "--no-check"]);
    let tracked = world.json(&["show", "batch_1", "--json"]);
    assert_eq!(tracked["status"], "validating");
    daemon.terminate();
    assert_eq!(world.batchd(&["list"]).status.code(), Some(69));
}

#[test]
fn a_hundred_thousand_ids_from_stdin() {
    let world = World::new();
    world.provider.fault(Some((503, "")));
    let daemon = world.daemon();
    let mut child = world
        .command()
        .args(["track", "-", "--no-check"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::fmt::Write as _;
        let mut ids = String::new();
        for number in 0..100_000 {
            let _ = writeln!(ids, "batch_{number:032x}");
        }
        stdin.write_all(ids.as_bytes()).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 100_000);
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["active"], 100_000, "{status}");
    daemon.terminate();
}

/// Every surface, after everything has gone wrong that can: no secret shows anywhere.
#[test]
fn g10_no_secret_shows_anywhere() {
    let world = World::new();
    world.configure(
        r#"
[webhooks.gone]
url = "http://user:T0SECRET0PATH@127.0.0.1:9/T0SECRET0PATH?token=T0SECRET0PATH"
secret = { env = "TEST_SIGNING" }
"#,
    );
    let text = std::fs::read_to_string(world.config()).unwrap();
    let listen = "[api]\nlisten = \"127.0.0.1:0\"\ntoken = { env = \"TEST_TOKEN\" }";
    std::fs::write(world.config(), text.replace("[api]", listen)).unwrap();
    let daemon = Daemon::start(world.command().args(["-vv", "run"]).env("RUST_LOG", "trace"));
    until("the daemon answers", || std::os::unix::net::UnixStream::connect(world.socket()).ok());

    // A provider and a receiver that give back what they were sent.
    let echo = format!("{{\"error\":{{\"message\":\"Bearer {KEY} is wrong\"}}}}");
    world.provider.complete("batch_1");
    world.ok(&["track", "batch_1"]);
    world.receiver.answer(
        500,
        "T0SECRET0PATH whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY= sk-test-Zx81QqSecretKey",
    );
    world.provider.put("batch_2", "failed", &json!({"errors": {"data": [{"message": "it failed"}]}}));
    world.ok(&["track", "batch_2"]);
    world.receiver.wait_for("/hooks", 2);
    world.provider.fault(Some((401, &echo)));
    let mut surfaces = Vec::new();
    let mut say = |arguments: &[&str]| {
        let output = world.batchd(arguments);
        surfaces.push((format!("batchd {arguments:?}"), [output.stdout, output.stderr].concat()));
    };
    say(&["track", "batch_3"]);
    say(&["get", "batch_1"]);
    say(&["poll", "batch_2"]);
    world.ok(&["track", "batch_4", "--no-check"]);
    until("the refused key is noticed", || {
        let providers = world.json(&["providers", "--json"]);
        (providers["data"][0]["health"] == "refused").then_some(())
    });
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["providers", "--json"],
        &["providers", "check"],
        &["webhooks"],
        &["webhooks", "--json"],
        &["webhooks", "test", "pipeline"],
        &["webhooks", "test", "ops"],
        &["webhooks", "test", "gone"],
        &["deliveries", "--json"],
        &["show", "batch_1", "--json"],
        &["show", "batch_2"],
        &["events", "--json"],
        &["list", "--all", "--json"],
        &["config", "show"],
        &["config", "check"],
        &["reload"],
    ] {
        say(arguments);
    }
    surfaces.push(("metrics".to_owned(), curl(&world, "/metrics")));
    surfaces.push((
        "the process's title".to_owned(),
        std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap(),
    ));
    for entry in std::fs::read_dir(world.state()).unwrap() {
        let path = entry.unwrap().path();
        surfaces.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    surfaces.push(("the log".to_owned(), daemon.log().into_bytes()));
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    surfaces.push(("the log at the end".to_owned(), daemon.log().into_bytes()));
    for (surface, bytes) in surfaces {
        for secret in [
            KEY,
            SIGNING,
            crate::world::PATH_SECRET,
            crate::world::TOKEN,
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
        ] {
            let found = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
            if let Some(at) = found {
                let around =
                    String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())])
                        .into_owned();
                panic!("{surface} shows a secret: …{around}…");
            }
        }
    }
}

fn curl(world: &World, path: &str) -> Vec<u8> {
    use std::io::Read;
    let mut stream = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: batchd\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    answer
}
