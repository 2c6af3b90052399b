//! What stands for a batch on the command line and in paths: ids, names, beginnings of ids, addresses, and `-`.

use crate::world::World;
use serde_json::json;
use std::io::Write;
use std::process::{Output, Stdio};

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command with `input` on its standard input.
fn fed(world: &World, arguments: &[&str], input: &str) -> Output {
    let mut child = world
        .command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

const FIRST: &str = "batch_6a1f0c2b9d3e4f5a8b7c6d5e4f3a2b1c";
const SECOND: &str = "batch_6a1f0c2b9d3e4f5a8b7c6d5e4f3a2b2d";

/// A name, the beginning of an id and the address of a batch's page mean the batch; an exact id means itself first.
#[test]
fn a_name_a_beginning_and_an_address_mean_the_batch() {
    let world = World::new();
    for id in [FIRST, SECOND, "batch_6a1f0c"] {
        world.provider.put(id, "in_progress", &json!({}));
    }
    let daemon = world.daemon();
    world.ok(&["track", FIRST, "--name", "nightly evals"]);
    world.ok(&["track", SECOND, "--name", "weekly"]);
    let meant = |text: &str| world.json(&["show", text, "--json"])["id"].clone();
    let address = format!("https://platform.openai.com/batches/{FIRST}?project=p");
    for text in
        ["nightly evals", "openai:nightly evals", &FIRST[..37], &format!("openai:{}", &FIRST[..37]), &address]
    {
        assert_eq!(meant(text), FIRST, "{text}");
    }
    for command in [&["get"][..], &["poll"], &["events"]] {
        world.ok(&[command, &["nightly evals"]].concat());
    }
    // What begins several ids is ambiguous, in commands and in paths; five characters begin none.
    let several = world.batchd(&["show", "batch_6a1f0c"]);
    assert_eq!(several.status.code(), Some(2), "{several:?}");
    assert!(
        err(&several).contains(&format!("openai:{FIRST}")) && err(&several).contains(SECOND),
        "{several:?}"
    );
    let cursor = world.batchd(&["show", "batch"]);
    assert_eq!(cursor.status.code(), Some(66), "{cursor:?}");
    // An exact id comes first, and what is tracked is always what was written.
    world.ok(&["track", "batch_6a1f0c"]);
    assert_eq!(meant("batch_6a1f0c"), "batch_6a1f0c");
    assert_eq!(world.json(&["list", "--json"])["data"].as_array().unwrap().len(), 3);
    // Two of one name are told apart.
    world.ok(&["track", SECOND, "--name", "nightly evals"]);
    let twice = world.batchd(&["wait", "nightly evals", "--timeout", "1s"]);
    assert_eq!(twice.status.code(), Some(2), "{twice:?}");
    assert!(err(&twice).contains(&format!("openai:{SECOND} (in_progress)")), "{twice:?}");
    // A mistyped name is not advised to be tracked.
    let absent = world.batchd(&["show", "nightly eval"]);
    assert_eq!(absent.status.code(), Some(66), "{absent:?}");
    assert!(!err(&absent).contains("batchd track"), "{absent:?}");
    daemon.terminate();
    assert_eq!(world.json(&["--offline", "show", &FIRST[..37], "--json"])["id"], FIRST);
}

/// `-` is standard input wherever ids are taken.
#[test]
fn ids_come_from_standard_input_everywhere() {
    let world = World::new();
    for id in ["batch_1", "batch_2"] {
        world.provider.put(id, "in_progress", &json!({}));
    }
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "batch_2"]);
    for command in ["poll", "untrack"] {
        let done = fed(&world, &[command, "-"], "batch_1\n# none\nbatch_2\n");
        assert!(done.status.success(), "{command}: {done:?}");
    }
    assert!(out(&fed(&world, &["show", "-"], "batch_1\n")).starts_with("openai:batch_1"));
    let two = fed(&world, &["show", "-"], "batch_1\nbatch_2\n");
    assert_eq!(two.status.code(), Some(2), "{two:?}");
    let none = fed(&world, &["poll", "-"], "");
    assert!(none.status.success() && err(&none).contains("nothing to do"), "{none:?}");
    daemon.terminate();
}
