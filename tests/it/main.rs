//! Integration tests: through the binaries and real sockets on port 0.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod behaviour;
mod calibrate;
mod compare;
mod compat;
mod demo;
mod endpoints;
mod export;
mod faults;
mod generate;
mod generate_as;
mod generate_evalscope;
mod html;
mod mock;
mod mock_control;
mod peers;
mod peers_evalscope;
mod replay;
mod server_metrics;
mod simulate;
mod support;
mod tape;
mod traces;
mod traffic;
mod verdict;
