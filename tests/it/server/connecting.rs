//! Connections as the daemon makes them, and what is said where there is none.

use crate::support::postgres::{PASSWORD, Postgres, ROLE_PASSWORD, Stop, query};
use crate::support::proxy::{Passage, Proxy, Way};
use crate::world::now;
use batchd::config::ServerAddress;
use batchd::store::server::connect::{Connected, Connector, driven};
use batchd::store::server::examine::examine;
use batchd::store::server::refusal::{Affair, Refusal};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

async fn connect(url: &str) -> Result<Connected, Refusal> {
    let address: ServerAddress = url.parse().unwrap_or_else(|problem| panic!("{url}: {problem}"));
    let connected = Connector::new(address, None).connect().await;
    if let Err(refusal) = &connected {
        let shown = format!("{refusal} {refusal:?}");
        assert!(!shown.contains(ROLE_PASSWORD) && !shown.contains(PASSWORD), "{shown}");
    }
    connected
}

async fn refused(url: &str) -> Refusal {
    connect(url).await.expect_err(url)
}

/// What the session says to a question.
async fn ask(connected: Connected, question: &str) -> String {
    let Connected { client, mut wire, .. } = connected;
    let rows = driven(&mut wire, crate::support::postgres::rows(&client, question)).await.unwrap();
    rows[0][0].clone().unwrap()
}

fn with(url: &str, options: &str) -> String {
    format!("{url}?{options}")
}

#[tokio::test]
async fn it_connects_by_loopback_by_socket_and_in_another_schema() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let connected = connect(&url).await.unwrap();
    assert_eq!(connected.host, format!("127.0.0.1:{}", postgres.port()));
    assert!(!connected.version.is_empty() && !connected.read_only);
    assert_eq!(ask(connected, "SHOW application_name").await, "batchd");

    let name = url.rsplit_once('/').unwrap().1;
    let socket = format!(
        "host={} port={} user={name} password={ROLE_PASSWORD} dbname={name}",
        postgres.directory().display(),
        postgres.port()
    );
    let connected = connect(&socket).await.unwrap();
    assert_eq!(ask(connected, "SELECT coalesce(inet_client_addr()::text, 'socket')").await, "socket");

    query(&url, "CREATE SCHEMA apart").unwrap();
    let apart = with(&url, "options=-c%20search_path%3Dapart");
    assert_eq!(ask(connect(&apart).await.unwrap(), "SELECT current_schema()").await, "apart");
}

