//! batchd watches LLM batch jobs and tells when they end.
//!
//! A batch job runs for minutes or a day at OpenAI, Anthropic, Gemini, Mistral or a service shaped like them. batchd keeps
//! a persistent set of tracked batches, polls each on a schedule of its own, records every status transition with its
//! time, and tells the configured webhooks. **Nothing that was acknowledged, observed or is still to be delivered is
//! lost, whatever gets killed.**
//!
//! `docs/design.md` is the page to read first: the way from a poll to a webhook, the floors, the decisions and the
//! vocabulary. `docs/README.md` says where things are. In short:
//!
//! ```text
//! Provider::retrieve -> Transport::send -> Provider::retrieved -> observe -> next_poll -> Store::record
//!     -> wake -> Dispatcher -> Webhook::render -> Transport::send -> Webhook::outcome -> Store::finish_attempt
//! ```
//!
//! | floor | modules | content |
//! |---|---|---|
//! | 0 | [`domain`] | values and rules: pure functions without I/O, clock or randomness |
//! | 1 | [`clock`], [`rng`], [`sync`], [`tasks`], [`config`], [`http`], [`logging`], [`failpoint`] | the outside world behind narrow interfaces |
//! | 2 | [`provider`], [`webhook`] | wire formats; they form requests and read answers and do no I/O |
//! | 3 | [`store`] | durable state, in a SQLite file or on a PostgreSQL server; the only place that names rusqlite and tokio-postgres |
//! | 4 | [`engine`], [`notify`], [`maintenance`] | what runs: polling, delivery, jobs at set times |
//! | 5 | [`control`] | the operations, each written once, and the HTTP API and the dashboard in front of them |
//! | 6 | [`daemon`], [`sandbox`], [`demo`] | whole programs made of the floors below |
//! | 7 | [`cli`] | the command line; the only floor that prints |
//!
//! A module imports from its own floor and from lower ones only, and no files import each other in a circle; a test
//! holds both.

pub mod domain;

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod logging;
pub mod rng;
pub mod sync;
pub mod tasks;

pub mod provider;
pub mod webhook;

pub mod store;

pub mod engine;
pub mod maintenance;
pub mod notify;

pub mod control;

pub mod daemon;
pub mod demo;
pub mod sandbox;

pub mod cli;
