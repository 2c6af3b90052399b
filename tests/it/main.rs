//! Tests of whole parts and of the program, in one binary.

mod cli;
