//! `restore`, `init`, `doctor`, `help` and `version`, with the real daemon and provider of a test.

use crate::world::World;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A backup goes back while no daemon runs; what was there is kept, and nothing is told twice under another id.
#[test]
fn a_backup_is_put_back_in_the_place_of_a_stopped_daemons_state() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    world.provider.put("batch_2", "in_progress", &json!({}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1"]);
    let copy = world.directory.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    world.ok(&["backup", copy]);
    world.ok(&["track", "batch_2"]);
    let held = world.batchd(&["restore", copy]);
    assert_eq!(held.status.code(), Some(75), "{held:?}");
    // Killed: the last commits are in the log, which must not come back over the restored file.
    daemon.kill();
    let restored = world.batchd(&["restore", copy]);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    assert!(
        err(&restored).contains("1 batch") && err(&restored).contains("batchd.db.before-"),
        "{restored:?}"
    );
    let kept: Vec<_> = std::fs::read_dir(world.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("batchd.db.before-"))
        .collect();
    assert!(kept.iter().any(|name| !name.ends_with("-wal")), "{kept:?}");
    let ids = |world: &World| world.json(&["list", "--json"])["data"].as_array().unwrap().len();
    let daemon = world.daemon();
    assert_eq!(ids(&world), 1);
    daemon.terminate();
    // What was kept is whole: it can be put back in its turn.
    let before = kept.iter().find(|name| !name.ends_with("-wal")).unwrap();
    let before = world.state().join(before);
    world.ok(&["restore", before.to_str().unwrap()]);
    let daemon = world.daemon();
    assert_eq!(ids(&world), 2);
    daemon.terminate();
}

#[test]
fn what_is_no_backup_is_refused_and_nothing_is_changed() {
    let world = World::new();
    let daemon = world.daemon();
    let copy = world.directory.path().join("copy.db");
    world.ok(&["backup", copy.to_str().unwrap()]);
    daemon.terminate();
    let before = std::fs::read(world.state().join("batchd.db")).unwrap();
    let broken = world.directory.path().join("broken.db");
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xa5);
    std::fs::write(&broken, &bytes).unwrap();
    let text = world.directory.path().join("text.db");
    std::fs::write(&text, "no database").unwrap();
    for file in [&broken, &text] {
        let refused = world.batchd(&["restore", file.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(65), "{refused:?}");
    }
    assert_eq!(world.batchd(&["restore", "/nowhere/x.db"]).status.code(), Some(1));
    assert_eq!(std::fs::read(world.state().join("batchd.db")).unwrap(), before);
}

#[test]
fn a_configuration_is_written_tried_and_private() {
    let world = World::new();
    let file = world.directory.path().join("new/config.toml");
    let path = file.to_str().unwrap();
    let init = |more: &[&str], key: &str| {
        let mut command = world.command();
        command.env_remove("BATCHD_CONFIG").env("OPENAI_API_KEY", key);
        command.env("OPENAI_BASE_URL", format!("http://{}/v1", world.provider_address));
        command.args(["init", "--config", path]).args(more).output().unwrap()
    };
    let nobody = init(&[], "k");
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    assert!(err(&nobody).contains("--provider"), "{nobody:?}");
    let unknown = init(&["--provider", "opnai"], "k");
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    world.provider.fault(Some((401, "{}")));
    let refused = init(&["--provider", "openai"], "wrong");
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(!file.exists());
    world.provider.fault(None);
    let done = init(
        &["--provider", "openai", "--webhook", "generic=http://127.0.0.1:9/x", "--no-check"],
        crate::world::KEY,
    );
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("api_key = { env = \"OPENAI_API_KEY\" }") && !text.contains("127.0.0.1:9"),
        "{text}"
    );
    let key = file.with_file_name("keys").join("webhook-generic");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let checked =
        world.command().env("OPENAI_API_KEY", "k").args(["config", "check", path]).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let again = init(&["--provider", "openai", "--no-check"], "k");
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(err(&again).contains("--force"), "{again:?}");
}

