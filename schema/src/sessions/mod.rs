//! Sessions: that somebody signed in, where, and until when.

mod queries;

pub use queries::{
    Ended, Exchange, Kept, Kind, Known, NewSession, Session, TokenKind, authenticate, count, count_in, end, end_oldest,
    end_oldest_in, end_others, exchange, find, give, kept, list, open, prove, switch, take_back, touch, whose,
};
