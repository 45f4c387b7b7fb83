//! Looking after credentials of clouds.

mod check;
