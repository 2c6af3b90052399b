//! The list of prices beside the configuration, which `prices import` writes.

use super::environment::Env;
use super::find;
use super::load::read_up_to;
use super::problem::{Problem, Refused};
use super::settings::Config;
use crate::domain::prices::{ImportedPrices, Prices};
use std::io::ErrorKind;
use std::sync::Arc;

impl Config {
    /// Reads the list beside this configuration, if there is one.
    pub(super) fn with_imported_prices(mut self, env: &Env) -> Result<Self, Refused> {
        let Some(file) = find::prices_file(self.file.as_deref(), env) else { return Ok(self) };
        let text = match read_up_to(&file, MAX_LIST_BYTES) {
            Ok(text) => text,
            Err(unread) if matches!(unread.kind, ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(self);
            }
            Err(unread) => return Err(Refused::plain(unread.problem)),
        };
        let imported: ImportedPrices = serde_json::from_str(&text).map_err(|error| {
            let message = format!("{} is not as `batchd prices import` writes it: {error}", file.display());
            Refused::plain(Problem::error(None, message).help("import it again, or delete it".to_owned()))
        })?;
        self.prices = Arc::new(Prices::of(&self.rates, imported));
        Ok(self)
    }
}

const MAX_LIST_BYTES: u64 = 16 << 20;
