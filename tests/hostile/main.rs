//! Peers that nobody would want.
