//! Where requests may go: the guard over every address that is about to be connected to.

use super::failure::Failure;
use crate::config::Egress;
use crate::sync::lock;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Which addresses are refused, whatever a name resolves to (`docs/delivery.md#egress`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// As `Local`, but for the addresses at which clouds give their own machines credentials: only for the client that
    /// fetches those ([`super::authorize`]), never for an address that anybody else has a say in.
    Credentials,
    /// Only what is never a service: link-local, metadata, multicast, unspecified and broadcast addresses.
    Local,
    /// Private, loopback and reserved addresses too.
    Public,
}

impl From<Egress> for Guard {
    fn from(egress: Egress) -> Self {
        match egress {
            Egress::Local => Self::Local,
            Egress::Public => Self::Public,
        }
    }
}

impl Guard {
    /// Whether a connection to `address` may be made.
    ///
    /// An IPv4 address wrapped in an IPv6 one (mapped, NAT64, 6to4) is judged as what it wraps.
    pub fn allows(self, address: IpAddr) -> bool {
        if self == Self::Credentials && GIVE_CREDENTIALS.contains(&address) {
            return true;
        }
        let forbidden = |address| is_never_a_service(address) || self == Self::Public && is_private(address);
        let wrapped = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => wrapped_v4(address),
        };
        !forbidden(address) && !wrapped.is_some_and(|inner| forbidden(IpAddr::V4(inner)))
    }

    /// Refuses a URL whose host is a forbidden address; a name passes and is judged when it is resolved.
    ///
    /// `reqwest::Url` has turned decimal, hexadecimal and octal forms into addresses already.
    pub(super) fn check_literal(self, url: &reqwest::Url) -> Result<(), Failure> {
        let host = url.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse() {
            Ok(address) if !self.allows(address) => Err(Failure::Blocked(address)),
            _ => Ok(()),
        }
    }
}

/// Resolves a name; tests put their own answers here.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's resolver.
///
/// `getaddrinfo` cannot be stopped, and takes long where no name server answers. So each name has a thread of its own,
/// and whoever else asks for it meanwhile shares its answer: names that hang hold up neither others nor the state, and
/// there are never more threads than names.
pub fn system_lookup() -> Lookup {
    static RUNNING: Running = Mutex::new(BTreeMap::new());
    Arc::new(|host| {
        Box::pin(shared(&RUNNING, host, |host| {
            // The port is filled in by the connector.
            Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
        }))
    })
}

/// What a lookup brought; an error by its kind and its words.
type Found = Result<Vec<IpAddr>, (std::io::ErrorKind, String)>;
/// The lookups under way, by name.
type Running = Mutex<BTreeMap<String, Shared<BoxFuture<'static, Found>>>>;

/// Resolves `host` by `lookup` in a thread of its own, or waits for the one that does so already.
async fn shared(
    running: &'static Running,
    host: String,
    lookup: fn(&str) -> std::io::Result<Vec<IpAddr>>,
) -> std::io::Result<Vec<IpAddr>> {
    let answer = {
        let mut under_way = lock(running);
        if let Some(answer) = under_way.get(&host) {
            answer.clone()
        } else {
            let (reply, answer) = oneshot::channel();
            let name = host.clone();
            std::thread::Builder::new().name("lookup".to_owned()).stack_size(LOOKUP_STACK).spawn(
                move || {
                    let found = lookup(&name).map_err(|error| (error.kind(), error.to_string()));
                    lock(running).remove(&name);
                    // Nobody may wait any more.
                    let _ = reply.send(found);
                },
            )?;
            let lost = || Err((std::io::ErrorKind::Other, "the lookup failed".to_owned()));
            let answer: BoxFuture<'static, Found> =
                Box::pin(async move { answer.await.unwrap_or_else(|_| lost()) });
            let answer = answer.shared();
            under_way.insert(host, answer.clone());
            answer
        }
    };
    answer.await.map_err(|(kind, words)| std::io::Error::new(kind, words))
}

/// Resolves names for a client and lets only allowed addresses through, at the moment of the connection.
pub(super) struct GuardedResolver {
    guard: Guard,
    /// Proxies: the operator's word, judged as leniently as can be.
    trusted: BTreeSet<String>,
    lookup: Lookup,
}

