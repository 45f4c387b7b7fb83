//! What operations share, documented in one place: an operation that takes such a parameter writes its name and type,
//! as in `once: Once`, and nothing else; one that needs a permission writes `caller: May<ReadJobs>`.

use std::collections::HashMap;

use gantry_schema::organizations::Permission;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaApi, MetaOperationParam, MetaSchemaRef, Registry};
use poem_openapi::types::Type as _;

use crate::error::Code;
use crate::page::{Cursor, Limit};
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
    (
        "prefer",
        "Prefer",
        "`wait=10`: answer when the job ended, or after so many seconds, at most 60, as it is then.",
        &[],
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
    ("since", "since", "Only what was made from this moment on.", &[]),
    ("until", "until", "Only what was made before this moment.", &[]),
    ("sort", "sort", "By what the list is sorted; with `-` before it, the other way.", &[]),
    ("limit", "limit", "How many.", &[]),
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

/// Some arguments are several parameters: a page has two, and a third where the list can be sorted; a stretch of time
/// has a beginning and an end.
fn spread(parameter: MetaOperationParam) -> Vec<MetaOperationParam> {
    let one = |name: &str, schema: MetaSchemaRef| MetaOperationParam {
        name: name.to_owned(),
        schema,
        description: None,
        in_type: parameter.in_type,
        required: false,
        deprecated: false,
        explode: true,
        style: None,
    };
    if parameter.name == "during" {
        return vec![one("since", parameter.schema.clone()), one("until", parameter.schema.clone())];
    }
    if parameter.name != "paging" {
        return vec![parameter];
    }
    let sorted = matches!(&parameter.schema, MetaSchemaRef::Inline(schema) if !schema.enum_items.is_empty());
    let sort = sorted.then(|| one("sort", parameter.schema.clone()));
    sort.into_iter().chain([one("limit", Limit::schema_ref()), one("cursor", Cursor::schema_ref())]).collect()
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
