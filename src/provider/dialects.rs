//! Services whose batches are OpenAI's at another address: a row each, of what they are called and what differs.

use super::hook::Hook;
use super::openai::{
    Creation, Dialect, OpenAi, Paging, WORDS, Way, bare, creation_without_window, megabytes,
};
use super::read::OPENAI_WORDS;
use super::submit::{Intake, LineForm, OPENAI_LINE};
use super::{Kind, Listing, is_uuid};
use crate::config::KindFacts;
use crate::domain::status::Status;

/// One service. What a row leaves out is as at OpenAI.
struct Row {
    facts: KindFacts,
    /// See [`Kind::claims`].
    claims: fn(&str) -> bool,
    /// See [`Kind::words`].
    words: &'static [(&'static str, Status)],
    hook: Option<Hook>,
    dialect: Dialect,
}

impl Row {
    const OPENAI: Self = Self {
        facts: KindFacts::NONE,
        claims: |_| false,
        words: &OPENAI_WORDS,
        hook: None,
        dialect: Dialect::OPENAI,
    };
}

/// The kinds that rows describe.
macro_rules! kinds {
    ($($row:expr),+ $(,)?) => {
        &[$({
            const ROW: Row = $row;
            const KIND: Kind = Kind {
                facts: ROW.facts,
                claims: ROW.claims,
                words: ROW.words,
                hook: ROW.hook,
                build: |account| Box::new(OpenAi::of(account, &ROW.dialect)),
            };
            &KIND
        }),+]
    };
}

/// How files become batches where only what is taken differs.
const fn takes(intake: Intake) -> Creation {
    Creation { intake, ..Creation::OPENAI }
}

/// The same where completion windows have these bounds, in hours.
const fn takes_within(windows: (u64, u64), intake: Intake) -> Creation {
    Creation { intake, way: Way { windows: Some(windows), ..Way::OPENAI }, ..Creation::OPENAI }
}

/// A service of which no more is known than stands in its row.
const fn preset(name: &'static str) -> KindFacts {
    KindFacts { name, preset_of: Some("openai-compatible"), ..KindFacts::NONE }
}

/// Lines as at OpenAI, each for a model of its own.
const ANY_MODEL: Intake = Intake { one_model: false, ..Intake::OPENAI };

const DAY_HOURS: u64 = 24;
const DAY_SECS: i64 = 86_400;