impl GuardedResolver {
    pub(super) fn new(guard: Guard, trusted: BTreeSet<String>, lookup: Lookup) -> Self {
        Self { guard, trusted, lookup }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = if self.trusted.contains(name.as_str()) { Guard::Local } else { self.guard };
        let host = name.as_str().to_owned();
        let answer = (self.lookup)(host);
        Box::pin(async move {
            let answer = tokio::time::timeout(LOOKUP_TIMEOUT, answer);
            let found = match answer.await {
                Err(_) => {
                    return Err(Unresolved(Failure::Dns(format!(
                        " within {}; is the name server up?",
                        crate::domain::duration::human(LOOKUP_TIMEOUT)
                    )))
                    .into());
                }
                Ok(Err(error)) => {
                    return Err(Unresolved(Failure::Dns(format!(" ({})", reason(&error)))).into());
                }
                Ok(Ok(found)) => found,
            };
            let allowed: Vec<SocketAddr> = found
                .iter()
                .filter(|address| guard.allows(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            if allowed.is_empty() {
                let failure = found.first().map_or_else(
                    || Failure::Dns(" (it has no address)".to_owned()),
                    |address| Failure::Blocked(*address),
                );
                return Err(Unresolved(failure).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Carries a [`Failure`] through the client to where its errors are read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unresolved(pub(super) Failure);

/// The system's words for a failed lookup, without what it wraps around them.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

/// How long a name server may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// The stack of a thread that resolves a name, in bytes: what the C library's modules need, and no more.
const LOOKUP_STACK: usize = 512 * 1024;

/// A network by its first address and the length of its prefix.
struct Net<A>(A, u32);

impl Net<Ipv4Addr> {
    fn holds(&self, address: Ipv4Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).checked_shr(32 - self.1).unwrap_or(0) == 0
    }
}

impl Net<Ipv6Addr> {
    fn holds(&self, address: Ipv6Addr) -> bool {
        (self.0.to_bits() ^ address.to_bits()).checked_shr(128 - self.1).unwrap_or(0) == 0
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32) -> Net<Ipv4Addr> {
    Net(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u32) -> Net<Ipv6Addr> {
    let s = segments;
    Net(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

/// Where clouds give their own machines credentials.
const GIVE_CREDENTIALS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // Amazon's and Google's machines
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),   // Amazon's containers
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),  // Amazon's Kubernetes
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Never connected to, IPv4.
const NEVER_V4: [Net<Ipv4Addr>; 7] = [
    v4(0, 0, 0, 0, 8),          // unspecified
    v4(169, 254, 0, 0, 16),     // link-local: the metadata of most clouds
    v4(100, 100, 100, 200, 32), // Alibaba's metadata
    v4(168, 63, 129, 16, 32),   // Azure's wire server
    v4(192, 0, 0, 192, 32),     // Oracle's metadata
    v4(224, 0, 0, 0, 4),        // multicast
    v4(255, 255, 255, 255, 32), // broadcast
];

/// Never connected to, IPv6.
const NEVER_V6: [Net<Ipv6Addr>; 5] = [
    v6([0; 8], 128),                                // unspecified
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),          // link-local
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), // Amazon's metadata
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),  // Google's metadata
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),           // multicast
];

/// Not public, IPv4.
const PRIVATE_V4: [Net<Ipv4Addr>; 11] = [
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(127, 0, 0, 0, 8),   // loopback
    v4(100, 64, 0, 0, 10), // carrier-grade NAT
    v4(192, 0, 0, 0, 24),  // protocol assignments
    v4(192, 0, 2, 0, 24),  // documentation
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(198, 18, 0, 0, 15), // benchmarking
    v4(240, 0, 0, 0, 4),   // class E
];

/// Not public, IPv6.
const PRIVATE_V6: [Net<Ipv6Addr>; 7] = [
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),         // loopback
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),      // unique local
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),     // site-local, as it once was
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),      // discard
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48),     // benchmarking
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),     // documentation
];

