//! A way to a TCP server that can be cut, slowed down, or made to swallow what goes over it, in either direction.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What becomes of the bytes that go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    #[default]
    Pass,
    /// Each piece waits for so long.
    Delay(Duration),
    /// They are taken and never arrive, as when packets are lost.
    Swallow,
}

/// Where a connection is cut when something certain passes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive.
    Before,
    /// It arrives, and what the server answers to it does not.
    Behind,
}

/// A port on loopback that leads to another one.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    to_server: Passage,
    to_client: Passage,
    /// No new connection gets anywhere.
    refuse: bool,
    over: bool,
    trap: Option<(Vec<u8>, Cut)>,
    sprung: usize,
    open: Vec<Arc<Pair>>,
}

/// Both ends of a connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// The next answer of the server is the last thing that happens.
    last: Mutex<bool>,
}

impl Pair {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { target, state: Mutex::default() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { break };
                if accepting.state.lock().unwrap().over {
                    break;
                }
                accepting.take(client);
            }
        });
        Self { address, shared }
    }

    /// `url` with this way in place of the one to `127.0.0.1:PORT`.
    pub fn url(&self, url: &str) -> String {
        let direct = self.shared.target.to_string();
        assert!(url.contains(&direct), "{url} does not lead to {direct}");
        url.replace(&direct, &self.address.to_string())
    }

    /// What becomes of what goes `way` from now on.
    pub fn set(&self, way: Way, passage: Passage) {
        let mut state = self.shared.state.lock().unwrap();
        match way {
            Way::ToServer => state.to_server = passage,
            Way::ToClient => state.to_client = passage,
        }
    }

    /// Cuts all connections; how many there were.
    pub fn cut(&self) -> usize {
        let open = std::mem::take(&mut self.shared.state.lock().unwrap().open);
        for pair in &open {
            pair.cut();
        }
        open.len()
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.state.lock().unwrap().refuse = refuse;
    }

    /// Cuts the connection over which `needle` goes to the server next, once.
    pub fn trap(&self, needle: &[u8], cut: Cut) {
        self.shared.state.lock().unwrap().trap = Some((needle.to_vec(), cut));
    }

    /// How many traps have been sprung.
    pub fn sprung(&self) -> usize {
        self.shared.state.lock().unwrap().sprung
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().over = true;
        self.cut();
        // Wakes who accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: TcpStream) {
        if self.state.lock().unwrap().refuse {
            return;
        }
        let Ok(server) = TcpStream::connect(self.target) else { return };
        for end in [&client, &server] {
            let _ = end.set_nodelay(true);
        }
        let pair = Arc::new(Pair { client, server, last: Mutex::new(false) });
        self.state.lock().unwrap().open.push(pair.clone());
        for way in [Way::ToServer, Way::ToClient] {
            let (shared, pair) = (self.clone(), pair.clone());
            std::thread::spawn(move || {
                shared.pump(&pair, way);
                pair.cut();
                shared.state.lock().unwrap().open.retain(|open| !Arc::ptr_eq(open, &pair));
            });
        }
    }

    fn pump(&self, pair: &Pair, way: Way) {
        let (mut from, mut to) = match way {
            Way::ToServer => (&pair.client, &pair.server),
            Way::ToClient => (&pair.server, &pair.client),
        };
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = match from.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let piece = &piece[..length];
            match way {
                Way::ToClient if *pair.last.lock().unwrap() => return,
                Way::ToServer => match self.sprung_by(piece) {
                    Some(Cut::Before) => return,
                    Some(Cut::Behind) => *pair.last.lock().unwrap() = true,
                    None => {}
                },
                Way::ToClient => {}
            }
            match self.passage(way) {
                Passage::Pass => {}
                Passage::Delay(time) => wait(time),
                Passage::Swallow => continue,
            }
            if to.write_all(piece).is_err() {
                return;
            }
        }
    }

    fn passage(&self, way: Way) -> Passage {
        let state = self.state.lock().unwrap();
        match way {
            Way::ToServer => state.to_server,
            Way::ToClient => state.to_client,
        }
    }

    /// How the connection ends over which `piece` is about to go, if it is what is waited for.
    fn sprung_by(&self, piece: &[u8]) -> Option<Cut> {
        let mut state = self.state.lock().unwrap();
        let (needle, cut) = state.trap.as_ref()?;
        let (found, cut) = (memchr::memmem::find(piece, needle).is_some(), *cut);
        if !found {
            return None;
        }
        state.trap = None;
        state.sprung += 1;
        Some(cut)
    }
}

fn wait(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a slow network is slow in real time")]
    std::thread::sleep(time);
}
