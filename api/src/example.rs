//! Examples of what is sent and answered. Each stands beside its type, as JSON, and is read by that type: one that does
//! not fit cannot be shown. The document puts them at every body that carries the type; what only holds such types, like
//! a page of a list, has no example of its own, and is put together from theirs.
//!
//! ```text
//! /// A bin to make.
//! #[derive(Debug, Object, Deserialize)]
//! #[oai(deny_unknown_fields, example)]
//! struct NewBin { … }
//!
//! example!(NewBin, { "name": "My first bin" });
//! ```

use poem_openapi::types::ParseFromJSON;
use serde_json::Value;

/// Gives a type its example.
macro_rules! example {
    ($type:ty, $($json:tt)+) => {
        impl poem_openapi::types::Example for $type {
            fn example() -> Self {
                $crate::example::read(serde_json::json!($($json)+))
            }
        }
    };
}
pub(crate) use example;

/// The value that an example is.
pub(crate) fn read<T: ParseFromJSON>(json: Value) -> T {
    let read = T::parse_from_json(Some(json)).map_err(poem_openapi::types::ParseError::into_message);
    read.expect("an example is what its type can be")
}
