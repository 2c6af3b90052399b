//! Clients of the API that dawdle, flood, hang up, or send what is no request.

use crate::client::request;
use crate::patience::{now, pause};
use crate::peer::{Peer, answer};
use crate::site::{Site, TOKEN, Terms, batch};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn site() -> Site {
    Site::new(&Terms::default())
}

fn connect(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(site.tcp()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(8))).unwrap();
    stream
}

/// Sends bytes over TCP and takes what comes until the other side closes, or until nothing has come for `limit`.
fn say(site: &Site, bytes: &[u8], limit: Duration) -> String {
    let mut stream = connect(site);
    stream.set_read_timeout(Some(limit)).unwrap();
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The status of the first answer in `said`; 0: there is none.
fn status(said: &str) -> u16 {
    said.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn get(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    )
}

const SOON: Duration = Duration::from_millis(700);

#[test]
fn clients_with_slow_headers() {
    let site = site();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect(&site)).collect();
    let mut local: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(site.socket()).unwrap()).collect();
    for byte in b"GET / HTT" {
        for stream in &mut slow {
            let _ = stream.write_all(&[*byte]);
        }
        for stream in &mut local {
            let _ = stream.write_all(&[*byte]);
        }
        pause(Duration::from_millis(60));
    }
    site.endures();
    site.stops();
}

#[test]
fn clients_with_slow_bodies() {
    let site = site();
    let mut slow: Vec<UnixStream> = Vec::new();
    for number in 0..60 {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        let path =
            ["/v1/batches/track", "/v1/submit?provider=good", "/v1/reload", "/providers/good/v1/batches"]
                [number % 4];
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        slow.push(stream);
    }
    for _ in 0..8 {
        for stream in &mut slow {
            let _ = stream.write_all(b"[{\"id\":");
        }
        pause(Duration::from_millis(60));
    }
    site.endures();
    site.stops();
}

/// Clients that ask for all there is, and never read.
#[test]
fn clients_that_never_read() {
    let site = site();
    let ids: Vec<String> = (0..60).map(|number| format!("batch_n{number}")).collect();
    for id in &ids {
        site.put(id, "in_progress");
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    site.track("good", &ids);
    let mut deaf = Vec::new();
    for number in 0..60 {
        let path = ["/v1/batches?limit=300", "/v1/backup", "/v1/events?limit=1000", "/v1/status"][number % 4];
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        let accept = if number % 8 == 2 { "accept: text/event-stream\r\n" } else { "" };
        let asked = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{accept}\r\n");
        stream.write_all(asked.as_bytes()).unwrap();
        deaf.push(stream);
    }
    pause(Duration::from_millis(300));
    site.endures();
    site.stops();
}

/// What has begun runs to its end, whether or not who asked for it stays.
#[test]
fn a_client_that_hangs_up_after_its_request() {
    let peer = Peer::start(|stream, asked| {
        pause(Duration::from_millis(400));
        let id = asked.path.rsplit('/').next().unwrap_or("").to_owned();
        let _ = stream.write_all(&answer(200, "", &batch(&id, "in_progress").to_string()));
    });
    let site = Site::against_provider(&peer);
    for number in 0..10 {
        let path = format!("/v1/batches/batch_h{number}");
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        let body = json!({"provider": "bad"}).to_string();
        stream.write_all(&request("PUT", &path, body.as_bytes())).unwrap();
        // The provider has been asked: it has begun.
        site.until("the provider is asked", || (peer.asked().len() > number).then_some(()));
        drop(stream);
    }
    site.until("all of them are tracked", || {
        let tracked = site.json("/v1/batches?provider=bad");
        (tracked["data"].as_array()?.len() == 10).then_some(())
    });
    site.endures();
}

/// As many of two thousand connections as are taken without delay.
fn crowd(site: &Site) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&site.tcp(), Duration::from_millis(200)).ok();
    (0..2000).map_while(connect).collect()
}

#[test]
fn two_thousand_connections() {
    let site = site();
    let crowd = crowd(&site);
    site.endures();
    drop(crowd);
    site.until("a new client is served over TCP", || {
        (status(&say(&site, get("/v1/status").as_bytes(), SOON)) == 200).then_some(())
    });
}

/// The usual limit of open files: those who fill it from outside do not take it from the socket, nor from providers.
#[test]
fn more_connections_than_files() {
    let site = Site::new(&Terms { files: Some(1024), ..Terms::default() });
    let mut crowd = crowd(&site);
    for stream in &mut crowd {
        let _ = stream.write_all(b"GET /v1/");
    }
    pause(Duration::from_millis(300));
    site.endures();
}

#[test]
fn headers_that_are_huge() {
    let site = site();
    let long =
        format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "a".repeat(2 << 20));
    let many =
        format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x-many: a\r\n".repeat(100_000));
    let path = get(&format!("/v1/batches/{}", "a".repeat(1 << 20)));
    for (name, bytes) in [("long", long), ("many", many), ("path", path)] {
        let said = say(&site, bytes.as_bytes(), SOON);
        assert!([0, 400, 404, 413, 414, 431].contains(&status(&said)), "{name}: {said}");
    }
    site.endures();
}

