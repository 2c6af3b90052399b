//! The real transport against everything that can go wrong on a wire; numbers are those of `docs/delivery.md#fault-catalogue`.

use crate::chaos::{Chaos, Step};
use batchd::config::Proxy;
use batchd::http::call::{Answer, BodyLimit, Call};
use batchd::http::descriptors::Share;
use batchd::http::egress::{Guard, Lookup};
use batchd::http::failure::Failure;
use batchd::http::limits;
use batchd::http::transport::{ReqwestTransport, Transport, TransportConfig, TransportProblem};
use batchd::webhook::DeliveryOutcome;
use bytes::Bytes;
use http::{Request, StatusCode};
use secrecy::SecretString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// It stands in every URL and every request of these tests, and must come out of none.
const SECRET: &str = "T0PSECRET";

/// For exchanges that are meant to end by themselves.
const AMPLE: Duration = Duration::from_secs(20);

/// For exchanges that are meant to run out of time.
const SHORT: Duration = Duration::from_millis(300);

fn config(proxy: &Proxy) -> TransportConfig<'_> {
    TransportConfig {
        proxy,
        ca_files: Vec::new(),
        insecure_skip_verify: false,
        guard: Guard::Local,
        share: Share::Providers,
    }
}

fn transport() -> ReqwestTransport {
    ReqwestTransport::new(&config(&Proxy::None)).unwrap()
}

/// A transport for which every name has the addresses that `answers` gives, one list a lookup, the last one for ever.
fn resolving(guard: Guard, answers: &[&[&str]]) -> ReqwestTransport {
    let answers: Vec<Vec<IpAddr>> =
        answers.iter().map(|list| list.iter().map(|address| address.parse().unwrap()).collect()).collect();
    let turn = AtomicUsize::new(0);
    let lookup: Lookup = Arc::new(move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[turn].clone();
        Box::pin(async move { Ok(answer) })
    });
    ReqwestTransport::with_lookup(&TransportConfig { guard, ..config(&Proxy::None) }, lookup).unwrap()
}

fn call(url: &str, timeout: Duration, body_limit: BodyLimit) -> Call {
    let request = Request::post(url)
        .header("webhook-signature", format!("v1,{SECRET}"))
        .body(Bytes::from_static(b"{\"id\":\"evt_1\"}"))
        .unwrap();
    Call { request, timeout, body_limit }
}

async fn post_within(
    transport: &ReqwestTransport,
    url: &str,
    timeout: Duration,
    limit: BodyLimit,
) -> Result<Answer, Failure> {
    let result = transport.send(call(url, timeout, limit)).await;
    if let Err(failure) = &result {
        // G10: whatever goes wrong, nothing tells where it went.
        let told = format!("{failure} {failure:?} {}", failure.class());
        assert!(!told.contains(SECRET) && !told.contains("http://"), "{told}");
    }
    result
}

async fn post(transport: &ReqwestTransport, url: &str) -> Result<Answer, Failure> {
    post_within(transport, url, AMPLE, BodyLimit::Beginning(limits::RECEIVER_BODY)).await
}

async fn post_to(chaos: &Chaos) -> Result<Answer, Failure> {
    post(&transport(), &chaos.url(&format!("/{SECRET}"))).await
}

#[tokio::test]
async fn c1_nobody_listens() {
    let url = format!("http://{}/{SECRET}", Chaos::nobody().await);
    assert_eq!(post(&transport(), &url).await.unwrap_err(), Failure::ConnectRefused);
}

#[tokio::test]
async fn c2_what_takes_no_connection_is_given_up_in_time() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Once its queue is full, the kernel answers nobody.
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let failure = post(&transport(), &format!("http://{address}/{SECRET}")).await.unwrap_err();
    assert_eq!(failure, Failure::ConnectTimeout);
}

#[tokio::test]
async fn c3_it_accepts_and_never_answers() {
    let chaos = Chaos::always(vec![Step::Read, Step::Hang]).await;
    let result = post_within(&transport(), &chaos.url("/"), SHORT, BodyLimit::Whole(100)).await;
    assert_eq!(result.unwrap_err(), Failure::Timeout(SHORT));
}

