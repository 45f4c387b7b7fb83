//! Making servers and removing them. What is said and done for every run is in [`work`]; each kind is a file.

mod checks;
mod destroy;
mod provision;
mod setback;
mod store;
mod teller;
mod work;
