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
mod import;
mod mock;
mod mock_control;
mod mock_tls;
mod peers;
mod peers_evalscope;
mod playback;
mod record;
mod replay;
mod server_metrics;
mod simulate;
mod support;
mod tape;
mod tape_tools;
mod traces;
mod traffic;
mod verdict;