#[tokio::test]
async fn c4_headers_that_trickle_for_ever_do_not_outlast_the_total() {
    let line = Step::Repeat(b"x-drip: 1\r\n".to_vec(), Duration::from_millis(20), 500);
    let chaos = Chaos::always(vec![Step::Read, Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec()), line]).await;
    let result = post_within(&transport(), &chaos.url("/"), SHORT, BodyLimit::Beginning(100)).await;
    assert_eq!(result.unwrap_err(), Failure::Timeout(SHORT));
}

#[tokio::test]
async fn c5_b15_a_body_that_never_ends_in_time_is_cut_or_a_failure_as_is_wished() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nstart".to_vec();
    let drip = Step::Repeat(b".".to_vec(), Duration::from_millis(50), 200);
    let chaos = Chaos::always(vec![Step::Read, Step::Send(head), drip]).await;
    let answer = post_within(&transport(), &chaos.url("/"), SHORT, BodyLimit::Beginning(2000)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.cut && answer.body.starts_with(b"start"));
    let result = post_within(&transport(), &chaos.url("/"), SHORT, BodyLimit::Whole(2000)).await;
    assert_eq!(result.unwrap_err(), Failure::Timeout(SHORT));
}

#[tokio::test]
async fn c6_the_connection_is_reset() {
    let head = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec());
    for script in [
        vec![Step::Reset],
        vec![Step::Read, Step::Reset],
        vec![Step::Read, head.clone(), Step::Reset],
        vec![Step::Read],
        vec![Step::Read, head],
    ] {
        let chaos = Chaos::always(script.clone()).await;
        assert_eq!(post_to(&chaos).await.unwrap_err(), Failure::Reset, "{script:?}");
    }
}

#[tokio::test]
async fn c6_a_body_that_breaks_off_is_cut_or_a_failure_as_is_wished() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nstart".to_vec();
    let chaos = Chaos::always(vec![Step::Read, Step::Send(head)]).await;
    let answer = post_to(&chaos).await.unwrap();
    assert!(answer.cut && &answer.body[..] == b"start");
    let result = post_within(&transport(), &chaos.url("/"), AMPLE, BodyLimit::Whole(2000)).await;
    assert_eq!(result.unwrap_err(), Failure::Reset);
}

