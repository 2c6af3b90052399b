//! What a batch cost: tokens times prices, in exact decimal numbers (`docs/cost.md`).

use super::batch::{Batch, Usage};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An exact amount of US dollars. In JSON that is stored it is a text, so that no reader makes another number of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(Decimal);

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrice {
    #[error("it is not a decimal number")]
    NoNumber,
    #[error("it is negative")]
    Negative,
    #[error("it has more than {MAX_DIGITS} digits")]
    TooPrecise,
    #[error("it is more than {MAX_PRICE} dollars for a million tokens")]
    TooHigh,
}

impl Usd {
    /// A price per million tokens, as it is written: `0.075`, `7.5e-2`.
    pub fn price(text: &str) -> Result<Self, NoPrice> {
        Self::scaled(text, 0)
    }

    /// A price per token, as a price per million.
    pub fn price_of_one(text: &str) -> Result<Self, NoPrice> {
        Self::scaled(text, TOKENS_DIGITS)
    }

    /// The number that `text` writes, times ten to the power of `shift`.
    fn scaled(text: &str, shift: i32) -> Result<Self, NoPrice> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().map_err(|_| NoPrice::NoNumber)?),
            None => (text, 0),
        };
        let is_digit = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
        if !digits.chars().all(is_digit) || !digits.contains(|c: char| c.is_ascii_digit()) {
            return Err(NoPrice::NoNumber);
        }
        let number = Decimal::from_str_exact(digits).map_err(|error| match error {
            rust_decimal::Error::Underflow | rust_decimal::Error::ScaleExceedsMaximumPrecision(_) => {
                NoPrice::TooPrecise
            }
            rust_decimal::Error::ExceedsMaximumPossibleValue => NoPrice::TooHigh,
            _ => NoPrice::NoNumber,
        })?;
        if number.is_sign_negative() && !number.is_zero() {
            return Err(NoPrice::Negative);
        }
        let number = number.normalize();
        if number.is_zero() {
            return Ok(Self::default());
        }
        if number.mantissa() >= 10_i128.pow(MAX_DIGITS) {
            return Err(NoPrice::TooPrecise);
        }
        let scale = i64::from(number.scale()) - i64::from(exponent) - i64::from(shift);
        if scale > i64::from(MAX_DIGITS) {
            return Err(NoPrice::TooPrecise);
        }
        let number = match u32::try_from(scale) {
            Ok(scale) => Decimal::try_from_i128_with_scale(number.mantissa(), scale).ok(),
            // A scale below zero is so many zeros.
            Err(_) => u32::try_from(-scale).ok().and_then(|zeros| {
                Decimal::from_i128_with_scale(10, 0)
                    .mantissa()
                    .checked_pow(zeros)
                    .and_then(|power| number.mantissa().checked_mul(power))
                    .and_then(|whole| Decimal::try_from_i128_with_scale(whole, 0).ok())
            }),
        };
        match number {
            Some(number) if number <= Decimal::from(MAX_PRICE) => Ok(Self(number.normalize())),
            _ => Err(NoPrice::TooHigh),
        }
    }

    /// An amount as JSON writes it: `0.0123`, `1e-7`.
    pub fn read(number: &str) -> Option<Self> {
        Decimal::from_scientific(number).or_else(|_| Decimal::from_str_exact(number)).ok().map(Self)
    }

    /// Half of it.
    #[must_use]
    pub fn half(self) -> Self {
        // Times five, one place further to the right: exact.
        let halved = self.0.mantissa().checked_mul(5);
        let halved = halved.and_then(|five| Decimal::try_from_i128_with_scale(five, self.0.scale() + 1).ok());
        Self(halved.unwrap_or(self.0 / Decimal::TWO).normalize())
    }

    /// What `tokens` cost at this price per million; `None`: more than any batch costs.
    fn of_tokens(self, tokens: u64) -> Option<Self> {
        let mantissa = self.0.mantissa().checked_mul(i128::from(tokens))?;
        let scale = self.0.scale() + TOKENS_DIGITS.unsigned_abs();
        let exact = Decimal::try_from_i128_with_scale(mantissa, scale).ok()?.normalize();
        (exact <= Decimal::from(MAX_AMOUNT)).then_some(Self(exact))
    }

    /// Both together; `None`: more than can be added up exactly.
    pub fn plus(self, other: Self) -> Option<Self> {
        let scale = self.0.scale().max(other.0.scale());
        let aligned =
            |amount: Decimal| amount.mantissa().checked_mul(10_i128.checked_pow(scale - amount.scale())?);
        let sum = aligned(self.0)?.checked_add(aligned(other.0)?)?;
        Some(Self(Decimal::try_from_i128_with_scale(sum, scale).ok()?.normalize()))
    }

    /// How much more this is; negative if it is less.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self(-other.0))
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// As a JSON number with the same digits; they are exact up to fifteen of them.
    pub fn number(self) -> serde_json::Number {
        self.0.to_string().parse().unwrap_or_else(|_| 0.into())
    }

    /// For people: cents, and of less than a dollar as many digits as say something.
    pub fn shown(self) -> String {
        let places = if self.0.abs() >= Decimal::ONE || self.0.is_zero() {
            2
        } else {
            // Two digits that are not zero, so that what cost something never looks as if it had cost nothing.
            let digits = self.0.mantissa().unsigned_abs().checked_ilog10().map_or(1, |digits| digits + 1);
            let after_point = self.0.scale().saturating_sub(digits);
            (after_point + 2).max(2)
        };
        let rounded = self.0.round_dp(places).normalize();
        format!("${rounded:.*}", rounded.scale().max(2) as usize)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Usd {
    type Err = NoPrice;

    fn from_str(text: &str) -> Result<Self, NoPrice> {
        Decimal::from_str_exact(text).map(|amount| Self(amount.normalize())).map_err(|_| NoPrice::NoNumber)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a million tokens cost in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub input: Usd,
    pub output: Usd,
    /// Input that was read from a cache; without it, as other input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Usd>,
    /// Input that was written to a cache; without it, as other input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Usd>,
    /// Input that was written to a cache which keeps it for an hour; without it, as `cache_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Usd>,
    /// The longest input of one request, in tokens, for which these prices hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_input: Option<u64>,
}

/// The tokens of one model in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub usage: Usage,
    /// The longest input of one request, where each was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_input: Option<u64>,
}

/// The tokens of a batch by model, as its results tell them.
pub type SpentByModel = BTreeMap<String, Spent>;

/// The tokens that the results of a batch tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// All of them.
    pub usage: Usage,
    /// The same by model; empty where not every result names its model, or there are too many.
    pub by_model: SpentByModel,
    /// How many requests told theirs.
    pub requests: u64,
}

