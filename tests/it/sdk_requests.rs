//! What the vendors' own SDKs send, against what the adapters form, where a Python that has them is at hand.
//!
//! `BATCHD_SDK_PYTHON` names it, `python3` is tried otherwise; for every kind whose SDK is missing it says so. A Python
//! for all: `python3 -m venv V && V/bin/pip install -r tests/sdk/requirements.txt`.

use crate::provider::{KEY, adapter_at};
use batchd::provider::PageRequest;
use batchd::provider::registry::kind;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

type Options = &'static [(&'static str, &'static str)];

/// Where a kind is asked, and with what, so that the SDK's own defaults lead to the same place.
const ACCOUNTS: [(&str, &str, &str, Options); 6] = [
    (
        "azure-openai classic",
        "azure-openai",
        "https://resource.openai.azure.com",
        &[("api_version", "2024-10-21")],
    ),
    ("azure-openai", "azure-openai", "https://resource.openai.azure.com", &[]),
    ("groq", "groq", "https://api.groq.com/openai/v1", &[]),
    ("together", "together", "https://api.together.ai/v1", &[]),
    ("cohere", "cohere", "https://api.cohere.com", &[]),
    ("zai", "zai", "https://api.z.ai/api/paas/v4", &[]),
];

#[test]
#[expect(clippy::print_stdout, reason = "a test that did not run must say so")]
fn the_vendors_libraries_send_the_same() {
    let ids: Map<String, Value> = ACCOUNTS
        .iter()
        .map(|(_, kind, ..)| ((*kind).to_owned(), format!("batch_1 of {kind}").into()))
        .collect();
    let python = std::env::var("BATCHD_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/same_requests.py");
    let told = Command::new(&python)
        .arg(script)
        .arg(Value::Object(ids.clone()).to_string())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .output();
    let Ok(told) = told else {
        println!("skipped: there is no {python}; BATCHD_SDK_PYTHON names a Python that has the SDKs");
        return;
    };
    let errors = String::from_utf8_lossy(&told.stderr);
    if errors.contains("No module named 'httpx'") {
        println!("skipped: {python} has none of the SDKs; BATCHD_SDK_PYTHON names a Python that has");
        return;
    }
    assert!(told.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    for (account, name, base_url, options) in ACCOUNTS {
        let Some(sdk) = told.get(account) else {
            println!("skipped: {python} has no SDK for {account}");
            continue;
        };
        let provider = adapter_at(kind(name).unwrap(), base_url, options);
        let id = ids[name].as_str().unwrap();
        let page = PageRequest { limit: 20, ..PageRequest::default() };
        for (operation, call) in [
            ("retrieve", provider.retrieve(id)),
            ("list", provider.list(&page)),
            ("cancel", provider.cancel(id)),
        ] {
            let request = call.unwrap().request;
            let carries = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                value.to_str().is_ok_and(|value| value.contains(KEY)).then(|| name.as_str().to_owned())
            };
            let mut ours = json!({
                "method": request.method().as_str(),
                "url": request.uri().to_string(),
                "keys": request.headers().iter().filter_map(carries).collect::<Vec<_>>(),
            });
            let mut theirs = sdk[operation].clone();
            if operation == "list" {
                // How many at a time is everybody's own choice.
                for url in [&mut ours["url"], &mut theirs["url"]] {
                    *url = without_size(url.as_str().unwrap()).into();
                }
            }
            if account == "azure-openai" {
                // OpenAI's library takes the v1 API for OpenAI's own; Azure takes the key in either header.
                theirs["keys"] = ours["keys"].clone();
            }
            assert_eq!(ours, theirs, "{account}: {operation}");
        }
    }
}

fn without_size(url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| !matches!(key.as_ref(), "limit" | "page_size"))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    url.to_string()
}
