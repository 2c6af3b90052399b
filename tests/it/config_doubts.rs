//! What a configuration says of itself that is odd, and where it points when two of its lines disagree.

use batchd::config::{Config, Env};
use batchd::control::assembly::catalog;
use std::path::Path;

fn env() -> Env {
    Env::from([("HOME", "/home/me"), ("OPENAI_API_KEY", "sk-proj-0123456789abcdefghij")])
}

/// The errors as lines, each without the file's name.
fn errors(text: &str) -> Vec<String> {
    let Err(refused) = Config::parse(Path::new("c.toml"), text, &catalog(), &env()) else {
        return Vec::new();
    };
    let own = |line: String| line.strip_prefix("c.toml:").map(str::to_owned).unwrap_or(line);
    refused.error_lines().into_iter().map(own).collect()
}

/// The warnings as `config check` and `run` have them.
fn warnings(text: &str, env: &Env) -> Vec<String> {
    let mut config = Config::parse(Path::new("c.toml"), text, &catalog(), env)
        .unwrap_or_else(|refused| panic!("{text}\n{}", refused.rendered(false)));
    config.doubt_secrets(env);
    config.warnings
}

fn warned(text: &str, part: &str) -> bool {
    warnings(text, &env()).iter().any(|warning| warning.contains(part))
}

#[test]
fn a_size_is_answered_with_the_same_number() {
    let said = |size: &str| errors(&format!("[results]\nmax_bytes = \"{size}\"")).concat();
    assert!(said("50 GB").contains("did you mean \"50GB\"?"), "{}", said("50 GB"));
    assert!(said("50Gb").contains("did you mean \"50GB\"?"), "{}", said("50Gb"));
    assert!(said("50 gib").contains("did you mean \"50GiB\"?"));
    assert!(said("50GB").is_empty() && said("50GiB").is_empty());
}

#[test]
fn two_intervals_that_disagree_are_told_at_the_one_that_stands_there() {
    let openai = "[providers.openai]\n";
    // What is wrong already is told once, and nothing is concluded from it.
    let wrong = format!("[polling]\nmin_interval = \"0s\"\n{openai}max_interval = \"10s\"");
    assert_eq!(errors(&wrong).len(), 1, "{:?}", errors(&wrong));
    assert!(errors(&wrong)[0].starts_with("2:16: "));
    assert_eq!(
        errors(&format!("{openai}max_interval = \"10s\"")),
        [
            "2:16: `providers.openai.max_interval` (10s) is shorter than `polling.min_interval` (15s); set both, the longer one as `max_interval`"
        ]
    );
    assert_eq!(
        errors(&format!("[polling]\nmax_interval = \"1m\"\n{openai}min_interval = \"2m\"")),
        [
            "4:16: `providers.openai.min_interval` (2m) is longer than `polling.max_interval` (1m); set both, the longer one as `max_interval`"
        ]
    );
    assert!(errors("[polling]\nmax_interval = \"10s\"")[0].contains("is shorter than `min_interval` (15s)"));
}

#[test]
fn of_what_is_written_twice_the_first_is_named() {
    let twice = "[providers.openai]\n\n[polling]\ntimeout = \"5s\"\n\n[providers.openai] # again\n";
    assert_eq!(
        errors(twice),
        [
            "6:12: the table `[providers.openai]` is written twice; the first is on line 1; only one of them can hold"
        ]
    );
    let key = "[state]\ndir = \"/a\"\n[polling]\ntimeout = \"5s\"\ntimeout = \"6s\"\n";
    assert_eq!(
        errors(key),
        ["5:1: the key `timeout` is written twice; the first is on line 4; only one of them can hold"]
    );
    // Where it stands in another form it is an error all the same.
    assert!(errors("state.dir = \"/a\"\n[state]\ndir = \"/b\"\n")[0].contains("TOML"));
}

