//! Second factors: what people prove themselves with beside their password, or in place of it.

pub mod assurance;
pub mod challenges;
pub mod codes;
pub mod passkeys;
pub mod pending;
mod queries;
pub mod recovery;
pub mod resets;
pub mod totp;

pub use queries::{
    Factor, Kind, MAX_FAILURES, Totp, TotpError, confirm, confirmed, count, failed, find, forget, insert_address,
    insert_totp, list, place, remove, remove_all, rename, totp_devices, used_totp,
};
