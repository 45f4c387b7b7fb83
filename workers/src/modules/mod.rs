//! Modules that organizations bring: looked at before anything is made of them, and what they are given when something is.

mod check;
mod made_of;

use gantry_providers::clouds::Vendor;
use gantry_providers::modules::{Fault, Refused};
use gantry_schema::modules::ModuleProblem;

pub(crate) use made_of::{MadeOf, judge_place, judge_plan, judge_preparation};

/// What is said of a fault, as a word.
const fn problem(refused: &Refused) -> ModuleProblem {
    match refused.fault {
        Fault::ArchiveMalformed => ModuleProblem::ArchiveMalformed,
        Fault::ArchiveUnsafe => ModuleProblem::ArchiveUnsafe,
        Fault::ArchiveTooLarge => ModuleProblem::ArchiveTooLarge,
        Fault::Fetch => ModuleProblem::FetchFailed,
        Fault::Empty => ModuleProblem::Empty,
        Fault::Malformed => ModuleProblem::Malformed,
        Fault::Policy => ModuleProblem::Policy,
        Fault::Outputs => ModuleProblem::Outputs,
        Fault::Inputs => ModuleProblem::Inputs,
    }
}

/// Plugins that a module may use here.
fn allowed(cx: &crate::Context, vendor: Option<Vendor>) -> Vec<String> {
    gantry_providers::modules::provider_sources(vendor, cx.providers().modules.providers())
}
