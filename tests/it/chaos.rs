//! A receiver that does what no honest one would, at the level of raw TCP, on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// One thing that happens on a connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads one whole request and keeps it.
    Read,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends this piece over and over, with a pause after each, at most so many times.
    Repeat(Vec<u8>, Duration, usize),
    /// Answers with what was read, in the body of a 500.
    Echo,
    /// Does nothing until the other side goes away.
    Hang,
    /// Breaks the connection off with a RST.
    Reset,
}

/// A listener with a script; it ends with the test.
pub struct Chaos {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    task: AbortHandle,
    /// Runs the connections; dropping it ends them.
    tasks: JoinSet<()>,
}

impl Chaos {
    /// Plays `scripts` one a connection, the last one for every further connection; each ends with a FIN.
    pub async fn play(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicUsize::new(0));
        let (count, over, keep) = (Arc::clone(&connections), Arc::clone(&closed), Arc::clone(&requests));
        let mut tasks = JoinSet::new();
        let task = tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let script = scripts.get(number).or(scripts.last()).cloned().unwrap_or_default();
                let (keep, over) = (Arc::clone(&keep), Arc::clone(&over));
                open.spawn(async move {
                    perform(stream, script, keep).await;
                    over.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, closed, requests, task, tasks }
    }

    /// The same script on every connection.
    pub async fn always(script: Vec<Step>) -> Self {
        Self::play(vec![script]).await
    }

    /// Reads one request and answers `answer`.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::always(vec![Step::Read, Step::Send(answer.into())]).await
    }

    /// An address where nobody listens.
    pub async fn nobody() -> SocketAddr {
        let chaos = Self::always(Vec::new()).await;
        chaos.task.abort();
        let address = chaos.address;
        let mut tasks = chaos.tasks;
        while tasks.join_next().await.is_some() {}
        address
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address with `path` as a URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections it has seen.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the other side has closed `count` connections.
    pub async fn until_closed(&self, count: usize) {
        while self.closed.load(Ordering::SeqCst) < count {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Every request it has read, head and body.
    pub fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }
}

async fn perform(mut stream: TcpStream, script: Vec<Step>, requests: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut last = Vec::new();
    for step in script {
        let went_well = match step {
            Step::Read => match read_request(&mut stream).await {
                Some(request) => {
                    requests.lock().unwrap().push(request.clone());
                    last = request;
                    true
                }
                None => false,
            },
            Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Repeat(piece, pause, times) => {
                let mut well = true;
                for _ in 0..times {
                    well = stream.write_all(&piece).await.is_ok();
                    if !well {
                        break;
                    }
                    sleep(pause).await;
                }
                well
            }
            Step::Echo => {
                let head = format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n", last.len());
                stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&last).await.is_ok()
            }
            Step::Hang => {
                let mut bin = [0; 1024];
                while stream.read(&mut bin).await.is_ok_and(|count| count > 0) {}
                false
            }
            Step::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
        };
        if !went_well {
            return;
        }
    }
    let _ = stream.shutdown().await;
    // Until the other side has closed too: a FIN with unread bytes behind it would become a RST.
    let mut bin = [0; 1024];
    while stream.read(&mut bin).await.is_ok_and(|count| count > 0) {}
}

/// One request, by its `content-length`; `None` if the other side closed before it was whole.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
                .unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Some(bytes);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}
