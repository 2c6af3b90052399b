//! Tests of whole parts and of the program, in one binary.

mod chaos;
mod config;
mod deliver;
mod dispatch;
mod layers;
mod process;
mod provider;
mod sandbox;
mod sandbox_sdk;
mod simulation;
mod store;
mod transport;
mod world;
