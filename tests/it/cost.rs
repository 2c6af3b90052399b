//! What batches cost, seen from outside: recorded once, by prices that are in force at the end.

use crate::world::{World, until};
use serde_json::{Value, json};
use std::process::Output;

const PRICES: &str = r#"
[prices."gpt-4o-mini"]
input = 0.075
output = 0.30
cached_input = 0.0375
[prices."gpt-4o*"]
input = 9
output = 9
"#;

fn used(input: u64, cached: u64, output: u64) -> Value {
    json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": cached}, "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output})
}

/// A batch with tokens that ended as `status` says.
fn end(world: &World, id: &str, status: &str, model: &str, usage: &Value) {
    let done = if status == "completed" { 4 } else { 2 };
    let mut more = json!({"request_counts": {"total": 4, "completed": done, "failed": 4 - done},
        "output_file_id": "file-out", "model": model, "usage": usage});
    more[format!("{status}_at")] = json!(1_795_000_100);
    world.provider.put(id, status, &more);
}

fn cost(world: &World, id: &str) -> Value {
    world.json(&["show", id, "--json"])["batchd"]["cost"].clone()
}

fn metrics(world: &World, socket: bool, address: &str) -> String {
    get(world, socket, address, "/metrics")
}

fn get(world: &World, socket: bool, address: &str, path: &str) -> String {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--max-time", "20"]);
    if socket {
        curl.arg("--unix-socket").arg(world.socket());
    }
    let output: Output = curl.arg(format!("http://{address}{path}")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_cost_is_recorded_at_the_end_and_stays_whatever_prices_become() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configure = |prices: &str| {
        world.configure(&format!("{prices}\n[digests.x]\ncron = \"0 9 * * *\"\nwebhooks = [\"ops\"]\n"));
    };
    configure(PRICES);
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("[polling]", &format!("listen = \"{port}\"\n[polling]")))
        .unwrap();
    let listening = std::fs::read_to_string(world.config()).unwrap();
    end(&world, "batch_1", "completed", "gpt-4o-mini", &used(9000, 1000, 4000));
    end(&world, "batch_2", "cancelled", "gpt-4o-mini", &used(1000, 0, 0));
    end(&world, "batch_3", "expired", "gpt-4o", &used(1_000_000, 0, 0));
    end(&world, "batch_4", "completed", "o3", &used(100, 0, 10));
    world.provider.put("batch_5", "in_progress", &json!({"model": "gpt-4o-mini", "usage": used(5, 0, 5)}));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "--label", "team=evals"]);
    // The first message is sent at once and by itself.
    let told = until("Slack is told the cost", || {
        let told = world.receiver.received("/slack");
        told.iter()
            .map(|each| String::from_utf8_lossy(&each.body).into_owned())
            .find(|text| text.contains("$0.0018"))
    });
    assert!(told.contains("Cost"), "{told}");
    world.ok(&["track", "batch_2", "--label", "team=evals"]);
    world.ok(&["track", "batch_3", "batch_4", "batch_5"]);
    // The dashboard shows it, on the batch's page and for the month.
    let page = get(&world, true, "batchd", "/b/openai:batch_1");
    assert!(page.contains("$0.0018: $0.00064 in · $0.0012 out, by"), "{page}");
    let page = get(&world, true, "batchd", "/");
    assert!(page.contains("Cost in 20") && page.contains("<bdi>team=evals</bdi> $"), "{page}");
    let first = json!({"amount": 0.001_837_5, "currency": "USD", "input": 0.000_637_5, "output": 0.0012,
        "priced_by": "prices.gpt-4o-mini"});
    assert_eq!(cost(&world, "batch_1"), first);
    assert_eq!(cost(&world, "batch_2")["amount"], json!(0.000_075), "what was cancelled was worked on");
    assert_eq!(cost(&world, "batch_3")["priced_by"], "prices.gpt-4o*");
    assert_eq!(cost(&world, "batch_4"), Value::Null, "there is no price");
    assert_eq!(cost(&world, "batch_5"), Value::Null, "it runs");

    // The event holds it.
    let event = world.receiver.wait_for("/hooks", 4);
    let event = event
        .iter()
        .map(super::world::Received::json)
        .find(|event| event["data"]["id"] == "batch_1")
        .unwrap();
    assert_eq!(event["data"]["batch"]["batchd"]["cost"], first);

    let listed = world.ok(&["list", "--all", "--columns", "id,cost", "--sort", "-cost"]);
    let order: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(order[1..4], ["batch_3", "batch_1", "batch_2"], "{listed}");
    assert!(listed.contains("$9.00") && listed.contains("$0.0018"), "{listed}");
    assert!(
        world.ok(&["show", "batch_1"]).contains("$0.0018: $0.00064 in, $0.0012 out, by prices.gpt-4o-mini")
    );

    let spent = |amount: f64| json!({"openai": amount});
    let status = world.json(&["status", "--json"]);
    let month = status["cost"]["month"].as_str().unwrap().to_owned();
    // The batches ended in November 2026, whatever month it is now.
    if month == "2026-11" {
        assert_eq!(status["cost"]["providers"], spent(9.001_912_5));
        assert_eq!(status["cost"]["labels"], json!({"team=evals": 0.001_912_5}));
        assert!(world.ok(&["status"]).contains("$9.00 in 2026-11: openai $9.00"));
    }
    assert_eq!(status["cost"]["unpriced"], json!({"openai/o3": 1}));
    assert!(world.ok(&["status"]).contains("1 ended batch has tokens and no price: openai/o3"));

    // On the socket what was spent, on TCP without a token not.
    let series = "batchd_cost_usd_total{provider=\"openai\",model=\"gpt-4o-mini\"} 0.0019125";
    let on_socket = metrics(&world, true, "localhost");
    assert!(on_socket.contains(series), "{on_socket}");
    assert!(!metrics(&world, false, &port.to_string()).contains("cost_usd"));

    // New prices, and a new start: what is recorded stays, what had no price gets one.
    let dearer = listening.replace("0.075", "75").replace("[prices.\"gpt-4o*\"]", "[prices.\"o3\"]");
    std::fs::write(world.config(), dearer).unwrap();
    world.ok(&["reload"]);
    until("o3 has a price", || cost(&world, "batch_4")["amount"].is_number().then_some(()));
    assert_eq!(cost(&world, "batch_1"), first);
    world.ok(&["poll", "batch_1"]);
    assert_eq!(cost(&world, "batch_1"), first);
    daemon.kill();
    let daemon = world.daemon();
    assert_eq!(cost(&world, "batch_1"), first);
    assert!(metrics(&world, true, "localhost").contains(series));
    end(&world, "batch_5", "completed", "gpt-4o-mini", &used(1_000_000, 0, 0));
    world.ok(&["wait", "batch_5"]);
    assert_eq!(cost(&world, "batch_5")["amount"], json!(75));

    // Purged and tracked again, it is not spent again.
    world.ok(&["untrack", "batch_3", "--purge"]);
    world.ok(&["track", "batch_3"]);
    assert!(metrics(&world, true, "localhost").contains("model=\"gpt-4o\"} 9.0"));
    daemon.terminate();
}

