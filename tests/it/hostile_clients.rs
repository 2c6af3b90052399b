//! Clients that mean no good, over real sockets: whatever TCP is made to hold, the Unix socket answers.

use crate::world::{Daemon, TOKEN, World, until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// A daemon that listens on TCP with `keys` in `[api]`, started by `command`; and its address.
fn listening(world: &World, keys: &str, command: &mut Command) -> (Daemon, SocketAddr) {
    let config = std::fs::read_to_string(world.config()).unwrap();
    let with = format!("[api]\nlisten = \"127.0.0.1:0\"\n{keys}\n");
    std::fs::write(world.config(), config.replace("[api]\n", &with)).unwrap();
    let daemon = Daemon::start(command);
    let address = until("the address is in the log", || {
        let log = daemon.log();
        let (_, rest) = log.split_once("listening on http://")?;
        rest.split(|c: char| c.is_whitespace() || c == '"').next()?.parse().ok()
    });
    (daemon, address)
}

fn daemon(world: &World, keys: &str) -> (Daemon, SocketAddr) {
    listening(world, keys, world.command().arg("run"))
}

/// Says `says`; the whole answer until the connection is closed.
fn said(stream: &mut (impl Read + Write), says: &str) -> String {
    // Whoever is refused early may be closed to before all is said.
    let _ = stream.write_all(says.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

fn ask(address: SocketAddr, head: &str) -> String {
    let request = format!("{head}\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n", address.port());
    said(&mut tcp(address), &request)
}

/// The socket answers `status`, and soon.
fn socket_answers(world: &World) {
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    let begun = Instant::now();
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let answer = said(&mut stream, "GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A second is what is promised; the machine that tests may be busy.
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
}

#[test]
fn connections_without_end_leave_the_socket_and_the_webhooks_their_descriptors() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 512 && exec \"$0\" run", env!("CARGO_BIN_EXE_batchd")]);
    let like = world.command();
    command.env_clear().envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (daemon, address) = listening(&world, "", &mut command);
    world.ok(&["track", "batch_1"]);
    let mut silent = Vec::new();
    for number in 0..900 {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { continue };
        let _ = stream.write_all(if number % 2 == 0 { b"GET /v1/status HTTP/1.1\r\n" } else { b"" });
        silent.push(stream);
        if number % 300 == 299 {
            socket_answers(&world);
        }
    }
    socket_answers(&world);
    world.provider.complete("batch_1");
    world.receiver.wait_for("/hooks", 1);
    // Who has been silent for longest makes room.
    until("TCP answers", || ask(address, "GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200").then_some(()));
    // And nobody is kept who says nothing more.
    let last = silent.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = last
        .read(&mut [0; 512])
        .map(|_| ())
        .map_err(|error| assert!(error.kind() != std::io::ErrorKind::WouldBlock));
    daemon.terminate();
}

#[test]
fn odd_requests_are_refused_and_nothing_else_is_disturbed() {
    let world = World::new();
    let (daemon, address) = daemon(&world, "");
    let host = format!("localhost:{}", address.port());
    for (request, status) in [
        (format!("GET /v1/batches HTTP/1.1\r\nhost: {host}\r\nhost: {host}\r\n\r\n"), "400"),
        (format!("GET http://evil.example/v1/batches HTTP/1.1\r\nhost: {host}\r\n\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nhost: {host}\r\na: {}\r\n\r\n", "x".repeat(100_000)), "431"),
        (format!("GET / HTTP/1.1\r\nhost: {host}\r\n{}\r\n", "a: b\r\n".repeat(200)), "431"),
        (
            format!(
                "POST /v1/poll HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
            ),
            "400",
        ),
        (format!("GET /v1/batches/..%2Fmodels HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"), "400"),
        (format!("GET /v1/batches/%252e%252e HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"), "400"),
        (format!("GET /v1/batches/a%5Cb HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"), "400"),
    ] {
        let answer = said(&mut tcp(address), &request);
        assert_eq!(answer.get(9..12), Some(status), "{}: {answer}", &request[..request.len().min(80)]);
    }
    // Another protocol, an upgrade, half a connection, several requests at once.
    assert!(!said(&mut tcp(address), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").contains(" 200 "));
    let upgrade = format!(
        "GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
    );
    assert!(!said(&mut tcp(address), &upgrade).contains(" 101 "));
    let mut half = tcp(address);
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(said(&mut half, ""), "");
    let one = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let last = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answers = said(&mut tcp(address), &format!("{}{last}", one.repeat(20)));
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 21);
    assert_eq!(answers.matches("x-content-type-options: nosniff").count(), 21);
    socket_answers(&world);
    daemon.terminate();
}

#[test]
fn without_a_token_nobody_asks_a_provider_or_copies_the_state() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    let (daemon, address) = daemon(&world, "");
    world.ok(&["track", "batch_1"]);
    for path in [
        "/v1/batches/batch_1?fetch=true",
        "/v1/batches/batch_1/results",
        "/v1/files/file-out/content",
        "/providers/openai/v1/batches",
        "/providers/openai/v1/batches/batch_1",
        "/providers/openai/v1/files",
        "/v1/backup",
        "/v1/config",
    ] {
        let answer = ask(address, &format!("GET {path} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("\"forbidden\""), "{path}: {answer}");
        assert!(ask(address, &format!("HEAD {path} HTTP/1.1")).starts_with("HTTP/1.1 403"), "HEAD {path}");
    }
    for path in [
        "/v1/batches",
        "/v1/batches/batch_1?detail=true",
        "/v1/events",
        "/v1/status",
        "/metrics",
        "/v1/deliveries",
    ] {
        assert!(ask(address, &format!("GET {path} HTTP/1.1")).starts_with("HTTP/1.1 200"), "{path}");
    }
    daemon.terminate();
}

#[test]
fn the_token_for_reading_only_reads() {
    let world = World::new();
    let keys = "token = { env = \"TEST_TOKEN\" }\nread_token = { env = \"TEST_READ\" }";
    let (daemon, address) =
        listening(&world, keys, world.command().arg("run").env("TEST_READ", "only-for-reading"));
    let status = |token: &str, request: &str| {
        let answer = ask(address, &format!("{request} HTTP/1.1\r\nauthorization: Bearer {token}"));
        answer[9..12].to_owned()
    };
    assert_eq!(status("only-for-reading", "GET /v1/batches"), "200");
    assert_eq!(status("only-for-reading", "GET /v1/backup"), "403");
    assert_eq!(status("only-for-reading", "POST /v1/poll"), "403");
    assert_eq!(status("only-for-readin", "GET /v1/batches"), "401");
    assert_eq!(status(TOKEN, "GET /v1/backup"), "200");
    assert_eq!(status(TOKEN, "POST /v1/poll"), "200");
    daemon.terminate();
}
