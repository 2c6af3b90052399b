//! One integration binary: the parts of batchd against real sockets, files and processes.

mod chaos;
mod deliver;
mod transport;
