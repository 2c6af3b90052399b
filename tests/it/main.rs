//! Tests of whole parts and of the program, in one binary.

mod chaos;
mod config;
mod layers;
mod process;
mod provider;
mod simulation;
mod transport;
mod world;