impl Told {
    /// With the tokens of one more request.
    pub fn add(&mut self, model: Option<&str>, usage: Usage) {
        self.usage += usage;
        let model = model
            .filter(|model| !model.is_empty())
            .filter(|_| self.requests == 0 || !self.by_model.is_empty());
        self.requests += 1;
        // A part of them would be taken for all.
        let Some(model) = model else { return self.by_model.clear() };
        if !self.by_model.contains_key(model) {
            if self.by_model.len() >= MAX_MODELS {
                return self.by_model.clear();
            }
            self.by_model.insert(model.to_owned(), Spent::default());
        }
        if let Some(spent) = self.by_model.get_mut(model) {
            spent.usage += usage;
            spent.longest_input = spent.longest_input.max(Some(usage.input_tokens));
        }
    }
}

/// The rates for one model, and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priced {
    pub by: String,
    pub rates: Rates,
}

/// What the requests to one model cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCost {
    pub amount: Usd,
    /// The price in use then: later ones change nothing.
    #[serde(flatten)]
    pub priced: Priced,
}

/// What a batch cost, with the prices that it was reckoned by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub input: Usd,
    pub output: Usd,
    pub models: BTreeMap<String, ModelCost>,
}

impl Cost {
    /// What `spent` costs; `None` if a model of it has no price, or one whose bounds it may exceed.
    pub fn of(spent: &SpentByModel, price: impl Fn(&str) -> Option<Priced>) -> Option<Self> {
        let mut cost = Self { input: Usd::default(), output: Usd::default(), models: BTreeMap::new() };
        for (model, spent) in spent {
            let priced = price(model)?;
            let (input, output) = priced.rates.of(spent)?;
            cost.input = cost.input.plus(input)?;
            cost.output = cost.output.plus(output)?;
            cost.models.insert(model.clone(), ModelCost { amount: input.plus(output)?, priced });
        }
        (!cost.models.is_empty()).then_some(cost)
    }

