//! Sessions: that somebody signed in, where, and until when.

mod queries;

pub use queries::{
    Ended, Exchange, Kind, Known, NewSession, Session, TokenKind, authenticate, count, end, end_oldest, end_others,
    exchange, find, give, list, open, prove, switch, take_back, touch, whose,
};
