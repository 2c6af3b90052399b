//! The dashboard: pages made on the server, useful without a script, and what their forms do (`docs/dashboard.md`).

mod actions;
mod assets;
mod attention;
mod batch;
mod batch_list;
mod charts;
mod deliveries;
mod durations;
mod entrance;
mod overview;
mod pieces;
mod providers;
mod routes;
mod shell;
mod sign_in;
mod timeline;
mod token_form;
mod visitor;
mod webhooks;

pub(super) use routes::routes;
