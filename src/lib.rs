//! batchd keeps watch over LLM batch jobs and tells when they end. This page is the plan of the house.
//!
//! A batch job runs for minutes or a day at OpenAI, Anthropic, Gemini, Mistral or a service shaped like them.
//! batchd keeps a persistent set of tracked batches, looks at each on a schedule of its own, records every change of
//! status with its time, and tells the configured webhooks. **Nothing that was acknowledged, observed or is owed is
//! lost, whatever is killed.** Everything below serves that sentence.
//!
//! # The line that everything follows
//!
//! ```text
//! Provider::retrieve -> Transport::send -> Provider::retrieved -> observe -> next_poll -> Store::record
//!     -> wake -> Dispatcher -> Webhook::render -> Transport::send -> Webhook::outcome -> Store::finish_attempt
//! ```
//!
//! [`engine::poll`] reads like the first half of it, [`notify`] like the second. Where many batches of an account are due,
//! a round reads pages of its list in their place ([`domain::rounds`] decides, the engine's `rounds` reads): from
//! `observe` on the line is the same.
//!
//! What is asked for by hand goes the same way out, [`engine::account`]: [`engine::submit`] takes a
//! [`Submission`](provider::submit::Submission) step by step from a file to a batch, and writes down what it is about
//! to create before it asks; [`engine::results`] takes a [`Fetch`](provider::results::Fetch) step by step to a stream of
//! lines, which [`engine::downloads`] keeps. Steps are the adapter's, sending them is the engine's.
//!
//! # Floors
//!
//! A module imports from its own floor downwards only; a test reads every `use` and fails on an upward one.
//!
//! | floor | modules | what lives there |
//! |---|---|---|
//! | 0 | [`domain`] | values and rules: pure functions, no I/O, no clock, no chance |
//! | 1 | [`clock`], [`rng`], [`tasks`], [`config`], [`http`], [`failpoint`] | the outside world, narrowed |
//! | 2 | [`provider`], [`webhook`] | wire formats, sans-IO, one file a service |
//! | 3 | [`store`] | durable state; the only place that names rusqlite |
//! | 4 | [`engine`], [`notify`], [`maintenance`] | what runs: polling, delivery, housekeeping |
//! | 5 | [`control`] | the operations, written once, and the HTTP API in front of them |
//! | 6 | [`daemon`], [`sandbox`], [`demo`] | whole programs made from the floors below |
//! | 7 | [`cli`] | the person |
//!
//! # Decisions
//!
//! 1. **Three traits**: [`http::transport::Transport`] sends one request, [`provider::Provider`] and
//!    [`webhook::Webhook`] form requests and read answers. Store, clock, schedule and chance are concrete.
//! 2. **Adapters are sans-IO.** They build an [`http::call::Call`] and read an [`http::call::Answer`]: no async, no
//!    client, no clock, no retry. A new service or kind of webhook is one file, one line in a registry and one block
//!    in `config.example.toml`; a test names what is missing.
//! 3. **Rules are pure functions**: [`observe`](domain::transition::observe),
//!    [`next_poll`](domain::schedule::next_poll), [`next_attempt`](domain::retry::next_attempt). The database holds
//!    their results, so a restart needs nothing from memory, and `show` prints the same function's reasons.
//! 4. **One transaction** writes a batch's new state, its transition, the event and a delivery for each webhook that
//!    wants it. The dispatcher reads only that. The id of an event is a hash of what it is about, so whoever sees
//!    the same thing again (after a crash, from a backup, on a second host) gives it the same id; its body is frozen
//!    with it and sent byte for byte at every attempt.
//! 5. **Nothing to clean up after a crash.** What is being polled is known in memory only. An attempt at a delivery is
//!    written before it is sent; one that a dead process left open is due at the next start. The times of a look that
//!    changed nothing ride on the next commit.
//! 6. **Signals lower latency, re-scans give correctness.** Each loop is woken when there is something to do, and
//!    comes round by itself at least every 30 s. The path after a crash is the path of every day.
//! 7. **One writer.** All writes go through one connection, and whatever waits goes into one transaction: a burst of
//!    10,000 transitions costs few fsyncs. Reads have a connection of their own. Memory holds a schedule entry per
//!    active batch, not the batch.
//! 8. **The engine runs on a virtual clock** in tests: simulated weeks with faults from a seed, same seed, same log.
//!    That is why jitter is drawn by what it is for ([`rng::Rng::jitter_of`]), not by who asks first.
//! 9. **[`tasks`] supervises.** A long-lived loop that ends or panics ends the daemon, and systemd starts it afresh;
//!    a panic in one poll or one delivery is that attempt's failure, and a webhook's worker that panics is begun anew,
//!    so that it takes no other webhook with it. The watchdog is fed only while every loop comes round.
//! 10. **tokio-cron-scheduler lives in one file**, [`maintenance::cron`], whose closures only put a job's name into a
//!     channel.
//! 11. **The command line is a client of the socket** and nothing else; `--offline` puts the same
//!     [`control::service`] over a read-only store. Only the daemon writes.
//! 12. **The schedule learns.** A batch that ends leaves what it took ([`domain::history`]), in the commit that records
//!     its end; from the newest of each class a hazard is estimated ([`domain::hazard`]), which with the batch's own
//!     progress ([`domain::progress`]) makes its outlook ([`domain::outlook`]): when to look, and when it should end.
//!
//! # Errors
//!
//! Below the command line an error is an enum that models what can happen; the schedule looks at
//! [`Failure::verdict`](http::failure::Failure::verdict), never at variants. [`control::api_error::ApiError`] is what an
//! operation answers when it was not done: a code for programs, a sentence for people, hints. No text of an error holds
//! a URL or a secret.

pub mod domain;

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod rng;
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