#[tokio::test]
async fn a_role_that_is_refused_is_told_from_one_that_lacks_rights() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    for wrong in [
        url.replace(ROLE_PASSWORD, "wrong"),
        url.replace(&format!(":{ROLE_PASSWORD}"), ""),
        postgres.url_of("nobody_knows", "wrong", "postgres"),
    ] {
        let refusal = refused(&wrong).await;
        assert!(matches!(refusal, Refusal::Credentials(_)), "{refusal:?}");
        assert_eq!(refusal.affair(), Affair::Credentials);
        assert!(!refusal.may_pass());
    }
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let refusal = refused(&postgres.url_of(&name, ROLE_PASSWORD, "not_there")).await;
    assert!(matches!(&refusal, Refusal::NoDatabase(what) if what.contains("not_there")), "{refusal:?}");

    let other = postgres.database();
    let database = other.rsplit_once('/').unwrap().1;
    postgres.admin(&format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"));
    let refusal = refused(&postgres.url_of(&name, ROLE_PASSWORD, database)).await;
    assert!(matches!(refusal, Refusal::NoRights(_)), "{refusal:?}");
    assert_eq!(refusal.affair(), Affair::Server);

    postgres.admin(&format!("ALTER ROLE {name} CONNECTION LIMIT 0"));
    let refusal = refused(&url).await;
    assert!(matches!(refusal, Refusal::NotReady(_)) && refusal.may_pass(), "{refusal:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_passed_over() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let name = url.rsplit_once('/').unwrap().1;
    postgres.admin(&format!("ALTER ROLE {name} SET default_transaction_read_only = on"));
    let refusal = refused(&url).await;
    assert!(matches!(&refusal, Refusal::ReadOnly(what) if what.contains("set to read-only")), "{refusal:?}");
    assert_eq!(refusal.affair(), Affair::Server);
    assert!(connect(&with(&url, "target_session_attrs=any")).await.unwrap().read_only);
    assert!(connect(&with(&url, "target_session_attrs=primary")).await.unwrap().read_only);

    let Some(standby) = Postgres::own(&[]) else { return };
    let own = standby.database();
    standby.stop(Stop::Fast);
    standby.put("data/standby.signal", "");
    standby.start();
    let refusal = refused(&own).await;
    assert!(matches!(&refusal, Refusal::ReadOnly(what) if what.contains("is a standby")), "{refusal:?}");
    let refusal = refused(&with(&own, "target_session_attrs=primary")).await;
    assert!(matches!(refusal, Refusal::ReadOnly(_)), "{refusal:?}");

    // The standby first, then nobody, then the primary.
    let nobody = closed_port();
    postgres.admin(&format!("ALTER ROLE {name} RESET default_transaction_read_only"));
    let hosts = format!(
        "host=127.0.0.1,127.0.0.1,127.0.0.1 port={},{nobody},{} user={name} password={ROLE_PASSWORD} dbname=postgres",
        standby.port(),
        postgres.port()
    );
    standby.admin("SELECT 1");
    let connected = connect(&hosts).await;
    // The standby has no such role: whoever is refused there is refused.
    let refusal = connected.expect_err("another cluster has other roles");
    assert!(matches!(refusal, Refusal::Credentials(_)), "{refusal:?}");
    let hosts = hosts.replace(name, "postgres").replace(ROLE_PASSWORD, PASSWORD);
    let connected = connect(&hosts).await.unwrap();
    assert_eq!(connected.host, format!("127.0.0.1:{}", postgres.port()));
    let alone = format!(
        "host=127.0.0.1,127.0.0.1 port={},{nobody} user=postgres password={PASSWORD}",
        standby.port()
    );
    let refusal = refused(&alone).await;
    assert!(
        matches!(&refusal, Refusal::ReadOnly(what) if what.contains("standby") && what.contains("connection refused")),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_setting_that_the_server_does_not_have_is_the_configurations_affair() {
    let Some(postgres) = Postgres::shared() else { return };
    let refusal = refused(&with(&postgres.database(), "options=-c%20no_such_setting%3D1")).await;
    assert!(matches!(&refusal, Refusal::Setting(what) if what.contains("no_such_setting")), "{refusal:?}");
    assert_eq!(refusal.affair(), Affair::Configuration);
}

#[tokio::test]
async fn who_cannot_be_reached_is_given_up_within_the_limit() {
    let refusal = refused(&format!("postgres://u:p@127.0.0.1:{}/d", closed_port())).await;
    assert!(
        matches!(&refusal, Refusal::Unreachable(what) if what.ends_with("connection refused")),
        "{refusal:?}"
    );
    assert!(refusal.may_pass());
    let refusal = refused("host=/nowhere/at/all user=u").await;
    assert!(matches!(&refusal, Refusal::Unreachable(what) if what.contains("no such socket")), "{refusal:?}");
    let refusal = refused("postgres://u:p@no-such-host.invalid/d?connect_timeout=5").await;
    assert!(
        matches!(&refusal, Refusal::Unreachable(what) if what.contains("no-such-host.invalid")),
        "{refusal:?}"
    );

    // Somebody takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = now();
    let url = format!("postgres://u:p@{}/d?connect_timeout=1", silent.local_addr().unwrap());
    let refusal = refused(&url).await;
    assert!(
        matches!(&refusal, Refusal::Unreachable(what) if what.contains("no answer within 1 s")),
        "{refusal:?}"
    );
    assert!((1..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_loses_what_is_sent_is_given_up_too() {
    let Some(postgres) = Postgres::shared() else { return };
    let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], postgres.port())));
    let url = with(&proxy.url(&postgres.database()), "connect_timeout=1");
    connect(&url).await.unwrap();
    proxy.set(Way::ToClient, Passage::Swallow);
    assert!(matches!(refused(&url).await, Refusal::Unreachable(_)));
    proxy.set(Way::ToClient, Passage::Pass);
    proxy.refuse(true);
    let refusal = refused(&url).await;
    assert!(matches!(&refusal, Refusal::Unreachable(what) if what.contains("closed")), "{refusal:?}");
}

#[tokio::test]
async fn an_old_server_and_one_that_repeats_the_password_are_refused_in_plain_words() {
    let old = stand_in(b"\0\0\0\x18server_version\x0013.2\0");
    let refusal = refused(&format!("postgres://u:p@{old}/d")).await;
    assert!(matches!(&refusal, Refusal::TooOld(what) if what.ends_with("is 13.2")), "{refusal:?}");
    assert_eq!(refusal.affair(), Affair::Configuration);

    let message = format!("SFATAL\0VFATAL\0C28P01\0Mno, {ROLE_PASSWORD} is not it\x1b[2J\0\0");
    let length = u32::try_from(message.len() + 4).unwrap().to_be_bytes();
    let repeating = listening([b"E".as_slice(), &length, message.as_bytes()].concat());
    let refusal = refused(&format!("postgres://u:{ROLE_PASSWORD}@{repeating}/d")).await;
    assert!(matches!(&refusal, Refusal::Credentials(what) if what.contains("[redacted]")), "{refusal:?}");
    assert!(!refusal.to_string().contains('\x1b'), "{refusal:?}");
}

#[tokio::test]
async fn tls_is_what_the_address_says() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let authority = authority();
    let name = "db.example.com";
    serve(&postgres, &authority, name);
    let files = tempfile::tempdir().unwrap();
    let trusted = pem(files.path(), "ca.pem", &authority.pem());
    let other = pem(files.path(), "other.pem", &self::authority().pem());
    let at = |host: &str, options: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} user=postgres password={PASSWORD} {options}",
            postgres.port()
        )
    };
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ca = |path: &Path| format!("sslrootcert={}", path.display());

    for (host, options) in [
        (name, format!("{} channel_binding=require", ca(&trusted))),
        (name, format!("sslmode=verify-full {}", ca(&trusted))),
        ("elsewhere.example.com", format!("sslmode=verify-ca {}", ca(&trusted))),
        ("elsewhere.example.com", "sslmode=require".to_owned()),
        ("elsewhere.example.com", "sslmode=prefer".to_owned()),
    ] {
        let connected =
            connect(&at(host, &options)).await.unwrap_or_else(|refusal| panic!("{options}: {refusal}"));
        assert_eq!(ask(connected, encrypted).await, "true", "{host} {options}");
    }
    assert_eq!(ask(connect(&at(name, "sslmode=disable")).await.unwrap(), encrypted).await, "false");

    for (host, options) in [
        ("elsewhere.example.com", format!("sslmode=verify-full {}", ca(&trusted))),
        (name, format!("sslmode=verify-full {}", ca(&other))),
        (name, format!("sslmode=verify-ca {}", ca(&other))),
        ("elsewhere.example.com", format!("sslmode=verify-ca {}", ca(&other))),
        // The platform's authorities know nothing of ours.
        (name, "sslmode=verify-full".to_owned()),
    ] {
        let refusal = refused(&at(host, &options)).await;
        assert!(matches!(refusal, Refusal::Tls(_)), "{host} {options}: {refusal:?}");
        assert!(!refusal.may_pass());
    }
    let refusal = refused(&at(name, "sslrootcert=/nowhere/ca.pem")).await;
    assert!(matches!(&refusal, Refusal::File(what) if what.contains("/nowhere/ca.pem")), "{refusal:?}");

    // Over any but loopback's own name a connection is verified unless it is said otherwise.
    let address: ServerAddress = format!("host={name} port=1").parse().unwrap();
    assert!(address.exposed().is_empty());
}

