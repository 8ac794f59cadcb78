//! Record, generate and replay LLM traffic: one archive of exact requests, one measured timeline per request,
//! every tool's figures computed from it.
//!
//! The way of the data, left to right; each arrow is a plain data type that can be written to disk and read again:
//!
//! ```text
//! generate, record ──► tape ──► replay ──► timelines ──► metrics (a dialect) ──► report, compare
//!                               │  ▲
//!                               ▼  │ SSE
//!                          tokentape-mock (truth log), or a real server
//! ```
//!
//! [`tape`], [`generate`], [`schedule`], [`scrape`], [`timeline`], [`metrics`], [`report`] and [`compare`] are pure:
//! they take time and bytes as values, read no clock and open no socket. [`record`] and [`replay`] are the edges that do.
//! [`convert`] reads and writes other tools' files.

pub mod calibrate;
pub mod capacity;
pub mod cli;
pub mod compare;
pub mod convert;
pub mod effort;
pub mod generate;
pub mod metrics;
pub mod playback;
mod python;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
pub mod schedule;
pub mod scrape;
pub mod simulate;
pub mod tape;
pub mod timeline;
pub mod truth;
