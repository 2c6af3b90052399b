//! Reading the event log from behind its end, as after a restored backup.

use crate::world::World;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Asks the socket; gives what comes until it contains `until` or ends.
fn ask(world: &World, path: &str, headers: &str, until: &str) -> String {
    let mut stream = UnixStream::connect(world.socket()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains(until) {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            count => text.push_str(&String::from_utf8_lossy(&piece[..count])),
        }
    }
    text
}

#[test]
fn who_knows_of_more_events_than_there_are_is_told() {
    let world = World::new();
    let daemon = world.daemon();
    world.provider.complete("batch_1");
    world.ok(&["track", "batch_1"]);
    let last = world.json(&["status", "--json"])["events"].as_i64().unwrap();
    assert!(last > 0);
    let beyond = (last + 1).to_string();
    let exactly = last.to_string();

    let answer = ask(&world, &format!("/v1/events?after={beyond}"), "", "}}");
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("beyond_end"), "{answer}");
    assert!(ask(&world, &format!("/v1/events?after={exactly}"), "", "has_more").starts_with("HTTP/1.1 200 "));
    let answer = ask(&world, &format!("/v1/batches/batch_1/events?after={beyond}"), "", "}}");
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");

    let stream = "accept: text/event-stream\r\n";
    let reset = format!("event: reset\ndata: {last}\n");
    for (path, headers) in [
        (format!("/v1/events?after={beyond}"), stream.to_owned()),
        ("/v1/events".to_owned(), format!("{stream}last-event-id: {beyond}\r\n")),
    ] {
        let told = ask(&world, &path, &headers, "data:");
        assert!(told.contains(&reset) && told.contains(&format!("id: {last}\n")), "{told}");
    }

    for arguments in [
        &["events", "--after", &beyond][..],
        &["events", "--after", &beyond, "--json"],
        &["events", "--after", &beyond, "--follow"],
        &["events", "--after", &beyond, "--offline"],
    ] {
        let output = world.batchd(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains(&format!("--after {last}")), "{arguments:?}: {told}");
    }
    assert!(world.ok(&["events", "--after", &exactly]).is_empty());
    daemon.terminate();
}
