//! Peers that nobody would want: providers, receivers and clients that lie, drip, flood or hang, against the real binary.
//!
//! Each case has a name and can be run alone (`just hostile NAME`). In each the daemon must go on: it lives, its socket
//! answers, its memory is bounded, and the healthy provider and the healthy webhook beside the bad one are served.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

#[path = "../torture/client.rs"]
mod client;
mod clients;
#[path = "../torture/patience.rs"]
mod patience;
mod peer;
mod providers;
mod receivers;
mod site;
