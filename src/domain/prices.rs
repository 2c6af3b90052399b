//! Which price holds for a model: those of the configuration first, then the imported list (`docs/cost.md#prices`).

use super::cost::{Cost, Priced, Rates, SpentByModel};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The models that a price of the configuration is for: a name, in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it fits the whole name.
    pub fn fits(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some((_, behind)) = rest.split_once(piece) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }

    /// By what the most specific of several comes first: a name before a pattern, then the longest, then by the alphabet.
    fn rank(&self) -> (bool, Reverse<usize>, &str) {
        let literal = self.0.chars().filter(|c| *c != '*').count();
        (self.0.contains('*'), Reverse(literal), &self.0)
    }
}

/// A price of the imported list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What the list calls the model.
    pub key: String,
    #[serde(flatten)]
    pub rates: Rates,
}

/// What `prices import` read: prices by the kind of provider and the name of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedPrices {
    pub prices: BTreeMap<String, BTreeMap<String, Listed>>,
}

impl ImportedPrices {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.prices.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The prices in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Those of the configuration, the most specific first.
    own: Vec<(Pattern, Rates)>,
    imported: ImportedPrices,
}

/// Whose batch it is.
#[derive(Clone, Copy, Debug)]
pub struct Buyer<'a> {
    /// The provider's name in the configuration.
    pub provider: &'a str,
    pub kind: &'a str,
}

impl Prices {
    pub fn new(own: impl IntoIterator<Item = (Pattern, Rates)>, imported: ImportedPrices) -> Self {
        let mut own: Vec<_> = own.into_iter().collect();
        own.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        Self { own, imported }
    }

    /// `rates` by their patterns, and a list.
    pub fn of(rates: &BTreeMap<String, Rates>, imported: ImportedPrices) -> Self {
        Self::new(rates.iter().map(|(pattern, rates)| (Pattern::new(pattern), *rates)), imported)
    }

    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.imported.is_empty()
    }

    /// The imported list.
    pub const fn list(&self) -> &ImportedPrices {
        &self.imported
    }

    /// How many prices the imported list has.
    pub fn imported(&self) -> usize {
        self.imported.len()
    }

    /// The price of a model. Only the whole name counts: one that merely resembles another has its own price or none.
    pub fn find(&self, buyer: Buyer<'_>, model: &str) -> Option<Priced> {
        let whole = format!("{}/{model}", buyer.provider);
        if let Some((pattern, rates)) =
            self.own.iter().find(|(pattern, _)| pattern.fits(model) || pattern.fits(&whole))
        {
            return Some(Priced { by: format!("prices.{}", pattern.0), rates: *rates });
        }
        let listed = self.imported.prices.get(buyer.kind)?.get(model)?;
        Some(Priced { by: format!("{FILE_NAME}:{}", listed.key), rates: listed.rates })
    }

    /// What these tokens cost.
    pub fn cost(&self, buyer: Buyer<'_>, spent: &SpentByModel) -> Option<Cost> {
        Cost::of(spent, |model| self.find(buyer, model))
    }
}

/// What the imported list is called, beside the configuration.
pub const FILE_NAME: &str = "prices.json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cost::Usd;
    use proptest::prelude::*;

    fn rates(input: u32) -> Rates {
        let price = Usd::price(&input.to_string()).unwrap();
        Rates {
            input: price,
            output: price,
            cached_input: None,
            cache_write: None,
            cache_write_1h: None,
            max_input: None,
        }
    }

    const OPENAI: Buyer<'static> = Buyer { provider: "eu", kind: "openai" };

    fn by(patterns: &[&str], model: &str) -> Option<String> {
        let own = patterns.iter().map(|pattern| (Pattern::new(*pattern), rates(1)));
        let listed = Listed { key: "gpt-4o-mini".to_owned(), rates: rates(2) };
        let models = BTreeMap::from([("gpt-4o-mini".to_owned(), listed)]);
        let imported = ImportedPrices { prices: BTreeMap::from([("openai".to_owned(), models)]) };
        Prices::new(own, imported).find(OPENAI, model).map(|priced| priced.by)
    }

    #[test]
    fn the_most_specific_price_wins() {
        let all = ["*", "gpt-4o*", "*-mini", "gpt-4o-mini", "gpt-*-mini", "eu/gpt-4*", "anthropic/*"];
        let by = |model| by(&all, model).unwrap();
        assert_eq!(by("gpt-4o-mini"), "prices.gpt-4o-mini");
        assert_eq!(by("gpt-4o"), "prices.eu/gpt-4*");
        assert_eq!(by("gpt-5-mini"), "prices.gpt-*-mini");
        assert_eq!(by("o3-mini"), "prices.*-mini");
        assert_eq!(by("o3"), "prices.*");
    }

    #[test]
    fn what_merely_resembles_a_model_has_no_price() {
        for model in ["gpt-4o", "gpt-4o-mini-2024-07-18", "gpt-4o-mini2", "GPT-4o-mini", "ft:gpt-4o-mini", ""]
        {
            assert_eq!(by(&["gpt-4"], model), None, "{model}");
        }
        assert_eq!(by(&["gpt-4"], "gpt-4o-mini").unwrap(), "prices.json:gpt-4o-mini");
        assert_eq!(by(&["gpt-4o-mini"], "gpt-4o-mini").unwrap(), "prices.gpt-4o-mini", "the file's own wins");
        let other = Buyer { provider: "a", kind: "anthropic" };
        assert_eq!(Prices::default().find(other, "gpt-4o-mini"), None);
    }

    /// The same rule, letter by letter.
    fn fits(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                fits(rest, name) || name.split_first().is_some_and(|(_, left)| fits(pattern, left))
            }
            (Some((a, rest)), Some((b, left))) if a == b => fits(rest, left),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_its_letters_say(pattern in "[ab*]{0,7}", name in "[ab]{0,9}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(pattern.clone()).fits(&name), fits(&letters(&pattern), &letters(&name)));
        }

        #[test]
        fn the_order_in_the_file_says_nothing(
            mut patterns in proptest::collection::vec("[ab*/]{1,5}", 0..8), model in "[ab]{1,4}"
        ) {
            let before = patterns.iter().map(String::as_str).collect::<Vec<_>>();
            let found = by(&before, &model);
            patterns.reverse();
            prop_assert_eq!(found, by(&patterns.iter().map(String::as_str).collect::<Vec<_>>(), &model));
        }
    }
}
