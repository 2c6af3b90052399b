//! Providers whose answers are endless, broken, huge, slow, or lies.

use crate::patience::within;
use crate::peer::{Peer, answer, hang, repeat};
use crate::site::{KEY, Site, Terms, batch};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n\r\n";

/// The batches of the bad provider.
const MANY: [&str; 12] = [
    "batch_x", "batch_x1", "batch_x2", "batch_x3", "batch_x4", "batch_x5", "batch_x6", "batch_x7",
    "batch_x8", "batch_x9", "batch_xa", "batch_xb",
];

/// How much the largest answers hold, in MiB, and for how many batches they are given at once. A debug build would read
/// them for minutes; `.ci/run --all` has the whole of it.
const LARGE: (usize, usize) = if cfg!(debug_assertions) { (3, 2) } else { (31, 12) };

/// A peer that does this with every request for a batch, and has an empty list.
fn for_batches(handler: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Peer {
    Peer::start(move |stream, asked| {
        if asked.path.starts_with("/v1/batches/") {
            handler(stream);
        } else {
            let _ = stream.write_all(&answer(404, "", "{}"));
        }
    })
}

/// What is true whenever a batch cannot be read: it is live, its trouble is told, and everything else goes on.
fn is_unreadable(peer: &Peer, ids: &[&str]) -> Site {
    let site = Site::against_provider(peer);
    site.track("bad", ids);
    site.until("the trouble shows", || {
        ids.iter()
            .all(|id| !site.json(&format!("/v1/batches/{id}"))["batchd"]["last_error"].is_null())
            .then_some(())
    });
    for id in ids {
        assert_eq!(site.json(&format!("/v1/batches/{id}"))["status"], "validating");
    }
    // Somebody who asks by hand gets an answer too, and no success.
    let asked =
        site.ask("POST", &format!("/v1/batches/{}/poll", ids[0]), &Value::Null, Duration::from_secs(15));
    let asked = asked.expect("a check by hand is answered");
    assert!(asked.status >= 400, "{}", String::from_utf8_lossy(&asked.body));
    site.endures();
    site
}

#[test]
fn a_provider_with_an_endless_body() {
    let peer = for_batches(|stream| {
        let _ = stream.write_all(&[OK, CHUNKED].concat());
        let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
        repeat(stream, &chunk, Duration::ZERO);
    });
    is_unreadable(&peer, &MANY[..2]);
}

#[test]
fn a_provider_with_mebibytes_of_zeros_for_many() {
    let peer = for_batches(|stream| {
        let length = LARGE.0 * 1024 * 1024;
        let head = format!("content-length: {length}\r\n\r\n");
        let _ = stream.write_all(&[OK, head.as_bytes()].concat());
        let piece = vec![0; 64 * 1024];
        for _ in 0..length / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    is_unreadable(&peer, &MANY[..LARGE.1]);
}

#[test]
fn a_provider_with_mebibytes_of_small_values_for_many() {
    let peer = for_batches(|stream| {
        let piece = "[],".repeat((1 << 20) / 3);
        let length = 3 + LARGE.0 * piece.len();
        let head = format!("content-length: {length}\r\n\r\n[1,");
        let _ = stream.write_all(&[OK, head.as_bytes()].concat());
        for _ in 0..LARGE.0 {
            if stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
    });
    is_unreadable(&peer, &MANY[..LARGE.1]);
}

#[test]
fn a_provider_with_a_gzip_bomb() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b'['; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let peer = for_batches(move |stream| {
        let head = format!("content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
        let _ = stream.write_all(&[OK, head.as_bytes(), &bomb].concat());
    });
    is_unreadable(&peer, &MANY[..2]);
}

#[test]
fn a_provider_that_nests_a_million_deep() {
    let peer = for_batches(|stream| {
        let body = format!("{{\"id\":\"batch_x\",\"metadata\":{}", "[".repeat(1_000_000));
        let _ = stream.write_all(&answer(200, "", &body));
    });
    is_unreadable(&peer, &MANY[..2]);
}

#[test]
fn a_provider_that_redirects_for_ever() {
    let other = Peer::saying(answer(200, "", &batch("batch_x", "completed").to_string()));
    let location = format!("location: {}/v1/batches/batch_x\r\n", other.url());
    let turn = AtomicU64::new(0);
    let peer = for_batches(move |stream| {
        let to = if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            location.as_str()
        } else {
            "location: /v1/batches/batch_x\r\n"
        };
        let _ = stream.write_all(&answer(307, to, "{}"));
    });
    is_unreadable(&peer, &MANY[..1]);
    assert!(other.asked().is_empty(), "a redirect was followed: {:?}", other.asked());
}

#[test]
fn a_provider_with_headers_without_end() {
    let peer = for_batches(|stream| {
        let _ = stream.write_all(OK);
        repeat(stream, b"x-more: and more and more and more\r\n", Duration::ZERO);
    });
    is_unreadable(&peer, &MANY[..4]);
}

#[test]
fn a_provider_with_one_header_without_end() {
    let peer = for_batches(|stream| {
        let _ = stream.write_all(&[OK, b"x-long: "].concat());
        repeat(stream, &[b'a'; 4096], Duration::ZERO);
    });
    is_unreadable(&peer, &MANY[..4]);
}

#[test]
fn a_provider_that_hints_early_without_end() {
    let peer = for_batches(|stream| {
        repeat(stream, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", Duration::from_millis(2));
    });
    is_unreadable(&peer, &MANY[..2]);
}

#[test]
fn a_provider_that_promises_more_than_it_sends() {
    let peer = for_batches(|stream| {
        let body = batch("batch_x", "completed").to_string();
        let head = format!("connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len() + 100);
        let _ = stream.write_all(&[OK, head.as_bytes()].concat());
    });
    is_unreadable(&peer, &MANY[..1]);
}

#[test]
fn a_provider_that_sends_more_than_it_promises() {
    let peer = for_batches(|stream| {
        let body = batch("batch_x", "completed").to_string();
        let head = format!("content-length: {}\r\n\r\n{body}", body.len() / 2);
        let _ = stream.write_all(&[OK, head.as_bytes()].concat());
    });
    is_unreadable(&peer, &MANY[..1]);
}

#[test]
fn a_provider_that_breaks_off_its_json() {
    let peer = for_batches(|stream| {
        let body = batch("batch_x", "completed").to_string();
        let _ = stream.write_all(&answer(200, "", &body[..12]));
    });
    is_unreadable(&peer, &MANY[..1]);
}

#[test]
fn a_provider_that_drips() {
    let peer = for_batches(|stream| {
        for byte in answer(200, "", &batch("batch_x", "completed").to_string()) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            crate::patience::pause(Duration::from_millis(60));
        }
    });
    is_unreadable(&peer, &MANY);
}

#[test]
fn a_provider_that_never_answers() {
    let peer = Peer::start(|stream, _| hang(stream));
    is_unreadable(&peer, &MANY);
}

#[test]
fn a_provider_that_hangs_up() {
    let peer = Peer::on_connection(|stream, _| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    is_unreadable(&peer, &MANY);
}

#[test]
fn a_provider_with_garbage_for_tls() {
    let peer = Peer::on_connection(|stream, _| {
        let _ = stream.write_all(&[0x16, 3, 3, 0xff, 0xff, 2, 0, 0xff]);
        repeat(stream, &[0xa5; 1024], Duration::from_millis(5));
    });
    let url = format!("https://{}/v1", peer.address());
    let site = Site::new(&Terms { provider: Some(&url), ..Terms::default() });
    site.track("bad", &MANY[..4]);
    site.until("the trouble shows", || {
        (!site.json("/v1/batches/batch_x")["batchd"]["last_error"].is_null()).then_some(())
    });
    site.endures();
}

#[test]
fn a_provider_that_speaks_no_http() {
    let turn = AtomicU64::new(0);
    let peer = for_batches(move |stream| {
        let lines: [&[u8]; 6] = [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n{}",
            b"HTTP/1.1 999999 Huh\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"\0\0\0\0\0\0\0\0",
        ];
        let line = lines[usize::try_from(turn.fetch_add(1, Ordering::SeqCst)).unwrap() % lines.len()];
        let _ = stream.write_all(line);
    });
    is_unreadable(&peer, &MANY[..6]);
}

#[test]
fn a_provider_that_answers_for_another_batch() {
    let peer = for_batches(|stream| {
        let _ = stream.write_all(&answer(200, "", &batch("batch_other", "completed").to_string()));
    });
    let site = is_unreadable(&peer, &MANY[..1]);
    assert_eq!(site.get("/v1/batches/batch_other").unwrap().status, 404);
    assert!(site.told("batch_x").is_empty() && site.told("batch_other").is_empty());
}

#[test]
fn a_provider_that_changes_its_mind() {
    let turn = AtomicU64::new(0);
    let peer = for_batches(move |stream| {
        let words =
            ["in_progress", "completed", "in_progress", "failed", "finalizing", "expired", "cancelled"];
        let word = words[usize::try_from(turn.fetch_add(1, Ordering::SeqCst)).unwrap() % words.len()];
        let _ = stream.write_all(&answer(200, "", &batch("batch_x", word).to_string()));
    });
    let site = Site::against_provider(&peer);
    site.track("bad", &["batch_x"]);
    site.until("its end is told", || (!site.told("batch_x").is_empty()).then_some(()));
    for _ in 0..8 {
        let _ = site.ask("POST", "/v1/batches/batch_x/poll", &Value::Null, Duration::from_secs(5));
    }
    let status = site.json("/v1/batches/batch_x")["status"].clone();
    let ends = ["completed", "failed", "expired", "cancelled"];
    assert!(ends.iter().any(|end| status == *end), "an ended batch lives again: {status}");
    // It may end in another way than it first seemed, and each way is told once.
    let told: Vec<String> = site.told("batch_x").iter().map(|event| event["type"].to_string()).collect();
    let once: std::collections::BTreeSet<&String> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "{told:?}");
    site.endures();
}

#[test]
fn a_provider_with_numbers_that_are_none() {
    let peer = for_batches(|stream| {
        let body = r#"{"id":"batch_x","object":"batch","endpoint":"/v1/chat/completions","status":"in_progress",
            "input_file_id":7,"completion_window":{},"created_at":1e400,"expires_at":-99999999999999999999,
            "request_counts":{"total":-3,"completed":1e308,"failed":"NaN"},"metadata":[[],null],
            "usage":{"input_tokens":18446744073709551615,"output_tokens":1e19,"total_tokens":-1}}"#;
        let _ = stream.write_all(&answer(200, "", body));
    });
    let site = Site::against_provider(&peer);
    site.track("bad", &["batch_x"]);
    site.until("it is seen", || (site.json("/v1/batches/batch_x")["status"] == "in_progress").then_some(()));
    site.endures();
}

#[test]
fn a_provider_that_echoes_the_key() {
    let peer = Peer::start(move |stream, asked| {
        let said = asked.head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization"));
        let said = said.unwrap_or("nothing").replace('"', "'");
        let answered = if asked.path.contains("batch_fails") {
            let mut told = batch("batch_fails", "failed");
            told["errors"] =
                json!({"object": "list", "data": [{"code": said, "message": said, "param": said}]});
            told["metadata"] = json!({ "said": said });
            answer(200, "", &told.to_string())
        } else {
            answer(500, &format!("x-said: {said}\r\n"), &json!({"error": {"message": said}}).to_string())
        };
        let _ = stream.write_all(&answered);
    });
    let site = Site::against_provider(&peer);
    site.track("bad", &["batch_x", "batch_fails"]);
    site.until("its end is told", || (!site.told("batch_fails").is_empty()).then_some(()));
    site.until("the trouble shows", || {
        (!site.json("/v1/batches/batch_x")["batchd"]["last_error"].is_null()).then_some(())
    });
    site.endures();
    for path in [
        "/v1/batches/batch_x?detail=true",
        "/v1/batches/batch_fails?detail=true",
        "/v1/batches/batch_x?fetch=true&provider=bad",
        "/v1/events",
        "/v1/status",
        "/v1/providers",
        "/v1/config",
        "/metrics",
        "/providers/bad/v1/files",
    ] {
        let shown = site.get(path).unwrap();
        assert!(!String::from_utf8_lossy(&shown.body).contains(KEY), "{path} shows the key");
    }
    for event in site.told("batch_fails") {
        assert!(!event.to_string().contains(KEY), "the webhook was told the key: {event}");
    }
    for arguments in [&["show", "bad:batch_fails"][..], &["providers", "check"], &["status"]] {
        let output = site.batchd(arguments);
        let said = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&said).contains(KEY), "{arguments:?} shows the key");
    }
    site.stops();
    let state = std::fs::read(site.path("state/batchd.db")).unwrap();
    assert!(!state.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "the state holds the key");
}

/// However long it says, what a person asks for is sent, and nothing else is held.
#[test]
fn a_provider_that_says_come_back_in_30_000_years() {
    for word in ["1000000000000", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let first = AtomicU64::new(0);
        let more = format!("retry-after: {word}\r\n");
        let peer = for_batches(move |stream| {
            let said = if first.fetch_add(1, Ordering::SeqCst) == 0 {
                answer(429, &more, "{}")
            } else {
                answer(200, "", &batch("batch_x", "completed").to_string())
            };
            let _ = stream.write_all(&said);
        });
        let site = Site::against_provider(&peer);
        site.track("bad", &["batch_x"]);
        site.until("it is held", || {
            (!site.json("/v1/batches/batch_x")["batchd"]["last_error"].is_null()).then_some(())
        });
        let asked = site.ask("POST", "/v1/batches/batch_x/poll", &Value::Null, Duration::from_secs(5));
        assert_eq!(asked.unwrap().json()["status"], "completed", "{word}");
        site.endures();
    }
}

/// A pause that is over already, or none at all, is no leave to hurry.
#[test]
fn a_provider_that_says_come_back_in_1970() {
    let turn = AtomicU64::new(0);
    let peer = for_batches(move |stream| {
        let words = ["Thu, 01 Jan 1970 00:00:00 GMT", "-5", "0", "soon", "\u{1}", ""];
        let word = words[usize::try_from(turn.fetch_add(1, Ordering::SeqCst)).unwrap() % words.len()];
        let _ = stream.write_all(&answer(429, &format!("retry-after: {word}\r\n"), "{}"));
    });
    let site = Site::against_provider(&peer);
    site.track("bad", &MANY[..3]);
    site.until("the trouble shows", || {
        (!site.json("/v1/batches/batch_x")["batchd"]["last_error"].is_null()).then_some(())
    });
    site.endures();
    crate::patience::pause(Duration::from_secs(1));
    let asked = peer.asked().len();
    assert!(asked < 60, "{asked} requests in about two seconds");
}

fn list(items: &[Value], more: bool) -> Vec<u8> {
    answer(200, "", &json!({"object": "list", "data": items, "has_more": more}).to_string())
}

#[test]
fn a_list_that_repeats_itself() {
    let peer = Peer::start(|stream, _| {
        let _ = stream.write_all(&list(&[batch("batch_l", "in_progress")], true));
    });
    let site = Site::against_provider(&peer);
    let found =
        site.ask("POST", "/v1/discover", &json!({"provider": "bad", "track": true}), Duration::from_secs(8));
    assert!(found.is_some(), "the search for batches does not end");
    let asked = peer.asked().len();
    assert!(asked < 60, "{asked} pages were read");
    site.endures();
}

#[test]
fn a_list_without_end_and_without_anything() {
    let turn = AtomicU64::new(0);
    let peer = Peer::start(move |stream, _| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        let page =
            json!({"object": "list", "data": [], "has_more": true, "last_id": format!("batch_{turn}")});
        let _ = stream.write_all(&answer(200, "", &page.to_string()));
    });
    let site = Site::against_provider(&peer);
    let found =
        site.ask("POST", "/v1/discover", &json!({"provider": "bad", "track": true}), Duration::from_secs(8));
    assert!(found.is_some(), "the search for batches does not end");
    site.endures();
}

