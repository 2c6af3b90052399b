//! Tests of whole parts and of the program, in one binary.

mod layers;
mod process;
mod provider;
mod simulation;
mod world;
