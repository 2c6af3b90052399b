//! What daemons with one state have in common besides it, and what tells them apart: directories, configurations, versions.

use super::daemons::{Cluster, HANDED_OVER};
use crate::support::postgres::{Postgres, query};
use crate::world::{Daemon, until, until_within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// The configuration of a daemon with something changed in it.
fn changed(cluster: &Cluster, name: &str, from: &str, to: &str) {
    let path = cluster.path(name, "toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

/// What a start of this daemon says, which must be refused with 78.
fn refused(cluster: &Cluster, name: &str, from: &str, to: &str) -> String {
    let mut command = cluster.command(name);
    changed(cluster, name, from, to);
    let run = command.arg("run").output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(78), "{said}");
    said
}

#[test]
fn a_directory_of_results_that_the_others_do_not_have_is_refused() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let shared = cluster.world.directory.path().join("shared");
    let line = format!("dir = \"{}\"", shared.display());
    cluster.world.configure(&format!("[results]\ndownload = true\n{line}\n"));
    let one = cluster.daemon("one");
    let mark =
        until("the directory is marked", || std::fs::read_to_string(shared.join(".batchd-cluster")).ok());
    let two = cluster.daemon("two");
    for daemon in [&one, &two] {
        assert!(!daemon.is_over(), "{}", daemon.log());
    }
    let local = format!("dir = \"{}\"", cluster.world.directory.path().join("local").display());
    let said = refused(&cluster, "three", &line, &local);
    assert!(
        said.contains("results.dir") && said.contains("mount theirs there") && said.contains(mark.trim()),
        "{said}"
    );
    // Its own, below its state directory, is none that the others have either.
    let said = refused(&cluster, "three", &line, "");
    assert!(said.contains("there is no mark in it"), "{said}");
    // Nor at a reload.
    changed(&cluster, "two", &line, &local);
    two.signal(Signal::SIGHUP);
    until_within(HANDED_OVER, "the reload is refused", || {
        two.log().contains("the new configuration is refused").then_some(())
    });
    // Another state's directory.
    let others = Cluster::new(&postgres.database());
    others.world.configure(&format!("[results]\ndownload = true\n{line}\n"));
    let said = refused(&others, "one", &line, &line);
    assert!(said.contains("the daemons of another state use"), "{said}");
    // As the refusal says.
    let local = cluster.world.directory.path().join("local");
    std::fs::create_dir_all(&local).unwrap();
    std::fs::write(local.join(".batchd-cluster"), &mark).unwrap();
    let mut command = cluster.command("three");
    changed(&cluster, "three", &line, &format!("dir = \"{}\"", local.display()));
    cluster.started("three", command.arg("run")).terminate();
}

#[test]
fn results_lie_where_all_daemons_find_them() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let (sandbox, address) = sandbox(&cluster);
    let shared = cluster.world.directory.path().join("shared");
    cluster.world.configure(&format!(
        "[providers.sand]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}/v1\"\n\
         [results]\ndownload = true\ndir = \"{}\"\n",
        shared.display()
    ));
    let _one = cluster.daemon("one");
    let mut command = cluster.command("two");
    // The same directory by another name.
    let link = cluster.world.directory.path().join("elsewhere");
    std::os::unix::fs::symlink(&shared, &link).unwrap();
    let dir = |path: &std::path::Path| format!("dir = \"{}\"", path.display());
    changed(&cluster, "two", &dir(&shared), &dir(&link));
    let _two = cluster.started("two", command.arg("run"));
    let batch = cluster.json("one", &["submit", &input(&cluster), "--provider", "sand", "--json"]);
    let id = batch["id"].as_str().unwrap().to_owned();
    let saved = until_within(HANDED_OVER, "the results are downloaded", || {
        let shown = cluster.command("two").args(["show", &id, "--json"]).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown["batchd"]["results"]["path"].as_str().map(str::to_owned)
    });
    assert_eq!(saved, format!("sand/{id}.jsonl"));
    assert!(shared.join(&saved).exists());
    sandbox.kill();
    for name in ["one", "two"] {
        let results = std::fs::read_to_string(cluster.path(name, "toml")).unwrap();
        assert!(results.contains("download = true"));
        let output = if name == "one" {
            cluster.command(name).args(["results", &id]).output().unwrap()
        } else {
            let mut command = cluster.command(name);
            changed(&cluster, name, &dir(&shared), &dir(&link));
            command.args(["results", &id]).output().unwrap()
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.lines().count(), 2, "{name}: {output:?}");
    }
}

/// A provider that creates batches, and where it is.
fn sandbox(cluster: &Cluster) -> (Daemon, std::net::SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = cluster.world.command();
    let sandbox =
        Daemon::start(command.args(["sandbox", "--listen", &address.to_string(), "--speed", "3600"]));
    until("the sandbox listens", || TcpStream::connect(address).ok());
    (sandbox, address)
}

/// A file of two requests.
fn input(cluster: &Cluster) -> String {
    let path = cluster.world.directory.path().join("input.jsonl");
    let line = |id: &str| {
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}})
        .to_string()
    };
    std::fs::write(&path, format!("{}\n{}\n", line("a"), line("b"))).unwrap();
    path.display().to_string()
}