#[test]
fn a_webhook_with_another_services_address_is_warned_of() {
    let webhook = |kind: &str, url: &str| format!("[webhooks.x]\nkind = \"{kind}\"\nurl = \"{url}\"\n");
    let (slack, discord) =
        ("https://hooks.slack.com/services/a/b/c", "https://discord.com/api/webhooks/1/abc");
    for (kind, url, other) in [
        ("slack", discord, "discord"),
        ("discord", slack, "slack"),
        ("mattermost", slack, "slack"),
        ("generic", discord, "discord"),
        ("slack", "https://chat.googleapis.com/v1/spaces/x", "google-chat"),
        ("google-chat", "https://x.webhook.powerplatform.com/y", "teams"),
        ("teams", "https://discordapp.com/api/webhooks/1/abc", "discord"),
    ] {
        let text = webhook(kind, url);
        assert!(warned(&text, &format!("is an address of {other}, and the kind is `{kind}`")), "{text}");
    }
    for (kind, url) in [
        ("slack", slack),
        ("discord", discord),
        ("slack", "https://discord.com/api/webhooks/1/abc/slack"),
        ("slack", "https://chat.example.com/hooks/x"),
        ("generic", "https://notdiscord.com/x"),
    ] {
        assert!(!warned(&webhook(kind, url), "is an address of"), "{kind} {url}");
    }
    // Wherever the address comes from.
    let env = Env::from([("HOME", "/home/me"), ("URL", discord)]);
    let text = "[webhooks.x]\nkind = \"slack\"\nurl = { env = \"URL\" }\n";
    assert!(
        warnings(text, &env).iter().any(|warning| warning.starts_with("c.toml:3:7: ")),
        "{:?}",
        warnings(text, &env)
    );
}

#[test]
fn an_address_that_lost_its_version_is_warned_of() {
    let provider = |kind: &str, url: &str| {
        format!("[providers.{kind}]\nbase_url = \"{url}\"\napi_key = {{ env = \"K\" }}\n")
    };
    let said = "has no version at its end";
    for (kind, url, meant) in [
        ("openai", "https://gateway.example.com", "did you mean https://gateway.example.com/v1?"),
        ("openai", "https://gateway.example.com/openai", "did you mean"),
        ("zai", "https://open.bigmodel.cn", "https://open.bigmodel.cn/api/paas/v4?"),
    ] {
        let text = provider(kind, url);
        assert!(warned(&text, said) && warned(&text, meant), "{:?}", warnings(&text, &env()));
    }
    for (kind, url) in [
        ("openai", "https://gateway.example.com/v1"),
        ("openai", "https://gateway.example.com/v1/acme/gw/openai"),
        ("anthropic", "https://gateway.example.com"),
        ("mistral", "https://gateway.example.com"),
        ("groq", "https://gateway.example.com"),
        ("gemini", "https://gateway.example.com"),
        ("xai", "https://gateway.example.com"),
        ("openai-compatible", "https://gateway.example.com"),
    ] {
        assert!(!warned(&provider(kind, url), said), "{kind} {url}");
    }
    let env = Env::from([
        ("HOME", "/h"),
        ("OPENAI_API_KEY", "sk-proj-0123456789abcdefghij"),
        ("OPENAI_BASE_URL", "https://gateway.example.com"),
    ]);
    assert!(warnings("[providers.openai]", &env).iter().any(|warning| warning.contains("OPENAI_BASE_URL")));
}

#[test]
fn a_key_that_was_never_filled_in_is_warned_of_and_not_repeated() {
    for key in ["sk-…", "sk-xxx", "your-key-here"] {
        let env = Env::from([("HOME", "/home/me"), ("OPENAI_API_KEY", key)]);
        let said = warnings("[providers.openai]", &env).concat();
        assert!(said.contains("the environment variable OPENAI_API_KEY holds a placeholder"), "{said}");
        let inline = warnings(&format!("[providers.openai]\napi_key = \"{key}\""), &env).concat();
        assert!(inline.contains("the configuration file itself holds a placeholder"), "{inline}");
        assert!(!inline.contains(key), "{inline}");
    }
    let url = "[webhooks.x]\nkind = \"slack\"\nurl = \"https://hooks.slack.com/…\"\n";
    assert!(warned(url, "holds an address with a placeholder in it"));
    assert!(!warned("[providers.openai]", "placeholder"));
}

#[test]
fn what_a_change_changes_is_told_key_by_key() {
    let parse = |text: &str| Config::parse(Path::new("c.toml"), text, &catalog(), &env()).unwrap();
    let before = parse(
        "[providers.openai]\nmin_interval = \"5s\"\n[webhooks.a]\nurl = \"https://a.example/x\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n[webhooks.broken]\nurl = \"https://b.example/y\"\n",
    );
    let after = parse(
        "[polling]\nmin_interval = \"5s\"\n[providers.openai]\nmin_interval = \"5s\"\nrequests_per_minute = 60\n[providers.anthropic]\n[webhooks.a]\nurl = \"https://a.example/secret\"\nsecret = \"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\nevents = [\"batch.failed\"]\n",
    );
    assert_eq!(
        before.changes_to(&after),
        [
            "polling.min_interval 15s → 5s",
            "providers.anthropic added",
            "providers.openai.requests_per_minute set to 60",
            "webhooks.a.events changed",
            "webhooks.broken removed",
            "webhooks.a.url changed",
        ]
    );
    assert_eq!(before.changes_to(&before.clone()), Vec::<String>::new());
}
