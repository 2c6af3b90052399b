//! The HTTP API as `OpenAPI` 3.1 (`docs/http-api.md`), written by hand and held to the table of routes and to real answers.

use std::sync::LazyLock;

/// The document that `GET /openapi.json` answers, with this version of batchd in it.
pub(super) fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| TEXT.replacen("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""), 1));
    DOCUMENT.as_str()
}

const TEXT: &str = include_str!("openapi.json");

/// Where the document and the table of routes say different things, and what to do about each.
#[cfg(test)]
pub(super) fn differences<'a>(
    table: impl Iterator<Item = (&'a str, &'a str, super::access::Access, Option<super::query::Parameters>)>,
) -> Vec<String> {
    use super::access::Access;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    let document: Value = serde_json::from_str(document()).unwrap();
    let resolved = |parameter: &Value| match parameter["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => parameter.clone(),
    };
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            described.push((path.as_str(), method.to_ascii_uppercase(), operation));
        }
    }
    let mut differences = Vec::new();
    let mut found = BTreeSet::new();
    for (path, method, access, parameters) in table {
        let (word, security) = match access {
            Access::Anyone => ("anyone", json!([])),
            Access::Open => ("open", json!([])),
            Access::Reads => ("reads", json!([{"token": []}, {"readToken": []}, {}])),
            Access::ReadsUnlessFetched => {
                ("reads_unless_fetched", json!([{"token": []}, {"readToken": []}, {}]))
            }
            Access::Costs => ("costs", json!([{"token": []}])),
            Access::Copies => ("copies", json!([{"token": []}])),
            Access::Changes => ("changes", json!([{"token": []}])),
            // The dashboard is for people.
            Access::Page | Access::Act => continue,
        };
        // An id with a slash in it that nobody encoded is still one id.
        let route = path.replace("/{id}/{rest}", "/{id}");
        let beginning = route.split_once("{*").map(|(beginning, _)| beginning.to_owned());
        let fits = |path: &str| match &beginning {
            Some(beginning) => path.starts_with(beginning.as_str()),
            None => path == route,
        };
        let operations: Vec<_> =
            described.iter().filter(|(path, its_method, _)| its_method == method && fits(path)).collect();
        if operations.is_empty() {
            let lower = method.to_ascii_lowercase();
            differences.push(format!(
                "{method} {path} is not described: add \"{lower}\" to \"paths\" / \"{route}\" of src/control/openapi.json, \
                 with operationId, tags, summary, x-batchd-access, security, parameters and responses, \
                 and a request for it to tests/it/openapi.rs"
            ));
        }
        for (path, method, operation) in operations {
            found.insert((*path, method.clone()));
            if operation["x-batchd-access"] != word || operation["security"] != security {
                differences.push(format!(
                    "{method} {path} of src/control/openapi.json must have \"x-batchd-access\": \"{word}\" and \
                     \"security\": {security}, as the table of routes says"
                ));
            }
            let Some(parameters) = parameters else { continue };
            let named: BTreeSet<String> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(resolved)
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            let declared: BTreeSet<String> = parameters.iter().map(|name| (*name).to_owned()).collect();
            for name in declared.difference(&named) {
                differences.push(format!(
                    "{method} {path} takes the query parameter `{name}`: add it to its \"parameters\" in src/control/openapi.json"
                ));
            }
            for name in named.difference(&declared) {
                differences.push(format!(
                    "{method} {path} has the query parameter `{name}` in src/control/openapi.json only: remove it there, \
                     or add it to `.query(…)` of the route"
                ));
            }
        }
    }
    for (path, method, _) in described {
        if !found.contains(&(path, method.clone())) {
            differences
                .push(format!("{method} {path} is in src/control/openapi.json and in no table of routes"));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::super::api::ErrorCode;
    use super::document;
    use crate::domain::event::EventType;
    use crate::domain::status::Status;
    use crate::store::outbox::DeliveryState;
    use serde_json::{Value, json};

    /// Every code that there is. A new one does not compile before it is here.
    fn codes() -> Vec<Value> {
        use ErrorCode::*;
        let all = [
            BatchNotFound,
            NotFound,
            FileNotFound,
            FileMissing,
            FileInUse,
            StorageFull,
            IdempotencyKeyReused,
            CreationInProgress,
            AlreadyEnded,
            DeliveryInFlight,
            AmbiguousId,
            UnknownProvider,
            UnknownWebhook,
            InvalidRequest,
            InvalidInput,
            ProviderRefused,
            ProviderFailed,
            ConfigRefused,
            Unauthorized,
            Forbidden,
            Misdirected,
            BeyondEnd,
            Busy,
            NotEnded,
            BatchFailed,
            BatchExpired,
            BatchCancelled,
            QuotaExceeded,
            NothingToResubmit,
            AlreadyResubmitted,
            ResultsIncomplete,
            NotSupported,
            StateUnwritable,
            StateDamaged,
            Unavailable,
            Internal,
        ];
        for code in all {
            match code {
                BatchNotFound | NotFound | FileNotFound | FileMissing | FileInUse | StorageFull
                | IdempotencyKeyReused | CreationInProgress | AlreadyEnded | DeliveryInFlight
                | AmbiguousId | UnknownProvider | UnknownWebhook | InvalidRequest | InvalidInput
                | ProviderRefused | ProviderFailed | ConfigRefused | Unauthorized | Forbidden
                | Misdirected | BeyondEnd | Busy | NotEnded | BatchFailed | BatchExpired | BatchCancelled
                | QuotaExceeded | NothingToResubmit | AlreadyResubmitted | ResultsIncomplete
                | NotSupported | StateUnwritable | StateDamaged | Unavailable | Internal | Other => {}
            }
        }
        all.iter().map(|code| json!(code)).collect()
    }

    #[test]
    fn its_words_are_those_of_the_code() {
        let document: Value = serde_json::from_str(document()).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let schemas = &document["components"]["schemas"];
        let sorted = |words: &[Value]| {
            let mut words: Vec<String> = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            words.sort_unstable();
            words
        };
        let types: Vec<Value> = EventType::ALL.iter().map(|kind| json!(kind.as_str())).collect();
        let statuses: Vec<Value> = Status::ALL.iter().map(|status| json!(status)).collect();
        let states: Vec<Value> = DeliveryState::ALL.iter().map(|state| json!(state.as_str())).collect();
        for (place, words) in [
            ("/ErrorObject/properties/code/anyOf/0/enum", codes()),
            ("/EventType/anyOf/0/enum", types),
            ("/Status/enum", statuses),
            ("/Delivery/properties/state/enum", states),
        ] {
            let written = schemas.pointer(place).unwrap().as_array().unwrap();
            assert_eq!(
                sorted(written),
                sorted(&words),
                "write the words that there are to components/schemas{place} of src/control/openapi.json"
            );
        }
    }
}