#[tokio::test]
async fn c7_nothing_is_sent_twice_behind_our_back() {
    let keep = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let chaos = Chaos::play(vec![vec![Step::Read, keep.clone(), Step::Read], vec![Step::Read, keep]]).await;
    let transport = transport();
    assert_eq!(post(&transport, &chaos.url("/")).await.unwrap().status, StatusCode::OK);
    assert_eq!(post(&transport, &chaos.url("/")).await.unwrap_err(), Failure::Reset);
    assert_eq!(
        (chaos.connections(), chaos.requests().len()),
        (1, 2),
        "one connection, two requests, no third"
    );
    assert_eq!(post(&transport, &chaos.url("/")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn c8_a_connection_that_was_closed_between_two_events_costs_nothing() {
    let keep = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let chaos = Chaos::always(vec![Step::Read, keep]).await;
    let transport = transport();
    for number in 1..4 {
        assert_eq!(post(&transport, &chaos.url("/")).await.unwrap().status, StatusCode::OK);
        // The receiver closes first; ours is closed once the client has seen that.
        chaos.until_closed(number).await;
    }
    assert_eq!((chaos.connections(), chaos.requests().len()), (3, 3));
}

#[tokio::test]
async fn c9_what_answers_does_not_speak_http() {
    for garbage in [
        &b"220 mail.example.com ESMTP ready\r\n"[..],
        b"<html>HTTP/0.9 had no headers</html>\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
    ] {
        let chaos = Chaos::answering(garbage).await;
        assert_eq!(post_to(&chaos).await.unwrap_err(), Failure::BadResponse, "{garbage:?}");
    }
}

#[tokio::test]
async fn c9_a_banner_before_the_request_is_no_answer_either() {
    let chaos = Chaos::always(vec![Step::Send(b"220 mail.example.com ESMTP\r\n".to_vec()), Step::Hang]).await;
    assert_eq!(post_to(&chaos).await.unwrap_err(), Failure::BadResponse);
}

#[tokio::test]
async fn c11_names_that_do_not_resolve() {
    let failing = |kind: std::io::ErrorKind, words: &'static str| -> ReqwestTransport {
        let lookup: Lookup =
            Arc::new(move |_| Box::pin(async move { Err(std::io::Error::new(kind, words)) }));
        ReqwestTransport::with_lookup(&config(&Proxy::None), lookup).unwrap()
    };
    let url = format!("http://hooks.invalid/{SECRET}");
    let words = "failed to lookup address information: Name or service not known";
    let failure = post(&failing(std::io::ErrorKind::Other, words), &url).await.unwrap_err();
    assert_eq!(failure, Failure::Dns(" (Name or service not known)".to_owned()));
    assert_eq!(failure.to_string(), "the host name does not resolve (Name or service not known)");
    // An answer that times out by itself is still a failure of the name, not of the connection.
    let failure = post(&failing(std::io::ErrorKind::TimedOut, "timed out"), &url).await.unwrap_err();
    assert_eq!(failure.class(), "dns");
    let failure = post(&resolving(Guard::Local, &[&[]]), &url).await.unwrap_err();
    assert_eq!(failure.class(), "dns");
}

#[tokio::test]
async fn c11_a_name_server_that_is_silent_has_three_seconds() {
    let lookup: Lookup = Arc::new(|_| Box::pin(std::future::pending()));
    let transport = ReqwestTransport::with_lookup(&config(&Proxy::None), lookup).unwrap();
    let start = tokio::time::Instant::now();
    let failure = post(&transport, "http://hooks.example.com/").await.unwrap_err();
    assert_eq!(failure.class(), "dns");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < AMPLE / 2, "{waited:?}");
}

#[tokio::test]
async fn c12_the_next_address_is_tried_when_the_first_is_dead() {
    let chaos = Chaos::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let transport = resolving(Guard::Local, &[&["127.0.0.2", "127.0.0.1"]]);
    let url = format!("http://hooks.example.com:{}/", chaos.address().port());
    assert_eq!(post(&transport, &url).await.unwrap().status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn c13_a_name_that_moves_is_followed() {
    let chaos = Chaos::answering("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
    let transport = resolving(Guard::Local, &[&["127.0.0.2"], &["127.0.0.1"]]);
    let url = format!("http://hooks.example.com:{}/", chaos.address().port());
    assert_eq!(post(&transport, &url).await.unwrap_err(), Failure::ConnectRefused);
    assert_eq!(post(&transport, &url).await.unwrap().status, StatusCode::NO_CONTENT);
}

/// Runs one test of this binary in a process of its own, with further environment variables.
pub fn in_a_process_with(test: &str, variables: &[(&str, &str)]) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("BATCHD_TEST_INSIDE", test)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Whether this is that process.
pub fn inside(test: &str) -> bool {
    std::env::var("BATCHD_TEST_INSIDE").is_ok_and(|name| name == test)
}

#[tokio::test]
async fn c14_the_environments_proxy_is_used_only_if_asked_for() {
    const NAME: &str = "transport::c14_the_environments_proxy_is_used_only_if_asked_for";
    if !inside(NAME) {
        let proxy = format!("http://{}", Chaos::nobody().await);
        let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        let mut variables: Vec<(&str, &str)> = names.iter().map(|name| (*name, proxy.as_str())).collect();
        variables.extend([("NO_PROXY", ""), ("no_proxy", "")]);
        return in_a_process_with(NAME, &variables);
    }
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post_to(&chaos).await.unwrap().status, StatusCode::OK);
    let through = ReqwestTransport::new(&config(&Proxy::Env)).unwrap();
    assert_eq!(post(&through, &chaos.url("/")).await.unwrap_err(), Failure::ConnectRefused);
}

#[tokio::test]
async fn c15_a_configured_proxy_gets_the_request_even_if_its_name_is_private() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = format!("http://proxy.corp:{}", chaos.address().port());
    let proxy = Proxy::Url(SecretString::from(proxy));
    let lookup: Lookup = Arc::new(|host| {
        assert_eq!(host, "proxy.corp", "the proxy resolves what it is asked for");
        Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) })
    });
    let config = TransportConfig { guard: Guard::Public, ..config(&proxy) };
    let transport = ReqwestTransport::with_lookup(&config, lookup).unwrap();
    assert_eq!(post(&transport, "http://hooks.example.com/x").await.unwrap().status, StatusCode::OK);
    assert!(chaos.requests()[0].starts_with("POST http://hooks.example.com/x HTTP/1.1\r\n"));
    // A forbidden address is not asked for through a proxy either.
    let failure = post(&transport, "http://169.254.169.254/").await.unwrap_err();
    assert_eq!(failure.class(), "blocked_ip");
}