#[test]
fn a_list_is_imported_without_a_daemon_and_the_file_s_own_prices_win() {
    let world = World::new();
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prices/litellm.json");
    let output = world.batchd(&["prices", "import", list]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("8 prices taken (4 as listed for batches, 4 at half of the usual price)"),
        "{said}"
    );
    assert!(said.contains("1 skipped with a negative price"), "{said}");
    let file = world.directory.path().join("prices.json");
    let before = std::fs::read_to_string(&file).unwrap();
    for broken in ["{", "[]", "NaN"] {
        let path = world.directory.path().join("broken.json");
        std::fs::write(&path, broken).unwrap();
        assert!(!world.batchd(&["prices", "import", path.to_str().unwrap()]).status.success(), "{broken}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before, "a list that is none replaces nothing");

    end(&world, "batch_1", "completed", "example-mini", &used(2_000_000, 1_000_000, 0));
    end(&world, "batch_2", "completed", "example-mini-2024", &used(1, 0, 1));
    let daemon = world.daemon();
    world.ok(&["track", "batch_1", "batch_2"]);
    assert_eq!(cost(&world, "batch_1")["amount"], json!(0.1125));
    assert_eq!(cost(&world, "batch_1")["priced_by"], "prices.json:example-mini");
    assert_eq!(cost(&world, "batch_2"), Value::Null, "a name that merely resembles");
    assert!(world.ok(&["config", "show"]).contains("# prices.json: 8 prices"));
    world.configure("[prices.\"example-*\"]\ninput = 1\noutput = 1\n");
    world.ok(&["reload"]);
    end(&world, "batch_3", "completed", "example-mini", &used(1_000_000, 0, 0));
    world.ok(&["track", "batch_3"]);
    assert_eq!(cost(&world, "batch_3")["priced_by"], "prices.example-*");

    // A file that nobody can have written is refused, and what is in force stays.
    std::fs::write(&file, "{\"prices\": {\"openai\": {\"m\": {\"key\": \"m\", \"input\": 1}}}}").unwrap();
    let refused = world.batchd(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("prices.json"), "{refused:?}");
    daemon.terminate();
}

#[test]
fn faults_of_prices_are_told_in_their_place() {
    let world = World::new();
    world.configure("[prices.\"m\"]\ninput = -1\noutput = nan\n[prices.\"a b\"]\ninput = \"0.1\"\noutptu = 1\n[prices.n]\ninput = 2\n");
    let output = world.batchd(&["config", "check"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for fault in [
        "`prices.m.input` must be a price in dollars for a million tokens: it is negative",
        "`prices.m.output` must be a price in dollars for a million tokens: it is not a decimal number",
        "`a b` cannot be the name of a model",
        "write 0.1 without quotes",
        "did you mean `output`?",
        "the price of `n` needs `output`",
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
}
