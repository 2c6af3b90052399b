//! The integration tests: one binary.
#![allow(missing_docs, reason = "tests document themselves by their names")]

mod layers;
mod process;
mod simulation;
mod world;
