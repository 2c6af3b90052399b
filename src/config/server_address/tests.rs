//! What is understood of an address, what is refused, and that nothing of it shows the password.

use super::*;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

fn read(text: &str) -> ServerAddress {
    text.parse().unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn refused(text: &str) -> String {
    text.parse::<ServerAddress>().expect_err(text).to_string()
}

#[test]
fn an_address_without_options_is_careful() {
    let address = read("postgres://batchd:secret@db.example.com/state");
    assert_eq!(address.to_string(), "db.example.com:5432, database state");
    assert_eq!(address.user.as_deref(), Some("batchd"));
    assert_eq!(address.password().map(ExposeSecret::expose_secret), Some("secret"));
    assert_eq!(address.hosts[0].tls, Tls::VerifyFull);
    assert_eq!(address.session, Session::ReadWrite);
    assert_eq!(address.connect_timeout, Duration::from_secs(5));
    let keepalive = address.keepalive.unwrap();
    assert_eq!((keepalive.idle.as_secs(), keepalive.interval.as_secs(), keepalive.count), (5, 5, 3));
    assert_eq!(address.application_name, "batchd");
    assert!(address.exposed().is_empty());
}

#[test]
fn each_host_is_protected_as_it_needs() {
    let address = read("postgres://%2Frun%2Fpg,localhost:1,127.0.0.2:2,[::1]:3,db:4,10.0.0.1:5/d");
    let shown: Vec<(String, Tls)> = address.hosts.iter().map(|host| (host.to_string(), host.tls)).collect();
    let expected = [
        ("/run/pg/.s.PGSQL.5432", Tls::Disable),
        ("localhost:1", Tls::Prefer),
        ("127.0.0.2:2", Tls::Prefer),
        ("[::1]:3", Tls::Prefer),
        ("db:4", Tls::VerifyFull),
        ("10.0.0.1:5", Tls::VerifyFull),
    ];
    assert_eq!(shown, expected.map(|(host, tls)| (host.to_owned(), tls)));
    // By its address, whatever the name says.
    let address = read("host=localhost,db hostaddr=10.0.0.1,127.0.0.1");
    assert_eq!(address.hosts.iter().map(|host| host.tls).collect::<Vec<_>>(), [Tls::VerifyFull, Tls::Prefer]);
    // What is written holds for all but sockets.
    let address = read("postgres://%2Frun%2Fpg,localhost,db/d?sslmode=require");
    let modes: Vec<Tls> = address.hosts.iter().map(|host| host.tls).collect();
    assert_eq!(modes, [Tls::Disable, Tls::Require, Tls::Require]);
    assert_eq!(address.exposed(), ["db:5432"]);
}

#[test]
fn who_names_authorities_wants_them_asked() {
    let tls = |options: &str| read(&format!("postgres://db/d?{options}")).hosts[0].tls;
    assert_eq!(tls("sslmode=require&sslrootcert=/ca.pem"), Tls::VerifyCa);
    assert_eq!(tls("sslmode=require&sslrootcert=system"), Tls::VerifyFull);
    assert_eq!(tls("sslmode=verify-ca&sslrootcert=/ca.pem"), Tls::VerifyCa);
    assert_eq!(read("postgres://localhost/d?sslrootcert=/ca.pem").hosts[0].tls, Tls::VerifyFull);
    assert_eq!(read("postgres://db/d?sslrootcert=system").roots, None);
    assert_eq!(read("postgres://db/d?sslrootcert=/ca.pem").roots, Some(PathBuf::from("/ca.pem")));
    for options in ["sslmode=verify-ca", "sslmode=verify-ca&sslrootcert=system"] {
        assert!(refused(&format!("postgres://db/d?{options}")).contains("`sslrootcert`"), "{options}");
    }
}

#[test]
fn every_option_is_understood() {
    let address = read(
        "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=u password=p dbname=d sslmode=verify-full sslrootcert=/r \
         sslcert=/c sslkey=/k channel_binding=require application_name=n connect_timeout=7 keepalives=1 keepalives_idle=8 \
         keepalives_interval=9 keepalives_count=10 tcp_user_timeout=11 target_session_attrs=any \
         options='-c search_path=mine,public -c statement_timeout=5s'",
    );
    assert_eq!(address.to_string(), "a:1, b:2, database d");
    assert_eq!(address.certificate, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
    assert_eq!(address.channel_binding, ChannelBinding::Require);
    assert_eq!(address.connect_timeout, Duration::from_secs(7));
    let keepalive = address.keepalive.unwrap();
    assert_eq!((keepalive.idle.as_secs(), keepalive.interval.as_secs(), keepalive.count), (8, 9, 10));
    assert_eq!(address.user_timeout, Duration::from_millis(11));
    assert_eq!(address.session, Session::Any);
    assert_eq!(address.schema().as_deref(), Some("mine"));
    assert_eq!(read("host=a keepalives=0").keepalive, None);
}

#[test]
fn the_schema_is_the_first_of_the_search_path() {
    for (options, schema) in [
        ("-c search_path=mine", Some("mine")),
        ("-csearch_path=mine", Some("mine")),
        ("--search_path=mine,other", Some("mine")),
        (r#"-c search_path="Mine\ own""#, Some("Mine own")),
        ("-c search_path=a -c search_path=b", Some("b")),
        ("-c statement_timeout=1", None),
        ("-c", None),
        ("", None),
    ] {
        let encoded = utf8_percent_encode(options, NON_ALPHANUMERIC);
        assert_eq!(
            read(&format!("postgres://h/d?options={encoded}")).schema().as_deref(),
            schema,
            "{options}"
        );
    }
}

#[test]
fn what_is_not_known_is_named_with_what_is() {
    let message = refused("postgres://u:p@h/d?sslmod=require");
    assert!(message.contains("`sslmod`") && message.contains("did you mean `sslmode`?"), "{message}");
    assert!(OPTIONS.iter().all(|option| message.contains(&format!("`{option}`"))), "{message}");
    for other in ["pgbouncer=true", "currentSchema=a", "passfile=/a", "service=a", "search_path=a"] {
        let (name, _) = other.split_once('=').unwrap();
        assert!(
            refused(&format!("postgres://h/d?{other}")).contains(&format!("`{name}` is not known")),
            "{other}"
        );
        assert!(refused(&format!("host=h {other}")).contains(&format!("`{name}` is not known")), "{other}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (text, word) in [
        ("postgres:///d", "names no host"),
        ("postgres://a,,b/d", "names no host"),
        ("postgres://h:0/d", "`port`"),
        ("postgres://h:70000/d", "`port`"),
        ("postgres://a,b/d?port=1,2,3", "2 hosts and 3 of `port`"),
        ("host=a,b hostaddr=10.0.0.1", "2 hosts and 1 of `hostaddr`"),
        ("host=a hostaddr=name", "`hostaddr` must be an IP address"),
        ("host=a%b", "`host` must be"),
        ("postgres://h/d?host=i", "`host` is given twice"),
        ("host=h user=a user=b", "`user` is given twice"),
        ("host=h sslmode=allow", "`sslmode` must be"),
        ("host=h channel_binding=yes", "`channel_binding` must be"),
        ("host=h target_session_attrs=standby", "`target_session_attrs` must be"),
        ("host=h connect_timeout=0", "`connect_timeout` must be"),
        ("host=h keepalives=yes", "`keepalives` must be"),
        ("host=h keepalives_count=128", "`keepalives_count` must be"),
        ("host=h tcp_user_timeout=-1", "`tcp_user_timeout` must be"),
        ("host=h sslrootcert=ca.pem", "`sslrootcert` must be an absolute path"),
        ("host=h sslcert=/c", "go together"),
        ("host=h sslkey=/c", "go together"),
        ("host=/run channel_binding=require", "needs TLS"),
        ("host=h sslmode=disable channel_binding=require", "needs TLS"),
    ] {
        let message = refused(text);
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn an_empty_option_is_as_one_that_is_not_there() {
    let address = read("postgres://u:@h/?sslmode=&port=&application_name=");
    assert_eq!(address, read("postgres://u@h"));
    assert_eq!(address.password().map(ExposeSecret::expose_secret), None);
}

proptest! {
    #[test]
    fn nothing_shows_the_password(
        inner in "\\PC{1,16}",
        form in 0_usize..4,
        options in "([a-z_=&?/@:%]{0,20}|sslmode=[a-z]{0,3})",
    ) {
        // What no other part of the address, and no message, holds.
        let password = format!("Zq7{inner}Zq7");
        let text = match form {
            0 => format!("postgres://u:{}@h/d?{options}", utf8_percent_encode(&password, NON_ALPHANUMERIC)),
            // Not encoded, as it is often pasted.
            1 => format!("postgres://u:{password}@h/d?{options}"),
            2 => format!("postgres://h/d?user=u&password={password}&{options}"),
            _ => format!("host=h user=u password={password} {options}"),
        };
        let shown = match text.parse::<ServerAddress>() {
            Ok(address) => format!("{address} {address:?} {:?} {:?}", address.exposed(), address.schema()),
            Err(problem) => format!("{problem} {problem:?}"),
        };
        prop_assert!(!shown.contains("Zq7"), "{}", shown);
        if form == 0 && options.is_empty() {
            let address: ServerAddress = text.parse().unwrap();
            prop_assert_eq!(address.password().map(ExposeSecret::expose_secret), Some(password.as_str()));
        }
    }
}
