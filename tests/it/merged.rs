//! The results of a batch and of all that repeat its requests, read as those of one: any tree of resubmissions, any ends
//! of their requests.

use crate::simulation::{EPOCH, World, account, answer};
use batchd::config::Polling;
use batchd::domain::batch::RequestCounts;
use batchd::domain::route::Routes;
use batchd::domain::status::Status;
use batchd::domain::tracked::{BatchKey, Lineage, Origin, Tracked};
use batchd::domain::user_fields::UserFields;
use batchd::engine::Engine;
use batchd::engine::merged::family;
use batchd::http::call::{Answer, Call, Incoming};
use batchd::http::failure::Failure;
use batchd::http::transport::Transport;
use batchd::store::Store;
use batchd::store::recording::Registration;
use batchd::store::submissions::Submission;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What became of a request in one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Succeeded,
    Failed,
    Expired,
    /// No line tells.
    NeverRan,
}

/// A batch: which one it repeats, its requests' ends in the order of its files, and how it ended.
#[derive(Clone, Debug)]
struct Made {
    repeats: Option<usize>,
    ends: Vec<(usize, End)>,
    status: Status,
}

/// A tree of batches, of which the first has all requests, and each other one some that had not succeeded.
fn family_of_batches() -> impl Strategy<Value = Vec<Made>> {
    let end = prop_oneof![
        3 => Just(End::Succeeded),
        2 => Just(End::Failed),
        1 => Just(End::Expired),
        1 => Just(End::NeverRan),
    ];
    let one = (
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<bool>(), end), 12),
        Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        prop::sample::select(&[Status::Completed, Status::Expired, Status::Cancelled][..]),
    );
    prop::collection::vec(one, 1..7).prop_map(|drawn| {
        let mut made: Vec<Made> = Vec::new();
        for (parent, fates, order, status) in drawn {
            let repeats = (!made.is_empty()).then(|| parent.index(made.len()));
            let left: BTreeSet<usize> = match repeats {
                None => (0..12).collect(),
                Some(parent) => {
                    let ends = made[parent].ends.iter();
                    ends.filter(|(_, end)| *end != End::Succeeded).map(|(request, _)| *request).collect()
                }
            };
            let is_first = repeats.is_none();
            let wanted = order.into_iter().filter(|request| left.contains(request));
            let wanted = wanted.filter(|request| is_first || fates[*request].0);
            let ends = wanted.map(|request| (request, fates[request].1)).collect();
            made.push(Made { repeats, ends, status });
        }
        made
    })
}

fn id(number: usize) -> String {
    format!("batch_{number:05}")
}

/// What is in a batch's output and errors, each a line with the batch's number in it.
fn lines(made: &Made, number: usize) -> [Vec<Value>; 2] {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    for (request, end) in &made.ends {
        let (response, error, into) = match end {
            End::Succeeded => (
                json!({"status_code": 200, "request_id": "q", "body": {"of": number}}),
                Value::Null,
                &mut output,
            ),
            // HTTP's errors stand in either file.
            End::Failed => {
                let body = json!({"error": {"message": "no"}, "of": number});
                let into = if request % 2 == 0 { &mut output } else { &mut errors };
                (json!({"status_code": 400, "request_id": "q", "body": body}), Value::Null, into)
            }
            End::Expired => {
                (Value::Null, json!({"code": "batch_expired", "message": number.to_string()}), &mut errors)
            }
            End::NeverRan => continue,
        };
        into.push(
            json!({"id": "l", "custom_id": format!("r{request}"), "response": response, "error": error}),
        );
    }
    [output, errors]
}

/// Every line in the order in which it is to be given: successes as they come, the newest batch first, then failures.
fn expected(made: &[Made]) -> Vec<Value> {
    let all = made.iter().enumerate().rev().flat_map(|(number, made)| lines(made, number).concat());
    let succeeded = |line: &Value| line["response"]["status_code"] == 200;
    let mut newest: BTreeMap<(bool, String), usize> = BTreeMap::new();
    let all: Vec<Value> = all.collect();
    for (place, line) in all.iter().enumerate() {
        let key = (succeeded(line), line["custom_id"].as_str().unwrap().to_owned());
        newest.entry(key).or_insert(place);
    }
    let good: BTreeSet<&String> = newest.keys().filter(|(good, _)| *good).map(|(_, id)| id).collect();
    let mut given: Vec<usize> =
        newest.iter().filter(|((good, _), _)| *good).map(|(_, place)| *place).collect();
    given.sort_unstable();
    let mut failed: Vec<usize> = newest
        .iter()
        .filter(|((is_good, id), _)| !is_good && !good.contains(id))
        .map(|(_, place)| *place)
        .collect();
    failed.sort_unstable();
    given.into_iter().chain(failed).map(|place| all[place].clone()).collect()
}

/// Gives the files of the batches, in pieces of any length.
struct Service {
    files: BTreeMap<String, String>,
    piece: usize,
}

