//! The dashboard as a browser without a script gets it: every page, who may see and do what, and that no text from
//! outside becomes markup.

use crate::world::{TOKEN, World, until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

const READ_TOKEN: &str = "read-token-1c2d3e";

/// Someone at one of the ways in, with the cookie that they were given.
struct Reader<'a> {
    world: &'a World,
    tcp: Option<SocketAddr>,
    host: String,
    cookie: Option<String>,
}

struct Page {
    status: u16,
    head: String,
    body: String,
}

impl Page {
    fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }

    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.lines().filter_map(move |line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The word that this page's forms carry.
    fn form_word(&self) -> String {
        let rest = self
            .body
            .split("name=\"form_word\" value=\"")
            .nth(1)
            .unwrap_or_else(|| panic!("no form: {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl<'a> Reader<'a> {
    fn at_socket(world: &'a World) -> Self {
        Self { world, tcp: None, host: "localhost".to_owned(), cookie: None }
    }

    fn at(world: &'a World, tcp: SocketAddr) -> Self {
        Self { world, tcp: Some(tcp), host: tcp.to_string(), cookie: None }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.host);
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(cookie) = &self.cookie {
            request.extend(["cookie: other=1; ", cookie, "\r\n"]);
        }
        if method == "POST" {
            let length = body.len().to_string();
            request.extend([
                "content-type: application/x-www-form-urlencoded\r\ncontent-length: ",
                &length,
                "\r\n",
            ]);
        }
        request += "\r\n";
        request += body;
        let mut answer = Vec::new();
        match self.tcp {
            Some(address) => exchange(TcpStream::connect(address).unwrap(), &request, &mut answer),
            None => exchange(UnixStream::connect(self.world.socket()).unwrap(), &request, &mut answer),
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Page {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.replace("\r\n", "\n"),
            body: body.to_owned(),
        }
    }

    /// Asks for a page and keeps the cookie that comes with it.
    fn get(&mut self, path: &str) -> Page {
        let page = self.send("GET", path, &[], "");
        self.keep(&page);
        page
    }

    fn keep(&mut self, page: &Page) {
        if let Some(cookie) = page.header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
    }

    fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Page {
        self.send("POST", path, &[], &form(pairs))
    }

    fn sign_in(&mut self, token: &str) -> Page {
        let page = self.post("/login", &[("token", token), ("to", "/providers")]);
        self.keep(&page);
        page
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, answer: &mut Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_end(answer).unwrap();
}

fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect::<String>()
    };
    pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Adds keys to the table `[api]` of the configuration.
fn with_api(world: &World, keys: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("[api]\n", &format!("[api]\n{keys}\n"))).unwrap();
}

fn listening(world: &World, keys: &str) -> SocketAddr {
    let address = free_address();
    with_api(world, &format!("listen = \"{address}\"\n{keys}"));
    address
}

const WITH_TOKENS: &str = "token = { env = \"TEST_TOKEN\" }\nread_token = \"read-token-1c2d3e\"";

const HOSTILE: &str = "👩\u{200d}🚀 <script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover=\"x ' \u{202e}evil \u{1b}[31mred";

/// A world with one batch that runs, one that ended with failures, and one whose texts mean harm.
fn populated() -> World {
    let world = World::new();
    world.provider.put(
        "batch_run",
        "in_progress",
        &json!({"request_counts": {"total": 100, "completed": 40, "failed": 2}}),
    );
    world.provider.put(
        "batch_end",
        "completed",
        &json!({
            "model": "gpt-5-mini", "request_counts": {"total": 10, "completed": 8, "failed": 2},
            "output_file_id": "file-out", "error_file_id": "file-err", "completed_at": 1_795_000_100,
        }),
    );
    world.provider.put(
        "batch_bad",
        "failed",
        &json!({
            "model": format!("{HOSTILE}{}", "m".repeat(10_000)), "failed_at": 1_795_000_100,
            "errors": {"object": "list", "data": [{"code": "x", "message": HOSTILE, "line": 1, "param": null}]},
        }),
    );
    world
}

fn track(world: &World) {
    world.ok(&["track", "batch_run", "--name", "nightly", "--label", "team=evals"]);
    world.ok(&["track", "batch_end"]);
    world.ok(&["track", "batch_bad", "--name", HOSTILE, "--label", &format!("x={HOSTILE}")]);
    until("both ends were told", || (world.receiver.received("/hooks").len() >= 2).then_some(()));
}

const PAGES: [&str; 9] = [
    "/",
    "/b/openai:batch_run",
    "/b/openai:batch_end",
    "/b/openai:batch_bad",
    "/deliveries",
    "/deliveries?state=delivered",
    "/providers",
    "/webhooks",
    "/durations",
];

#[test]
fn every_page_is_whole_without_a_script_and_no_text_of_a_batch_is_markup() {
    let world = populated();
    let _daemon = world.daemon();
    track(&world);
    let mut reader = Reader::at_socket(&world);
    for path in PAGES {
        let page = reader.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert!(page.header("referrer-policy").is_some() && page.header("cache-control") == Some("no-store"));
        let body = &page.body;
        assert!(body.starts_with("<!DOCTYPE html>") && body.contains("<html lang=\"en\">"), "{path}: {body}");
        assert!(
            body.contains("<title>") && body.contains("<h1") && body.contains("href=\"#main\""),
            "{path}"
        );
        assert_eq!(body.matches("<script").count(), 1, "{path}: the one script of our own");
        assert!(!body.contains("<img") && !body.contains("style=\""), "{path}: {body}");
        assert!(!body.contains("\" onmouseover=\"") && !body.contains("<script>"), "{path}");
        assert!(!body.contains('\u{202e}') && !body.contains('\u{1b}'), "{path}: {body}");
        assert_eq!(
            body.matches("<table").count(),
            body.matches("<caption>").count(),
            "{path}: every table says what it is"
        );
        assert!(!body.contains("src=\"http") && !body.contains("url(http"), "{path}");
        assert!(body.len() < 200_000, "{path}: {}", body.len());
        // What pages are dressed with is there, and its name changes with it.
        for asset in body.split("/static/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let asset = reader.get(&format!("/static/{asset}"));
            assert!(asset.status == 200 && asset.header("cache-control").unwrap().contains("immutable"));
        }
    }
    let page = reader.get("/");
    for shown in [
        "nightly",
        "team=evals",
        "40 ok",
        "2 ✗",
        "42 %",
        "completed, with errors",
        "gpt-5-mini",
        "&lt;script&gt;alert(1)",
        "\\u{202e}evil",
        "👩\u{200d}🚀",
    ] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    let page = reader.get("/b/openai:batch_end");
    for shown in [
        "8 ok · 2 failed · 10 in all",
        "Fetch the first failed requests",
        "Download the results",
        "batchd show openai:batch_end",
        "delivered",
        "<svg",
    ] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    assert!(reader.get("/b/batch_end").status == 200, "an id alone is enough");
    assert_eq!(reader.get("/b/openai:nothing").status, 404);
    assert_eq!(reader.send("HEAD", "/", &[], "").status, 200);
    assert_eq!(reader.post("/", &[]).status, 405);
    assert_eq!(reader.send("GET", "/actions/poll", &[], "").status, 405);
    assert_eq!(reader.get("/no/such/page").status, 404);
    assert_eq!(reader.get("/static/style.css").status, 404);
    for wrong in [
        "/?status=nonsense",
        "/?page=x",
        "/?sort=x",
        "/?label=x",
        "/?since=x",
        "/deliveries?state=x",
        "/deliveries?code=x",
    ] {
        assert_eq!(reader.get(wrong).status, 400, "{wrong}");
    }
}

#[test]
fn a_delivery_has_a_page_of_its_own_and_the_last_backup_is_told() {
    let world = populated();
    let _daemon = world.daemon();
    track(&world);
    let mut reader = Reader::at_socket(&world);
    // With what the receiver answered.
    let list = reader.get("/deliveries?state=delivered");
    let link = list.body.split("href=\"/deliveries/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let page = reader.get(&format!("/deliveries/{link}"));
    for shown in ["<h1>Delivery ", "Attempts", "<td data-label=\"Code\">200</td>", "data-label=\"Answer\""] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    for unknown in ["0", "999999", "x", "9223372036854775807"] {
        assert_eq!(reader.get(&format!("/deliveries/{unknown}")).status, 404, "{unknown}");
    }
    assert!(reader.get("/").body.contains("none yet"), "no backup was made");
    world.ok(&["backup", world.directory.path().join("copy.db").to_str().unwrap()]);
    let noted = || world.json(&["status", "--json"])["last_backup_at"].is_string().then_some(());
    until("the backup is noted", noted);
    assert!(!reader.get("/").body.contains("none yet"));
    let status = world.ok(&["status"]);
    assert!(status.contains("backup     the last 20") && !status.contains("job backup"), "{status}");
}

#[test]
fn who_goes_on_guessing_the_token_waits_and_the_right_one_does_not() {
    let world = populated();
    let address = listening(&world, WITH_TOKENS);
    let _daemon = world.daemon();
    let mut reader = Reader::at(&world, address);
    for _ in 0..3 {
        assert_eq!(reader.sign_in("wrong").status, 401);
    }
    let begun = crate::world::now();
    assert_eq!(reader.sign_in("guess").status, 401);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(reader.sign_in("guess").status, 401);
    // The next wrong one would wait for two seconds.
    let begun = crate::world::now();
    assert_eq!(reader.sign_in(TOKEN).status, 303);
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn lists_are_filtered_searched_sorted_and_paged() {
    let world = populated();
    let _daemon = world.daemon();
    track(&world);
    let mut reader = Reader::at_socket(&world);
    let mut shows = |path: &str| {
        let page = reader.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        ["batch_run", "batch_end", "batch_bad"].map(|id| {
            page.body.contains(&format!("/b/openai:{id}\"")) && {
                let list = page
                    .body
                    .split("<section id=\"batches\"")
                    .nth(1)
                    .unwrap()
                    .split("</section>")
                    .next()
                    .unwrap();
                list.contains(&format!("/b/openai:{id}\""))
            }
        })
    };
    for (path, expected) in [
        ("/", [true, true, true]),
        ("/?status=active", [true, false, false]),
        ("/?status=ended", [false, true, true]),
        ("/?status=failed", [false, false, true]),
        ("/?search=NIGHT", [true, false, false]),
        ("/?model=gpt-5", [false, true, false]),
        ("/?label=team%3Devals", [true, false, false]),
        ("/?provider=openai&since=104w&sort=name", [true, true, true]),
        ("/?owner=nobody-here", [false, false, false]),
        ("/?search=%3Cscript%3E", [false, false, true]),
    ] {
        assert_eq!(shows(path), expected, "{path}");
    }
    let many: Vec<String> = (0..2000).map(|number| format!("batch_many{number:04}")).collect();
    for ids in many.chunks(500) {
        let mut arguments = vec!["track", "--no-check", "--provider", "openai"];
        arguments.extend(ids.iter().map(String::as_str));
        world.ok(&arguments);
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut path = "/?sort=name&search=many".to_owned();
    let mut pages = 0;
    loop {
        let page = reader.get(&path);
        assert!(page.status == 200 && page.body.len() < 200_000, "{} bytes", page.body.len());
        for id in page.body.split("/b/openai:batch_many").skip(1) {
            seen.insert(id[..4].to_owned());
        }
        pages += 1;
        let Some(next) = page.body.split("rel=\"next\" href=\"").nth(1) else { break };
        path = next.split('"').next().unwrap().replace("&amp;", "&");
    }
    assert_eq!((pages, seen.len()), (20, 2000));
}

#[test]
fn with_a_token_there_is_only_a_form_until_it_is_given() {
    let world = populated();
    let address = listening(&world, WITH_TOKENS);
    let _daemon = world.daemon();
    track(&world);
    let mut reader = Reader::at(&world, address);
    for path in PAGES.into_iter().chain(["/live", "/b/openai:nothing"]) {
        let page = reader.get(path);
        assert_eq!(page.status, 401, "{path}");
        assert!(
            page.body.contains("<form") && page.body.contains("type=\"password\""),
            "{path}: {}",
            page.body
        );
        assert!(!page.body.contains("batch_") || path.starts_with("/b/"), "{path}: {}", page.body);
        assert!(!page.body.contains("nightly") && page.header("set-cookie").is_none(), "{path}");
    }
    let wrong = reader.sign_in("wrong");
    assert!(wrong.status == 401 && reader.cookie.is_none() && wrong.body.contains("not the token"));
    assert!(!wrong.body.contains("wrong\""), "what was typed is not repeated: {}", wrong.body);

    let right = reader.sign_in(TOKEN);
    assert_eq!((right.status, right.header("location")), (303, Some("/providers")));
    let cookie = right.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(TOKEN), "{cookie}");
    for path in PAGES {
        assert_eq!(reader.get(path).status, 200, "{path}");
    }
    // The cookie is for the dashboard alone: the API asks for its own proof.
    assert_eq!(reader.get("/v1/batches").status, 401);

    // Another host, another origin.
    let page = reader.get("/b/openai:batch_run");
    let proof = page.form_word();
    let poll = form(&[("form_word", &proof), ("batch", "openai:batch_run"), ("back", "/b/openai:batch_run")]);
    let foreign = reader.send("POST", "/actions/poll", &[("origin", "https://evil.example")], &poll);
    assert_eq!(foreign.status, 403);
    let sandboxed = reader.send("POST", "/actions/poll", &[("origin", "null")], &poll);
    assert_eq!(sandboxed.status, 403);
    let own = reader.send("POST", "/actions/poll", &[("origin", &format!("http://{address}"))], &poll);
    assert_eq!((own.status, own.header("location")), (303, Some("/b/openai:batch_run")));
    let told = reader.get("/b/openai:batch_run");
    assert!(told.body.contains("Checked: it is in_progress."), "{}", told.body);
    assert!(!reader.get("/b/openai:batch_run").body.contains("Checked:"), "it is told once");

    // Missing, wrong, another session's.
    let mut other = Reader::at(&world, address);
    other.sign_in(TOKEN);
    let others_word = other.get("/b/openai:batch_run").form_word();
    for proof in ["", "x", &others_word] {
        let refused = reader.post("/actions/untrack", &[("form_word", proof), ("batch", "openai:batch_run")]);
        assert_eq!(refused.status, 403, "{proof}: {}", refused.body);
    }
    assert!(world.json(&["get", "batch_run", "--json"])["batchd"]["untracked_at"].is_null());

    // Whoever only reads sees no action, and none is taken from them.
    let mut guest = Reader::at(&world, address);
    assert_eq!(guest.sign_in(READ_TOKEN).status, 303);
    for path in PAGES {
        let page = guest.get(path);
        assert!(page.status == 200 && !page.body.contains("/actions/"), "{path}: {}", page.body);
    }
    let proof = guest.get("/").form_word();
    for action in [
        "poll",
        "cancel",
        "untrack",
        "failures",
        "results",
        "resend",
        "resend-dead",
        "check",
        "test",
        "enable",
        "disable",
    ] {
        let pairs =
            [("form_word", proof.as_str()), ("batch", "openai:batch_run"), ("webhook", "ops"), ("id", "1")];
        assert_eq!(guest.post(&format!("/actions/{action}"), &pairs).status, 403, "{action}");
    }
    let streamed = Reader { cookie: None, ..Reader::at(&world, address) }.send(
        "GET",
        "/",
        &[("authorization", &format!("Bearer {READ_TOKEN}"))],
        "",
    );
    assert!(
        streamed.status == 200 && !streamed.body.contains("/actions/"),
        "a program may read with its token"
    );

    // Signing out closes the session, whoever still has the cookie.
    let out = reader.post("/logout", &[("form_word", &reader.get_word())]);
    assert!(out.status == 303 && out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(reader.get("/").status, 401);
    assert_eq!(other.get("/").status, 200);

    // A token that is not in force any more opens nothing.
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("token = { env = \"TEST_TOKEN\" }", "token = \"another\""))
        .unwrap();
    world.ok(&["reload"]);
    assert_eq!(other.get("/").status, 401);
    assert_eq!(guest.get("/").status, 200);
}

impl Reader<'_> {
    fn get_word(&self) -> String {
        self.send("GET", "/", &[], "").form_word()
    }
}

#[test]
fn tcp_without_a_token_reads_and_the_socket_does_everything() {
    let world = populated();
    let address = listening(&world, "");
    let _daemon = world.daemon();
    track(&world);
    let mut guest = Reader::at(&world, address);
    for path in PAGES {
        let page = guest.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("method=\"post\"") && page.header("set-cookie").is_none(), "{path}");
    }
    let mut person = Reader::at_socket(&world);
    let page = person.get("/webhooks");
    assert!(page.body.contains("/actions/test"), "{}", page.body);
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let proof = page.form_word();
    // What the socket has given out is worth nothing on TCP.
    guest.cookie.clone_from(&person.cookie);
    assert_eq!(guest.post("/actions/disable", &[("form_word", &proof), ("webhook", "ops")]).status, 403);

    // A page elsewhere whose browser reaches the socket through something that forwards to it.
    let stranger = Reader { host: "evil.example".to_owned(), ..Reader::at_socket(&world) };
    assert_eq!(stranger.send("GET", "/", &[], "").status, 421);
    for host in ["localhost:8080", "127.0.0.1:9999", "[::1]:1", "batchd"] {
        let near = Reader { host: host.to_owned(), ..Reader::at_socket(&world) };
        assert_eq!(near.send("GET", "/", &[], "").status, 200, "{host}");
    }
    let disable = form(&[("form_word", &proof), ("webhook", "ops"), ("back", "/webhooks")]);
    let foreign = person.send("POST", "/actions/disable", &[("origin", "http://evil.example")], &disable);
    assert_eq!(foreign.status, 403);
    assert_eq!(person.post("/actions/disable", &[("webhook", "ops")]).status, 403, "no proof");

    let act = |person: &mut Reader<'_>, action: &str, pairs: &[(&str, &str)]| {
        let mut all = vec![("form_word", proof.as_str()), ("back", "/webhooks")];
        all.extend_from_slice(pairs);
        let done = person.post(&format!("/actions/{action}"), &all);
        assert_eq!(
            (done.status, done.header("location")),
            (303, Some("/webhooks")),
            "{action}: {}",
            done.body
        );
        person.get("/webhooks").body
    };
    assert!(act(&mut person, "disable", &[("webhook", "ops")]).contains("ops is off"));
    assert_eq!(
        world.json(&["webhooks", "--json"])["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["health"] == "disabled")
            .count(),
        1
    );
    assert!(act(&mut person, "enable", &[("webhook", "ops")]).contains("ops is on"));
    assert!(
        act(&mut person, "test", &[("webhook", "pipeline")]).contains("pipeline took the test message (200")
    );
    assert!(act(&mut person, "check", &[("provider", "openai")]).contains("openai answers"));
    let before = world.receiver.received("/").len();
    assert!(act(&mut person, "resend", &[("id", "1")]).contains("It is sent again."));
    world.receiver.wait_for("/", before + 1);
    assert!(act(&mut person, "resend", &[]).contains("no delivery was chosen"));
    assert!(act(&mut person, "resend-dead", &[]).contains("0 given-up deliveries"));
    assert!(act(&mut person, "cancel", &[("batch", "openai:batch_end")]).contains("has ended"));
    assert!(act(&mut person, "failures", &[]).contains("the form lacks `batch`"));
    assert!(act(&mut person, "untrack", &[("batch", "openai:batch_run")]).contains("not watched any more"));
    assert!(!world.json(&["get", "batch_run", "--json"])["batchd"]["untracked_at"].is_null());
    // Nobody is sent to another site afterwards.
    let away = person.post("/actions/check", &[("form_word", &proof), ("back", "//evil.example")]);
    assert_eq!(away.header("location"), Some("/"));
}

#[test]
fn the_pages_stand_behind_the_path_of_the_public_url_too() {
    let world = populated();
    let keys = format!("public_url = \"https://Ops.Example.com/batchd/\"\n{WITH_TOKENS}");
    let address = listening(&world, &keys);
    let _daemon = world.daemon();
    track(&world);
    // Messages lead there.
    let told = world.receiver.wait_for("/slack", 1);
    let said: String = told.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect();
    assert!(said.contains("https://ops.example.com/batchd/b/openai:batch_"), "{said}");

    // A proxy that leaves the path, one that takes it away.
    for prefix in ["/batchd", ""] {
        let mut reader = Reader { host: "ops.example.com".to_owned(), ..Reader::at(&world, address) };
        let form = reader.get(&format!("{prefix}/b/openai:batch_end"));
        assert!(form.status == 401 && form.body.contains("action=\"/batchd/login\""), "{}", form.body);
        assert!(form.body.contains("name=\"to\" value=\"/b/openai:batch_end\""), "{}", form.body);
        let pairs = [("token", TOKEN), ("to", "/b/openai:batch_end")];
        let body = self::form(&pairs);
        let origin = [("origin", "https://ops.example.com")];
        let signed_in = reader.send("POST", &format!("{prefix}/login"), &origin, &body);
        assert_eq!(
            signed_in.header("location"),
            Some("/batchd/b/openai:batch_end"),
            "{prefix}: {}",
            signed_in.body
        );
        let cookie = signed_in.header("set-cookie").unwrap();
        assert!(cookie.contains("; Secure") && cookie.contains("Path=/batchd;"), "{cookie}");
        reader.keep(&signed_in);
        for path in PAGES {
            let page = reader.get(&format!("{prefix}{path}"));
            assert_eq!(page.status, 200, "{prefix}{path}");
            for link in
                ["href=\"/", "action=\"/", "src=\"/"].iter().flat_map(|mark| page.body.split(mark).skip(1))
            {
                assert!(link.starts_with("batchd/"), "{prefix}{path}: {}", &link[..link.len().min(60)]);
            }
        }
        let asset = reader.get("/batchd/").body;
        let asset = asset.split("/batchd/static/").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(reader.get(&format!("{prefix}/static/{asset}")).status, 200);
    }
    let api = Reader { host: "ops.example.com".to_owned(), ..Reader::at(&world, address) };
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(api.send("GET", "/batchd/v1/batches", &[("authorization", &bearer)], "").status, 200);
    assert_eq!(api.send("GET", "/batchdx/", &[("authorization", &bearer)], "").status, 404);
    // A link in a message: the cookie comes only once a page of ours asks.
    let from_chat = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    let again = api.send("GET", "/batchd/b/openai:batch_end", &from_chat, "");
    assert!(
        again.status == 200 && again.body.contains("content=\"0; url=/batchd/b/openai:batch_end\""),
        "{}",
        again.body
    );
    assert!(!again.body.contains("gpt-5-mini"));
}

#[test]
fn a_public_url_that_nothing_can_be_put_behind_is_refused_and_the_dashboard_can_be_off() {
    let world = World::new();
    for (bad, why) in [
        ("ftp://x.example", "http or https"),
        ("https://x.example/?a=1", "without `?` and `#`"),
        ("https://x.example/#a", "without `?` and `#`"),
        ("https://me@x.example/", "without a user"),
        ("https://x.example/v1", "does not begin as one of batchd's own"),
        ("x.example", "address"),
    ] {
        world.configure("");
        with_api(&world, &format!("public_url = \"{bad}\""));
        let checked = world.batchd(&["config", "check"]);
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(
            !checked.status.success() && said.contains(why) && said.contains("api.public_url"),
            "{bad}: {said}"
        );
    }
    world.configure("");
    with_api(&world, "dashboard = false\npublic_url = \"https://x.example\"");
    let _daemon = world.daemon();
    let mut reader = Reader::at_socket(&world);
    for path in ["/", "/providers", "/live"] {
        assert_eq!(reader.get(path).status, 404, "{path}");
    }
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("dashboard = false\n", "")).unwrap();
    world.ok(&["reload"]);
    assert_eq!(reader.get("/").status, 200);
}

/// The stream opens with the cookie, and goes on behind the event that was had.
#[test]
fn the_stream_tells_that_something_has_happened() {
    let world = populated();
    let address = listening(&world, WITH_TOKENS);
    let _daemon = world.daemon();
    track(&world);
    let mut reader = Reader::at(&world, address);
    reader.sign_in(TOKEN);
    let read = |last: Option<&str>| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        let cookie = reader.cookie.as_ref().unwrap();
        write!(stream, "GET /live?after=0 HTTP/1.1\r\nhost: {address}\r\ncookie: {cookie}\r\n{last}\r\n")
            .unwrap();
        let mut read = String::new();
        let mut piece = [0; 4096];
        while !read.contains("\nid: 2") && !read.contains("\nid:2") {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "{read}");
            read.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        read
    };
    let whole = read(None);
    assert!(
        whole.contains("text/event-stream") && (whole.contains("id: 1\n") || whole.contains("id:1\n")),
        "{whole}"
    );
    let resumed = read(Some("1"));
    assert!(!resumed.contains("id: 1\n") && !resumed.contains("id:1\n"), "{resumed}");
    // A part of a page is the page without what stands around it.
    let part = reader.send("GET", "/", &[("batchd-part", "main")], "");
    assert!(part.body.starts_with("<main id=\"main\">") && !part.body.contains("<html"), "{}", part.body);
}
