//! `evalscope perf`.
