//! Reads LiteLLM's list of prices: what of it holds for batches, and why the rest does not (`docs/cost.md#import`).

use super::cost::{NoPrice, Rates, Usd};
use super::prices::{ImportedPrices, Listed};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What the list calls the providers of a kind, and what is documented of their prices in batches.
struct Vendor {
    kind: &'static str,
    /// `litellm_provider`.
    listed: &'static [&'static str],
    /// Whether every model's batch price is documented to be half of the usual one.
    half: bool,
    /// What a cached token costs where `half` holds.
    cached: Cached,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cached {
    /// Half of the usual cached price: both discounts count.
    Half,
    /// The usual cached price.
    Usual,
    /// No less than other input.
    AsInput,
}

/// The sources are in `docs/cost.md#discounts`.
const VENDORS: &[Vendor] = &[
    Vendor { kind: "openai", listed: &["openai"], half: true, cached: Cached::Half },
    Vendor { kind: "azure-openai", listed: &["azure"], half: true, cached: Cached::AsInput },
    Vendor { kind: "anthropic", listed: &["anthropic"], half: true, cached: Cached::Half },
    Vendor { kind: "gemini", listed: &["gemini"], half: true, cached: Cached::Usual },
    Vendor {
        kind: "vertex",
        listed: &["vertex_ai-language-models", "vertex_ai-embedding-models"],
        half: true,
        cached: Cached::Usual,
    },
    Vendor {
        kind: "vertex",
        listed: &["vertex_ai-anthropic_models", "vertex_ai-llama_models", "vertex_ai-mistral_models"],
        half: false,
        cached: Cached::AsInput,
    },
    Vendor { kind: "mistral", listed: &["mistral"], half: true, cached: Cached::AsInput },
    Vendor { kind: "groq", listed: &["groq"], half: true, cached: Cached::AsInput },
    Vendor { kind: "bedrock", listed: &["bedrock", "bedrock_converse"], half: true, cached: Cached::AsInput },
    Vendor { kind: "fireworks", listed: &["fireworks_ai"], half: true, cached: Cached::AsInput },
    Vendor { kind: "dashscope", listed: &["dashscope"], half: true, cached: Cached::AsInput },
    Vendor { kind: "xai", listed: &["xai"], half: false, cached: Cached::AsInput },
    Vendor { kind: "together", listed: &["together_ai"], half: false, cached: Cached::AsInput },
    Vendor { kind: "moonshot", listed: &["moonshot"], half: false, cached: Cached::AsInput },
    Vendor { kind: "cohere", listed: &["cohere", "cohere_chat"], half: false, cached: Cached::AsInput },
    Vendor { kind: "deepinfra", listed: &["deepinfra"], half: false, cached: Cached::AsInput },
    Vendor { kind: "novita", listed: &["novita"], half: false, cached: Cached::AsInput },
    Vendor { kind: "zai", listed: &["zai"], half: false, cached: Cached::AsInput },
];

/// Why an entry of the list was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    OtherProvider,
    OtherUnit,
    Reasoning,
    Tiers,
    NoDiscount,
    TwoPrices,
    Negative,
    NoNumber,
    TooPrecise,
    TooHigh,
    NoEntry,
}

impl Skipped {
    /// In words, behind how many they are.
    pub const fn why(self) -> &'static str {
        match self {
            Self::OtherProvider => {
                "of providers that batchd does not watch, or that do not say which they are"
            }
            Self::OtherUnit => "without prices for both input and output tokens",
            Self::Reasoning => "with another price for reasoning than for other output",
            Self::Tiers => "with prices in tiers",
            Self::NoDiscount => {
                "without a batch price, of providers whose batch discount is not documented as one half"
            }
            Self::TwoPrices => "with another price under another name",
            Self::Negative => "with a negative price",
            Self::NoNumber => "with a price that is not a number",
            Self::TooPrecise => "with a price of too many digits",
            Self::TooHigh => "with a price that cannot be true",
            Self::NoEntry => "that are not objects",
        }
    }
}

/// What was made of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    pub imported: ImportedPrices,
    /// Prices that the list has for batches.
    pub as_listed: usize,
    /// Prices that are half of the usual ones.
    pub halved: usize,
    pub skipped: BTreeMap<Skipped, usize>,
}

