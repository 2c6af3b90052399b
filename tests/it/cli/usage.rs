//! What the command line answers before it talks to a daemon, and how it finds one.

use super::program::{Run, alone, bare};
use super::stand_in::{Daemon, batch, router};
use std::process::Stdio;
use std::sync::Arc;

#[test]
fn help_is_an_overview() {
    let run = alone(&["-h"]).code(0);
    assert_eq!(run.err, "");
    insta::assert_snapshot!(run.out);
    assert_eq!(alone(&["--help"]).code(0).out, run.out);
    let version = alone(&["--version"]).code(0);
    assert_eq!(version.out, format!("batchd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_makes_no_sense_exits_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["submit"],
        &["results"],
        &["cancel"],
        &["track"],
        &["track", ""],
        &["track", "x", "--label", "team"],
        &["track", "x", "--deadline", "soon"],
        &["track", "x", "--notify", "w", "--no-notify"],
        &["track", "x", "--offline"],
        &["list", "--status", "done"],
        &["list", "--limit", "many"],
        &["list", "--watch", "--json"],
        &["list", "--host", "ftp://x"],
        &["list", "--host", "unix://relative"],
        &["list", "--offline", "--host", "unix:///x"],
        &["events", "--after", "-1"],
        &["events", "--follow", "--offline"],
        &["wait", "x", "--timeout", "2"],
        &["poll"],
        &["poll", "x", "--all"],
        &["deliveries", "--state", "lost"],
        &["deliveries", "retry"],
        &["deliveries", "retry", "--webhook", "w"],
        &["sandbox", "--speed", "0"],
        &["completions", "tcsh"],
        &["--log-format", "xml", "list"],
        &["-q", "-v", "list"],
    ] {
        let run = alone(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert_eq!(run.out, "", "{arguments:?}");
    }
}

#[test]
fn g4_without_a_daemon_69_says_where_was_looked_and_what_to_do() {
    for arguments in [
        &["list"][..],
        &["track", "x"],
        &["untrack", "x"],
        &["get", "x"],
        &["show", "x"],
        &["events"],
        &["events", "--follow"],
        &["wait", "x"],
        &["poll", "x"],
        &["status"],
        &["webhooks"],
        &["deliveries"],
        &["providers"],
        &["reload"],
        &["backup", "/nowhere/x"],
    ] {
        let run = alone(arguments).code(69);
        assert!(run.err.starts_with("error: "), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("run/batchd/batchd.sock: no such socket"), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("\nhint: start it with `systemctl start batchd`"), "{}", run.err);
        assert_eq!(run.out, "", "{arguments:?}");
    }
    let home = tempfile::tempdir().unwrap();
    let dead = home.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let host = format!("unix://{}", dead.display());
    Run::of(bare(&home, &["list", "--host", &host]).output().unwrap()).code(69).says("connection refused");
    alone(&["list", "--host", "http://127.0.0.1:1"]).code(69).says("http://127.0.0.1:1");
}

#[test]
fn the_daemon_is_found_by_the_configurations_socket() {
    let mut daemon = Daemon::start();
    let config = daemon.home.path().join("config.toml");
    std::fs::write(&config, format!("[api]\nsocket = {:?}\n", daemon.socket())).unwrap();
    let config = config.to_str().unwrap();
    Run::of(bare(&daemon.home, &["status", "--config", config]).output().unwrap()).code(0);
    Run::of(bare(&daemon.home, &["status"]).env("BATCHD_CONFIG", config).output().unwrap()).code(0);
    daemon.down();
    Run::of(bare(&daemon.home, &["status", "--config", config]).output().unwrap())
        .code(69)
        .says("batchd.sock: no such socket");
}

#[test]
fn completions_and_manual_are_there() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(alone(&["completions", shell]).code(0).out.contains("untrack"), "{shell}");
    }
    let page = alone(&["man"]).code(0).out;
    assert!(page.contains(".TH batchd 1") && page.contains("EXIT STATUS"), "{page}");
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        world.batches = (0..500).map(|n| batch("openai", &format!("b{n}"), "in_progress")).collect();
    });
    for arguments in [&["man"][..], &["--help"], &["completions", "bash"], &["list"], &["list", "--json"]] {
        let mut child =
            daemon.batchd(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap()).code(0);
        assert_eq!(run.err, "", "{arguments:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = daemon.batchd(&["list"]).stdout(full).output().unwrap();
    Run::of(output).code(1).says("cannot write to standard output: no space left on device");
}

#[test]
fn over_http_the_token_is_sent() {
    let daemon = Daemon::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(Arc::clone(&daemon.shared));
    daemon
        .runtime
        .as_ref()
        .unwrap()
        .handle()
        .spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await });
    let host = format!("http://{address}");
    let mut command = bare(&daemon.home, &["--host", &host, "status"]);
    Run::of(command.env("BATCHD_TOKEN", "t0ken").output().unwrap()).code(0);
    daemon.run(&["status"]).code(0);
    assert_eq!(daemon.world(|world| world.tokens.clone()), ["Bearer t0ken"]);
}
