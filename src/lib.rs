//! batchd keeps watch over LLM batch jobs and tells when they end.

pub mod domain;

pub mod clock;
pub mod config;
pub mod http;
pub mod rng;

pub mod provider;
pub mod webhook;

pub mod control;
pub mod store;

pub mod cli;