    /// What `spent` costs by the same prices; `None` if they are not for all of it.
    pub fn again(&self, spent: &SpentByModel) -> Option<Self> {
        Self::of(spent, |model| self.models.get(model).map(|model| model.priced.clone()))
    }

    /// Input and output together.
    pub fn amount(&self) -> Usd {
        // Both are far below what cannot be added.
        self.input.plus(self.output).unwrap_or_default()
    }

    /// Where its prices come from.
    pub fn priced_by(&self) -> String {
        let mut by: Vec<&str> = self.models.values().map(|model| model.priced.by.as_str()).collect();
        by.dedup();
        by.join(", ")
    }
}

impl Rates {
    /// What input and output cost.
    fn of(&self, spent: &Spent) -> Option<(Usd, Usd)> {
        let usage = &spent.usage;
        // No request had more input than all together.
        let longest = spent.longest_input.unwrap_or(usage.input_tokens);
        if self.max_input.is_some_and(|most| longest > most) {
            return None;
        }
        let details = usage.input_tokens_details;
        let (read, kept, written) =
            (details.cached_tokens, details.cache_write_1h_tokens, details.cache_write_tokens);
        // Each of them is a part of all input; numbers that contradict that say nothing.
        let plain = usage.input_tokens.checked_sub(read)?.checked_sub(written)?.checked_sub(kept)?;
        let write = self.cache_write.unwrap_or(self.input);
        let input = [
            self.input.of_tokens(plain)?,
            self.cached_input.unwrap_or(self.input).of_tokens(read)?,
            write.of_tokens(written)?,
            self.cache_write_1h.unwrap_or(write).of_tokens(kept)?,
        ];
        let input = input.into_iter().try_fold(Usd::default(), Usd::plus)?;
        // Reasoning is a part of the output, and is billed as such.
        Some((input, self.output.of_tokens(usage.output_tokens)?))
    }
}

/// The tokens of `batch` by model: as its results tell them, else as its provider does; `None` while it lives, or if
/// too little is known.
pub fn spent(batch: &Batch, told: &SpentByModel) -> Option<SpentByModel> {
    if !batch.status.is_terminal() {
        return None;
    }
    let usage = batch.usage.filter(|usage| !lacks_usage(batch, usage))?;
    let (input, output) = told.values().fold((0_u64, 0_u64), |(input, output), spent| {
        (input.saturating_add(spent.usage.input_tokens), output.saturating_add(spent.usage.output_tokens))
    });
    if !told.is_empty() && (input, output) == (usage.input_tokens, usage.output_tokens) {
        return Some(told.clone());
    }
    let model = batch.model.clone().filter(|model| !model.is_empty())?;
    Some(BTreeMap::from([(model, Spent { usage, longest_input: None })]))
}

/// Whether requests succeeded and no token is told: then the provider does not count them.
fn lacks_usage(batch: &Batch, usage: &Usage) -> bool {
    let none = usage.input_tokens == 0 && usage.output_tokens == 0;
    none && (usage.total_tokens > 0 || batch.request_counts.is_none_or(|counts| counts.completed > 0))
}

/// What all amounts are in.
pub const CURRENCY: &str = "USD";

