//! What keeps an organization from being asked by the wrong ones: from where its keys, people and applications may ask,
//! what sign-ins tell, and locking all of it down.

pub mod lockdowns;
pub mod policies;
mod policy;
pub mod sign_ins;
mod stuffing;
mod travel;

pub use policy::{
    Bar, Country, Detection, Effective, InvalidCountry, MostSessions, Policy, Response, SecondFactor, USUAL_KINDS,
};
pub use stuffing::{Attack, Tried, suspect};
pub use travel::{Spot, Travel, distance_km, impossible};