#[test]
fn a_proxy_that_is_none_is_refused_without_repeating_it() {
    let proxy = Proxy::Url(SecretString::from(format!("nowhere at all {SECRET}")));
    let problem = ReqwestTransport::new(&config(&proxy)).unwrap_err();
    assert_eq!(problem, TransportProblem::Proxy);
    assert!(!problem.to_string().contains(SECRET));
}

#[tokio::test]
async fn b10_a_redirect_is_an_answer_and_its_target_sees_no_connection() {
    for code in [301, 302, 303, 307, 308] {
        let target = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let location = target.url(&format!("/{SECRET}"));
        let chaos = Chaos::answering(format!(
            "HTTP/1.1 {code} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        let answer = post_to(&chaos).await.unwrap();
        assert_eq!(answer.status.as_u16(), code);
        let DeliveryOutcome::Refused(reason) = DeliveryOutcome::of_status(&answer) else { panic!("{code}") };
        assert!(reason.contains("127.0.0.1") && !reason.contains(SECRET), "{reason}");
        assert_eq!((chaos.connections(), target.connections()), (1, 0), "{code}");
    }
}

#[tokio::test]
async fn b11_answers_without_a_body_or_an_end_do_not_hang() {
    let answer = post_to(&Chaos::answering("HTTP/1.1 304 Not Modified\r\n\r\n").await).await.unwrap();
    assert!(matches!(DeliveryOutcome::of_status(&answer), DeliveryOutcome::Refused(_)));
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    match post_to(&Chaos::answering(switch).await).await {
        Ok(answer) => assert!(matches!(DeliveryOutcome::of_status(&answer), DeliveryOutcome::Trouble(_))),
        Err(failure) => assert_eq!(failure, Failure::BadResponse),
    }
    for code in [100, 199] {
        let only = format!("HTTP/1.1 {code} Wait\r\n\r\n");
        let chaos = Chaos::always(vec![Step::Read, Step::Send(only.into()), Step::Hang]).await;
        let result = post_within(&transport(), &chaos.url("/"), SHORT, BodyLimit::Beginning(10)).await;
        assert_eq!(result.unwrap_err(), Failure::Timeout(SHORT), "{code}");
    }
}

#[tokio::test]
async fn b12_every_2xx_is_an_answer() {
    for code in [200, 201, 202, 204, 206, 226] {
        let chaos = Chaos::answering(format!("HTTP/1.1 {code} Fine\r\ncontent-length: 0\r\n\r\n")).await;
        let answer = post_to(&chaos).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.cut), (code, false));
    }
}

#[tokio::test]
async fn b13_an_endless_body_is_left_unread() {
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat();
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", vec![b'x'; 4096]),
        ("HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 4096]),
    ] {
        // 64 MiB at most, if nobody stops it.
        let endless = Step::Repeat(piece, Duration::ZERO, 16_384);
        let chaos = Chaos::always(vec![Step::Read, Step::Send(head.into()), endless]).await;
        let transport = transport();
        let answer = post(&transport, &chaos.url("/")).await.unwrap();
        assert_eq!((answer.status, answer.body.len(), answer.cut), (StatusCode::OK, 64 * 1024, true));
        post(&transport, &chaos.url("/")).await.unwrap();
        assert_eq!(chaos.connections(), 2, "a connection with an answer half read is not used again");
        let result = post_within(&transport, &chaos.url("/"), AMPLE, BodyLimit::Whole(5000)).await;
        assert_eq!(result.unwrap_err(), Failure::TooLarge(5000));
    }
}

#[tokio::test]
async fn b14_nothing_is_unpacked() {
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03not really";
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", packed.len())
            .into_bytes();
    answer.extend_from_slice(packed);
    let chaos = Chaos::answering(answer).await;
    assert_eq!(&post_to(&chaos).await.unwrap().body[..], packed);
    assert!(!chaos.requests()[0].to_ascii_lowercase().contains("accept-encoding"));
}

