//! What people are entitled to: a copy of what is known of them (GDPR, Art. 15 and 20), and to be forgotten (Art. 17). Of both
//! there is a signed receipt.

pub mod erasing;
pub mod erasures;
pub mod exports;
