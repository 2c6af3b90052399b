//! The rules for `[prices."PATTERN"]`.

use super::rules::Check;
use crate::config::problem::{quote, shown};
use crate::config::settings::PriceTable;
use crate::config::table::Named;
use crate::domain::cost::Rates;
use std::collections::BTreeMap;

impl Check<'_> {
    /// `[prices]`, by the pattern.
    pub fn rates(&mut self, tables: &[Named<PriceTable>]) -> BTreeMap<String, Rates> {
        let rates: Vec<_> = tables.iter().map(|named| self.rates_of(named)).collect();
        rates.into_iter().flatten().collect()
    }

    fn rates_of(&mut self, Named { name, table }: &Named<PriceTable>) -> Option<(String, Rates)> {
        let pattern = name.get_ref();
        if pattern.is_empty() || pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let message = format!("{} cannot be the name of a model", quote(pattern));
            let help = "a model is named as its provider names it: [prices.\"gpt-4o-mini\"]";
            self.refuse(name.span(), message, help.to_owned());
        }
        for (key, is_missing) in [("input", table.input.is_missing()), ("output", table.output.is_missing())]
        {
            if is_missing {
                let message = format!("the price of {} needs `{key}`", quote(pattern));
                let help = format!("{key} = what a million tokens cost in a batch, in dollars; 0 if nothing");
                self.refuse(name.span(), message, help);
            }
        }
        let (input, output) = (table.input.value()?, table.output.value()?);
        if let Some(cached) = table.cached_input.given().filter(|cached| *cached.get_ref() > input) {
            self.warn(
                cached.span(),
                format!("`prices.{}.cached_input` is more than `input`", shown(pattern)),
            );
        }
        let rates = Rates {
            input,
            output,
            cached_input: table.cached_input.value(),
            cache_write: table.cache_write.value(),
            cache_write_1h: table.cache_write_1h.value(),
            max_input: None,
        };
        Some((pattern.clone(), rates))
    }
}