/// An answer whose body is packed with gzip.
fn packed(plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

#[tokio::test]
async fn a_provider_s_answer_that_is_packed_is_unpacked_within_its_bound() {
    let plain = b"{\"id\":\"batch_1\"}".repeat(1000);
    let chaos = Chaos::answering(packed(&plain)).await;
    let whole = async |most| post_within(&transport(), &chaos.url("/"), AMPLE, BodyLimit::Whole(most)).await;
    let answer = whole(plain.len()).await.unwrap();
    assert_eq!(answer.body, plain);
    assert!(answer.header("content-encoding").is_none() && answer.header("content-length").is_none());
    assert_eq!(whole(plain.len() - 1).await.unwrap_err(), Failure::TooLarge(plain.len() - 1));

    let mut incoming = transport().open(call(&chaos.url("/"), AMPLE, BodyLimit::Whole(1))).await.unwrap();
    let mut body = Vec::new();
    while let Some(piece) = incoming.piece().await {
        body.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(body, plain);

    let chaos =
        Chaos::answering("HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nxx").await;
    for failure in [
        post_within(&transport(), &chaos.url("/"), AMPLE, BodyLimit::Whole(10)).await.unwrap_err(),
        transport().open(call(&chaos.url("/"), AMPLE, BodyLimit::Whole(10))).await.unwrap_err(),
    ] {
        assert!(failure.to_string().contains("compressed (br), which nobody asked for"), "{failure}");
    }
}

/// A SOCKS proxy that says where it was to connect to, and answers in that place's stead.
async fn socks() -> (std::net::SocketAddr, tokio::task::JoinHandle<(u8, Vec<u8>)>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await.unwrap();
        let mut methods = vec![0; greeting[1].into()];
        stream.read_exact(&mut methods).await.unwrap();
        stream.write_all(&[5, 0]).await.unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        let length = match head[3] {
            1 => 4,
            3 => stream.read_u8().await.unwrap().into(),
            _ => 16,
        };
        let mut place = vec![0; length];
        stream.read_exact(&mut place).await.unwrap();
        stream.read_u16().await.unwrap();
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        (head[3], place)
    });
    (address, asked)
}

#[tokio::test]
async fn a_socks_proxy_is_used_if_it_is_configured() {
    let (address, asked) = socks().await;
    let proxy = Proxy::Url(SecretString::from(format!("socks5h://{address}")));
    let transport = ReqwestTransport::new(&config(&proxy)).unwrap();
    let answer = post(&transport, "http://hooks.example.com/x").await.unwrap();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.await.unwrap(), (3, b"hooks.example.com".to_vec()));
}

#[tokio::test]
async fn a_socks_proxy_of_the_environment_is_used_if_asked_for() {
    const NAME: &str = "transport::a_socks_proxy_of_the_environment_is_used_if_asked_for";
    if !inside(NAME) {
        let proxy = format!("socks5://{}", Chaos::nobody().await);
        let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];
        let mut variables: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
        variables.extend([("ALL_PROXY", proxy.as_str()), ("all_proxy", proxy.as_str())]);
        return in_a_process_with(NAME, &variables);
    }
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let through = ReqwestTransport::new(&config(&Proxy::Env)).unwrap();
    let failure = post(&through, &chaos.url("/")).await.unwrap_err();
    assert!(failure.class().starts_with("connect"), "{failure:?}");
}

#[tokio::test]
async fn b17_headers_of_a_mebibyte_are_no_answer() {
    let line = Step::Repeat(format!("x-long: {}\r\n", "x".repeat(8000)).into(), Duration::ZERO, 131);
    let head = Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec());
    let chaos = Chaos::always(vec![Step::Read, head, line, Step::Send(b"\r\n".to_vec())]).await;
    assert_eq!(post_to(&chaos).await.unwrap_err(), Failure::BadResponse);
}

#[tokio::test]
async fn b18_an_early_no_is_heard_or_a_reset_and_never_a_hang() {
    let early = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    let chaos = Chaos::always(vec![Step::Send(early), Step::Hang]).await;
    let mut call = call(&chaos.url("/"), AMPLE, BodyLimit::Beginning(100));
    *call.request.body_mut() = Bytes::from(vec![b'x'; 64 * 1024]);
    match transport().send(call).await {
        Ok(answer) => assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE),
        // Answered before it was asked: not every client takes that for an answer.
        Err(failure) => assert!(matches!(failure, Failure::Reset | Failure::BadResponse), "{failure:?}"),
    }
}