#[test]
fn the_doctor_says_what_needs_a_person() {
    let world = World::new();
    let without = world.batchd(&["doctor"]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(out(&without).contains("✗ daemon") && out(&without).contains("batchd run"), "{without:?}");
    let daemon = world.daemon();
    let well = world.batchd(&["doctor"]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    for about in ["version", "configuration", "daemon", "provider openai", "clock", "disk"] {
        assert!(out(&well).contains(about), "{about}: {well:?}");
    }
    world.provider.fault(Some((401, "{}")));
    let refused = world.batchd(&["doctor", "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let findings: serde_json::Value = serde_json::from_str(&out(&refused)).unwrap();
    let wrong =
        |finding: &&serde_json::Value| finding["about"] == "provider openai" && finding["verdict"] == "wrong";
    assert!(findings.as_array().unwrap().iter().any(|finding| wrong(&finding)), "{findings}");
    daemon.terminate();
}

/// A daemon may be found at one of the usual sockets although the user names the file of another.
#[test]
fn the_doctor_says_that_the_daemon_runs_with_another_file() {
    let world = World::new();
    let daemon = world.daemon();
    let other = world.directory.path().join("other.toml");
    std::fs::copy(world.config(), &other).unwrap();
    let other = other.to_str().unwrap();
    let odd = world.batchd(&["--config", other, "doctor"]);
    assert_eq!(odd.status.code(), Some(1), "{odd:?}");
    let its = format!("✗ daemon          it runs with {}, not with {other}", world.config().display());
    assert!(out(&odd).contains(&its), "{odd:?}");
    // The same file by another name is no other file.
    let link = world.directory.path().join("link.toml");
    std::os::unix::fs::symlink(world.config(), &link).unwrap();
    let same = world.batchd(&["--config", link.to_str().unwrap(), "doctor"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    let missing = world.batchd(&["--config", "/nowhere/batchd.toml", "doctor"]);
    assert!(out(&missing).contains("`batchd init` writes one"), "{missing:?}");
    daemon.terminate();
}

#[test]
fn help_and_version_are_commands_too() {
    let world = World::new();
    assert_eq!(world.ok(&["version"]), world.ok(&["--version"]));
    assert!(world.ok(&["help", "track"]).contains("--deadline"));
    assert!(world.ok(&["help", "webhooks", "test"]).contains("--event"));
    assert!(world.ok(&["help"]).contains("Watch batches:"));
    assert_eq!(world.batchd(&["help", "tarck"]).status.code(), Some(2));
}

/// What bash offers for a line, with the script that the program prints.
fn offered(world: &World, line: &str) -> Vec<String> {
    let bin = world.directory.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_batchd"), bin.join("batchd")).unwrap();
    }
    let script = "source <(batchd completions bash); COMP_LINE=$1; COMP_POINT=${#COMP_LINE}; _batchd
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = std::process::Command::new("bash");
    let output = command
        .args(["-c", script, "-", line])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", world.directory.path())
        .env("BATCHD_CONFIG", world.config())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    out(&output).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_ids_names_providers_webhooks_and_labels() {
    let world = World::new();
    world.provider.put("batch_1", "in_progress", &json!({}));
    world.provider.put("batch_2", "in_progress", &json!({}));
    // Silent while the daemon is away; what the definition knows is there all the same.
    assert!(offered(&world, "batchd show ").is_empty());
    assert!(offered(&world, "batchd tr").contains(&"track".to_owned()));
    assert!(offered(&world, "batchd list --status in").contains(&"in_progress".to_owned()));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "--name", "nightly", "--label", "team=evals"]);
    world.ok(&["track", "batch_2", "--name", "two words"]);
    let shown = offered(&world, "batchd show ");
    assert_eq!(shown, ["batch_2", "nightly", "batch_1"]);
    assert_eq!(offered(&world, "batchd wait nig"), ["nightly"]);
    assert_eq!(offered(&world, "batchd poll openai:batch_1"), ["batch_1"]);
    assert_eq!(offered(&world, "batchd track x --provider "), ["openai"]);
    assert_eq!(offered(&world, "batchd webhooks test "), ["ops", "pipeline"]);
    assert_eq!(offered(&world, "batchd list --label te"), ["team=evals"]);
    assert_eq!(offered(&world, "batchd list --label team="), ["evals"]);
    assert_eq!(offered(&world, "batchd list --label team="), ["evals"]);
    assert!(offered(&world, "batchd track ").is_empty());
    daemon.terminate();
}
