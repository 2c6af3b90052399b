//! Tests of whole parts and of the program, in one binary.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod adapter_fuzz;
mod adapter_results;
mod adapter_submissions;
mod authorize;
mod cases;
mod chaos;
mod cli;
mod cli_care;
mod cli_ids;
mod cli_list;
mod clouds;
mod config;
mod config_doubts;
mod config_page;
mod contract;
mod crash;
mod deliver;
mod discovery;
mod dispatch;
mod docs;
mod field;
mod gather;
mod hooks;
mod input_checker;
mod layers;
mod learning;
mod monitoring;
mod process;
mod provider;
mod results;
mod results_told;
mod rounds;
mod sandbox;
mod sandbox_sdk;
mod schedule;
mod sdk_requests;
mod secrets;
mod simulation;
mod store;
mod submit;
mod telling;
mod translation;
mod transport;
mod trial;
mod trouble;
mod units;
mod world;
