//! Integration tests: through the binaries and real sockets on port 0.

mod bad_input;
mod demo;
mod generate;
mod mock;
mod peers;
mod replay;
mod support;
mod tape;
