//! Where the dashboard has the page of a batch: the path that its own links and the messages of webhooks share.

use super::tracked::BatchKey;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

impl BatchKey {
    /// The path of the batch's page, `/b/PROVIDER:ID`; slashes of the id stay slashes.
    pub fn page(&self) -> String {
        format!("/b/{}:{}", encoded(&self.provider), encoded(&self.id))
    }
}

fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, KEPT)
}

/// What a path may hold as it is.
const KEPT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_leaves_its_path() {
        let page =
            |provider: &str, id: &str| BatchKey { provider: provider.to_owned(), id: id.to_owned() }.page();
        assert_eq!(page("openai", "batch_abc-1.2"), "/b/openai:batch_abc-1.2");
        assert_eq!(page("gemini", "batches/x1"), "/b/gemini:batches/x1");
        assert_eq!(page("aws", "arn:aws:x/y z?q#<\"é"), "/b/aws:arn:aws:x/y%20z%3Fq%23%3C%22%C3%A9");
    }
}
