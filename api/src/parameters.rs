//! Parameters that operations share, documented in one place: an operation that takes one writes its name and type,
//! as in `once: Once`, and nothing else.

use std::collections::HashMap;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaApi, MetaOperationParam, Registry};
use poem_openapi::types::Type as _;

use crate::page::Limit;
use crate::version;

/// The name of the argument, the name of the parameter, and what it is for.
const SHARED: &[(&str, &str, &str)] = &[
    (
        "once",
        crate::once::IDEMPOTENCY_KEY,
        "Names the request, 1 to 255 printable ASCII characters: sent again with the same key within 24 hours, it is \
         answered as before and done once.",
    ),
    ("dry_run", "dry_run", "`true`: everything is checked, nothing is stored, and the answer says what would be."),
    ("if_match", "If-Match", "Only when it still looks as in the answer with this `ETag`."),
    (
        "if_none_match",
        "If-None-Match",
        "Not when it looks as in the answer with this `ETag`: then 304, without a body.",
    ),
];

/// Features, with the parameters they share.
pub(crate) struct Described<T>(pub T);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        let mut meta = T::meta();
        for operation in meta.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations) {
            operation.params = std::mem::take(&mut operation.params).into_iter().flat_map(spread).collect();
            operation.params.iter_mut().for_each(describe);
        }
        version::mark(&mut meta);
        meta
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        self.0.add_routes(routes);
    }
}

/// A page is asked for with two parameters.
fn spread(parameter: MetaOperationParam) -> Vec<MetaOperationParam> {
    if parameter.name != "paging" {
        return vec![parameter];
    }
    let limit = MetaOperationParam {
        name: "limit".to_owned(),
        schema: Limit::schema_ref(),
        description: Some("How many.".to_owned()),
        in_type: parameter.in_type,
        required: false,
        deprecated: false,
        explode: true,
        style: None,
    };
    let description = Some("Continue after the last page, within a week.".to_owned());
    vec![limit, MetaOperationParam { name: "cursor".to_owned(), description, ..parameter }]
}

fn describe(parameter: &mut MetaOperationParam) {
    if let Some((_, name, description)) = SHARED.iter().find(|(argument, ..)| *argument == parameter.name) {
        (*name).clone_into(&mut parameter.name);
        parameter.description.get_or_insert_with(|| (*description).to_owned());
    }
}
