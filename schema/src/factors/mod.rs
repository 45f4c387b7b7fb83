//! Second factors: what people prove themselves with beside their password, or in place of it.

pub mod assurance;
pub mod challenges;
pub mod passkeys;
pub mod pending;
mod queries;
pub mod recovery;
pub mod totp;

pub use queries::{
    Factor, Kind, Totp, TotpError, confirm, confirmed, count, failed, find, forget, insert_totp, list, place, remove,
    remove_all, rename, totp_devices, used_totp,
};
