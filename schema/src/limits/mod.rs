//! How much may be asked for: the rule by which requests are counted, and the numbers as data.

mod allowance;
mod delay;
mod gcra;
mod queries;

pub use allowance::{Allowance, Class, Given, Tier};
pub use delay::{FREE_FAILURES, LONGEST_DELAY, delay};
pub use gcra::Rate;
pub(crate) use queries::notify;
pub use queries::{CHANNEL, FIRST_TIER, Rule, allowance, give, remove_tier, rules, set_rule, set_tier, tiers};
