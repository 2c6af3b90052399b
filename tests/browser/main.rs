//! The dashboard in a real browser: both themes, a telephone and a desk, the keyboard alone, no script, and nothing that
//! its own policy would forbid.
//!
//! Without Chromium and its driver these tests say so and pass. With `BATCHD_PICTURES=DIR` they leave pictures there.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod driver;

use driver::Browser;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TOKEN: &str = "browser-token-5e6f";
const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \u{202e}evil \u{1b}[31m 👩\u{200d}🚀";

/// Simulated providers and a daemon that watches some of their batches.
struct World {
    directory: tempfile::TempDir,
    children: Vec<Child>,
    address: SocketAddr,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl World {
    fn new(keys: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sandbox, address) = (free_address(), free_address());
        let text = format!(
            "[state]\ndir = \"{dir}/state\"\n[api]\nsocket = \"{dir}/batchd.sock\"\nlisten = \"{address}\"\n{keys}\n\
             [polling]\nmin_interval = \"500ms\"\nmax_interval = \"2s\"\n\
             [providers.openai]\napi_key = \"any\"\nbase_url = \"http://{sandbox}/v1\"\n\
             [providers.anthropic]\napi_key = \"any\"\nbase_url = \"http://{sandbox}\"\n\
             [webhooks.ops]\nkind = \"slack\"\nurl = \"http://{sandbox}/nobody/home\"\nretry = [\"1s\"]\n\
             [webhooks.pipeline]\nurl = \"http://{sandbox}/nobody\"\nretry = [\"1h\"]\n",
            dir = directory.path().display()
        );
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        let mut world = Self { directory, children: Vec::new(), address };
        let sandbox = sandbox.to_string();
        world.start(&["sandbox", "--listen", &sandbox, "--speed", "2000"]);
        until("the sandbox answers", || TcpStream::connect(&sandbox).ok());
        world.start(&["run"]);
        until("the daemon answers", || TcpStream::connect(address).ok());
        world
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchd"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("BATCHD_CONFIG", self.directory.path().join("config.toml"))
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, arguments: &[&str]) {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || said.lines().for_each(drop));
        self.children.push(child);
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Batches that run, that ended well, badly and not at all, and one whose name means harm.
    fn populate(&self) {
        for (name, model, requests) in [
            ("nightly-evals", "gpt-5-mini-partial", 120),
            ("summaries", "gpt-5-mini", 900),
            ("labels-week-48", "gpt-5-nano", 64),
            ("translation-de", "gpt-5", 24),
            ("moderation", "sandbox-failed", 40),
            ("embeddings", "gpt-5-nano", 512),
            ("doc-questions", "sandbox-expired", 80),
        ] {
            let file = self.directory.path().join(format!("{name}.jsonl"));
            let lines: Vec<String> = (0..requests)
                .map(|number| {
                    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
                    let line = json!({"custom_id": format!("r{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body});
                    line.to_string()
                })
                .collect();
            std::fs::write(&file, lines.join("\n")).unwrap();
            self.ok(&[
                "submit",
                file.to_str().unwrap(),
                "--provider",
                "openai",
                "--name",
                name,
                "--label",
                "team=evals",
            ]);
        }
        self.ok(&["track", "--no-check", "--provider", "openai", "batch_hostile", "--name", HOSTILE]);
        self.ok(&[
            "track",
            "--no-check",
            "--provider",
            "openai",
            "batch_long",
            "--name",
            &"long-name-without-a-space".repeat(20),
        ]);
        self.ok(&["track", "--no-check", "--provider", "anthropic", "msgbatch_quiet"]);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn some_batch(&self) -> String {
        let listed: Value = serde_json::from_str(&self.ok(&["list", "--all", "--json"])).unwrap();
        let batches = listed["data"].as_array().unwrap();
        let named = batches.iter().find(|batch| batch["batchd"]["name"] == "nightly-evals").unwrap();
        format!("/b/openai:{}", named["id"].as_str().unwrap())
    }
}

fn browser() -> Option<Browser> {
    let browser = Browser::open();
    if browser.is_none() {
        eprintln!(
            "SKIPPED: chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)"
        );
    }
    browser
}

fn sign_in(browser: &Browser, world: &World) {
    browser.go(&world.url("/"));
    browser.run(&format!(
        "document.querySelector('#token').value = '{TOKEN}'; document.querySelector('form').submit();"
    ));
    until("the first page is there", || {
        browser.run("return !!document.querySelector('#batches')").as_bool().filter(|there| *there)
    });
}

fn keep_picture(browser: &Browser, name: &str) {
    if let Some(directory) = std::env::var_os("BATCHD_PICTURES") {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(PathBuf::from(directory).join(format!("{name}.png")), browser.picture()).unwrap();
    }
}

const SIGNED: &str = "token = \"browser-token-5e6f\"";

#[test]
fn both_themes_and_every_width_hold_all_of_it_and_break_no_rule() {
    let Some(browser) = browser() else { return };
    let world = World::new(SIGNED);
    world.populate();
    browser.size(1440, 900);
    browser.go(&world.url("/"));
    keep_picture(&browser, "sign-in");
    sign_in(&browser, &world);
    let batch = world.some_batch();
    let axe = axe();
    for theme in ["light", "dark"] {
        browser.theme(theme);
        for width in [360, 768, 1440] {
            browser.size(width, 900);
            for (name, path) in [
                ("batches", "/"),
                ("batch", batch.as_str()),
                ("hostile", "/b/openai:batch_hostile"),
                ("deliveries", "/deliveries"),
                ("providers", "/providers"),
                ("webhooks", "/webhooks"),
                ("durations", "/durations"),
                ("missing", "/b/openai:nothing"),
            ] {
                browser.go(&world.url(path));
                let shown = format!("{name} at {width} in {theme}");
                let wide = browser.run("return document.documentElement.scrollWidth");
                assert!(wide.as_u64().unwrap() <= u64::from(width), "{shown}: {wide} wide");
                assert_ne!(browser.run("return document.title"), "owned", "{shown}");
                assert_eq!(browser.run("return document.querySelectorAll('img').length"), 0, "{shown}");
                keep_picture(&browser, &format!("{name}-{theme}-{width}"));
                if let Some(axe) = axe
                    .as_ref()
                    .filter(|_| (theme, width) == ("light", 360) || (theme, width) == ("dark", 1440))
                {
                    let found = violations(&browser, axe);
                    assert!(found.is_empty(), "{shown}:\n{}", found.join("\n"));
                }
            }
        }
    }
    let complaints: Vec<String> = browser.complaints();
    // The page that is missing is a 404, as it should be, and so the browser says.
    let own: Vec<&String> =
        complaints.iter().filter(|one| !one.contains("404") && !one.contains("401")).collect();
    assert!(own.is_empty(), "{own:?}");
}

/// A browser opens six connections to one host: pages that were left must not keep them.
#[test]
fn pages_that_were_left_hold_up_no_other() {
    let Some(browser) = browser() else { return };
    let world = World::new(SIGNED);
    sign_in(&browser, &world);
    #[expect(clippy::disallowed_methods, reason = "a real browser lives in real time")]
    let begun = Instant::now();
    for path in ["/", "/deliveries", "/providers", "/webhooks", "/durations"].repeat(4) {
        browser.go(&world.url(path));
        until("the stream is open", || {
            let state = browser.run("return document.querySelector('#live-state').textContent");
            (state == "live").then_some(())
        });
    }
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
}

/// What axe-core finds wrong with the page.
fn violations(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe);
    let tags = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']";
    let found = browser.run_until_done(&format!(
        "axe.run(document, {{runOnly: {tags}}}).then(r => done(r.violations.map(v => v.id + ': ' + v.help + ' ' + \
         v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + ' ' + (n.any[0] ? n.any[0].message : '')).join(' | '))), e => done(['axe: ' + e]))"
    ));
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn axe() -> Option<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let text = std::fs::read_to_string(target.join("axe/package/axe.min.js")).ok();
    if text.is_none() {
        eprintln!(
            "SKIPPED: axe-core is not in target/axe (`.ci/run` puts it there); the pages are not judged by it"
        );
    }
    text
}

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

#[test]
fn the_keyboard_alone_is_enough() {
    let Some(browser) = browser() else { return };
    let world = World::new(SIGNED);
    world.populate();
    browser.size(1440, 900);
    browser.go(&world.url("/"));
    // The form has the focus by itself.
    browser.press(TOKEN);
    browser.press(ENTER);
    let at = |what: &str, script: &str| {
        until(what, || browser.run(script).as_bool().filter(|there| *there));
    };
    at("signed in", "return !!document.querySelector('#batches')");
    // The first stop leads past the navigation.
    browser.press(TAB);
    let first = browser.run(
        "return document.activeElement.className + ' ' + document.activeElement.getBoundingClientRect().top",
    );
    assert!(
        first.as_str().unwrap().starts_with("skip ") && !first.as_str().unwrap().contains('-'),
        "{first}"
    );
    browser.press(ENTER);
    at("the content has the focus", "return location.hash === '#main'");
    // What has the focus can be seen to have it.
    browser.press(TAB);
    let outline = browser.run(
        "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth",
    );
    assert_eq!(outline, "solid 3px");
    // `/` leads to the search.
    browser.press("/");
    at("the search has the focus", "return document.activeElement.id === 'search'");
    browser.press("nightly");
    browser.press(ENTER);
    at(
        "the list is narrowed",
        "return location.search.includes('search=nightly') && document.querySelectorAll('#batches tbody tr').length === 1",
    );
    // Through the page by Tab alone to the batch, and into it.
    let reached = (0..60).any(|_| {
        browser.press(TAB);
        browser.run("return !!document.activeElement.closest('#batches tbody th a')") == true
    });
    assert!(reached);
    browser.press(ENTER);
    at(
        "the batch's page is there",
        "return location.pathname.startsWith('/b/') && !!document.querySelector('.timeline svg')",
    );
    let reached = (0..30).any(|_| {
        browser.press(TAB);
        browser.run("return document.activeElement.textContent.includes('Untrack')") == true
    });
    assert!(reached);
    browser.press(ENTER);
    at(
        "it is done and said",
        "return [...document.querySelectorAll('.flash')].some(f => f.textContent.includes('not watched any more'))",
    );
}

#[test]
fn without_a_script_everything_works() {
    let Some(browser) = browser() else { return };
    let world = World::new("");
    world.populate();
    browser.scripts(false);
    browser.size(1440, 900);
    let batch = world.some_batch();
    for path in ["/", batch.as_str(), "/deliveries", "/providers", "/webhooks", "/durations"] {
        browser.go(&world.url(path));
        // The page itself is asked over its own protocol: scripts are off.
        let document = browser.command("DOM.getDocument", &json!({"depth": 1}));
        let root = &document["root"]["nodeId"];
        let html = browser.command("DOM.getOuterHTML", &json!({"nodeId": root}))["outerHTML"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(html.contains("<h1") && html.contains("id=\"main\""), "{path}");
        assert!(
            html.contains("id=\"live-pause\" type=\"button\" hidden"),
            "{path}: nothing is offered that needs a script"
        );
    }
    assert!(browser.complaints().is_empty());
}

#[test]
fn what_happens_shows_without_loading_the_page_again() {
    let Some(browser) = browser() else { return };
    let world = World::new(SIGNED);
    browser.size(1440, 900);
    sign_in(&browser, &world);
    let is = |what: &str, script: &str| {
        until(what, || browser.run(script).as_bool().filter(|there| *there));
    };
    is("the stream is open", "return document.querySelector('#live-state').textContent === 'live'");
    browser.run("window.same = true");
    world.populate();
    is(
        "the batches show",
        "return window.same && document.querySelector('#batches').textContent.includes('nightly-evals')",
    );
    is(
        "an end shows",
        "return window.same && document.querySelector('#events').textContent.includes('batch.')",
    );
    browser.run("document.querySelector('#live-pause').click()");
    is("it is paused", "return document.querySelector('#live-state').textContent === 'paused'");
    browser.run("document.querySelector('#live-pause').click()");
    is("it goes on", "return document.querySelector('#live-state').textContent === 'live'");
    let complaints: Vec<String> =
        browser.complaints().into_iter().filter(|one| !one.contains("401")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