#[test]
fn requests_that_are_half() {
    let site = site();
    let whole =
        String::from_utf8(request("PUT", "/v1/batches/batch_half", br#"{"provider":"good","check":false}"#));
    let whole = whole.unwrap();
    let whole = whole.replace("host:", &format!("authorization: Bearer {TOKEN}\r\nhost:"));
    for end in (1..whole.len()).step_by(7) {
        let mut stream = connect(&site);
        let _ = stream.write_all(&whole.as_bytes()[..end]);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    site.endures();
    assert_eq!(site.get("/v1/batches/batch_half").unwrap().status, 404, "half a request was obeyed");
    // The whole one is; so the halves were refused for being halves.
    assert_eq!(status(&say(&site, whole.as_bytes(), Duration::from_secs(5))), 201);
}

#[test]
fn chunks_that_are_none() {
    let site = site();
    for chunks in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2;ext=\"\u{1}\n\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
    ] {
        let asked = format!(
            "PUT /v1/batches/batch_chunks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunks}"
        );
        let said = say(&site, asked.as_bytes(), SOON);
        assert!(status(&said) == 0 || (400..500).contains(&status(&said)), "{chunks:?}: {said}");
    }
    assert_eq!(site.get("/v1/batches/batch_chunks").unwrap().status, 404);
    site.endures();
}

/// Two lengths, or a length and chunks, mean different requests to different readers: such a one is refused.
#[test]
fn requests_that_mean_two_things() {
    let site = site();
    let inner = "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for framing in [
        "content-length: 2\r\ncontent-length: 60",
        "content-length: 2, 60",
        "content-length: +2",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
    ] {
        let asked = format!(
            "PUT /v1/batches/batch_two HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n{{}}{inner}"
        );
        let said = say(&site, asked.as_bytes(), SOON);
        assert!(status(&said) == 0 || (400..600).contains(&status(&said)), "{framing}: {said}");
        assert_eq!(
            said.matches("HTTP/1.1 ").count().min(2),
            usize::from(status(&said) > 0),
            "{framing}: {said}"
        );
    }
    site.endures();
}

/// A second `Host`, or one in the address: neither makes a foreign name ours.
#[test]
fn hosts_that_differ() {
    let site = site();
    for (name, line, hosts) in [
        ("two", "/v1/status", "host: localhost\r\nhost: evil.example"),
        ("two, the other way round", "/v1/status", "host: evil.example\r\nhost: localhost"),
        ("in the address", "http://evil.example/v1/status", "host: localhost"),
        ("foreign", "/v1/status", "host: evil.example"),
        ("none", "/v1/status", "x-host: localhost"),
        ("with a user", "/v1/status", "host: localhost@evil.example"),
        ("with a path", "/v1/status", "host: localhost/evil.example"),
    ] {
        let said = say(
            &site,
            format!("GET {line} HTTP/1.1\r\n{hosts}\r\nconnection: close\r\n\r\n").as_bytes(),
            SOON,
        );
        assert!([400, 421].contains(&status(&said)), "{name}: {said}");
    }
    site.endures();
}

#[test]
fn bodies_that_are_too_much() {
    let site = site();
    let deep = "[".repeat(1 << 18);
    let path = "/v1/batches/track";
    for body in [format!("{{\"items\":{deep}"), "{\"items\":[".to_owned() + &"{},".repeat(5000) + "{}]}"] {
        let reply = crate::client::ask(&site.socket(), "POST", path, body.as_bytes(), Duration::from_secs(8));
        assert!(reply.as_ref().is_some_and(|reply| reply.status < 500), "{path}: {reply:?}");
    }
    site.endures();
}

#[test]
fn paths_that_lead_elsewhere() {
    let site = site();
    for path in [
        "/v1/batches/..%2f..%2fetc%2fpasswd",
        "/v1/files/..%2f..%2fbatchd.db/content",
        "/v1/files/results:good:..%2f..%2fx/content",
        "/providers/..%2fgood/v1/batches",
        "/providers/good/v1/files/..%2f..%2fadmin",
        "/providers/good/v1/files/../../admin",
        "/providers/good/v1/files/%2e%2e/%2e%2e/admin",
        "/v1/batches/%00",
        "/v1/batches/%ff%fe",
        "/v1/batches/%zz",
        "/v1/batches?after=%00&limit=-1&status=%ff",
        "/v1/events?after=99999999999999999999",
        "/v1/deliveries/-1/retry",
        "//v1//batches",
    ] {
        let said = say(&site, get(path).as_bytes(), Duration::from_secs(3));
        assert!((200..500).contains(&status(&said)) || status(&said) == 502, "{path}: {said}");
        assert!(!said.contains("root:"), "{path}: {said}");
    }
    site.endures();
}

#[test]
fn three_hundred_requests_at_once_on_one_connection() {
    let site = site();
    let mut stream = connect(&site);
    let asked = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let begun = now();
    let mut copy = stream.try_clone().unwrap();
    let all = std::thread::spawn(move || {
        let mut count = 0;
        let mut piece = vec![0; 64 * 1024];
        let mut text = Vec::new();
        while count < 300 && begun.elapsed() < Duration::from_secs(15) {
            let Ok(read @ 1..) = copy.read(&mut piece) else { break };
            text.extend_from_slice(&piece[..read]);
            count = text.windows(12).filter(|window| *window == b"HTTP/1.1 200").count();
        }
        count
    });
    let _ = stream.write_all(asked.repeat(300).as_bytes());
    site.endures();
    assert_eq!(all.join().unwrap(), 300);
}
