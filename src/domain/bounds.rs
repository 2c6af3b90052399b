//! How much of what a provider says of a batch is kept: enough for people, and never so much that one batch weighs on all
//! (`docs/contract.md#the-batch-shape`).

use super::batch::{BatchError, BatchErrors};
use std::collections::BTreeMap;

/// The beginning of `text` in at most `most` bytes, with an ellipsis if anything is left out.
pub fn beginning(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// A name or a word, in at most a kibibyte.
pub fn word(text: &str) -> String {
    beginning(text, WORD)
}

/// Whether a text is short enough to be an id. A longer one is nobody's, and half of one is no use.
pub const fn is_id(text: &str) -> bool {
    text.len() <= ID
}

/// The first errors of a batch, each in at most a few kibibytes; the others are counted.
pub fn errors(errors: &BatchErrors) -> BatchErrors {
    let short = |text: &Option<String>| text.as_deref().map(|text| beginning(text, ERROR_TEXT));
    let mut room = ERRORS_BYTES;
    let data: Vec<BatchError> = errors
        .data
        .iter()
        .take(ERRORS)
        .map(|error| BatchError {
            code: short(&error.code),
            line: error.line,
            message: short(&error.message),
            param: short(&error.param),
        })
        .take_while(|error| {
            let texts = [&error.code, &error.message, &error.param];
            let length = texts.into_iter().flatten().map(String::len).sum();
            room.checked_sub(length).map(|rest| room = rest).is_some()
        })
        .collect();
    let left_out = (errors.data.len() - data.len()) as u64 + errors.truncated.unwrap_or(0);
    BatchErrors { object: errors.object, data, truncated: (left_out > 0).then_some(left_out) }
}

/// The entries of `metadata` that fit, in their order, and how many do not.
pub fn metadata(metadata: &BTreeMap<String, String>) -> (BTreeMap<String, String>, usize) {
    let mut room = METADATA_BYTES;
    let fitting = metadata
        .iter()
        .filter(|(key, value)| room.checked_sub(key.len() + value.len()).map(|rest| room = rest).is_some());
    let kept: BTreeMap<_, _> = fitting.map(|(key, value)| (key.clone(), value.clone())).collect();
    let left_out = metadata.len() - kept.len();
    (kept, left_out)
}

const WORD: usize = 1024;
const ID: usize = 4096;
/// Errors of one batch.
const ERRORS: usize = 1000;
/// Bytes of one text of an error.
const ERROR_TEXT: usize = 2048;
/// Bytes of all texts of the errors of one batch.
const ERRORS_BYTES: usize = 128 * 1024;
/// Bytes of the keys and values of one batch's metadata; OpenAI allows 9 KiB.
const METADATA_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn many(count: usize, length: usize) -> BatchErrors {
        let error = BatchError { message: Some("é".repeat(length)), ..BatchError::default() };
        BatchErrors { data: vec![error; count], ..BatchErrors::default() }
    }

    #[test]
    fn errors_beyond_the_bounds_are_counted() {
        let kept = errors(&many(50_000, 10));
        assert_eq!((kept.data.len(), kept.truncated), (1000, Some(49_000)));
        let kept = errors(&many(500, 1_000_000));
        assert!(kept.data.len() > 60 && kept.data[0].message.as_ref().unwrap().ends_with("é…"));
        assert_eq!(kept.truncated, Some(500 - kept.data.len() as u64));
        let few = many(3, 10);
        assert_eq!(errors(&few), few);
    }

    #[test]
    fn what_fits_of_metadata_is_kept_whole() {
        let metadata_of = |length: usize| {
            BTreeMap::from([("a".to_owned(), "x".repeat(length)), ("b".to_owned(), "y".to_owned())])
        };
        assert_eq!(metadata(&metadata_of(100)), (metadata_of(100), 0));
        assert_eq!(
            metadata(&metadata_of(5_000_000)),
            (BTreeMap::from([("b".to_owned(), "y".to_owned())]), 1)
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_keeping_it_again_changes_nothing(
            lengths in proptest::collection::vec(0_usize..5000, 0..200), counted in proptest::option::of(1_u64..9),
        ) {
            let data = lengths.iter().map(|length| BatchError { param: Some("€".repeat(*length)), ..BatchError::default() });
            let all = BatchErrors { data: data.collect(), truncated: counted, ..BatchErrors::default() };
            let kept = errors(&all);
            let bytes: usize = kept.data.iter().flat_map(|error| &error.param).map(String::len).sum();
            prop_assert!(bytes <= ERRORS_BYTES);
            let count = |errors: &BatchErrors| errors.data.len() as u64 + errors.truncated.unwrap_or(0);
            prop_assert_eq!(count(&kept), count(&all));
            prop_assert_eq!(&errors(&kept), &kept);
        }
    }
}