#[tokio::test]
async fn certificates_that_are_renewed_are_read_again() {
    let Some(postgres) = Postgres::own(&[]) else { return };
    let (first, second) = (authority(), authority());
    serve(&postgres, &first, "localhost");
    let files = tempfile::tempdir().unwrap();
    let trusted = pem(files.path(), "ca.pem", &first.pem());
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        postgres.admin_url().replace("127.0.0.1", "localhost"),
        trusted.display()
    );
    let connector = Connector::new(url.parse().unwrap(), None);
    connector.connect().await.unwrap();
    serve(&postgres, &second, "localhost");
    pem(files.path(), "ca.pem", &second.pem());
    assert!(matches!(connector.connect().await, Err(Refusal::Tls(_))));
    connector.connect().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_batchds_own_takes_the_place_of_a_password() {
    let authority = authority();
    let Some(postgres) = Postgres::own(&[]) else { return };
    serve(&postgres, &authority, "localhost");
    postgres.put("data/ca.pem", &authority.pem());
    postgres.put("data/pg_hba.conf", "hostssl all certified all cert\nhost all all all scram-sha-256\n");
    postgres.admin("ALTER SYSTEM SET ssl_ca_file = 'ca.pem'");
    postgres.admin("CREATE ROLE certified LOGIN");
    postgres.admin("SELECT pg_reload_conf()");

    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = issued(&authority, "certified");
    let certificate = pem(files.path(), "certificate.pem", &certificate);
    let key = pem(files.path(), "key.pem", &key);
    let ca = pem(files.path(), "ca.pem", &authority.pem());
    let options =
        format!("sslrootcert={}&sslcert={}&sslkey={}", ca.display(), certificate.display(), key.display());
    let url = with(&format!("postgres://certified@localhost:{}/postgres", postgres.port()), &options);
    let url = format!("{url}&sslmode=verify-full");
    assert_eq!(ask(connect(&url).await.unwrap(), "SELECT current_user").await, "certified");
    let without = format!(
        "postgres://certified@localhost:{}/postgres?sslmode=require&sslrootcert={}",
        postgres.port(),
        ca.display()
    );
    assert!(connect(&without).await.is_err());

    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refusal = refused(&url).await;
    assert!(matches!(&refusal, Refusal::File(what) if what.contains("chmod 600")), "{refusal:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_no_server_for_who_wants_it() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = with(&postgres.database(), "sslmode=verify-full");
    let refusal = refused(&url).await;
    assert!(matches!(&refusal, Refusal::Tls(what) if what.contains("does not support TLS")), "{refusal:?}");
    // On loopback nobody can come between, so it is enough to be there.
    connect(&url.replace("?sslmode=verify-full", "")).await.unwrap();
}

#[tokio::test]
async fn an_examination_says_what_the_server_is_like() {
    let Some(postgres) = Postgres::shared() else { return };
    let url = postgres.database();
    let examined = examine(&Connector::new(url.parse().unwrap(), None)).await.unwrap();
    assert!(examined.may_create && !examined.read_only, "{examined:?}");
    assert_eq!(examined.schema.as_deref(), Some("public"));
    assert_eq!(examined.max_connections, 150);
    assert!(examined.connections >= 1, "{examined:?}");
    assert_eq!(examined.synchronous_commit, "on");
    assert!(examined.round_trip > Duration::ZERO && examined.at.is_some());

    // Whoever owns nothing may make nothing.
    let (name, other) = (url.rsplit_once('/').unwrap().1, postgres.database());
    let foreign = postgres.url_of(name, ROLE_PASSWORD, other.rsplit_once('/').unwrap().1);
    query(&other, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    let examined = examine(&Connector::new(foreign.parse().unwrap(), None)).await.unwrap();
    assert!(!examined.may_create, "{examined:?}");
    let nowhere = with(&url, "options=-c%20search_path%3Dnot_there");
    let examined = examine(&Connector::new(nowhere.parse().unwrap(), None)).await.unwrap();
    assert_eq!((examined.schema, examined.may_create), (None, false));
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_will_do() {
    let Some(postgres) = Postgres::shared() else { return };
    let Some(pooler) = Pooler::before(postgres) else {
        eprintln!("skipped: there is no pgbouncer here (`apt-get install pgbouncer`)");
        return;
    };
    let url = postgres.database().replace(&postgres.port().to_string(), &pooler.port.to_string());
    crate::world::until("pgbouncer listens", || {
        std::net::TcpStream::connect(("127.0.0.1", pooler.port)).ok()
    });
    let connected = connect(&url).await.unwrap();
    assert!(!connected.read_only);
    assert_eq!(ask(connected, "SELECT 1").await, "1");
    // It passes on no setting that it does not follow itself.
    let refusal = refused(&with(&url, "options=-c%20search_path%3Dapart")).await;
    assert!(matches!(refusal, Refusal::Setting(_)), "{refusal:?}");
    let refusal = refused(&url.replace(ROLE_PASSWORD, "wrong")).await;
    assert!(matches!(refusal, Refusal::Credentials(_)), "{refusal:?}");
}

/// A PgBouncer in transaction mode; ended with this value.
struct Pooler {
    port: u16,
    child: Child,
    _files: tempfile::TempDir,
}

impl Pooler {
    fn before(postgres: &Postgres) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|directory| directory.join("pgbouncer"))
            .find(|path| path.is_file())?;
        let files = tempfile::tempdir().unwrap();
        let port = closed_port();
        let readable = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        readable(files.path(), 0o755);
        let users = pem(files.path(), "users.txt", &format!("\"postgres\" \"{PASSWORD}\"\n"));
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} auth_user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\npool_mode = transaction\nauth_type = scram-sha-256\n\
             auth_file = {}\nauth_user = postgres\n",
            postgres.port(),
            users.display()
        );
        let settings = pem(files.path(), "pgbouncer.ini", &settings);
        let mut command = Command::new(program);
        if nix::unistd::Uid::effective().is_root() {
            for path in [&users, &settings] {
                readable(path, 0o644);
            }
            command.args(["--user", "nobody"]);
        }
        let child = command.arg("--quiet").arg(&settings).stdin(Stdio::null()).spawn().ok()?;
        Some(Self { port, child, _files: files })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that greets with this status of a parameter, and is ready.
fn stand_in(parameter: &[u8]) -> SocketAddr {
    let greeting = [b"R\0\0\0\x08\0\0\0\0S".as_slice(), parameter, b"Z\0\0\0\x05I"].concat();
    listening(greeting)
}

/// A server that has no TLS and answers every beginning with these bytes.
fn listening(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut asked = [0; 8];
        peer.read_exact(&mut asked).unwrap();
        peer.write_all(b"N").unwrap();
        let mut beginning = [0; 4096];
        let _ = peer.read(&mut beginning).unwrap();
        peer.write_all(&answer).unwrap();
        // Until the other side has had enough.
        while peer.read(&mut beginning).is_ok_and(|length| length > 0) {}
    });
    address
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut wanted = CertificateParams::new(Vec::new()).unwrap();
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name`, as a server's and as a client's, and its key.
fn issued(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec![name.to_owned()]).unwrap();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
    (wanted.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// Has the server show a certificate for `name`.
fn serve(postgres: &Postgres, authority: &Authority, name: &str) {
    let (certificate, key) = issued(authority, name);
    postgres.put("data/server.pem", &certificate);
    postgres.put("data/server.key", &key);
    for setting in ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"] {
        postgres.admin(&format!("ALTER SYSTEM SET {setting}"));
    }
    postgres.admin("SELECT pg_reload_conf()");
    crate::world::until("the server has the new certificate", || {
        (postgres.admin("SHOW ssl") == [[Some("on".to_owned())]]).then_some(())
    });
}

fn pem(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}