/// Reads the text of a list.
///
/// # Errors
///
/// It is no JSON object, or nothing in it looks like a price.
pub fn read(text: &str) -> Result<Import, String> {
    let entries: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON object of models: {error}"))?;
    let mut import = Import::default();
    let mut ambiguous: BTreeSet<(String, String)> = BTreeSet::new();
    let mut halved: BTreeSet<(String, String)> = BTreeSet::new();
    for (key, entry) in &entries {
        if key == SPECIMEN {
            continue;
        }
        match price(key, entry.get()) {
            Ok((vendor, model, rates, is_halved)) => {
                let models = import.imported.prices.entry(vendor.kind.to_owned()).or_default();
                match models.get(&model) {
                    Some(other) if other.rates == rates => {}
                    Some(_) => {
                        ambiguous.insert((vendor.kind.to_owned(), model));
                    }
                    None => {
                        if is_halved {
                            halved.insert((vendor.kind.to_owned(), model.clone()));
                        }
                        models.insert(model, Listed { key: key.clone().into_owned(), rates });
                    }
                }
            }
            Err(why) => *import.skipped.entry(why).or_default() += 1,
        }
    }
    *import.skipped.entry(Skipped::TwoPrices).or_default() += ambiguous.len();
    for (kind, model) in &ambiguous {
        if let Some(models) = import.imported.prices.get_mut(kind) {
            models.remove(model);
        }
    }
    import.halved = halved.difference(&ambiguous).count();
    import.as_listed = import.imported.len() - import.halved;
    import.skipped.retain(|_, count| *count > 0);
    import.imported.prices.retain(|_, models| !models.is_empty());
    let nothing = import.skipped.keys().all(|why| matches!(why, Skipped::NoEntry | Skipped::OtherProvider));
    if import.imported.prices.is_empty() && nothing {
        return Err("nothing in it is a price of a provider that batchd watches: LiteLLM's list is \
                    called model_prices_and_context_window.json"
            .to_owned());
    }
    Ok(import)
}

type Found = (&'static Vendor, String, Rates, bool);

/// The batch price that an entry tells, and whether it is half of its usual one.
fn price(key: &str, entry: &str) -> Result<Found, Skipped> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(entry).map_err(|_| Skipped::NoEntry)?;
    let text = |field: &str| fields.get(field).map(|value| value.get()).filter(|value| *value != "null");
    let provider: Option<Cow<'_, str>> =
        text("litellm_provider").and_then(|value| serde_json::from_str(value).ok());
    let provider = provider.ok_or(Skipped::OtherProvider)?;
    let vendor = VENDORS
        .iter()
        .find(|vendor| vendor.listed.contains(&provider.as_ref()))
        .ok_or(Skipped::OtherProvider)?;
    // The list writes some numbers as texts.
    let number = |field: &str| text(field).map(|value| amount(value.trim_matches('"'))).transpose();
    if fields.contains_key("tiered_pricing") {
        return Err(Skipped::Tiers);
    }
    let (input, output) = (number("input_cost_per_token")?, number("output_cost_per_token")?);
    let batch = (number("input_cost_per_token_batches")?, number("output_cost_per_token_batches")?);
    // An embedding has no output to pay for.
    let is_embedding = text("mode") == Some("\"embedding\"");
    let nothing = is_embedding.then(Usd::default);
    let batch_price = batch.0.zip(batch.1.or(nothing));
    let usual = input.zip(output.or(nothing));
    let cached = number("cache_read_input_token_cost")?;
    let written = number("cache_creation_input_token_cost")?;
    let written_1h = number("cache_creation_input_token_cost_above_1hr")?;
    let reasoning = number("output_cost_per_reasoning_token")?;
    if reasoning.is_some_and(|reasoning| usual.is_some_and(|(_, output)| reasoning != output)) {
        return Err(Skipped::Reasoning);
    }
    let (input, output, is_halved) = match (batch_price, usual) {
        (Some((input, output)), _) => (input, output, false),
        (None, Some(_)) if !vendor.half => return Err(Skipped::NoDiscount),
        (None, Some((input, output))) => (input.half(), output.half(), true),
        (None, None) => return Err(Skipped::OtherUnit),
    };
    let listed_cached = number("cache_read_input_token_cost_batches")?;
    let listed_written = number("cache_creation_input_token_cost_batches")?;
    let in_batch = |usual: Option<Usd>| match vendor.cached {
        Cached::Half => usual.map(Usd::half),
        Cached::Usual => usual,
        Cached::AsInput => None,
    };
    let rates = Rates {
        input,
        output,
        cached_input: listed_cached.or_else(|| in_batch(cached)),
        cache_write: listed_written.or_else(|| in_batch(written)),
        cache_write_1h: in_batch(written_1h),
        max_input: max_input(fields.keys().map(AsRef::as_ref)),
    };
    let model = key.strip_prefix(provider.as_ref()).and_then(|rest| rest.strip_prefix('/'));
    let model = model.or_else(|| PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix))).unwrap_or(key);
    Ok((vendor, model.to_owned(), rates, is_halved))
}

