//! What stories, benchmarks and torture have in common.

pub mod process;