#[tokio::test]
async fn b19_a_body_of_any_bytes_comes_through_as_it_is() {
    let body = b"\xff\xfe\0\x1b[2J\x80";
    let mut answer = format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    assert_eq!(&post_to(&Chaos::answering(answer).await).await.unwrap().body[..], body);
}

#[tokio::test]
async fn g6_forbidden_addresses_are_never_connected_to_however_they_are_written() {
    let transport = transport();
    for host in [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1]",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        let failure = post(&transport, &format!("http://{host}/{SECRET}")).await.unwrap_err();
        assert!(matches!(failure, Failure::Blocked(_)), "{host}: {failure:?}");
    }
}

#[tokio::test]
async fn g6_private_addresses_are_refused_when_egress_is_public() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let public = resolving(Guard::Public, &[&["127.0.0.1"]]);
    assert_eq!(post(&public, &chaos.url("/")).await.unwrap_err().class(), "blocked_ip");
    let named = format!("http://hooks.example.com:{}/", chaos.address().port());
    assert_eq!(post(&public, &named).await.unwrap_err(), Failure::Blocked("127.0.0.1".parse().unwrap()));
    assert_eq!(chaos.connections(), 0);
    assert_eq!(
        post(&resolving(Guard::Local, &[&["127.0.0.1"]]), &named).await.unwrap().status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn g7_a_name_that_is_rebound_to_a_forbidden_address_is_refused_at_the_connection() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let transport = resolving(Guard::Local, &[&["127.0.0.1"], &["169.254.169.254"]]);
    let url = format!("http://hooks.example.com:{}/", chaos.address().port());
    assert_eq!(post(&transport, &url).await.unwrap().status, StatusCode::OK);
    let failure = post(&transport, &url).await.unwrap_err();
    assert_eq!(failure, Failure::Blocked("169.254.169.254".parse().unwrap()));
}

#[tokio::test]
async fn g8_of_a_mixed_answer_only_the_allowed_addresses_are_tried() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let answers: &[&[&str]] = &[&["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "127.0.0.1"]];
    let url = format!("http://hooks.example.com:{}/", chaos.address().port());
    let answer = post(&resolving(Guard::Local, answers), &url).await.unwrap();
    assert_eq!((answer.status, chaos.connections()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn what_is_sent_is_what_was_given_and_our_name() {
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let answer = post_to(&chaos).await.unwrap();
    assert_eq!((&answer.body[..], answer.cut), (&b"ok"[..], false));
    let request = chaos.requests().remove(0).to_ascii_lowercase();
    assert!(request.starts_with(&format!("post /{} http/1.1\r\n", SECRET.to_ascii_lowercase())), "{request}");
    assert!(request.contains(&format!("user-agent: batchd/{}\r\n", env!("CARGO_PKG_VERSION"))), "{request}");
    assert!(!request.contains("cookie") && !request.contains("referer"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"id\":\"evt_1\"}"), "{request}");
}

#[tokio::test]
async fn only_the_web_is_spoken_to() {
    for url in ["ftp://127.0.0.1/", "unix:/run/x.sock", "/hooks"] {
        let Ok(request) = Request::post(url).body(Bytes::new()) else { continue };
        let call = Call { request, timeout: AMPLE, body_limit: BodyLimit::Whole(10) };
        assert_eq!(transport().send(call).await.unwrap_err().class(), "bad_request", "{url}");
    }
}

/// A TLS server on loopback with a certificate of its own, which it answers 200 behind.
struct Tls {
    port: u16,
    ca: tempfile::NamedTempFile,
    _tasks: tokio::task::JoinSet<()>,
}

impl Tls {
    async fn serve(name: &str) -> Self {
        Self::serve_until(name, 4096).await
    }

    /// The same with a certificate that is valid up to the beginning of this year.
    async fn serve_until(name: &str, year: i32) -> Self {
        let mut wanted = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
        Self::with(wanted).await
    }

    /// The same with a certificate that says it is an authority's, as `openssl req -x509` makes them.
    async fn self_signed(name: &str, year: i32) -> Self {
        let mut wanted = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self::with(wanted).await
    }

    async fn with(wanted: rcgen::CertificateParams) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio_rustls::rustls;
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = wanted.self_signed(&key).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        Self { port, ca, _tasks: tasks }
    }

    fn transport(&self, ca: bool, insecure: bool) -> ReqwestTransport {
        let config = TransportConfig {
            ca_files: if ca { vec![self.ca.path().to_owned()] } else { Vec::new() },
            insecure_skip_verify: insecure,
            ..config(&Proxy::None)
        };
        let lookup: Lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }));
        ReqwestTransport::with_lookup(&config, lookup).unwrap()
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/{SECRET}", self.port)
    }
}

