//! Receivers of webhooks that never answer, drip, flood, or send elsewhere.

use crate::peer::{Peer, answer, hang, read_request, repeat};
use crate::site::Site;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// A site whose webhook `foe` is owed a batch's end, and has been tried.
fn owed(peer: &Peer) -> Site {
    let site = Site::against_receiver(peer);
    site.put("batch_1", "completed");
    site.track("good", &["batch_1"]);
    site.until("the healthy webhook is told", || (!site.told("batch_1").is_empty()).then_some(()));
    site.until("the bad one was tried", || delivery(&site)["attempts"].as_u64().filter(|count| *count > 0));
    site
}

/// The delivery of the batch's end to `foe`.
fn delivery(site: &Site) -> Value {
    let all = site.json("/v1/deliveries?webhook=foe");
    let mut all = all["data"].as_array().cloned().unwrap_or_default();
    all.retain(|delivery| delivery["batch_id"] == "batch_1");
    all.pop().unwrap_or_default()
}

fn state(site: &Site) -> String {
    delivery(site)["state"].as_str().unwrap_or("").to_owned()
}

/// Waits for this state of that delivery; then everything else must be well too.
fn comes_to(peer: &Peer, wanted: &str) -> Site {
    let site = owed(peer);
    site.until(&format!("it is {wanted}"), || (state(&site) == wanted).then_some(()));
    site.endures();
    site
}

/// The delivery fails, is not lost, and everything else goes on.
fn fails(peer: &Peer) -> Site {
    let site = owed(peer);
    site.until("the failure shows", || (!delivery(&site)["last_error"].is_null()).then_some(()));
    site.endures();
    let state = state(&site);
    assert!(["pending", "inflight", "dead"].contains(&state.as_str()), "{state}");
    site
}

#[test]
fn a_receiver_that_never_answers() {
    let site = fails(&Peer::start(|stream, _| hang(stream)));
    site.stops();
}

#[test]
fn a_receiver_that_never_reads() {
    fails(&Peer::on_connection(|_, _| crate::patience::pause(Duration::from_secs(30))));
}

#[test]
fn a_receiver_that_drips_its_headers() {
    fails(&Peer::start(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        repeat(stream, b"x-more: a\r\n", Duration::from_millis(50));
    }));
}

#[test]
fn a_receiver_with_headers_without_end() {
    fails(&Peer::start(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        repeat(stream, b"x-more: and more and more and more\r\n", Duration::ZERO);
    }));
}

#[test]
fn a_receiver_that_hints_early_without_end() {
    fails(&Peer::start(|stream, _| {
        repeat(stream, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", Duration::from_millis(2));
    }));
}

#[test]
fn a_receiver_that_speaks_no_http() {
    fails(&Peer::start(|stream, _| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
    }));
}

#[test]
fn a_receiver_that_hangs_up() {
    fails(&Peer::on_connection(|stream, _| {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }));
}

#[test]
fn b13_a_receiver_with_an_endless_answer() {
    let site = comes_to(
        &Peer::start(|stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".as_slice(), &vec![b'y'; 0x10000], b"\r\n"].concat();
            repeat(stream, &chunk, Duration::ZERO);
        }),
        "delivered",
    );
    assert_eq!(delivery(&site)["attempts"], 1);
}

#[test]
fn a_receiver_with_a_gzip_bomb() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    comes_to(
        &Peer::start(move |stream, _| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                bomb.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &bomb].concat());
        }),
        "delivered",
    );
}

/// What a 2xx says it has said, whatever becomes of the body.
#[test]
fn a_receiver_that_closes_after_its_headers() {
    comes_to(&Peer::saying(*b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"), "delivered");
}

#[test]
fn a_receiver_that_is_gone_for_good() {
    let peer = Peer::saying(answer(410, "", "{}"));
    let site = comes_to(&peer, "held");
    let asked = peer.asked().len();
    site.put("batch_2", "completed");
    site.track("good", &["batch_2"]);
    site.until("the healthy one is told of it", || (!site.told("batch_2").is_empty()).then_some(()));
    assert_eq!(peer.asked().len(), asked, "a webhook that is switched off was sent to");
}

#[test]
fn a_receiver_that_redirects_to_metadata() {
    let other = Peer::saying(answer(200, "", "{}"));
    for to in
        ["http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", &other.url(), "//0/", "\t"]
    {
        let site = fails(&Peer::saying(answer(308, &format!("location: {to}\r\n"), "{}")));
        assert!(!site.log().contains("meta-data"), "{}", site.log());
    }
    assert!(other.asked().is_empty(), "a redirect was followed");
}

#[test]
fn a_receiver_that_keeps_alive_and_closes() {
    let peer = Peer::on_connection(|stream, note| {
        if let Some(asked) = read_request(stream) {
            note(asked);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let site = comes_to(&peer, "delivered");
    let ids: Vec<String> = (0..20).map(|number| format!("batch_k{number}")).collect();
    for id in &ids {
        site.put(id, "completed");
        site.track("good", &[id]);
    }
    site.until("all of them are delivered", || {
        let pending = site.json("/v1/deliveries?webhook=foe&state=pending")["data"].as_array()?.len();
        let inflight = site.json("/v1/deliveries?webhook=foe&state=inflight")["data"].as_array()?.len();
        let all = site.json("/v1/deliveries?webhook=foe&limit=100")["data"].as_array()?.len();
        (pending + inflight == 0 && all >= ids.len()).then_some(())
    });
    site.endures();
}

/// However long it says: what is owed is neither lost nor given up.
#[test]
fn a_receiver_that_says_come_back_in_30_000_years() {
    for word in ["1000000000000", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let peer = Peer::saying(answer(429, &format!("retry-after: {word}\r\n"), "{}"));
        let site = fails(&peer);
        let asked = peer.asked().len();
        assert!(asked < 20, "{word}: {asked} requests");
        assert_eq!(state(&site), "pending", "{word}");
    }
}

#[test]
fn a_receiver_that_says_come_back_in_1970() {
    for word in ["Thu, 01 Jan 1970 00:00:00 GMT", "-1", "0", "now"] {
        let peer = Peer::saying(answer(429, &format!("retry-after: {word}\r\n"), "{}"));
        let site = fails(&peer);
        let asked = peer.asked().len();
        assert!(asked < 40, "{word}: {asked} requests");
        assert_eq!(state(&site), "pending", "{word}");
    }
}
