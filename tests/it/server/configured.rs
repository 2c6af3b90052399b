//! `[state] url` as users meet it: `config check`, `doctor`, and what a reload says.

use crate::support::postgres::{Postgres, ROLE_PASSWORD};
use crate::world::World;
use serde_json::Value;
use std::process::Output;

/// The program in a world whose `[state]` has these lines too, with this address in its environment.
fn batchd(world: &World, state: &str, url: &str, arguments: &[&str]) -> Output {
    world.configure("");
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), config.replace("[state]\n", &format!("[state]\n{state}\n"))).unwrap();
    world.command().env("TEST_DATABASE_URL", url).args(arguments).output().unwrap()
}

const FROM_ENVIRONMENT: &str = "url = { env = \"TEST_DATABASE_URL\" }";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_check_of_the_configuration_judges_the_address_and_shows_none_of_it() {
    let world = World::new();
    let password = "n0b0dyShallReadThis";
    let of = |url: &str| {
        let output = batchd(&world, FROM_ENVIRONMENT, url, &["config", "check"]);
        assert!(!text(&output).contains(password), "{}", text(&output));
        (output.status.code(), text(&output))
    };
    let (code, shown) = of(&format!("postgres://u:{password}@db.example.com/d"));
    assert_eq!(code, Some(0), "{shown}");
    for (url, word) in [
        (format!("postgres://u:{password}@db.example.com/d?pgbouncer=true"), "`pgbouncer` is not known"),
        (format!("postgres://u:{password}@db.example.com/d?sslmode=allow"), "`sslmode` must be"),
        (format!("postgres://u:{password}/x@db.example.com/d"), "%2F"),
        (format!("mysql://u:{password}@db.example.com/d"), "postgres://"),
    ] {
        let (code, shown) = of(&url);
        assert_eq!(code, Some(78), "{shown}");
        assert!(shown.contains("state.url") && shown.contains(word), "{shown}");
    }
    let (code, shown) = of(&format!("postgres://u:{password}@db.example.com/d?sslmode=require"));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("verify-full") && shown.contains("db.example.com:5432"), "{shown}");

    let inline = format!("url = \"postgres://u:{password}@h/d?nonsense=1\"");
    let output = batchd(&world, &inline, "", &["config", "check", "--no-secrets"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("`nonsense`") && !text(&output).contains(password), "{}", text(&output));
    let output = batchd(&world, &inline.replace("?nonsense=1", ""), "", &["config", "show"]);
    assert!(text(&output).contains("[redacted]") && !text(&output).contains(password), "{}", text(&output));
}

#[test]
fn names_and_leases_are_judged_too() {
    let world = World::new();
    let url = "postgres://u@localhost/d";
    for (state, code, word) in [
        (format!("{FROM_ENVIRONMENT}\nname = \"batchd-1.example\"\nlease = \"5s\""), 0, ""),
        (format!("{FROM_ENVIRONMENT}\nname = \"a b\""), 78, "cannot be the name of a daemon"),
        (format!("{FROM_ENVIRONMENT}\nlease = \"1s\""), 78, "`state.lease` must be between"),
        ("name = \"one\"\nlease = \"5s\"".to_owned(), 0, "has no effect without `state.url`"),
    ] {
        let output = batchd(&world, &state, url, &["config", "check"]);
        assert_eq!(output.status.code(), Some(code), "{state}: {}", text(&output));
        assert!(text(&output).contains(word), "{state}: {}", text(&output));
    }
}

#[test]
fn a_doctor_tries_the_server_and_says_what_to_do() {
    let Some(postgres) = Postgres::shared() else { return };
    let world = World::new();
    let url = postgres.database();
    let finding = |url: &str| -> Vec<(String, String)> {
        let output = batchd(&world, FROM_ENVIRONMENT, url, &["doctor", "--json"]);
        assert!(!text(&output).contains(ROLE_PASSWORD), "{}", text(&output));
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let about = found.iter().filter(|finding| finding["about"] == "state server");
        let shown = |value: &Value| value.as_str().unwrap().to_owned();
        about.map(|finding| (shown(&finding["verdict"]), shown(&finding["message"]))).collect()
    };
    let found = finding(&url);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 == "ok" && found[0].1.contains("of 150 connections"), "{found:?}");

    let found = finding(&url.replace(ROLE_PASSWORD, "wrong"));
    assert!(found[0].0 == "wrong" && found[0].1.contains("refuses the role or its password"), "{found:?}");
    let found = finding(&format!("{url}?options=-c%20search_path%3Dnot_there"));
    assert!(found[1].0 == "wrong" && found[1].1.contains("no schema"), "{found:?}");
    let found = finding("postgres://u@127.0.0.1:1/d");
    assert!(found[0].0 == "wrong" && found[0].1.contains("connection refused"), "{found:?}");
}

#[test]
fn a_reload_says_that_another_server_needs_a_restart() {
    let world = World::new();
    let daemon = world.daemon();
    let config = std::fs::read_to_string(world.config()).unwrap();
    let later = "[state]\nurl = \"postgres://u@localhost/d\"\nname = \"one\"\nlease = \"20s\"\n";
    std::fs::write(world.config(), config.replace("[state]\n", later)).unwrap();
    let answer = world.batchd(&["reload"]);
    let shown = text(&answer);
    assert!(answer.status.success(), "{shown}");
    assert!(["state.url", "state.name", "state.lease"].iter().all(|key| shown.contains(key)), "{shown}");
    daemon.terminate();
}
