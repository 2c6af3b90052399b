//! Tests of whole parts and of the program, in one binary.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod cli;