fn unix_now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a provider of its own has a clock of its own")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// New batches on every page, for ever: a round of discovery ends all the same.
#[test]
fn a_list_without_end() {
    let turn = AtomicU64::new(0);
    let peer = Peer::start(move |stream, _| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        let mut items = ["a", "b"].map(|which| batch(&format!("batch_{turn}_{which}"), "in_progress"));
        // None of them is old, so that no age ends it.
        for item in &mut items {
            item["created_at"] = json!(unix_now());
        }
        let _ = stream.write_all(&list(&items, true));
    });
    let url = format!("{}/v1", peer.url());
    let site =
        Site::new(&Terms { provider: Some(&url), more: "discover = \"0 0 1 1 *\"\n", ..Terms::default() });
    site.until("the first round begins", || (!peer.asked().is_empty()).then_some(()));
    site.endures();
    // What is tracked is polled by pages of the same list from then on; so it is the number of batches that must stop.
    let tracked = || site.json("/v1/status")["active"].as_u64().unwrap_or(0);
    let over = within(Duration::from_mins(1), || {
        let before = tracked();
        crate::patience::pause(Duration::from_secs(2));
        (before > 0 && tracked() == before).then_some(())
    });
    assert!(over.is_some(), "{} batches are tracked, and it does not end", tracked());
}