#[tokio::test]
async fn c10_a_certificate_that_nobody_vouches_for_is_refused_unless_it_is_configured() {
    let tls = Tls::serve("hooks.example.com").await;
    let url = tls.url("hooks.example.com");
    let failure = post(&tls.transport(false, false), &url).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(words) if words.contains("UnknownIssuer")), "{failure:?}");
    assert_eq!(post(&tls.transport(true, false), &url).await.unwrap().status, StatusCode::OK);
    assert_eq!(post(&tls.transport(false, true), &url).await.unwrap().status, StatusCode::OK);
    // That another destination trusts anything changes nothing for this one.
    assert_eq!(post(&tls.transport(false, false), &url).await.unwrap_err().class(), "tls");
}

#[tokio::test]
async fn c10_a_self_signed_certificate_is_trusted_if_it_is_named_for_its_name_and_its_time() {
    let tls = Tls::self_signed("hooks.example.com", 4096).await;
    let url = tls.url("hooks.example.com");
    assert_eq!(post(&tls.transport(true, false), &url).await.unwrap().status, StatusCode::OK);
    assert_eq!(post(&tls.transport(false, false), &url).await.unwrap_err().class(), "tls");
    let failure = post(&tls.transport(true, false), &tls.url("other.example.com")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(words) if words.contains("not valid for name")), "{failure:?}");
    // One that is named vouches for no other of the same name.
    let other = Tls::self_signed("hooks.example.com", 4096).await;
    let failure = post(&tls.transport(true, false), &other.url("hooks.example.com")).await.unwrap_err();
    assert_eq!(failure.class(), "tls", "{failure:?}");
    let expired = Tls::self_signed("hooks.example.com", 2024).await;
    let failure = post(&expired.transport(true, false), &expired.url("hooks.example.com")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(words) if words.contains("expired")), "{failure:?}");
}

#[tokio::test]
async fn c10_a_certificate_for_another_name_is_refused() {
    let tls = Tls::serve("hooks.example.com").await;
    let failure = post(&tls.transport(true, false), &tls.url("other.example.com")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(words) if words.contains("not valid for name")), "{failure:?}");
}

