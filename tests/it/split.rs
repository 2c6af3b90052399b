//! Files that are too large for one batch, with the real binary.

use crate::submit::{Manner, Stage, err, requests};
use serde_json::{Value, json};
use std::process::Output;

/// A stage whose service takes 50,000 requests a batch, as OpenAI does, and a file of so many requests.
fn stage(count: usize) -> Stage {
    let stage = Stage::new();
    let address = stage.address;
    stage.world.configure(&format!(
        "[providers.large]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}/v1\"\n"
    ));
    std::fs::write(stage.world.directory.path().join("in.jsonl"), requests(count)).unwrap();
    stage
}

fn submit(stage: &Stage, more: &[&str]) -> Output {
    stage.submit(&["--provider", "large", "--name", "big"]).args(more).output().unwrap()
}

fn lines(output: &Output) -> Vec<(String, String)> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let (id, name) = line.split_once(' ').unwrap();
            (id.to_owned(), name.trim().to_owned())
        })
        .collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn a_file_over_the_limits_is_refused_with_its_pieces_and_split_into_them() {
    let stage = stage(100_001);
    let daemon = stage.world.daemon();
    let refused = submit(&stage, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = err(&refused);
    assert!(
        told.contains("has 100,001 requests") && told.contains("--split makes 3 batches of it"),
        "{told}"
    );
    assert!(told.contains("50,000 requests (") && told.contains("1 request ("), "{told}");
    assert_eq!(stage.service.asked(), 0);

    let split = submit(&stage, &["--split"]);
    assert!(split.status.success(), "{split:?} {}", daemon.log());
    assert_eq!(lines(&split), pairs(&[("batch_1", "big-1"), ("batch_2", "big-2"), ("batch_3", "big-3")]));
    let of = |id: &str| {
        let batch = stage.world.json(&["show", id, "--json"]);
        let file = batch["input_file_id"].as_str().unwrap().to_owned();
        std::fs::read_to_string(stage.world.state().join("files").join(file)).unwrap()
    };
    let (first, last) = (of("batch_1"), of("batch_3"));
    assert_eq!((first.lines().count(), last.lines().count()), (50_000, 1));
    assert!(last.contains("\"r100000\""), "{last}");
    assert_eq!(first.clone() + &of("batch_2") + &last, requests(100_001));
    daemon.terminate();
}

#[test]
fn of_a_run_that_broke_off_only_what_is_missing_is_created() {
    let stage = stage(50_001);
    let daemon = stage.world.daemon();
    stage.service.manner(Manner::Limited(1));
    let broken = submit(&stage, &["--split"]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert_eq!(lines(&broken), pairs(&[("batch_1", "big-1")]));
    let told = err(&broken);
    assert!(told.contains("`big-2` was not created") && told.contains("big-1 is batch_1"), "{told}");
    daemon.kill();
    let daemon = stage.world.daemon();
    stage.service.manner(Manner::Well);
    let whole = submit(&stage, &["--split"]);
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(lines(&whole), pairs(&[("batch_1", "big-1"), ("batch_2", "big-2")]));
    assert_eq!(stage.service.count(), 2);
    // The same command once more is another run, as it is without --split.
    let again = submit(&stage, &["--split", "--json"]);
    let list: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (2, &json!("batch_3")));
    daemon.terminate();
}

#[test]
fn a_run_that_is_killed_between_two_pieces_goes_on() {
    let stage = stage(50_001);
    let daemon = crate::creating::doomed(&stage.world, "split.piece=big-1");
    assert!(!submit(&stage, &["--split"]).status.success());
    crate::world::until("the daemon is dead", || daemon.is_over().then_some(()));
    let daemon = stage.world.daemon();
    let whole = submit(&stage, &["--split", "--wait-for-quota"]);
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(lines(&whole).len(), 2);
    assert_eq!(stage.service.count(), 2);
    daemon.terminate();
}