fn is_never_a_service(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => NEVER_V4.iter().any(|net| net.holds(address)),
        IpAddr::V6(address) => NEVER_V6.iter().any(|net| net.holds(address)),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => PRIVATE_V4.iter().any(|net| net.holds(address)),
        IpAddr::V6(address) => PRIVATE_V6.iter().any(|net| net.holds(address)),
    }
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 one.
fn wrapped_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = || {
        let [.., a, b, c, d] = address.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    let segments = address.segments();
    match segments {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => {
            Some(last())
        }
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allows(guard: Guard, address: &str) -> bool {
        guard.allows(address.parse().unwrap())
    }

    #[test]
    fn g6_what_is_never_a_service_is_refused_however_it_is_wrapped() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "224.0.0.1",
            "239.255.255.250",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "2002:a9fe:a9fe::1",
            "::ffff:255.255.255.255",
        ] {
            assert!(!allows(Guard::Local, address), "{address}");
            assert!(!allows(Guard::Public, address), "{address}");
        }
    }

    /// Counts its calls; `hung.example` does not answer before the test ends.
    #[expect(clippy::unnecessary_wraps, reason = "it stands in for the system's, which may fail")]
    fn counted(host: &str) -> std::io::Result<Vec<IpAddr>> {
        CALLS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if host == "hung.example" {
            drop(HANG.lock());
        }
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
    static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    static HANG: Mutex<()> = Mutex::new(());

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "the thread that resolves the name is what waits for it")]
    async fn c11_a_name_that_hangs_takes_one_thread_and_holds_up_no_other() {
        static RUNNING: Running = Mutex::new(BTreeMap::new());
        let resolve = |host: &str| shared(&RUNNING, host.to_owned(), counted);
        let stop = HANG.lock().unwrap();
        let mut hung: Vec<_> = (0..100).map(|_| Box::pin(resolve("hung.example"))).collect();
        for one in &mut hung {
            assert!(futures_util::poll!(one).is_pending());
        }
        for number in 0..20 {
            assert_eq!(
                resolve(&format!("host-{number}.example")).await.unwrap(),
                [IpAddr::V4(Ipv4Addr::LOCALHOST)]
            );
        }
        assert_eq!(CALLS.load(std::sync::atomic::Ordering::SeqCst), 21);
        drop(stop);
        for one in hung {
            assert_eq!(one.await.unwrap().len(), 1);
        }
        assert!(RUNNING.lock().unwrap().is_empty());
        assert_eq!(system_lookup()("127.0.0.1".to_owned()).await.unwrap(), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    #[test]
    fn only_the_client_for_credentials_reaches_where_clouds_give_them() {
        for address in ["169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd20:ce::254"]
        {
            assert!(allows(Guard::Credentials, address), "{address}");
            assert!(!allows(Guard::Local, address), "{address}");
        }
        for address in
            ["169.254.0.1", "168.63.129.16", "100.100.100.200", "::ffff:169.254.169.254", "fe80::1"]
        {
            assert!(!allows(Guard::Credentials, address), "{address}");
        }
        assert!(allows(Guard::Credentials, "127.0.0.1") && allows(Guard::Credentials, "8.8.8.8"));
    }

    #[test]
    fn private_addresses_are_fine_unless_egress_is_public() {
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.19.255.255",
            "240.0.0.1",
            "::1",
            "fd12:3456::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:c0a8:101::1",
        ] {
            assert!(allows(Guard::Local, address), "{address}");
            assert!(!allows(Guard::Public, address), "{address}");
        }
        for address in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "64:ff9b::808:808"]
        {
            assert!(allows(Guard::Local, address), "{address}");
            assert!(allows(Guard::Public, address), "{address}");
        }
    }

    #[test]
    fn g6_every_way_to_write_a_literal_is_seen() {
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://169.254.169.254./",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://0xa9.254.43518/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::]/",
            "http://[fe80::1]/",
            "https://user:pw@169.254.169.254:8443/x",
        ] {
            let failure = Guard::Local.check_literal(&url.parse().unwrap()).unwrap_err();
            assert!(matches!(failure, Failure::Blocked(_)), "{url}");
        }
        for url in
            ["http://127.0.0.1:8080/", "http://[::1]/", "https://hooks.example.com/", "http://localhost/"]
        {
            assert_eq!(Guard::Local.check_literal(&url.parse().unwrap()), Ok(()), "{url}");
        }
    }

    proptest! {
        #[test]
        fn wrapping_never_helps(bits: u32) {
            let inner = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = inner.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for guard in [Guard::Local, Guard::Public] {
                for outer in [
                    inner.to_ipv6_mapped(),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                    Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                ] {
                    prop_assert_eq!(guard.allows(IpAddr::V6(outer)), guard.allows(IpAddr::V4(inner)));
                }
            }
        }

        #[test]
        fn what_public_allows_local_allows(bits: u128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            prop_assert!(!Guard::Public.allows(address) || Guard::Local.allows(address));
        }
    }
}