/// Of one batch; a list of more names each request's own.
const MAX_MODELS: usize = 64;
/// Of a price, in decimal digits: no vendor's has half as many.
const MAX_DIGITS: u32 = 14;
/// In dollars, for a million tokens.
const MAX_PRICE: u32 = 1_000_000;
/// In dollars, for one batch.
const MAX_AMOUNT: u32 = 1_000_000_000;
/// Prices are for ten to this power of tokens.
const TOKENS_DIGITS: i32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::{InputTokensDetails, OutputTokensDetails, RequestCounts};
    use crate::domain::status::Status;
    use proptest::prelude::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            input_tokens_details: InputTokensDetails {
                cached_tokens: cached,
                ..InputTokensDetails::default()
            },
            output_tokens: output,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: output / 2 },
            total_tokens: input + output,
        }
    }

    fn rates(input: &str, output: &str, cached: Option<&str>) -> Rates {
        Rates {
            input: Usd::price(input).unwrap(),
            output: Usd::price(output).unwrap(),
            cached_input: cached.map(|cached| Usd::price(cached).unwrap()),
            cache_write: None,
            cache_write_1h: None,
            max_input: None,
        }
    }

    fn cost(rates: Rates, spent: Spent) -> Option<Cost> {
        let spent = BTreeMap::from([("m".to_owned(), spent)]);
        Cost::of(&spent, |_| Some(Priced { by: "prices.m".to_owned(), rates }))
    }

    fn all(usage: Usage) -> Spent {
        Spent { usage, longest_input: None }
    }

    #[test]
    fn prices_are_what_their_digits_say() {
        for (text, price) in [
            ("0.075", "0.075"),
            ("7.5e-2", "0.075"),
            ("7.50E-02", "0.075"),
            ("75", "75"),
            ("0", "0"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("+0.5", "0.5"),
            ("1000000", "1000000"),
        ] {
            assert_eq!(Usd::price(text).map(|price| price.to_string()), Ok(price.to_owned()), "{text}");
        }
        assert_eq!(Usd::price_of_one("1e-7").unwrap().to_string(), "0.1");
        assert_eq!(Usd::price_of_one("0.000000075").unwrap().to_string(), "0.075");
        for (text, why) in [
            ("-1", NoPrice::Negative),
            ("-1e-9", NoPrice::Negative),
            ("nan", NoPrice::NoNumber),
            ("inf", NoPrice::NoNumber),
            ("", NoPrice::NoNumber),
            (".", NoPrice::NoNumber),
            ("e5", NoPrice::NoNumber),
            ("1e", NoPrice::NoNumber),
            ("1,5", NoPrice::NoNumber),
            ("0x10", NoPrice::NoNumber),
            ("1e99999999999", NoPrice::NoNumber),
            ("1e2147483647", NoPrice::TooHigh),
            ("1e-2147483648", NoPrice::TooPrecise),
            ("1000001", NoPrice::TooHigh),
            ("1e30", NoPrice::TooHigh),
            ("0.123456789012345", NoPrice::TooPrecise),
            ("0.00000000000000000000000000000001", NoPrice::TooPrecise),
        ] {
            assert_eq!(Usd::price(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_batch_costs_the_sum_of_its_tokens() {
        let of = |rates, usage| cost(rates, all(usage)).map(|cost| cost.amount().to_string());
        let mini = rates("0.075", "0.30", Some("0.0375"));
        // 8,000 at 0.075, 1,000 at 0.0375 and 4,000 at 0.30; reasoning is among the 4,000.
        assert_eq!(of(mini, usage(9000, 1000, 4000)).unwrap(), "0.0018375");
        // Without a price of their own, cached tokens are input as any other.
        assert_eq!(of(rates("1", "0", None), usage(1_000_000, 1_000_000, 5)).unwrap(), "1");
        assert_eq!(of(mini, usage(0, 0, 0)).unwrap(), "0");
        assert_eq!(of(mini, usage(1, 2, 0)), None, "more was cached than read");
        assert_eq!(of(rates("1000000", "0", None), usage(u64::MAX, 0, 0)), None, "no batch costs that");
        let cost = cost(mini, all(usage(9000, 1000, 4000))).unwrap();
        assert_eq!(serde_json::to_string(&cost.amount().number()).unwrap(), "0.0018375");
        assert_eq!((cost.input, cost.output), (usd("0.0006375"), usd("0.0012")));
        let stored = serde_json::to_string(&cost).unwrap();
        assert_eq!(serde_json::from_str::<Cost>(&stored).unwrap(), cost);
    }

    #[test]
    fn what_is_written_to_a_cache_has_its_own_price() {
        let mut usage = usage(1_000_000, 100_000, 0);
        usage.input_tokens_details.cache_write_tokens = 200_000;
        usage.input_tokens_details.cache_write_1h_tokens = 300_000;
        let mut rates = rates("1", "5", Some("0.1"));
        let input = |rates| cost(rates, all(usage)).unwrap().input.to_string();
        assert_eq!(input(rates), "0.91");
        rates.cache_write = Some(Usd::price("1.25").unwrap());
        // 400,000 at 1, 100,000 at 0.1, 500,000 at 1.25.
        assert_eq!(input(rates), "1.035");
        rates.cache_write_1h = Some(Usd::price("2").unwrap());
        assert_eq!(input(rates), "1.26");
    }

    #[test]
    fn a_price_for_short_requests_is_for_short_requests() {
        let bounded = Rates { max_input: Some(1000), ..rates("1", "1", None) };
        let of = |input, longest_input| cost(bounded, Spent { usage: usage(input, 0, 1), longest_input });
        assert!(of(1000, None).is_some(), "no request can have been longer than all of them");
        assert!(of(1001, None).is_none());
        assert!(of(5000, Some(1000)).is_some());
        assert!(of(5000, Some(1001)).is_none());
    }

    #[test]
    fn the_tokens_of_results_are_told_by_model_or_not_at_all() {
        let mut told = Told::default();
        told.add(Some("a"), usage(10, 0, 1));
        told.add(Some("b"), usage(20, 5, 2));
        told.add(Some("a"), usage(30, 0, 3));
        assert_eq!(
            told.usage,
            Usage { output_tokens_details: OutputTokensDetails { reasoning_tokens: 2 }, ..usage(60, 5, 6) }
        );
        assert_eq!((told.by_model["a"].usage.input_tokens, told.by_model["a"].longest_input), (40, Some(30)));
        told.add(None, usage(1, 0, 1));
        assert!(told.by_model.is_empty() && told.usage.input_tokens == 61);
        told.add(Some("a"), usage(1, 0, 1));
        assert!(told.by_model.is_empty(), "a part is not taken for all");
        let mut many = Told::default();
        for number in 0..=MAX_MODELS {
            many.add(Some(&number.to_string()), usage(1, 0, 1));
        }
        assert!(many.by_model.is_empty());
    }

    #[test]
    fn what_was_spent_is_known_at_the_end_and_never_guessed() {
        let mut batch = Batch::unseen("batch_1", "/v1/chat/completions", 0);
        batch.usage = Some(usage(10, 0, 5));
        batch.model = Some("m".to_owned());
        let none = SpentByModel::new();
        assert_eq!(spent(&batch, &none), None, "it runs");
        for status in [Status::Completed, Status::Failed, Status::Expired, Status::Cancelled] {
            batch.status = status;
            assert_eq!(spent(&batch, &none).unwrap()["m"].usage, usage(10, 0, 5));
        }
        let parts =
            BTreeMap::from([("a".to_owned(), all(usage(4, 0, 3))), ("b".to_owned(), all(usage(6, 0, 2)))]);
        assert_eq!(spent(&batch, &parts), Some(parts.clone()));
        batch.usage = Some(usage(11, 0, 5));
        assert_eq!(
            spent(&batch, &parts).unwrap().keys().collect::<Vec<_>>(),
            ["m"],
            "the provider counted more"
        );
        batch.model = None;
        assert_eq!(spent(&batch, &parts), None);
        batch.model = Some("m".to_owned());
        batch.usage = Some(Usage::default());
        batch.request_counts = Some(RequestCounts { total: 3, completed: 2, failed: 1 });
        assert_eq!(spent(&batch, &none), None, "zeros of a service that does not count");
        batch.request_counts = Some(RequestCounts { total: 3, completed: 0, failed: 3 });
        assert!(spent(&batch, &none).is_some(), "nothing was done for nothing");
    }

    #[test]
    fn amounts_are_shown_as_people_write_them() {
        for (amount, shown) in [
            ("0", "$0.00"),
            ("12.304", "$12.30"),
            ("1234567.891", "$1234567.89"),
            ("0.5", "$0.50"),
            ("0.123456", "$0.12"),
            ("0.0018375", "$0.0018"),
            ("0.00000007", "$0.00000007"),
            ("0.00000123", "$0.0000012"),
        ] {
            assert_eq!(usd(amount).shown(), shown, "{amount}");
        }
    }

    fn price() -> impl Strategy<Value = String> {
        (0_u64..10_000, 0_u32..9).prop_map(|(digits, scale)| format!("{digits}e-{scale}"))
    }

    const TOKENS: std::ops::Range<u64> = 0..2_000_000_000;

    proptest! {
        /// By integers alone: dollars are units of ten to the power of minus fifteen.
        #[test]
        fn a_cost_is_exact(digits in 0_i128..10_000, scale in 0_u32..9, tokens in TOKENS) {
            let price = Usd::price(&format!("{digits}e-{scale}")).unwrap();
            let units = digits * i128::from(tokens) * 10_i128.pow(9 - scale);
            let cost = price.of_tokens(tokens).unwrap();
            prop_assert_eq!(cost, Usd(Decimal::try_from_i128_with_scale(units, 15).unwrap().normalize()));
            prop_assert_eq!(cost.to_string().parse::<Usd>().unwrap(), cost);
            prop_assert_eq!(price.half().plus(price.half()), Some(price));
        }

        #[test]
        fn parts_add_up_to_the_whole_in_any_order(
            (input, output, cached) in (price(), price(), price()),
            requests in proptest::collection::vec((TOKENS, 0.0..=1.0_f64, TOKENS), 1..20),
        ) {
            let rates = rates(&input, &output, Some(&cached));
            let requests = requests.into_iter().map(|(input, share, output)| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                         reason = "any part of the input will do")]
                let cached = (input as f64 * share) as u64;
                usage(input, cached.min(input), output)
            });
            let requests: Vec<Usage> = requests.collect();
            let mut total = Usage::default();
            let mut sum = Usd::default();
            for usage in &requests {
                total += *usage;
                sum = sum.plus(cost(rates, all(*usage)).unwrap().amount()).unwrap();
            }
            let mut backwards = Usd::default();
            for usage in requests.iter().rev() {
                backwards = backwards.plus(cost(rates, all(*usage)).unwrap().amount()).unwrap();
            }
            prop_assert_eq!(sum, backwards);
            prop_assert_eq!(Some(sum), cost(rates, all(total)).map(|cost| cost.amount()));
        }

        #[test]
        fn twice_the_tokens_cost_twice_as_much(price in price(), tokens in TOKENS) {
            let price = Usd::price(&price).unwrap();
            let once = price.of_tokens(tokens).unwrap();
            prop_assert_eq!(price.of_tokens(2 * tokens), once.plus(once));
            prop_assert_eq!(once.minus(once), Some(Usd::default()));
        }

        #[test]
        fn no_text_is_more_than_refused(text in "\\PC{0,24}|[0-9eE.+-]{0,40}") {
            let _ = (Usd::price(&text), Usd::price_of_one(&text), text.parse::<Usd>(), Usd::read(&text));
        }
    }
}