#[tokio::test]
async fn c10_a_certificate_that_has_expired_is_refused() {
    let tls = Tls::serve_until("hooks.example.com", 2024).await;
    let url = tls.url("hooks.example.com");
    let failure = post(&tls.transport(true, false), &url).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(words) if words.contains("expired")), "{failure:?}");
    assert_eq!(post(&tls.transport(false, true), &url).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn c10_a_server_that_speaks_only_what_is_out_of_date_is_refused() {
    // What a server of TLS 1.0 answers to a greeting of today: no such version.
    let alert = Step::Send(b"\x15\x03\x01\x00\x02\x02\x46".to_vec());
    let chaos = Chaos::always(vec![alert, Step::Hang]).await;
    let url = chaos.url("/").replace("http:", "https:");
    let failure = transport().send(call(&url, AMPLE, BodyLimit::Whole(1))).await.unwrap_err();
    assert_eq!(failure.class(), "tls", "{failure:?}");
    // And one that greets back in TLS 1.0.
    let hello = b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01".iter().copied();
    let hello = hello.chain([7; 32]).chain([0, 0, 0x2f, 0]).collect();
    let chaos = Chaos::always(vec![Step::Send(hello), Step::Hang]).await;
    let url = chaos.url("/").replace("http:", "https:");
    let failure = transport().send(call(&url, AMPLE, BodyLimit::Whole(1))).await.unwrap_err();
    assert_eq!(failure.class(), "tls", "{failure:?}");
}

#[tokio::test]
async fn c16_without_a_free_descriptor_it_waits_for_one_and_blames_nobody() {
    const NAME: &str = "transport::c16_without_a_free_descriptor_it_waits_for_one_and_blames_nobody";
    if !inside(NAME) {
        return in_a_process_with(NAME, &[]);
    }
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let transport = transport();
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, most) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, 64, most).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    let url = chaos.url("/");
    let mut posting = Box::pin(post(&transport, &url));
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut posting).await;
    assert!(waited.is_err(), "nobody was asked, so nobody has failed: {waited:?}");
    drop(taken);
    assert_eq!(posting.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn c16_receivers_that_hang_take_their_share_of_descriptors_and_no_more() {
    const NAME: &str = "transport::c16_receivers_that_hang_take_their_share_of_descriptors_and_no_more";
    if !inside(NAME) {
        return in_a_process_with(NAME, &[]);
    }
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, most) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, 128, most).unwrap();
    let hanging = Chaos::always(vec![Step::Read, Step::Hang]).await;
    let none = Proxy::None;
    let hooks = TransportConfig { share: Share::Webhooks, ..config(&none) };
    let hooks = Arc::new(ReqwestTransport::new(&hooks).unwrap());
    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (hooks, url) = (Arc::clone(&hooks), hanging.url("/"));
        posting.spawn(async move { post_within(&hooks, &url, AMPLE, BodyLimit::Beginning(10)).await });
    }
    while hanging.connections() < 128 / 8 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Those of the other side have their own.
    let well = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post_to(&well).await.unwrap().status, StatusCode::OK);
    assert_eq!(hanging.connections(), 128 / 8, "an eighth");
}

#[tokio::test]
async fn c10_plain_http_on_the_tls_port_is_a_tls_failure_and_nothing_is_sent_in_clear() {
    let chaos =
        Chaos::always(vec![Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Step::Read]).await;
    let url = chaos.url(&format!("/{SECRET}")).replace("http://", "https://");
    let failure = transport().send(call(&url, AMPLE, BodyLimit::Beginning(10))).await.unwrap_err();
    assert_eq!(failure.class(), "tls", "{failure:?}");
    assert!(!failure.to_string().contains(SECRET));
    assert!(chaos.requests().is_empty());
    let closing = Chaos::always(Vec::new()).await;
    let url = closing.url("/").replace("http:", "https:");
    let failure = transport().send(call(&url, AMPLE, BodyLimit::Whole(1))).await.unwrap_err();
    assert_eq!(failure.class(), "tls", "{failure:?}");
}

#[tokio::test]
async fn a_machine_without_any_ca_certificates_still_speaks_http() {
    const NAME: &str = "transport::a_machine_without_any_ca_certificates_still_speaks_http";
    if !inside(NAME) {
        let empty = tempfile::tempdir().unwrap();
        let none = empty.path().join("none.pem");
        std::fs::write(&none, "").unwrap();
        let (file, dir) = (none.display().to_string(), empty.path().display().to_string());
        return in_a_process_with(NAME, &[("SSL_CERT_FILE", &file), ("SSL_CERT_DIR", &dir)]);
    }
    let chaos = Chaos::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(post_to(&chaos).await.unwrap().status, StatusCode::OK);
    let tls = Tls::serve("hooks.example.com").await;
    let url = tls.url("hooks.example.com");
    assert_eq!(post(&tls.transport(false, false), &url).await.unwrap_err().class(), "tls");
    assert_eq!(post(&tls.transport(true, false), &url).await.unwrap().status, StatusCode::OK);
}

#[test]
fn a_file_of_certificates_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let problem = |path: PathBuf| {
        let config = TransportConfig { ca_files: vec![path], ..config(&Proxy::None) };
        ReqwestTransport::new(&config).unwrap_err().to_string()
    };
    assert!(problem(path.clone()).contains("No such file"), "{}", problem(path.clone()));
    std::fs::write(&path, "just words").unwrap();
    assert!(problem(path.clone()).contains("there is no certificate in it"), "{}", problem(path.clone()));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(!problem(path).is_empty());
}
