//! Tests of whole parts and of the program, in one binary.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod adapter_fuzz;
mod adapter_results;
mod adapter_submissions;
mod answer_memory;
mod authorize;
mod cases;
mod chaos;
mod cli;
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
mod event_log;
mod field;
mod fuzz;
mod gather;
mod hooks;
mod hostile_clients;
mod input_checker;
mod layers;
mod learning;
mod monitoring;
mod outlives;
mod process;
mod provider;
mod receivers;
mod results;
mod results_told;
mod rounds;
mod sandbox;
mod sandbox_sdk;
mod schedule;
mod schedule_repair;
mod sdk_requests;
mod secrets;
mod simulation;
mod state_files;
mod store;
mod submit;
mod telling;
mod translation;
mod transport;
mod trial;
mod trouble;
mod units;
mod world;