#[test]
fn a_list_with_the_same_batch_twice() {
    let peer = Peer::start(|stream, asked| {
        if asked.path.starts_with("/v1/batches/") {
            let _ = stream.write_all(&answer(200, "", &batch("batch_l", "in_progress").to_string()));
        } else {
            let twice = [
                batch("batch_l", "in_progress"),
                batch("batch_l", "completed"),
                batch("batch_l", "in_progress"),
            ];
            let _ = stream.write_all(&list(&twice, false));
        }
    });
    let site = Site::against_provider(&peer);
    let asked = json!({"provider": "bad", "track": true, "since": "3650d"});
    for _ in 0..2 {
        site.ask("POST", "/v1/discover", &asked, Duration::from_secs(8)).unwrap();
    }
    let tracked = site.json("/v1/batches?provider=bad");
    assert_eq!(tracked["data"].as_array().unwrap().len(), 1, "{tracked}");
    site.endures();
    assert!(site.told("batch_l").len() <= 1);
}

/// Ids that are paths, that steer a terminal, or that are longer than any: nothing of it leaves its place.
#[test]
fn a_list_of_ids_that_are_paths() {
    let evil = [
        "../../evil",
        "..%2f..%2fevil2",
        "/etc/evil3",
        "batch_\u{1b}[2J\u{7}x",
        "batch_a\nb",
        "..",
        "a\0b",
        "-rf",
    ];
    let peer = Peer::start(move |stream, asked| {
        let said = if asked.path.contains("/content") {
            answer(
                200,
                "",
                "{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{}},\"error\":null}\n",
            )
        } else if asked.path.starts_with("/v1/batches?") || asked.path == "/v1/batches" {
            let items: Vec<Value> = evil.iter().map(|id| batch(id, "in_progress")).collect();
            list(&items, false)
        } else {
            // Whatever it is asked for, it has ended.
            let id = evil.iter().find(|id| asked.path.ends_with(&encoded(id))).unwrap_or(&"batch_x");
            answer(200, "", &batch(id, "completed").to_string())
        };
        let _ = stream.write_all(&said);
    });
    let url = format!("{}/v1", peer.url());
    let site =
        Site::new(&Terms { provider: Some(&url), more: "[results]\ndownload = true\n", ..Terms::default() });
    let asked = json!({"provider": "bad", "track": true, "since": "3650d"});
    site.ask("POST", "/v1/discover", &asked, Duration::from_secs(8)).unwrap();
    within(Duration::from_secs(2), || {
        let results = std::fs::read_dir(site.path("state/results/bad")).ok()?;
        (results.count() >= 3).then_some(())
    });
    site.endures();
    for arguments in [&["list", "--all"][..], &["events"], &["discover", "--since", "3650d"], &["deliveries"]]
    {
        let output = site.batchd(arguments);
        let said = [output.stdout, output.stderr].concat();
        let steers = |byte: &u8| *byte < 0x20 && *byte != b'\n' || *byte == 0x7f;
        assert!(!said.iter().any(steers), "{arguments:?}: {:?}", String::from_utf8_lossy(&said));
    }
    for entry in
        std::fs::read_dir(site.path("")).unwrap().chain(std::fs::read_dir(site.path("state")).unwrap())
    {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("evil"), "{name}");
    }
    // No request left the place of batches and files.
    for asked in peer.asked() {
        let path = asked.path.split('?').next().unwrap();
        assert!(path.starts_with("/v1/batches") || path.starts_with("/v1/files"), "{path}");
        assert!(!path.split('/').any(|segment| segment == ".."), "{path}");
    }
}

/// As a path's segment.
fn encoded(id: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    id.bytes().map(byte).collect()
}

/// A line of results that does not end is no reason to keep it.
#[test]
fn a_line_of_results_without_end() {
    let peer = Peer::start(|stream, asked| {
        if asked.path.contains("/content") {
            let _ = stream.write_all(&[OK, CHUNKED].concat());
            let chunk = [b"10000\r\n".as_slice(), &vec![b'a'; 0x10000], b"\r\n"].concat();
            repeat(stream, &chunk, Duration::ZERO);
        } else {
            let _ = stream.write_all(&answer(200, "", &batch("batch_x", "completed").to_string()));
        }
    });
    let site = Site::against_provider(&peer);
    site.track("bad", &["batch_x"]);
    site.until("it has ended", || (site.json("/v1/batches/batch_x")["status"] == "completed").then_some(()));
    let _ = site.ask("GET", "/v1/batches/batch_x/results", &Value::Null, Duration::from_secs(3));
    site.endures();
}
