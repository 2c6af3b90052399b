//! The command line, driven as a person and a script drive it: against a stand-in for the daemon, or the real one.

mod care;
mod events;
mod ids;
mod list;
mod log;
mod program;
mod reading;
mod stand_in;
mod terminal;
mod tracking;
mod upkeep;
mod usage;
mod waiting;
