//! Receivers that do their worst: what they keep busy is their own thread, and nobody waits for them.

use batchd::config::Proxy;
use batchd::http::call::{BodyLimit, Call};
use batchd::http::egress::Guard;
use batchd::http::failure::Failure;
use batchd::http::limits;
use batchd::http::transport::{ReqwestTransport, Transport, TransportConfig};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A server that answers every request with `head` and then `rest` for ever; it ends with the test.
struct Flood {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Flood {
    fn of(head: &'static str, rest: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, ended) = (stream.unwrap(), Arc::clone(&ended));
                std::thread::spawn(move || answer(stream, head, rest, &ended));
            }
        });
        Self { address, over }
    }
}

fn answer(mut stream: TcpStream, head: &str, rest: &str, ended: &AtomicBool) {
    let _ = stream.read(&mut [0; 4096]);
    let block = if rest.is_empty() { Vec::new() } else { rest.repeat(65_536 / rest.len()).into_bytes() };
    let mut well = stream.write_all(head.as_bytes()).is_ok();
    while well && !rest.is_empty() && !ended.load(Ordering::SeqCst) {
        well = stream.write_all(&block).is_ok();
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // So that it sees that.
        let _ = TcpStream::connect(self.address);
    }
}

fn transport() -> Arc<ReqwestTransport> {
    let config = TransportConfig {
        proxy: &Proxy::None,
        ca_files: Vec::new(),
        insecure_skip_verify: false,
        guard: Guard::Local,
    };
    Arc::new(ReqwestTransport::new(&config).unwrap())
}

async fn post(transport: &ReqwestTransport, to: SocketAddr) -> Result<u16, Failure> {
    let request = http::Request::post(format!("http://{to}/hooks")).body(Bytes::from_static(b"{}")).unwrap();
    let call = Call { request, timeout: TIMEOUT, body_limit: BodyLimit::Beginning(limits::RECEIVER_BODY) };
    Ok(transport.send(call).await?.status.as_u16())
}

const TIMEOUT: Duration = Duration::from_secs(10);

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b11_b17_endless_answers_end_and_hold_up_neither_another_receiver_nor_the_daemon() {
    let endless = [
        ("", "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n"),
        ("", "\r\n"),
        ("HTTP/1.1 200 OK\r\nx: ", "y"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "a=b;"),
        (CHUNKED, "1\r\na\r\n"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"),
    ];
    let floods = endless.map(|(head, rest)| Flood::of(head, rest));
    let well = Flood::of("HTTP/1.1 204 No Content\r\n\r\n", "");
    let begun = Instant::now();
    let mut hostile = JoinSet::new();
    for flood in &floods {
        let (transport, address) = (transport(), flood.address);
        hostile.spawn(async move { (post(&transport, address).await, begun.elapsed()) });
    }
    // Meanwhile a healthy one is told at once, and the daemon's own threads are free.
    let healthy = transport();
    let (mut slowest, mut latest, mut told) = (Duration::ZERO, Duration::ZERO, 0);
    while !hostile.is_empty() {
        let sent = Instant::now();
        assert_eq!(post(&healthy, well.address).await, Ok(204));
        slowest = slowest.max(sent.elapsed());
        told += 1;
        let slept = Instant::now();
        sleep(Duration::from_millis(10)).await;
        latest = latest.max(slept.elapsed());
        while let Some(ended) = hostile.try_join_next() {
            let (result, took) = ended.unwrap();
            assert!(
                matches!(result, Ok(200) | Err(Failure::BadResponse | Failure::Reset | Failure::Timeout(_))),
                "{result:?}"
            );
            assert!(took < TIMEOUT + Duration::from_secs(2), "{took:?}");
        }
    }
    assert!(slowest < Duration::from_secs(1), "the slowest of {told} took {slowest:?}");
    assert!(latest < Duration::from_millis(500), "{latest:?}");
}