/// The answer to a request over a daemon's socket.
fn asked(cluster: &Cluster, name: &str, request: &str) -> String {
    let mut socket = UnixStream::connect(cluster.path(name, "sock")).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn upload(cluster: &Cluster, name: &str) -> String {
    let body = "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
        --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\nhello\n\r\n--x--\r\n";
    let answer = asked(
        cluster,
        name,
        &format!(
            "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: multipart/form-data; boundary=x\r\n\r\n{body}",
            body.len()
        ),
    );
    let at = answer.find("file-").unwrap_or_else(|| panic!("{answer}"));
    answer[at..].split('"').next().unwrap().to_owned()
}

fn content(cluster: &Cluster, name: &str, file: &str) -> String {
    asked(
        cluster,
        name,
        &format!("GET /v1/files/{file}/content HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
    )
}

#[test]
fn uploads_are_found_by_all_daemons_or_it_is_said_who_has_them() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let (one, two) = (cluster.daemon("one"), cluster.daemon("two"));
    let file = upload(&cluster, "one");
    assert!(content(&cluster, "one", &file).contains("hello"));
    let answer = content(&cluster, "two", &file);
    assert!(answer.starts_with("HTTP/1.1 410") && answer.contains("another daemon keeps it"), "{answer}");
    until_within(HANDED_OVER, "it is warned of", || {
        let warnings = cluster.json("one", &["status", "--json"])["warnings"].to_string();
        warnings.contains("`files.dir`").then_some(())
    });
    one.terminate();
    two.terminate();

    let shared = cluster.world.directory.path().join("uploads");
    let line = format!("dir = \"{}\"", shared.display());
    cluster.world.configure(&format!("[files]\n{line}\n"));
    let (_one, _two) = (cluster.daemon("one"), cluster.daemon("two"));
    let file = upload(&cluster, "one");
    assert!(content(&cluster, "two", &file).contains("hello"));
    assert!(!cluster.json("one", &["status", "--json"])["warnings"].to_string().contains("`files.dir`"));
    let said = refused(&cluster, "three", "uploads", "others");
    assert!(said.contains("files.dir"), "{said}");
}

#[test]
fn a_batch_is_not_created_by_a_daemon_that_was_stopped_right_before() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let (_sandbox, address) = sandbox(&cluster);
    cluster.world.configure(&format!(
        "[providers.sand]\nkind = \"openai\"\napi_key = {{ env = \"TEST_KEY\" }}\nbase_url = \"http://{address}/v1\"\n"
    ));
    let mut command = cluster.command("one");
    let one =
        cluster.started("one", command.args(["-v", "run"]).env("BATCHD_FAILPOINT", "submit.intended:stop"));
    let _two = cluster.daemon("two");
    let submit = cluster
        .command("one")
        .args(["submit", &input(&cluster), "--provider", "sand"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until_within(HANDED_OVER, "the daemon has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", one.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim().starts_with('T').then_some(())
    });
    until_within(HANDED_OVER, "the other one does everything", || {
        (cluster.scopes_of("two", "two").len() == 5).then_some(())
    });
    one.signal(Signal::SIGCONT);
    let output = submit.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let mut provider = TcpStream::connect(address).unwrap();
    let request =
        "GET /v1/batches HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\nconnection: close\r\n\r\n";
    provider.write_all(request.as_bytes()).unwrap();
    let mut listed = String::new();
    provider.read_to_string(&mut listed).unwrap();
    assert!(listed.contains("200 OK") && listed.replace(' ', "").contains("\"data\":[]"), "{listed}");
    assert!(one.log().contains("a batch was not created"), "{}", one.log());
}

#[test]
fn a_daemon_that_is_too_old_ends_while_it_runs() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let one = cluster.daemon("one");
    cluster.until_all_is_of("one");
    query(&cluster.url, "UPDATE batchd SET schema = 99, min_writer = 99").unwrap();
    assert_eq!(one.end().code(), Some(70), "{}", one.log());
    assert!(one.log().contains("run the newer batchd"), "{}", one.log());
}

#[test]
fn what_a_daemon_defines_otherwise_is_shown_and_not_its_own() {
    let Some(postgres) = Postgres::shared() else { return };
    let cluster = Cluster::new(&postgres.database());
    let (_one, _two) = (cluster.daemon("one"), cluster.daemon("two"));
    let mut command = cluster.command("three");
    changed(&cluster, "three", "/v1\"", "/v2\"");
    changed(&cluster, "three", "kind = \"slack\"", "kind = \"discord\"");
    changed(&cluster, "three", "[webhooks.pipeline]", "[webhooks.another]");
    let _three = cluster.started("three", command.arg("run"));
    let differs = until_within(HANDED_OVER, "all of them are there", || {
        let status = cluster.json("one", &["status", "--json"]);
        let members = status["members"].as_array()?.clone();
        let three = members.iter().find(|member| member["name"] == "three")?;
        (three["scopes"].as_array()?.iter().any(|scope| scope == "webhook:another"))
            .then(|| three["differs"].clone())
    });
    let differs: Vec<&str> = differs.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(
        differs,
        [
            "account:openai is defined otherwise than by the others",
            "webhook:ops is defined otherwise than by the others",
            "webhook:pipeline is not in its configuration",
        ]
    );
    let owned = cluster.scopes_of("one", "three");
    assert!(owned.iter().all(|scope| scope == "webhook:another" || scope == "keeper"), "{owned:?}");
    let shown = cluster.ok("one", &["status"]);
    assert!(
        shown.contains("is defined otherwise") && shown.contains("is not in its configuration"),
        "{shown}"
    );
}