impl Transport for Service {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        panic!("{} is not to be asked for", call.request.uri())
    }

    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        let path = call.request.uri().path().to_owned();
        let file = path.strip_suffix("/content").unwrap().rsplit('/').next().unwrap().to_owned();
        let Some(content) = self.files.get(&file) else {
            return Box::pin(std::future::ready(
                Ok(answer(404, &json!({"error": {"message": "no"}})).into()),
            ));
        };
        let pieces: Vec<_> =
            content.as_bytes().chunks(self.piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let incoming = Incoming {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            pieces: stream::iter(pieces).boxed(),
        };
        Box::pin(std::future::ready(Ok(incoming)))
    }
}

/// Registers the batches as submissions that were completed, one after the other.
async fn register(store: &Store, made: &[Made]) {
    for (number, made) in made.iter().enumerate() {
        let at = EPOCH + jiff::SignedDuration::from_mins(i64::try_from(number).unwrap());
        let lineage = Lineage { resubmits: made.repeats.map(id), ..Lineage::default() };
        let marker = format!("bd-{number}");
        let submission = Submission {
            marker: marker.clone(),
            provider: "openai".to_owned(),
            endpoint: "/v1/responses".to_owned(),
            model: None,
            requests: 1,
            file_name: "in.jsonl".to_owned(),
            uploaded_file: None,
            input_file: None,
            lineage: lineage.clone(),
            metadata: BTreeMap::new(),
            user_fields: UserFields::default(),
            owner: None,
            begun_at: at,
            lost_at: None,
            candidates: Vec::new(),
            trouble: None,
        };
        assert!(store.open_submission(submission, None).await.unwrap());
        let key = BatchKey { provider: "openai".to_owned(), id: id(number) };
        let mut tracked = Tracked::new(key, "openai", "/v1/responses", Origin::Hand, at);
        tracked.lineage = lineage;
        tracked.settled = true;
        tracked.next_poll_at = None;
        let [output, errors] = lines(made, number);
        let count = |good: bool| {
            let is_good = |end: &End| (*end == End::Succeeded) == good;
            made.ends.iter().filter(|(_, end)| is_good(end)).count() as u64
        };
        let batch = &mut tracked.batch;
        batch.status = made.status;
        batch.created_at = at.as_second();
        batch.output_file_id = (!output.is_empty()).then(|| format!("out-{number}"));
        batch.error_file_id = (!errors.is_empty()).then(|| format!("err-{number}"));
        batch.request_counts = Some(RequestCounts {
            total: count(true) + count(false),
            completed: count(true),
            failed: count(false),
        });
        let item = Registration { tracked, first_look: None, user_fields: UserFields::default() };
        store.complete_submission(marker, item, Arc::new(Routes::default())).await.unwrap();
    }
}

/// What is given if the batch `named` is asked for.
async fn merged(engine: &Engine, store: &Store, named: usize, only_failures: bool) -> Vec<Value> {
    let key = BatchKey { provider: "openai".to_owned(), id: id(named) };
    let (_, tracked) = store.get(key).await.unwrap().unwrap();
    let all = family(store, &tracked).await.unwrap();
    let mut merged = engine.merged_results(all, only_failures);
    let mut text = Vec::new();
    while let Some(piece) = merged.next().await {
        let piece = piece.unwrap();
        assert!(piece.ends_with(b"\n"));
        text.extend_from_slice(&piece);
    }
    let given: Vec<Value> =
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = merged.summary();
    let failed = given.iter().filter(|line| line["response"]["status_code"] != 200).count() as u64;
    assert_eq!((summary.lines, summary.failed), (given.len() as u64, Some(failed)));
    given
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_request_is_given_once_the_newest_success_first_and_in_order(
        made in family_of_batches(),
        named: prop::sample::Index,
        piece in prop::sample::select(&[1_usize, 7, 100, 100_000][..]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let files = made.iter().enumerate().flat_map(|(number, made)| {
                let [output, errors] = lines(made, number);
                let text = |lines: Vec<Value>| lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n";
                [(format!("out-{number}"), text(output)), (format!("err-{number}"), text(errors))]
            });
            let service = Arc::new(Service { files: files.collect(), piece });
            let world = World::new(73);
            let life = world.live(&[]).await;
            let never = Duration::from_hours(24);
            let polling = Polling { min_interval: never, max_interval: never, ..Polling::default() };
            let accounts = vec![account("openai", service, polling)];
            life.engine.apply(accounts, Routes::default()).await.unwrap();
            register(&life.store, &made).await;
            let expected = expected(&made);
            let named = named.index(made.len());
            let given = merged(&life.engine, &life.store, named, false).await;
            prop_assert_eq!(&given, &expected);
            let ids: BTreeSet<&str> = given.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
            prop_assert_eq!(ids.len(), given.len());
            let failures: Vec<Value> =
                expected.into_iter().filter(|line| line["response"]["status_code"] != 200).collect();
            prop_assert_eq!(merged(&life.engine, &life.store, named, true).await, failures);
            life.end().await;
            Ok(())
        })?;
    }
}
