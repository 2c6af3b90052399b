//! The configuration as its users meet it: files with mistakes, the example, secrets that must not be seen.

use batchd::config::problem::Severity as Weight;
use batchd::config::secret::SecretSource;
use batchd::config::{
    Catalog, Config, Egress, Env, KindFacts, Polling, Proxy, Refused, client_sockets, client_view, find,
};
use batchd::domain::event::EventType;
use batchd::domain::outcome::Severity;
use batchd::domain::retry;
use batchd::domain::status::Status;
use batchd::provider::registry::KINDS;
use batchd::webhook;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A key that no output may hold; nothing in it looks like one, so that it is not hidden for its looks alone.
const SECRET: &str = "correct-horse-battery";
const SIGNING_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn kind(name: &'static str, key_env: &'static [&'static str], base_url: &'static str) -> KindFacts {
    KindFacts { name, key_env, base_url: Some(base_url), ..KindFacts::NONE }
}

fn catalog() -> Catalog {
    let gemini = "https://generativelanguage.googleapis.com/v1beta";
    Catalog {
        providers: vec![
            KindFacts {
                base_url_env: Some("OPENAI_BASE_URL"),
                options: &["organization", "project"],
                ..kind("openai", &["OPENAI_API_KEY"], "https://api.openai.com/v1")
            },
            KindFacts {
                base_url_env: Some("ANTHROPIC_BASE_URL"),
                ..kind("anthropic", &["ANTHROPIC_API_KEY"], "https://api.anthropic.com")
            },
            kind("gemini", &["GEMINI_API_KEY", "GOOGLE_API_KEY"], gemini),
            kind("mistral", &["MISTRAL_API_KEY"], "https://api.mistral.ai"),
            KindFacts { base_url: None, key_optional: true, ..kind("openai-compatible", &[], "") },
        ],
        webhooks: webhook::registry::KINDS.iter().map(|kind| kind.facts).collect(),
        hooked: BTreeSet::from(["openai", "gemini"]),
    }
}

fn env() -> Env {
    Env::from([
        ("HOME", "/home/me"),
        ("OPENAI_API_KEY", SECRET),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/a/b/c"),
    ])
}

fn parse(text: &str) -> Result<Config, Refused> {
    Config::parse(Path::new("/etc/batchd/config.toml"), text, &catalog(), &env())
}

fn sound(text: &str) -> Config {
    parse(text).unwrap_or_else(|refused| panic!("{text}\n{}", refused.rendered(false)))
}

/// The same among all the kinds of providers that there really are.
fn sound_in_earnest(text: &str) -> Config {
    let catalog = Catalog { providers: KINDS.iter().map(|kind| kind.facts).collect(), ..catalog() };
    Config::parse(Path::new("/etc/batchd/config.toml"), text, &catalog, &env())
        .unwrap_or_else(|refused| panic!("{text}\n{}", refused.rendered(false)))
}

/// The lines of what is wrong, without the file's name and without warnings.
fn errors(text: &str) -> Vec<String> {
    let lines = parse(text).expect_err(text).one_lines();
    let own = |line: String| line.strip_prefix("/etc/batchd/config.toml:").map(str::to_owned).unwrap_or(line);
    lines.into_iter().map(own).filter(|line| line.contains("error: ")).collect()
}

/// The one thing that is wrong.
fn error(text: &str) -> String {
    let mut errors = errors(text);
    assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
    errors.remove(0)
}

fn warned(text: &str, part: &str) -> bool {
    sound(text).warnings.iter().any(|warning| warning.contains(part))
}

/// The example with every key and every table in force.
fn uncommented() -> String {
    let in_force = |line: &str| {
        let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
        let key = rest.split(" = ").next().unwrap_or_default();
        let is_key = rest.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key || rest.starts_with('[') { rest.to_owned() } else { line.to_owned() }
    };
    EXAMPLE.lines().map(in_force).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_enables_openai_and_slack_and_nothing_is_wrong_with_it() {
    let config = sound_in_earnest(EXAMPLE);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["openai"]);
    assert_eq!(config.webhooks.keys().collect::<Vec<_>>(), ["slack"]);
    config.check_secrets(&env()).unwrap();
}

#[test]
fn the_example_uncommented_is_sound_and_tells_what_has_no_effect_yet() {
    let config = sound_in_earnest(&uncommented());
    let without_effect: Vec<&str> = config
        .warnings
        .iter()
        .filter(|warning| !warning.contains("has no effect"))
        .map(String::as_str)
        .collect();
    assert_eq!(without_effect, Vec::<&str>::new());
    // What is in force by now.
    for key in ["heartbeat", "discover", "webhook_secret", "digests"] {
        assert!(!config.warnings.iter().any(|warning| warning.contains(key)), "{key}: {:?}", config.warnings);
    }
    assert!(config.heartbeat.is_some() && config.providers["openai"].discover.is_some());
    assert_eq!(config.digests["morning"].schedule.as_str(), "0 9 * * Mon-Fri");
}

#[test]
fn the_defaults_that_the_example_names_are_the_defaults() {
    let example = sound_in_earnest(&uncommented());
    let with_an_address =
        KINDS.iter().filter(|kind| kind.facts.base_url.is_some() && kind.facts.required.is_empty());
    let providers: Vec<String> =
        with_an_address.map(|kind| format!("[providers.{}]", kind.facts.name)).collect();
    let providers = providers.join("\n");
    let usual = sound_in_earnest(&format!("{providers}\n[webhooks.pipeline]\nurl = \"https://example.com\""));
    assert_eq!(example.state.retain, usual.state.retain);
    assert_eq!(example.api.hosts, usual.api.hosts);
    assert!(matches!((&example.http.proxy, &usual.http.proxy), (Proxy::None, Proxy::None)));
    assert_eq!((example.http.egress, usual.http.egress), (Egress::Local, Egress::Local));
    assert_eq!(Polling { requests_per_minute: None, ..example.polling }, Polling::default());
    assert_eq!(usual.polling, Polling::default());
    assert_eq!(example.providers["openai"].polling, example.polling);
    for (name, usual) in &usual.providers {
        let example = &example.providers[name];
        assert_eq!((&example.kind, &example.base_url), (&usual.kind, &usual.base_url));
        assert_eq!(format!("{:?}", example.api_key), format!("{:?}", usual.api_key));
    }
    let (example, usual) = (&example.webhooks["pipeline"], &usual.webhooks["pipeline"]);
    assert_eq!(example.kind, usual.kind);
    assert_eq!(example.events, usual.events);
    assert_eq!(example.severity, usual.severity);
    assert_eq!(example.on_request, usual.on_request);
    assert_eq!(example.timeout, usual.timeout);
    assert_eq!((example.retry.as_deref(), &usual.retry), (Some(&retry::DELAYS[..]), &None));
    assert_eq!(example.insecure_skip_verify, usual.insecure_skip_verify);
}

#[test]
fn many_mistakes_are_told_at_once_each_at_its_place() {
    let text = r#"
[state]
retain = 90
[api]
listen = "0.0.0.0:8765"
[polling]
min_intervall = "15s"
timeout = "30 sec"
[provider.openai]
kind = "openai"
[providers.openai]
api_key = { envv = "OPENAI_API_KEY" }
base_url = "api.openai.com"
[providers.groq]
[webhooks.ops]
url = "https://example.com/hook"
events = ["batch.complete", "batch.failed"]
providers = ["opena"]
retry = []
"#;
    assert_eq!(
        errors(text),
        [
            "3:10: error: `state.retain` must be a duration, not a whole number; did you mean \"90s\"? durations are written \"15s\", \"10m\", \"24h\" or \"7d\"",
            "5:10: error: `api.listen` is reachable from other machines, and no `token` protects it; set `token` in `[api]`, or listen on 127.0.0.1",
            "7:1: error: unknown key `min_intervall` in `[polling]`; did you mean `min_interval`?",
            "8:11: error: `polling.timeout`: `30 sec` is not a duration; did you mean \"30s\"?",
            "9:2: error: unknown key `provider`; did you mean `providers`?",
            "12:13: error: unknown key `envv` in `providers.openai.api_key`; did you mean `env`?",
            "13:12: error: `providers.openai.base_url` must be an address such as https://example.com/path",
            "14:12: error: the provider `groq` has no `kind`, and no kind is called so; there is `openai`, `anthropic`, `gemini`, `mistral`, `openai-compatible`",
            "17:11: error: `webhooks.ops.events` names no event: `batch.complete`; did you mean `batch.completed`?",
            "18:14: error: `webhooks.ops.providers` names no provider of this file: `opena`; did you mean `openai`?",
            "19:9: error: `webhooks.ops.retry` is an empty list; leave the key out for the usual delays",
        ]
    );
}

#[test]
fn mistakes_are_shown_as_rustc_shows_them() {
    let text = "[polling]\nmin_intervall = \"15s\"\n\n[providers.openai]\napi_key = \"correct-horse-battery\" # correct-horse-battery\n\"bäse\" = 'correct-horse-battery' # ü\nkindd = \"ü\"\n";
    insta::assert_snapshot!(parse(text).unwrap_err().rendered(false));
    let colour = parse(text).unwrap_err().rendered(true);
    assert!(colour.contains("\u{1b}["), "{colour}");
}

#[test]
fn broken_toml_is_shown_without_what_may_be_secret() {
    let refused = parse("[providers.openai]\napi_key = correct-horse-battery\n").unwrap_err();
    insta::assert_snapshot!(refused.rendered(false));
    let refused = parse("[api]\nlisten = 127.0.0.1:8765\n").unwrap_err();
    insta::assert_snapshot!(refused.rendered(false));
}

#[test]
fn warnings_are_shown_too() {
    let config = sound("[webhooks.ops]\nurl = \"https://example.com/hook\"\n");
    insta::assert_snapshot!(config.rendered_warnings(false));
}

#[test]
fn one_mistake_is_told_once() {
    // What was not understood is not missing as well.
    assert!(error("[providers.x]\nkind = 5").contains("must be text"));
    assert!(error("[webhooks.x]\nurl = 5").contains("must be the source of a secret"));
    assert!(error("[api]\nlisten = \"0.0.0.0:1\"\ntoken = 5").contains("api.token"));
    assert!(error("[providers.x]\nkind = \"openai-compatible\"\nbase_url = 5").contains("base_url"));
    let digest = "[webhooks.ops]\nurl = \"https://a.b\"\n[digests.x]\nwebhooks = [\"ops\"]\n";
    assert!(error(&format!("{digest}cron = \"nonsense\"")).contains("five fields"));
    assert!(error("[polling]\nmin_interval = \"1 parsec\"\nmax_interval = \"1s\"").contains("min_interval"));
    // A provider with a wrong kind is still a provider that filters may name.
    assert!(
        error("[providers.x]\nkind = \"opnai\"\n[webhooks.y]\nurl = \"https://a.b\"\nproviders = [\"x\"]")
            .contains("did you mean `openai`?")
    );
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let keys: Vec<String> = (0..5000).map(|number| format!("key{number} = 1\n")).collect();
    let text = keys.concat();
    let lines = parse(&text).unwrap_err().one_lines();
    assert_eq!(lines.len(), 201);
    assert!(lines[200].ends_with("there are 4800 more errors"), "{}", lines[200]);
}

#[test]
fn providers() {
    let text = "
[providers.openai]
organization = \"org\"
[providers.openai-eu]
kind = \"openai\"
api_key = { file = \"keys/eu\" }
base_url = \"https://eu.api.openai.com/v1/\"
max_interval = \"1h\"
[providers.gemini]
[providers.own]
kind = \"openai-compatible\"
base_url = \"http://10.1.2.3:8000/v1\"
";
    let variables =
        [("HOME", "/home/me"), ("GOOGLE_API_KEY", "x"), ("OPENAI_BASE_URL", "http://localhost:9/v1/")];
    let config =
        Config::parse(Path::new("/etc/batchd/c.toml"), text, &catalog(), &Env::from(variables)).unwrap();
    let of = |name: &str| {
        let provider = &config.providers[name];
        (
            provider.kind.as_str(),
            provider.base_url.as_str(),
            provider.api_key.as_ref().map(SecretSource::describe),
        )
    };
    let variable = |name: &str| Some(format!("the environment variable {name}"));
    assert_eq!(of("openai"), ("openai", "http://localhost:9/v1", variable("OPENAI_API_KEY")));
    assert_eq!(
        of("openai-eu"),
        ("openai", "https://eu.api.openai.com/v1", Some("the file /etc/batchd/keys/eu".to_owned()))
    );
    assert_eq!(
        of("gemini"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta", variable("GOOGLE_API_KEY"))
    );
    assert_eq!(of("own"), ("openai-compatible", "http://10.1.2.3:8000/v1", None));
    assert_eq!(config.providers["openai"].options["organization"], "org");
    let polling = config.providers["openai-eu"].polling;
    assert_eq!(polling, Polling { max_interval: Duration::from_hours(1), ..Polling::default() });
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_kind_may_need_more_than_a_key() {
    let needy = Catalog {
        providers: vec![
            KindFacts {
                base_url: None,
                base_url_env: Some("NEEDY_URL"),
                options: &["upstream"],
                required: &["upstream"],
                ..kind("needy", &["NEEDY_KEY"], "")
            },
            KindFacts {
                base_url: None,
                base_url_env: Some("PLACED_URL"),
                ..kind("placed", &["PLACED_KEY"], "")
            },
        ],
        webhooks: Vec::new(),
        ..Catalog::default()
    };
    let text = "[providers.needy]\nbase_url = \"https://a.b\"";
    let refused = Config::parse(Path::new("/c.toml"), text, &needy, &env()).unwrap_err();
    assert_eq!(
        refused.one_lines(),
        [
            "/c.toml:1:12: error: the provider `needy` needs `upstream`; write upstream = \"…\" in `[providers.needy]`"
        ]
    );
    assert!(
        Config::parse(Path::new("/c.toml"), &format!("{text}\nupstream = \"x\""), &needy, &env()).is_ok()
    );
    // Without a file such a kind is not there, and in nobody's way, until its variables say all that it needs.
    let from = |variables: &[(&str, &str)]| {
        let env = [("HOME", "/home/me"), ("NEEDY_KEY", SECRET), ("NEEDY_URL", "https://a.b")]
            .iter()
            .chain(variables)
            .copied()
            .collect();
        Config::load(None, &needy, &env).unwrap().providers.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(from(&[]), Vec::<String>::new());
    assert_eq!(from(&[("PLACED_KEY", SECRET)]), Vec::<String>::new());
    assert_eq!(from(&[("PLACED_KEY", SECRET), ("PLACED_URL", "https://c.d")]), ["placed"]);
}

#[test]
fn what_the_environment_holds_is_taken_without_what_stands_around_it() {
    let catalog = Catalog { providers: KINDS.iter().map(|kind| kind.facts).collect(), ..catalog() };
    let given = |text: &str, variables: &[(&'static str, &'static str)]| {
        let variables = [("HOME", "/home/me")].into_iter().chain(variables.iter().copied());
        Config::parse(Path::new("c.toml"), text, &catalog, &variables.collect::<Env>())
    };
    let base = |text: &str, variables: &[(&'static str, &'static str)]| {
        given(text, variables).unwrap().providers.pop_first().unwrap().1.base_url
    };
    let openai = [("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", " https://a.b/v1\r\n")];
    assert_eq!(base("[providers.openai]", &openai), "https://a.b/v1");
    assert_eq!(base("[providers.openai]\nbase_url = \"https://a.b/v1\\n\"", &openai), "https://a.b/v1");
    let broken = [("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", "https://a.b\n/v1")];
    let refused = given("[providers.openai]", &broken).unwrap_err().one_lines();
    assert_eq!(
        refused,
        [
            "c.toml:1:12: error: the address of the provider `openai` in OPENAI_BASE_URL must be an address without spaces and line breaks"
        ]
    );

    let ids = [("OPENAI_API_KEY", "k"), ("OPENAI_ORG_ID", "org-1\n"), ("OPENAI_PROJECT_ID", "proj-1")];
    let options = given("[providers.openai]", &ids).unwrap().providers["openai"].options.clone();
    assert_eq!((options["organization"].as_str(), options["project"].as_str()), ("org-1", "proj-1"));

    let region = |region: &'static str| base("[providers.bedrock]", &[("AWS_REGION", region)]);
    assert_eq!(region("eu-central-1"), "https://bedrock.eu-central-1.amazonaws.com");
    assert_eq!(region("cn-north-1"), "https://bedrock.cn-north-1.amazonaws.com.cn");

    let warnings = |other| {
        let keys = [("GEMINI_API_KEY", "one"), ("GOOGLE_API_KEY", other)];
        given("[providers.gemini]", &keys).unwrap().warnings.join("\n")
    };
    assert!(warnings("two").contains("GEMINI_API_KEY and GOOGLE_API_KEY are both set and differ"));
    assert!(!warnings("one\n").contains("differ"));
}

#[test]
fn a_key_with_something_around_it_is_a_mistake_at_its_place() {
    let text = "[providers.openai]\n[webhooks.t]\nkind = \"ntfy\"\nurl = { env = \"URL\" }\ntoken = { env = \"TOKEN\" }\ntopic = \"t\"";
    let told = |key: &'static str, token: &'static str| {
        let env = Env::from([
            ("HOME", "/home/me"),
            ("OPENAI_API_KEY", key),
            ("TOKEN", token),
            ("URL", " https://ntfy.sh/topic\n"),
        ]);
        let config = Config::parse(Path::new("c.toml"), text, &catalog(), &env).unwrap();
        config.check_secrets(&env).err().map(|refused| refused.one_lines()).unwrap_or_default()
    };
    assert!(told("\u{feff} correct-horse \n", "tk_battery\n").is_empty());
    assert_eq!(
        told("\"correct-horse\"", "Bearer tk_battery"),
        [
            "c.toml:1:12: error: `providers.openai.api_key`: the environment variable OPENAI_API_KEY holds the key in quotes; write it without them",
            "c.toml:5:9: error: `webhooks.t.token`: the environment variable TOKEN begins with `Bearer `; write the key alone",
        ]
    );
    assert!(told("OPENAI_API_KEY=correct-horse", "tk_battery")[0].contains("an assignment"));
}

#[test]
fn rules_for_providers() {
    assert!(error("[providers.openai-eu]").ends_with("add kind = \"openai\", or name the table so"));
    assert!(error("[providers.own]\nkind = \"openai-compatible\"").contains("needs a `base_url`"));
    assert!(error("[providers.x]\nkind = \"opneai\"").ends_with("did you mean `openai`?"));
    assert!(error("[providers.\"a b\"]\nkind = \"openai\"").contains("letters, digits"));
    assert!(error("[providers.\"\"]\nkind = \"openai\"").contains("letters, digits"));
    for (url, part) in [
        ("https://me:word@a.b", "without a user"),
        ("https://a.b/?x=1", "without `?`"),
        ("ftp://a.b", "http or https"),
        ("https://a.b/ c", "without spaces"),
        ("a.b/v1", "such as https://"),
    ] {
        let text = format!("[providers.openai]\nbase_url = \"{url}\"");
        assert!(error(&text).contains(part), "{url}");
    }
    let of = |url: &str| warned(&format!("[providers.openai]\nbase_url = \"{url}\""), "unencrypted");
    for private in [
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://10.0.0.1",
        "http://192.168.1.1",
        "http://172.16.0.1",
        "http://localhost",
        "http://litellm:4000",
        "http://[fd00::1]",
        "http://gpu.internal",
        "https://a.b",
    ] {
        assert!(!of(private), "{private}");
    }
    for exposed in ["http://api.openai.com", "http://8.8.8.8", "http://172.32.0.1", "http://[2001:db8::1]"] {
        assert!(of(exposed), "{exposed}");
    }
    assert!(warned("[providers.openai]\nregion = \"eu\"", "kind `openai` does not use it"));
    assert!(warned("[providers.openai]\nmin_interval = \"100ms\"", "more than once a second"));
    assert!(!warned(
        "[providers.openai]\nmin_interval = \"100ms\"\nbase_url = \"http://localhost:1\"",
        "more than once"
    ));
    assert!(warned("", "no provider is configured"));
    let bad = Env::from([("HOME", "/home/me"), ("OPENAI_BASE_URL", "nonsense")]);
    let refused = Config::parse(Path::new("c.toml"), "[providers.openai]", &catalog(), &bad).unwrap_err();
    assert!(refused.to_string().contains("OPENAI_BASE_URL"), "{refused}");
}

#[test]
fn headers_of_providers() {
    let config = sound(
        "[providers.openai]\nheaders = { \"X-Team\" = \"evals\", cf-aig-authorization = { env = \"CF\" } }",
    );
    let headers = &config.providers["openai"].headers;
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["cf-aig-authorization", "x-team"]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(config.show().contains(
        "headers = { \"cf-aig-authorization\" = { env = \"CF\" }, \"x-team\" = \"[redacted]\" }\n"
    ));
    let missing = config.check_secrets(&env()).unwrap_err().one_lines();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(
        missing[0].contains(
            "2:11: error: `providers.openai.headers.cf-aig-authorization`: the environment variable CF"
        ),
        "{missing:?}"
    );
    let odd = Env::from([("HOME", "/home/me"), ("OPENAI_API_KEY", SECRET), ("CF", "schön")]);
    assert!(config.check_secrets(&odd).unwrap_err().to_string().contains("no header may carry"));
    let of = |header: &str| error(&format!("[providers.openai]\nheaders = {{ {header} }}"));
    for (header, told) in [
        (
            "Authorization = { env = \"CF\" }",
            "`providers.openai.headers.authorization` cannot be set: this header is made of `api_key`",
        ),
        ("host = \"a.b\"", "is made of an address"),
        ("Content-Type = \"text/plain\"", "describes the body"),
        ("idempotency-key = \"x\"", "only the first were created"),
        ("\"a b\" = \"x\"", "cannot be the name of a header"),
        ("x-a = \"\"", "is empty"),
        ("x-a = 5", "must be the source of a secret"),
        ("x-a = { envv = \"A\" }", "did you mean `env`?"),
        ("x-a = \"1\", X-A = \"2\"", "twice; capitals do not count"),
    ] {
        let message = of(header);
        assert!(message.contains(told), "{header}: {message}");
    }
    assert!(error("[providers.openai]\nheaders = [\"x-a: b\"]").contains("headers are written {"));
    assert!(warned("[providers.openai]\nheaders = { x-api-key = \"correct-horse\" }", "stands in this file"));
    let shown = parse("[providers.openai]\nheaders = { x-word = \"correct-horse-battery\" }\nnonsense = 1")
        .unwrap_err()
        .rendered(false);
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn anthropic_takes_a_key_a_token_or_a_region() {
    let real = Catalog { providers: KINDS.iter().map(|kind| kind.facts).collect(), ..catalog() };
    let of = |text: &str, variables: &[(&str, &str)]| {
        let env: Env = [("HOME", "/home/me")].iter().chain(variables).copied().collect();
        let config =
            Config::parse(Path::new("c.toml"), &format!("[providers.anthropic]\n{text}"), &real, &env);
        config.map_err(|refused| refused.to_string()).map(|mut config| {
            let warnings = config.warnings.join("\n");
            let provider = config.providers.remove("anthropic").unwrap();
            let place =
                |source: Option<SecretSource>| source.map(|source| source.describe()).unwrap_or_default();
            (place(provider.api_key), place(provider.auth_token), provider.base_url, warnings)
        })
    };
    let usual = "https://api.anthropic.com".to_owned();
    let (key, token) = (("ANTHROPIC_API_KEY", "a"), ("ANTHROPIC_AUTH_TOKEN", "b"));
    let variable = |name: &str| format!("the environment variable {name}");
    let none = String::new;
    assert_eq!(of("", &[]).unwrap(), (variable(key.0), none(), usual.clone(), none()));
    assert_eq!(of("", &[token]).unwrap(), (none(), variable(token.0), usual.clone(), none()));
    let both = of("", &[key, token]).unwrap();
    assert_eq!((both.0, both.1), (variable(key.0), none()));
    assert!(both.3.contains("both set; the provider `anthropic` uses ANTHROPIC_API_KEY"), "{}", both.3);
    let given = of("auth_token = { env = \"T\" }", &[key]).unwrap();
    assert_eq!((given.0, given.1), (none(), variable("T")));
    let region = of("region = \"us-west-2\"", &[key, ("ANTHROPIC_BASE_URL", "http://localhost:1")]).unwrap();
    let address = "https://aws-external-anthropic.us-west-2.api.aws".to_owned();
    assert_eq!(region, (none(), none(), address, none()));
    let refused = of("auth_token = { env = \"T\" }\napi_key = { env = \"K\" }", &[]).unwrap_err();
    assert!(refused.contains("both `api_key` and `auth_token`"), "{refused}");
    assert!(error("[providers.openai]\nauth_token = { env = \"T\" }").contains("not for kind `openai`"));
    let env = Env::from([("HOME", "/home/me"), token]);
    let config = Config::from_environment(&real, &env).unwrap();
    assert!(config.providers["anthropic"].auth_token.is_some());
    let gemini = Env::from([("HOME", "/home/me"), ("GEMINI_API_KEY", "a"), ("GOOGLE_API_KEY", "b")]);
    let config = Config::from_environment(&real, &gemini).unwrap();
    assert!(
        config
            .warnings
            .iter()
            .any(|told| told.contains("GEMINI_API_KEY and GOOGLE_API_KEY are both set and differ"))
    );
}

#[test]
fn lists_among_further_keys() {
    let of = |subnets: &str| {
        let text = format!("[providers.bedrock]\nregion = \"eu-central-1\"\nsubnet_ids = {subnets}");
        let config = sound_in_earnest(&text);
        let shown = config.show();
        // What is shown is read again.
        assert!(shown.contains("subnet_ids = \"subnet-1,subnet-2\""), "{shown}");
        config.providers["bedrock"].options["subnet_ids"].clone()
    };
    assert_eq!(of("[\"subnet-1\", \"subnet-2\"]"), "subnet-1,subnet-2");
    assert_eq!(of("\"subnet-1,subnet-2\""), "subnet-1,subnet-2");
    assert!(error("[providers.openai]\nsubnet_ids = []").contains("is an empty list"));
    assert!(error("[providers.openai]\nsubnet_ids = [5]").contains("must be a list of texts"));
}

#[test]
fn rules_for_polling() {
    assert!(error("[polling]\nmin_interval = \"20m\"").contains("(20m) is longer than `max_interval` (15m)"));
    assert!(error("[providers.openai]\nmin_interval = \"20m\"").starts_with("2:16: "));
    assert!(error("[polling]\nconcurrency = 0").contains("between 1 and 1000, not 0"));
    assert!(error("[polling]\nrequests_per_minute = 0").contains("between 1 and"));
    assert!(error("[polling]\ntimeout = \"1h\"").contains("between 100ms and 10m, not 1h"));
    assert!(error("[polling]\nmin_interval = \"0s\"").contains("between 10ms"));
    assert!(error("[polling]\nstalled_after = \"0s\"").contains("between 1s"));
    let config = sound("[polling]\nrequests_per_minute = 60\n[providers.openai]\nconcurrency = 2");
    assert_eq!(config.providers["openai"].polling.requests_per_minute, Some(60));
    assert_eq!((config.providers["openai"].polling.concurrency, config.polling.concurrency), (2, 16));
}

#[test]
fn rules_for_the_api_and_http() {
    for sound_one in ["127.0.0.1:1", "[::1]:1", "localhost:8765"] {
        let config = sound(&format!("api.listen = \"{sound_one}\""));
        assert!(config.api.listen.unwrap().ip().is_loopback());
    }
    sound("[api]\nlisten = \"0.0.0.0:1\"\ntoken = { env = \"T\" }");
    assert!(error("api.listen = \":8765\"").ends_with("did you mean \"127.0.0.1:8765\"?"));
    assert!(error("api.listen = \"example.com\"").contains("an address with a port"));
    assert!(error("api.hosts = [\"https://a.b\"]").contains("`https://a.b` is none"));
    assert!(error("api.hosts = [\"a:80\"]").contains("without scheme, port"));
    assert_eq!(sound("api.hosts = [\"A.b\", \"[::1]\"]").api.hosts, ["a.b", "[::1]"]);
    assert!(error(&format!("api.socket = \"/{}\"", "x".repeat(107))).contains("108 bytes long"));
    sound(&format!("api.socket = \"/{}\"", "x".repeat(106)));
    assert!(error("http.proxy = \"nnoe\"").ends_with("did you mean \"none\"?"));
    assert!(error("http.proxy = \"ftp://a:1\"").contains("an HTTP or SOCKS proxy"));
    assert!(error("http.proxy = \"socks5://a:1/path\"").contains("an HTTP or SOCKS proxy"));
    assert!(error("http.egress = \"publik\"").ends_with("did you mean `public`?"));
    assert_eq!(sound("http.egress = \"public\"").http.egress, Egress::Public);
    assert!(warned("state.retain = \"5m\"", "so short"));
}

#[test]
fn paths_start_at_the_file_or_at_home() {
    let config =
        sound("[state]\ndir = \"state\"\n[http]\nca_file = \"~/ca.pem\"\n[api]\nsocket = \"/run/x.sock\"");
    assert_eq!(config.state.dir, Path::new("/etc/batchd/state"));
    assert_eq!(config.http.ca_file, Some(PathBuf::from("/home/me/ca.pem")));
    assert_eq!(config.api.socket, Some(PathBuf::from("/run/x.sock")));
    assert_eq!(sound("").state.dir, Path::new("/home/me/.local/state/batchd"));
    let homeless = Config::parse(Path::new("/c.toml"), "", &catalog(), &Env::default()).unwrap_err();
    assert!(homeless.to_string().contains("no place for the state"), "{homeless}");
}

#[test]
fn webhooks() {
    let config = sound(
        "[providers.openai]
[webhooks.ops]
kind = \"slack\"
url = { credential = \"slack\" }
[webhooks.pipeline]
url = \"https://example.com/x\"
secret = [{ env = \"NEW\" }, { env = \"OLD\" }]
events = [\"batch.in_progress\", \"provider.unauthorized\"]
severity = \"warning\"
providers = [\"openai\"]
labels = { team = \"evals\" }
on_request = true
timeout = \"60s\"
retry = [\"100ms\", \"2h\"]
insecure_skip_verify = true
",
    );
    let ops = &config.webhooks["ops"];
    let findings = EventType::ALL.into_iter().filter(|event| event.needs_a_person());
    assert_eq!(ops.events, EventType::ENDS.into_iter().chain(findings).collect());
    assert_eq!((ops.severity, ops.on_request, ops.timeout), (Severity::Info, false, Duration::from_secs(15)));
    let pipeline = &config.webhooks["pipeline"];
    assert_eq!(pipeline.kind, "generic");
    assert_eq!(
        pipeline.events,
        [EventType::Batch(Status::InProgress), EventType::ProviderUnauthorized].into()
    );
    assert_eq!(pipeline.secrets.len(), 2);
    assert_eq!(pipeline.retry, Some(vec![Duration::from_millis(100), Duration::from_hours(2)]));
    assert_eq!(pipeline.labels, [("team".to_owned(), "evals".to_owned())].into());
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("trusts any certificate"));
    let usual = sound("[webhooks.x]\nurl = \"https://a.b\"");
    assert_eq!(usual.webhooks["x"].events, EventType::ENDS.into_iter().collect());
}

#[test]
fn behind_a_proxy_names_are_looked_up_by_the_proxy() {
    let text = "[http]\nproxy = \"http://proxy.corp:3128\"\negress = \"public\"";
    let config = sound(text);
    assert!(
        config.warnings.iter().any(|warning| warning.contains("resolved by the")),
        "{:?}",
        config.warnings
    );
    let config = sound("[http]\nproxy = \"http://proxy.corp:3128\"");
    assert!(!config.warnings.iter().any(|warning| warning.contains("resolved by")), "{:?}", config.warnings);
}

#[test]
fn rules_for_webhooks() {
    let with = |line: &str| format!("[webhooks.x]\nurl = \"https://a.b/c\"\n{line}\n");
    assert!(error("[webhooks.x]").contains("needs a `url`"));
    assert!(error("[webhooks.x]\nurl = \"a.b\"").contains("must be an address"));
    assert!(error("[webhooks.\"x/y\"]\nurl = \"https://a.b\"").contains("cannot be the name of a webhook"));
    assert!(error(&with("kind = \"slak\"")).ends_with("did you mean `slack`?"));
    assert!(error(&with("kind = \"disocrd\"")).ends_with("did you mean `discord`?"));
    assert!(error(&with("severity = \"warn\"")).contains("must be info, warning or error"));
    assert!(error(&with("timeout = \"61s\"")).contains("between 1s and 1m, not 1m1s"));
    assert!(error(&with("timeout = \"500ms\"")).contains("between 1s and 1m"));
    assert!(error(&with("retry = [\"0s\"]")).contains("between 1ms"));
    assert!(error(&with("events = []")).contains("empty list"));
    assert!(error(&with("secret = []")).contains("empty list"));
    assert!(error(&with("providers = []")).contains("empty list"));
    assert!(error(&with("labels = { team = 5 }")).contains("`webhooks.x.labels.team` must be text"));
    assert!(warned(&with(""), "is unsigned"));
    assert!(!warned(&with("secret = { env = \"S\" }"), "is unsigned"));
    assert!(warned(&with("kind = \"slack\"\nsecret = { env = \"S\" }"), "are not signed"));
    assert!(warned(&with("kind = \"slack\""), "is a secret, and it stands in this file"));
    assert!(!warned(&with(""), "stands in this file"));
    assert!(warned("[webhooks.x]\nurl = \"https://a.b/c?token=1\"", "stands in this file"));
    assert!(warned("[webhooks.x]\nurl = \"http://a.b/c\"", "unencrypted"));
    assert!(warned(
        "http.egress = \"public\"\n[webhooks.x]\nurl = \"http://localhost:1\"",
        "nothing will be sent"
    ));
}

/// A file with many keys in it gets one warning that names each, and not a screen full of them.
#[test]
fn secrets_in_the_file_are_warned_of_in_one_line() {
    let one = "[providers.openai]\napi_key = \"sk-abcdefgh\"\n";
    assert_eq!(
        sound(one).warnings,
        [
            "/etc/batchd/config.toml:2:11: `providers.openai.api_key` is a secret, and it stands in this file; keep it elsewhere: \
          { env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }"
        ]
    );
    let two = format!(
        "{one}[providers.anthropic]\napi_key = \"sk-ant-abcdefgh\"\n[webhooks.x]\nurl = \"https://a.b/c\"\n"
    );
    let warnings = sound(&two).warnings;
    assert_eq!(
        warnings[0],
        "/etc/batchd/config.toml: 2 secrets stand in this file: `providers.openai.api_key` (line 2), `providers.anthropic.api_key` \
         (line 4); keep it elsewhere: { env = \"NAME\" }, { file = \"/path\" } or { credential = \"NAME\" }"
    );
    assert_eq!(warnings.len(), 2, "the webhook is unsigned, which is another matter: {warnings:#?}");
}

#[test]
fn what_each_kind_of_webhook_needs() {
    let of = |kind: &str, more: &str| format!("[webhooks.x]\nkind = \"{kind}\"\n{more}\n");
    for kind in ["generic", "slack", "discord", "teams", "mattermost", "google-chat"] {
        assert!(error(&of(kind, "")).contains("needs a `url`"), "{kind}");
    }
    // Where the service has one address, it is the usual one.
    assert!(error(&of("pagerduty", "")).contains("needs a `routing_key`"));
    assert!(error(&of("ntfy", "")).contains("needs a `topic`"));
    assert_eq!(errors(&of("telegram", "")).len(), 2);
    let key = |name: &str| format!("{name} = {{ env = \"{}\" }}", name.to_uppercase());
    let config = sound(&of("pagerduty", &key("routing_key")));
    let webhook = &config.webhooks["x"];
    assert!(webhook.url.is_none() && webhook.severity == Severity::Warning);
    assert!(webhook.events.contains(&EventType::ProviderRecovered));
    assert_eq!(webhook.options.keys().collect::<Vec<_>>(), [&"routing_key"]);
    let refused = config.check_secrets(&env()).unwrap_err();
    assert!(refused.to_string().contains("`webhooks.x.routing_key`: the environment variable ROUTING_KEY"));
    sound(&of("ntfy", &format!("{}\n{}", key("topic"), key("token"))));
    sound(&of("telegram", &format!("{}\n{}", key("chat"), key("token"))));
    assert!(warned(
        &of("slack", "url = { env = \"U\" }\ntopic = { env = \"T\" }"),
        "kind `slack` does not use it"
    ));
    assert!(warned(
        &of("ntfy", "topic = \"a-topic\""),
        "`webhooks.x.topic` is a secret, and it stands in this file"
    ));
    let retired = "url = \"https://example.webhook.office.com/webhookb2/x\"";
    assert!(
        error(&of("teams", retired)).contains("a service that has ended; Microsoft has retired connectors")
    );
    let config = sound(&of("teams", "url = { env = \"U\" }"));
    let env = Env::from([("U", "https://outlook.office.com/webhook/x")]);
    assert!(config.check_secrets(&env).unwrap_err().to_string().contains("retired connectors"));
}

#[test]
fn f8_a_broken_template_is_refused_where_it_stands() {
    let with = |template: &str| {
        format!("[webhooks.x]\nkind = \"slack\"\nurl = {{ env = \"U\" }}\ntemplate = {template}\n")
    };
    for (template, part) in [
        ("'{{ line'", "is broken: line 1: syntax error"),
        ("'{{ nmae }}'", "names `nmae`, which there is not; did you mean `name`?"),
        ("'{{ line | shout }}'", "unknown filter"),
        ("'{{ 1 // 0 }}'", "is broken: "),
        (
            "\"{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}\"",
            "takes too long",
        ),
        ("\"{{ 'x' * 99999999 }}\"", "takes too long or makes too much"),
        ("\"no such file\"", "there is no file"),
    ] {
        let error = error(&with(template));
        assert!(error.starts_with("4:12: error: `webhooks.x.template`"), "{error}");
        assert!(error.contains(part) || part.starts_with("there is no file"), "{template}: {error}");
    }
    assert!(
        error(&with("'{\"text\": {{ line }}}'").replace("slack", "generic")).contains("begins like JSON")
    );
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("message.txt");
    fs::write(&file, "{{ icon }} {{ title }}\n").unwrap();
    let text = with(&format!("\"{}\"", file.display()));
    let config = sound(&text);
    let template = config.webhooks["x"].template.clone().unwrap();
    assert_eq!(
        (template.file.as_deref(), template.text.as_str()),
        (Some(file.as_path()), "{{ icon }} {{ title }}")
    );
    assert!(config.show().contains(&format!("template = \"{}\"", file.display())));
    fs::write(&file, "{{ icon }").unwrap();
    assert!(error(&text).contains("is broken"));
}

#[test]
fn what_has_no_effect_yet_is_told_only_if_it_asks_for_something() {
    assert!(!warned("[results]\ndownload = true\nmax_bytes = \"1GiB\"", "no effect"));
    assert!(error("[results]\nmax_bytes = \"0B\"").contains("between 1 bytes"));
    assert!(error("[heartbeat]\nurl = \"nonsense\"").contains("heartbeat.url"));
    assert!(
        error("[digests.x]\ncron = \"0 9 * * *\"\nwebhooks = [\"ops\"]")
            .contains("names no webhook of this file")
    );
    assert!(error("[digests.x]\ncron = \"0 9 * * *\"").contains("goes to no webhook"));
    let digest = "[webhooks.ops]\nurl = \"https://a.b\"\n[digests.x]\nwebhooks = [\"ops\"]";
    assert!(error(digest).contains("needs a `cron`"));
    let secret = "providers.x = { kind = \"anthropic\", webhook_secret = { env = \"X\" } }";
    assert!(warned(secret, "`providers.x.webhook_secret` has no effect: services of kind `anthropic`"));
    assert!(warned("[heartbeat]\nevery = \"1m\"", "`heartbeat.every` has no effect without"));
}

#[test]
fn without_a_file_the_standard_variables_are_the_configuration() {
    let home = TempDir::new().unwrap();
    let load = |variables: &[(&str, &str)]| {
        let home = [("HOME", home.path().to_str().unwrap())];
        Config::load(None, &catalog(), &home.iter().chain(variables).copied().collect())
    };
    let config = load(&[
        ("OPENAI_API_KEY", "a"),
        ("GOOGLE_API_KEY", "b"),
        ("MISTRAL_API_KEY", ""),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/x"),
        ("OPENAI_BASE_URL", "https://eu.api.openai.com/v1"),
    ])
    .unwrap();
    assert_eq!(config.file, None);
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["gemini", "openai"]);
    assert_eq!(config.providers["openai"].base_url, "https://eu.api.openai.com/v1");
    assert_eq!(
        config.providers["gemini"].api_key.as_ref().unwrap().describe(),
        "the environment variable GOOGLE_API_KEY"
    );
    assert_eq!(config.webhooks["slack"].kind, "slack");
    assert_eq!(config.warnings, Vec::<String>::new());

    let nothing = load(&[]).unwrap();
    assert!(nothing.providers.is_empty() && nothing.webhooks.is_empty());
    assert_eq!(
        nothing.warnings,
        [
            "no provider is configured, so there is nothing to watch; set OPENAI_API_KEY, or write a table such as `[providers.openai]`"
        ]
    );
    let refused = load(&[("OPENAI_API_KEY", "a"), ("OPENAI_BASE_URL", "nonsense")]).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("error: the address of the provider `openai` in OPENAI_BASE_URL must be")
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.toml");
    let load = || Config::load(Some(&path), &catalog(), &env());
    let told = |part: &str| {
        let refused = load().unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    };
    told("there is no configuration file");
    fs::create_dir(&path).unwrap();
    told("directory");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"[api]\n# \xff\n").unwrap();
    told("line 2 is not UTF-8");
    fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
    told("longer than 1 MiB");
    fs::write(&path, "\u{feff}[nonsense]\n").unwrap();
    told("config.toml:1:2: error: unknown key `nonsense`");
    fs::write(&path, "\u{feff}[api]\r\nlisten = \"localhost:1\"\r\n").unwrap();
    load().unwrap();
}

#[test]
fn f15_others_may_not_read_a_file_with_secrets_unnoticed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, format!("[providers.openai]\napi_key = \"{SECRET}\"\n")).unwrap();
    let warnings = |mode: u32| {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let config = Config::load(Some(&path), &catalog(), &env()).unwrap();
        assert!(!format!("{config:?}{}{}", config.show(), config.rendered_warnings(false)).contains(SECRET));
        config.warnings
    };
    assert_eq!(warnings(0o600).len(), 1);
    let open = warnings(0o644);
    assert!(open.len() == 2 && open[1].contains("chmod 600"), "{open:?}");
}

#[test]
fn secrets_are_tried_and_every_fault_is_told_where_it_is_named() {
    let directory = TempDir::new().unwrap();
    let open = directory.path().join("open");
    fs::write(&open, SECRET).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "[api]\ntoken = {{ credential = \"api\" }}\n[http]\nca_file = \"{0}\"\n[providers.openai]\n[providers.mistral]\n\
         api_key = {{ file = \"{0}\" }}\n[providers.anthropic]\n[webhooks.a]\nurl = {{ env = \"ADDRESS\" }}\nsecret = [{{ env = \"SOUND\" }}, {{ env = \"OPENAI_API_KEY\" }}]\n",
        open.display()
    );
    let env = Env::from([
        ("HOME", "/home/me"),
        ("OPENAI_API_KEY", SECRET),
        ("ADDRESS", "correct-horse-battery and more"),
        ("SOUND", SIGNING_SECRET),
    ]);
    let config = Config::parse(Path::new("c.toml"), &text, &catalog(), &env).unwrap();
    let refused = config.check_secrets(&env).unwrap_err();
    let open = open.display();
    assert_eq!(
        refused.one_lines(),
        [
            "c.toml:2:9: error: `api.token`: the credential api is sought, but CREDENTIALS_DIRECTORY is not set; systemd sets it for units with LoadCredential=".to_owned(),
            format!("c.toml:4:11: error: `http.ca_file`: {open} holds no PEM certificate"),
            format!("c.toml:7:11: error: `providers.mistral.api_key`: other users may read or change {open} (mode 0644); run `chmod 600 {open}`"),
            "c.toml:8:12: error: `providers.anthropic.api_key`: the environment variable ANTHROPIC_API_KEY is not set".to_owned(),
            "c.toml:10:7: error: `webhooks.a.url`: the environment variable ADDRESS must hold an address without spaces and line breaks".to_owned(),
            "c.toml:11:30: error: `webhooks.a.secret[1]`: the environment variable OPENAI_API_KEY is no signing secret: `whsec_` and 24 to 64 random bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one".to_owned(),
        ]
    );
    assert!(refused.problems.iter().all(|problem| problem.severity == Weight::Error));
    assert!(!format!("{refused:?}{}", refused.rendered(false)).contains(SECRET));
}

#[test]
fn show_tells_everything_but_secrets() {
    let text = format!(
        "[api]
token = \"{SECRET}\"
[http]
proxy = \"http://me:{SECRET}@proxy:3128\"
[providers.openai]
api_key = \"{SECRET}\"
max_interval = \"1h\"
[providers.mistral]
[webhooks.ops]
kind = \"slack\"
url = \"https://hooks.slack.com/services/{SECRET}\"
[webhooks.pipeline]
url = {{ file = \"url\" }}
secret = [{{ credential = \"hook\" }}, \"{SECRET}\"]
labels = {{ \"team \\\" name\" = \"evals\" }}
"
    );
    let config = sound(&text);
    let shown = config.show();
    insta::assert_snapshot!(shown);
    assert!(!format!("{config:?}").contains(SECRET));
    // What it says is a configuration, and the same one.
    assert_eq!(without_comments(&sound(&shown).show()), without_comments(&shown));
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_example_shows_is_the_same_configuration() {
    let shown = sound(EXAMPLE).show();
    assert_eq!(sound(&shown).show(), shown);
}

#[test]
fn a_client_reads_what_it_needs_and_passes_over_the_rest() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.toml");
    let env = Env::from([("HOME", directory.path().to_str().unwrap()), ("XDG_RUNTIME_DIR", "/run/user/7")]);
    let view = |text: &str| {
        fs::write(&path, text).unwrap();
        client_view(Some(&path), &env)
    };
    let sound = view(
        "[api]\nsocket = \"/own.sock\"\ntoken = { env = \"NOT_SET\" }\n[state]\ndir = \"/state\"\n[providers.x]\nkind = \"nonsense\"\n[nonsense]\n",
    )
    .unwrap();
    assert_eq!(sound.api.socket, Some(PathBuf::from("/own.sock")));
    assert!(sound.api.token.is_some());
    assert_eq!(sound.state_dir, Some(PathBuf::from("/state")));
    assert_eq!(sound.providers, ["x".to_owned()].into());
    let sockets =
        ["/own.sock", "/run/user/7/batchd/batchd.sock", "/run/batchd/batchd.sock", "/state/batchd.sock"];
    assert_eq!(client_sockets(&sound, &env), sockets.map(PathBuf::from));

    // A file that is broken elsewhere is the daemon's affair.
    let broken = view("[api]\nsocket = \"/own.sock\"\n[providers.openai]\napi_key = \"abc\n").unwrap();
    assert_eq!(broken.api.socket, Some(PathBuf::from("/own.sock")));

    for wrong in ["[api]\nsocket = 5", "[api]\nsokcet = \"/x\"", "[api]\nlisten = \"nonsense\"", "api = 5"] {
        let refused = view(&format!("{wrong}\n")).unwrap_err();
        assert_eq!(refused.problems.len(), 1, "{wrong}");
    }
    fs::remove_file(&path).unwrap();
    assert!(client_view(Some(&path), &env).is_err());
    let usual = client_view(None, &env).unwrap();
    assert_eq!(usual.state_dir, Some(directory.path().join(".local/state/batchd")));
    assert_eq!(usual.file, None);
}

#[test]
fn a_client_ignores_a_file_that_it_may_not_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, "[api]\nsocket = \"/own.sock\"\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let view = client_view(Some(&path), &env()).unwrap();
    // Who may read everything reads this one too.
    let may_read = fs::read(&path).is_ok();
    assert_eq!(view.api.socket.is_some(), may_read);
}

#[test]
fn the_daemon_makes_its_socket_where_clients_look() {
    let config = sound("");
    let socket =
        |variables: &[(&str, &str)]| find::daemon_socket(&config, &variables.iter().copied().collect());
    assert_eq!(socket(&[("XDG_RUNTIME_DIR", "/run/user/7")]), Path::new("/run/user/7/batchd/batchd.sock"));
    assert_eq!(socket(&[]), Path::new("/home/me/.local/state/batchd/batchd.sock"));
    assert_eq!(find::daemon_socket(&sound("api.socket = \"/x\""), &env()), Path::new("/x"));
}

/// Everything that a configuration or its refusal says.
fn everything_said(text: &str) -> String {
    match parse(text) {
        Ok(config) => {
            let secrets = match config.check_secrets(&env()) {
                Ok(()) => String::new(),
                Err(refused) => said(&refused),
            };
            format!(
                "{config:?}{}{:?}{}{secrets}",
                config.show(),
                config.warnings,
                config.rendered_warnings(false)
            )
        }
        Err(refused) => said(&refused),
    }
}

fn said(refused: &Refused) -> String {
    format!(
        "{refused:?}{refused}{}{}{:?}",
        refused.rendered(false),
        refused.rendered(true),
        refused.one_lines()
    )
}

#[test]
fn no_mistake_makes_a_secret_seen() {
    let places = [
        "[providers.openai]\napi_key = \"SECRET\"",
        "[providers.openai]\napi_key = SECRET",
        "[providers.openai]\napi_key = \"SECRET",
        "[providers.openai]\napi_key = 'SECRET' 5",
        "[providers.openai]\napi_key = \"SECRET\"\napi_key = \"SECRET\"",
        "[providers.openai]\napi_kye = \"SECRET\"",
        "[providers.openai]\napi_key = [\"SECRET\"]",
        "[providers.openai]\napi_key = { key = \"SECRET\" }",
        "[providers.openai]\napi_key = { env = \"SECRET!\" }",
        "[providers]\nopenai = \"SECRET\"",
        "[providers]\nopenai = { kind = \"opneai\", api_key = \"SECRET\" }",
        "[providers.openai]\nkind = \"opneai\" # SECRET",
        "[providers.openai]\nbase_url = \"https://me:SECRET@a.b\"",
        "[providers.openai]\nbase_url = \"https://a.b/?key=SECRET\"",
        "[webhooks.x]\nurl = \"https://a.b/SECRET\"\nsecret = \"SECRET\"",
        "[webhooks.x]\nurl = \"a.b/SECRET\"",
        "[webhooks.x]\nurl = \"https://SECRET@a.b/\"\nkind = \"slck\"",
        "[webhooks.x]\nsecret = [\n  \"SECRET\",\n  5,\n]",
        "[webhooks.x]\nsecret = [\n  \"SECRET\",\n  SECRET\n]",
        "[webhooks.x]\nrouting_key = 'SECRET'\ntopic = 'SECRET'\nchat = 'SECRET'\ntoken = 'SECRET'",
        "[heartbeat]\nurl = \"SECRET\"",
        "[http]\nproxy = \"http://me:SECRET@proxy\"",
        "[http]\nproxy = \"socks://me:SECRET@proxy\"",
        "[api]\ntoken = \"\"\"\nSECRET\n\"\"\"",
        "[api]\nlisten = \"0.0.0.0:1\"\ntoken = \"SECRET\"\nnonsense = 1",
        "token = \"SECRET\"",
        "# SECRET\nnonsense = 1 # SECRET\n# SECRET",
        "SECRET",
        "[SECRET",
        "SECRET = 1 1",
        "nonsense SECRET",
    ];
    for place in places {
        // Also a secret that holds quotes of TOML's in a language of its own.
        for secret in [SECRET, "pass+word/ünd=mehr"] {
            let text = place.replace("SECRET", secret);
            let said = everything_said(&text);
            assert!(!said.contains(secret), "{text}\n{said}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[\\PC\n\r\t]{0,200}") {
        everything_said(&text);
    }

    #[test]
    fn no_toml_panics(
        lines in proptest::collection::vec(
            ("(state|api|http|polling|results|files|heartbeat|providers|webhooks|digests)", "(\\.[a-z\"]{1,5})?", "[a-z_]{1,8}", "(= |=)?",
             "(\"[^\n]{0,12}\"|[0-9]{1,4}|true|\\[\\]|\\{\\}|\\{ env = \"[A-Z ]{0,3}\" \\}|[\\PC]{0,5})"),
            0..8,
        ),
    ) {
        let text = |(table, name, key, equals, value): &(String, String, String, String, String)| {
            format!("[{table}{name}]\n{key} {equals}{value}\n")
        };
        let lines: Vec<String> = lines.iter().map(text).collect();
        everything_said(&lines.concat());
    }

    #[test]
    fn no_mutation_of_the_example_panics_or_shows_the_secret(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), "[\\PC\n\"'=\\[\\]{}#.]{0,3}"), 1..6),
    ) {
        let mut text = uncommented().replace("{ env = \"OPENAI_API_KEY\" }", &format!("\"{SECRET}\""));
        for (at, length, insert) in edits {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.floor_char_boundary((start + length.index(4)).min(text.len()));
            text.replace_range(start..end.max(start), &insert);
        }
        let said = everything_said(&text);
        // An edit inside it, or one that makes it a plain value, leaves it none of batchd's keys.
        let whole = format!("api_key = \"{SECRET}\"");
        if text.contains(&whole) {
            prop_assert!(!said.contains(SECRET), "{}", said);
        }
    }
}