fn amount(text: &str) -> Result<Usd, Skipped> {
    Usd::price_of_one(text).map_err(|error| match error {
        NoPrice::Negative => Skipped::Negative,
        NoPrice::NoNumber => Skipped::NoNumber,
        NoPrice::TooPrecise => Skipped::TooPrecise,
        NoPrice::TooHigh => Skipped::TooHigh,
    })
}

/// The length of a request's input from which other prices hold, as the names of fields tell: `…_above_200k_tokens`.
fn max_input<'a>(fields: impl Iterator<Item = &'a str>) -> Option<u64> {
    let bounds = fields.filter_map(|field| {
        let (_, behind) = field.split_once("_cost_per_token_above_")?;
        let (thousands, _) = behind.split_once("k_tokens")?;
        thousands.parse::<u64>().ok()?.checked_mul(1000)
    });
    bounds.min()
}

/// The entry that explains the list's fields.
const SPECIMEN: &str = "sample_spec";

/// What stands before a model's name where that is not the name of its provider in the list.
const PREFIXES: [&str; 3] = ["vertex_ai/", "bedrock/", "cohere/"];

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = include_str!("../../tests/fixtures/prices/litellm.json");

    fn taken(import: &Import) -> Vec<String> {
        let models = import.imported.prices.iter().flat_map(|(kind, models)| {
            models.iter().map(move |(model, listed)| {
                let Rates { input, output, cached_input, cache_write, cache_write_1h, max_input } =
                    listed.rates;
                let more: Vec<String> =
                    [("cached", cached_input), ("write", cache_write), ("1h", cache_write_1h)]
                        .into_iter()
                        .filter_map(|(name, price)| Some(format!(" {name} {}", price?)))
                        .chain(max_input.map(|most| format!(" up to {most}")))
                        .collect();
                format!("{kind} {model}: {input} {output}{}", more.concat())
            })
        });
        models.collect()
    }

    #[test]
    fn batch_prices_are_taken_as_listed_and_others_halved_where_that_is_documented() {
        let import = read(LIST).unwrap();
        assert_eq!(
            taken(&import),
            [
                "anthropic claude-example: 0.5 2.5 cached 0.05 write 0.625 1h 1",
                "azure-openai example-mini: 0.083 0.33",
                "gemini example-flash: 0.15 1.25 cached 0.03",
                "gemini example-pro: 0.625 5 cached 0.125 up to 200000",
                "mistral example-small: 0.05 0.15",
                "openai example-embedding: 0.01 0",
                "openai example-mini: 0.075 0.3 cached 0.0375",
                "xai example: 1 5",
            ]
        );
        assert_eq!((import.as_listed, import.halved), (4, 4));
        let skipped: Vec<(Skipped, usize)> = import.skipped.into_iter().collect();
        assert_eq!(
            skipped,
            [
                (Skipped::OtherProvider, 2),
                (Skipped::OtherUnit, 1),
                (Skipped::Reasoning, 1),
                (Skipped::Tiers, 1),
                (Skipped::NoDiscount, 1),
                (Skipped::TwoPrices, 1),
                (Skipped::Negative, 1),
                (Skipped::NoNumber, 2),
                (Skipped::TooPrecise, 1),
                (Skipped::TooHigh, 1),
                (Skipped::NoEntry, 1),
            ]
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "[]", "{", "NaN", "{\"a\": NaN}", "{}", "{\"a\": {\"litellm_provider\": \"who\"}}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_of_ten_megabytes_is_read() {
        let entry = |number: usize| {
            format!(
                "\"m{number}\": {{\"litellm_provider\": \"openai\", \"input_cost_per_token\": 1e-06,
                  \"output_cost_per_token\": 2e-06, \"notes\": \"{}\"}}",
                "x".repeat(900)
            )
        };
        let entries: Vec<String> = (0..10_000).map(entry).collect();
        let list = format!("{{{}}}", entries.join(","));
        assert!(list.len() > 10_000_000);
        assert_eq!(read(&list).unwrap().halved, 10_000);
    }
}
