//! `temperature`, `top_p` and `top_k`, which not every Claude model takes.

use super::models::{Rules, Sampling};
use crate::provider::fields::{Fields, refuse};
use crate::provider::submit::Untranslatable;
use serde_json::{Map, Number};

/// The parameters of sampling that are to be sent.
#[derive(Debug, Default)]
pub(in crate::provider) struct Sampled {
    /// 0 to 1.
    pub temperature: Option<Number>,
    /// 0 to 1.
    pub top_p: Option<Number>,
    /// OpenAI has none; other services in its form do.
    pub top_k: Option<Number>,
}

/// Takes them. A value that is the default anyway is left out where it would be refused; any other is refused here,
/// as every request with it would fail.
pub(in crate::provider) fn take(
    fields: &mut Fields,
    model: &str,
    rules: &Rules,
    thinks: bool,
) -> Result<Sampled, Untranslatable> {
    let mut sampled = Sampled {
        temperature: fields.take_number("temperature")?,
        top_p: fields.take_number("top_p")?,
        top_k: fields.take_number("top_k")?,
    };
    let is_default = |number: &Option<Number>| number.as_ref().and_then(Number::as_f64) == Some(1.0);
    if let Some(temperature) = &sampled.temperature
        && temperature.as_f64().is_none_or(|value| !(0.0..=1.0).contains(&value))
    {
        return refuse(format!(
            "the `temperature` {temperature} is not between 0 and 1, which is what Anthropic takes"
        ));
    }
    let one_of_two = sampled.temperature.is_some() && sampled.top_p.is_some();
    if thinks || rules.sampling == Sampling::Nothing || rules.sampling == Sampling::OneOfTwo && one_of_two {
        for value in [&mut sampled.top_p, &mut sampled.temperature] {
            if is_default(value) {
                *value = None;
            }
        }
    }
    let given = [("temperature", &sampled.temperature), ("top_p", &sampled.top_p), ("top_k", &sampled.top_k)];
    for (key, value) in given {
        let Some(value) = value else { continue };
        if rules.sampling == Sampling::Nothing {
            return refuse(format!("the `{key}` {value} is not taken by `{model}`; leave it out"));
        }
        // With thinking on, `top_p` may still be nearly 1.
        if thinks && !(key == "top_p" && value.as_f64().is_some_and(|value| value >= 0.95)) {
            return refuse(format!("the `{key}` {value} is not taken by `{model}` while it thinks"));
        }
    }
    if rules.sampling == Sampling::OneOfTwo && sampled.temperature.is_some() && sampled.top_p.is_some() {
        return refuse(format!("`{model}` takes `temperature` or `top_p`, not both"));
    }
    Ok(sampled)
}

impl Sampled {
    /// Adds them to a request of the Messages API.
    pub fn add_to(self, params: &mut Map<String, serde_json::Value>) {
        for (key, value) in [("temperature", self.temperature), ("top_p", self.top_p), ("top_k", self.top_k)]
        {
            params.extend(value.map(|value| (key.to_owned(), value.into())));
        }
    }
}
