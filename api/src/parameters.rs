//! What operations share, documented in one place: an operation that takes such a parameter writes its name and type,
//! as in `once: Once`, and nothing else; one that needs a permission writes `caller: May<ReadJobs>`.

use std::collections::HashMap;

use gantry_schema::organizations::Permission;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaApi, MetaOperationParam, Registry};
use poem_openapi::types::Type as _;

use crate::error::Code;
use crate::page::Limit;
use crate::version;

/// The name of the argument, the name of the parameter, what it is for, and as what a request that carries it may be
/// refused besides `invalid_parameter`.
const SHARED: &[(&str, &str, &str, &[Code])] = &[
    (
        "once",
        crate::once::IDEMPOTENCY_KEY,
        "Names the request, 1 to 255 printable ASCII characters: sent again with the same key within 24 hours, it is \
         answered as before and done once.",
        &[Code::IdempotencyKeyInFlight, Code::IdempotencyAnswerNotKept, Code::IdempotencyKeyReused],
    ),
    ("dry_run", "dry_run", "`true`: everything is checked, nothing is stored, and the answer says what would be.", &[]),
    (
        "if_match",
        "If-Match",
        "Only when it still looks as in the answer with this `ETag`.",
        &[Code::PreconditionFailed],
    ),
    (
        "if_none_match",
        "If-None-Match",
        "Not when it looks as in the answer with this `ETag`: then 304, without a body.",
        &[],
    ),
    ("cursor", "cursor", "Continue after the last page, within a week.", &[Code::CursorExpired]),
];

/// As what a request with this parameter may be refused besides `invalid_parameter`.
pub(crate) fn refused_as(parameter: &str) -> &'static [Code] {
    SHARED.iter().find(|(_, name, ..)| *name == parameter).map_or(&[], |(.., codes)| codes)
}

/// Features, with the parameters they share.
pub(crate) struct Described<T>(pub T);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        let mut meta = T::meta();
        for operation in meta.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations) {
            operation.params = std::mem::take(&mut operation.params).into_iter().flat_map(spread).collect();
            operation.params.iter_mut().for_each(describe);
            operation.security = with_scopes(std::mem::take(&mut operation.security));
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
    vec![limit, MetaOperationParam { name: "cursor".to_owned(), ..parameter }]
}

/// The permission an operation needs comes beside the ways to authenticate, and becomes the scope of each of them.
fn with_scopes(security: Vec<Requirement>) -> Vec<Requirement> {
    let is_scope = |name: &&str| name.parse::<Permission>().is_ok();
    let (scopes, schemes): (Vec<_>, Vec<_>) =
        security.into_iter().flat_map(HashMap::into_keys).partition(|name| is_scope(name));
    schemes.into_iter().map(|scheme| HashMap::from([(scheme, scopes.clone())])).collect()
}

/// A way to authenticate, with what it has to allow.
type Requirement = HashMap<&'static str, Vec<&'static str>>;

fn describe(parameter: &mut MetaOperationParam) {
    if let Some((_, name, description, _)) = SHARED.iter().find(|(argument, ..)| *argument == parameter.name) {
        (*name).clone_into(&mut parameter.name);
        parameter.description.get_or_insert_with(|| (*description).to_owned());
    }
}