/// Every row as a kind of provider.
pub const KINDS: &[&Kind] = kinds![
    // docs/providers/groq.md
    Row {
        facts: KindFacts {
            name: "groq",
            key_env: &["GROQ_API_KEY"],
            base_url_env: Some("GROQ_BASE_URL"),
            base_url: Some("https://api.groq.com/openai/v1"),
            adds_version: true,
            ..KindFacts::NONE
        },
        claims: is_ulid,
        dialect: Dialect {
            root: "/openai/v1",
            // How many are on a page is not told; two hundred can be asked for by their ids.
            listing: Listing { by_id: 200, ..Listing::pages(20) },
            paging: Paging::Cursor,
            file_retention_secs: Some(30 * DAY_SECS),
            creation: Some(takes_within(
                (DAY_HOURS, 7 * DAY_HOURS),
                Intake { max_requests: Some(50_000), max_bytes: Some(megabytes(200)), ..ANY_MODEL },
            )),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // docs/providers/moonshot.md
    Row {
        facts: KindFacts {
            name: "moonshot",
            key_env: &["MOONSHOT_API_KEY"],
            base_url: Some("https://api.moonshot.cn/v1"),
            ..KindFacts::NONE
        },
        dialect: Dialect {
            creation: Some(takes_within(
                (DAY_HOURS / 2, 7 * DAY_HOURS),
                Intake { endpoints: &["/v1/chat/completions"], ..ANY_MODEL },
            )),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // docs/providers/zai.md; Zhipu is the same at another address.
    Row {
        facts: KindFacts {
            name: "zai",
            key_env: &["ZAI_API_KEY", "ZHIPUAI_API_KEY"],
            base_url_env: Some("ZAI_BASE_URL"),
            base_url: Some("https://api.z.ai/api/paas/v4"),
            ..KindFacts::NONE
        },
        dialect: Dialect {
            endpoint: "/v4/chat/completions",
            creation: Some(takes(Intake { takes_openai: false, ..ANY_MODEL })),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // docs/providers/siliconflow.md
    Row {
        facts: KindFacts {
            name: "siliconflow",
            key_env: &["SILICONFLOW_API_KEY"],
            base_url: Some("https://api.siliconflow.cn/v1"),
            ..KindFacts::NONE
        },
        words: &[
            ("in_queue", Status::Validating),
            ("validating", Status::Validating),
            ("in_progress", Status::InProgress),
            ("finalizing", Status::Finalizing),
            ("completed", Status::Completed),
            ("failed", Status::Failed),
            ("expired", Status::Expired),
            ("cancelling", Status::Cancelling),
            ("cancelled", Status::Cancelled),
        ],
        dialect: Dialect {
            // Items of the list are abbreviated.
            listing: Listing { complete: false, ..Dialect::OPENAI.listing },
            creation: Some(takes_within((DAY_HOURS, 14 * DAY_HOURS), ANY_MODEL)),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // docs/providers/deepinfra.md
    Row {
        facts: KindFacts {
            name: "deepinfra",
            key_env: &["DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"],
            base_url: Some("https://api.deepinfra.com/v1/openai"),
            ..KindFacts::NONE
        },
        dialect: Dialect {
            creation: Some(takes(Intake {
                max_requests: Some(50_000),
                max_bytes: Some(megabytes(200)),
                endpoints: &["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
                ..ANY_MODEL
            })),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // docs/providers/doubleword.md; a control layer of one's own too.
    Row {
        facts: KindFacts {
            name: "doubleword",
            key_env: &["DOUBLEWORD_API_KEY"],
            base_url: Some("https://api.doubleword.ai/v1"),
            ..KindFacts::NONE
        },
        claims: is_uuid,
        words: &[
            ("validating", Status::Validating),
            ("in_progress", Status::InProgress),
            ("finalizing", Status::Finalizing),
            ("completed", Status::Completed),
            ("failed", Status::Failed),
            ("cancelling", Status::Cancelling),
            ("cancelled", Status::Cancelled),
        ],
        hook: Some(Hook::DOUBLEWORD),
        dialect: Dialect {
            creation: Some(takes(ANY_MODEL)),
            // It says that the window is over, even of a batch that goes on: no batch here expires.
            amend: |_, sighting| sighting.expired_at = None,
            ..Dialect::OPENAI
        },
    },
    // docs/providers/novita.md
    Row {
        facts: KindFacts {
            name: "novita",
            key_env: &["NOVITA_API_KEY"],
            base_url: Some("https://api.novita.ai/openai/v1"),
            ..KindFacts::NONE
        },
        words: &[
            ("VALIDATING", Status::Validating),
            ("PROGRESS", Status::InProgress),
            ("IN_PROGRESS", Status::InProgress),
            ("FINALIZING", Status::Finalizing),
            ("COMPLETED", Status::Completed),
            ("FAILED", Status::Failed),
            ("EXPIRED", Status::Expired),
            ("CANCELLING", Status::Cancelling),
            ("CANCELLED", Status::Cancelled),
        ],
        dialect: Dialect {
            // Of output; input files go after fifteen.
            file_retention_secs: Some(30 * DAY_SECS),
            creation: Some(Creation {
                intake: Intake {
                    own: LineForm {
                        tells: &[("messages", "/v1/chat/completions"), ("prompt", "/v1/completions")],
                        ..OPENAI_LINE
                    },
                    takes_openai: false,
                    max_requests: Some(50_000),
                    max_bytes: Some(megabytes(100)),
                    endpoints: &["/v1/chat/completions", "/v1/completions"],
                    marks: false,
                    ..Intake::OPENAI
                },
                translate: bare,
                // The window is 48 hours, whatever is asked for.
                way: Way { creation: creation_without_window, ..Way::OPENAI },
                ..Creation::OPENAI
            }),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // The services below are not tried, and stand together on docs/providers/openai-compatible.md#presets.
    Row {
        facts: KindFacts {
            key_env: &["NEBIUS_API_KEY"],
            base_url_env: Some("NEBIUS_API_BASE"),
            base_url: Some("https://api.tokenfactory.nebius.com/v1"),
            ..preset("nebius")
        },
        dialect: Dialect { creation: Some(takes(ANY_MODEL)), ..Dialect::OPENAI },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["OVHCLOUD_API_KEY", "OVH_AI_ENDPOINTS_ACCESS_TOKEN"],
            base_url_env: Some("OVHCLOUD_API_BASE"),
            base_url: Some("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1"),
            ..preset("ovhcloud")
        },
        dialect: Dialect {
            creation: Some(takes_within((DAY_HOURS, 3 * DAY_HOURS), ANY_MODEL)),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["PERPLEXITY_API_KEY", "PPLX_API_KEY"],
            base_url: Some("https://api.perplexity.ai/v1"),
            ..preset("perplexity")
        },
        dialect: Dialect {
            endpoint: "/v1/responses",
            file_retention_secs: Some(30 * DAY_SECS),
            creation: Some(takes(Intake { endpoints: &["/v1/responses"], ..ANY_MODEL })),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["QIANFAN_API_KEY"],
            base_url: Some("https://qianfan.baidubce.com/v2"),
            ..preset("qianfan")
        },
        dialect: Dialect {
            endpoint: "/v2/chat/completions",
            creation: Some(takes_within(
                (1, 28 * DAY_HOURS),
                Intake {
                    takes_openai: false,
                    max_requests: Some(5_000),
                    max_bytes: Some(megabytes(1_000)),
                    ..ANY_MODEL
                },
            )),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["PARASAIL_API_KEY"],
            base_url: Some("https://api.parasail.io/v1"),
            ..preset("parasail")
        },
        dialect: Dialect {
            creation: Some(takes(Intake {
                max_requests: Some(50_000),
                max_bytes: Some(megabytes(500)),
                ..ANY_MODEL
            })),
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
    // Its files are objects in storage of one's own, so nothing is created and no results are fetched.
    Row {
        facts: KindFacts {
            key_env: &["SCW_SECRET_KEY", "SCALEWAY_API_KEY"],
            base_url: Some("https://api.scaleway.ai/v1"),
            ..preset("scaleway")
        },
        dialect: Dialect { creation: None, passthrough: false, ..Dialect::OPENAI },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["INFERENCE_API_KEY"],
            base_url: Some("https://batch.inference.net/v1"),
            ..preset("inference-net")
        },
        dialect: Dialect { creation: Some(takes(ANY_MODEL)), ..Dialect::OPENAI },
        ..Row::OPENAI
    },
    Row {
        facts: KindFacts {
            key_env: &["NEOSANTARA_API_KEY"],
            base_url_env: Some("NEOSANTARA_API_BASE"),
            base_url: Some("https://api.neosantara.xyz/v1"),
            ..preset("neosantara")
        },
        dialect: Dialect { creation: Some(takes(ANY_MODEL)), ..Dialect::OPENAI },
        ..Row::OPENAI
    },
    // Any other service with OpenAI's interface (docs/providers/openai-compatible.md).
    Row {
        facts: KindFacts {
            name: "openai-compatible",
            key_optional: true,
            options: &["organization", "project"],
            ..KindFacts::NONE
        },
        words: &WORDS,
        dialect: Dialect {
            // Some of them leave most of a batch out of their lists.
            listing: Listing { complete: false, ..Dialect::OPENAI.listing },
            ..Dialect::OPENAI
        },
        ..Row::OPENAI
    },
];

/// `batch_` and a ULID of this era in lower case (`docs/providers.md#guessing-the-provider-from-an-id`).
fn is_ulid(id: &str) -> bool {
    let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
    id.strip_prefix("batch_01").is_some_and(|rest| rest.len() == 24 && rest.bytes().all(is_digit))
}
