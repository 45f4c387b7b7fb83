//! Jobs for finding out whether everything works.

mod probe;
