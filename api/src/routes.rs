//! What the document says of operations, for what is decided before one of them runs and for refusals that poem
//! cannot word: which operation a request is for, which parameters it takes, which methods a path answers.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use gantry_schema::organizations::Permission;
use poem::http::{HeaderMap, Method};
use poem_openapi::OpenApi;
use poem_openapi::registry::{MetaOperation, MetaOperationParam, MetaParamIn, MetaSchemaRef};

use crate::Features;
use crate::error::Error;
use crate::parameters::Described;
use crate::rate::Charge;

/// An operation.
#[derive(Debug)]
pub(crate) struct Route {
    method: Method,
    /// The parts of its path; those in braces stand for anything.
    parts: Vec<String>,
    /// Its name.
    pub id: &'static str,
    /// What it is counted as.
    pub charge: Charge,
    /// What the record calls what it does: `webhook_endpoint.update`.
    pub action: String,
    /// The permission it needs.
    pub permission: Option<&'static str>,
    /// What its caller needs.
    permissions: Vec<Permission>,
    /// Its answer is a stream that goes on while there is something to tell.
    pub streams: bool,
    in_path: Vec<String>,
    in_query: Vec<QueryParameter>,
    in_headers: Vec<String>,
}

#[derive(Debug)]
struct QueryParameter {
    name: String,
    /// It may be given several times.
    list: bool,
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let paths = Described::<Features>::meta().into_iter().flat_map(|api| api.paths);
    let operations =
        paths.flat_map(|path| path.operations.into_iter().map(move |operation| (path.path.clone(), operation)));
    operations.map(|(path, operation)| Route::of(&path, operation)).collect()
});

/// Operations by the parts of their paths.
#[derive(Debug, Default)]
struct Tree {
    literals: HashMap<&'static str, Tree>,
    /// Behind a part that stands for anything.
    anything: Option<Box<Tree>>,
    here: Vec<&'static Route>,
}

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let mut tree = Tree::default();
    for route in ROUTES.iter() {
        let end = route.parts.iter().fold(&mut tree, |tree, part| {
            if part.starts_with('{') {
                tree.anything.get_or_insert_default()
            } else {
                tree.literals.entry(part).or_default()
            }
        });
        end.here.push(route);
    }
    tree
});

impl Tree {
    /// Calls `visit` with every operation whose path these parts fit; those with a literal first come first.
    fn fitting<'a>(
        &'static self,
        mut given: impl Iterator<Item = &'a str> + Clone,
        visit: &mut dyn FnMut(&'static Route),
    ) {
        let Some(part) = given.next() else {
            self.here.iter().for_each(|route| visit(route));
            return;
        };
        if let Some(tree) = self.literals.get(part) {
            tree.fitting(given.clone(), visit);
        }
        if let Some(tree) = &self.anything {
            tree.fitting(given, visit);
        }
    }
}

impl Route {
    fn of(path: &str, operation: MetaOperation) -> Self {
        let of_kind = |kind: MetaParamIn| operation.params.iter().filter(move |parameter| parameter.in_type == kind);
        let answers = operation.responses.responses.iter().flat_map(|answer| &answer.content);
        Self {
            parts: parts(path).map(str::to_owned).collect(),
            id: operation.operation_id.unwrap_or("none"),
            charge: Charge::of(operation.operation_id.unwrap_or("none"), &operation.method),
            action: action(operation.operation_id.unwrap_or("none")),
            permission: operation.security.iter().flat_map(HashMap::values).flatten().next().copied(),
            streams: answers.into_iter().any(|content| content.content_type.starts_with("text/event-stream")),
            permissions: permissions(&operation.security),
            in_path: of_kind(MetaParamIn::Path).map(|parameter| parameter.name.clone()).collect(),
            in_query: of_kind(MetaParamIn::Query).map(QueryParameter::of).collect(),
            in_headers: of_kind(MetaParamIn::Header).map(|parameter| parameter.name.clone()).collect(),
            method: operation.method,
        }
    }

    /// The last of the path's parameters, by its name.
    pub(crate) fn last_parameter<'a>(&self, path: &'a str) -> Option<(&str, &'a str)> {
        let given = parts(path).zip(&self.parts);
        given.filter_map(|(given, part)| Some((part.strip_prefix('{')?.strip_suffix('}')?, given))).last()
    }

    fn literal_parts(&self) -> usize {
        self.parts.iter().filter(|part| !part.starts_with('{')).count()
    }

    /// Refuses parameters that the operation does not have, and those that are given twice.
    ///
    /// # Errors
    /// Names the parameter.
    pub(crate) fn check_query(&self, query: &str) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
            match self.in_query.iter().find(|parameter| parameter.name == name) {
                None => return Err(self.unknown(&name)),
                Some(parameter) if !parameter.list && !seen.insert(&parameter.name) => {
                    return Err(Error::parameter(&parameter.name, "it is given twice; leave one of them out"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Refuses headers of the operation's own that are no text: they would be taken for absent.
    ///
    /// # Errors
    /// Names the header.
    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Result<(), Error> {
        let is_text = |name: &&String| headers.get_all(name.as_str()).iter().all(|value| value.to_str().is_ok());
        match self.in_headers.iter().find(|name| !is_text(name)) {
            Some(name) => {
                Err(Error::parameter(name, "it has bytes that are no visible ASCII characters; leave them out"))
            }
            None => Ok(()),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let near =
            self.in_query.iter().map(|parameter| (strsim::damerau_levenshtein(&parameter.name, name), parameter));
        let near = near.filter(|(distance, parameter)| *distance <= 1 + parameter.name.len() / 4);
        let remedy = match near.min_by_key(|(distance, _)| *distance) {
            Some((_, parameter)) => format!("did you mean {}?", parameter.name),
            None if self.in_query.is_empty() => "it has none; leave it out".to_owned(),
            None => {
                let known: Vec<&str> = self.in_query.iter().map(|parameter| parameter.name.as_str()).collect();
                format!("it has {}; leave it out, or use one of them", known.join(", "))
            }
        };
        let shown: String = name.chars().take(100).collect();
        Error::parameter(shown, format!("the operation {} has no such parameter; {remedy}", self.id))
    }
}

impl QueryParameter {
    fn of(parameter: &MetaOperationParam) -> Self {
        let list = matches!(&parameter.schema, MetaSchemaRef::Inline(schema) if schema.ty == "array");
        Self { name: parameter.name.clone(), list }
    }
}

/// Operations whose names do not say what they are done to.
const ACTIONS: &[(&str, &str)] = &[
    ("signIn", "session.sign_in"),
    ("signOut", "session.sign_out"),
    ("proveAnew", "session.prove"),
    ("signUp", "sign_up.ask"),
    ("signUpByInvitation", "invitation.sign_up"),
];

/// What an operation does, as the record calls it: what it is done to, and the word for it. `updateWebhookEndpoint` is
/// `webhook_endpoint.update`, `askForJob` is `job.ask_for`.
fn action(operation: &str) -> String {
    if let Some((_, action)) = ACTIONS.iter().find(|(name, _)| *name == operation) {
        return (*action).to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for letter in operation.chars() {
        match words.last_mut().filter(|_| !letter.is_ascii_uppercase()) {
            Some(word) => word.push(letter),
            None => words.push(letter.to_ascii_lowercase().to_string()),
        }
    }
    let verb = if words.get(1).is_some_and(|word| word == "for") { 2 } else { 1 };
    let (verb, noun) = words.split_at(verb.min(words.len()));
    if noun.is_empty() { verb.join("_") } else { format!("{}.{}", noun.join("_"), verb.join("_")) }
}

/// A slash at the end makes no difference.
fn parts(path: &str) -> std::str::Split<'_, char> {
    path.trim_end_matches('/').split('/')
}

/// The operation a request is for.
pub(crate) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut found: Option<&'static Route> = None;
    TREE.fitting(parts(path), &mut |route| {
        if route.method == *method && found.is_none_or(|found| found.literal_parts() < route.literal_parts()) {
            found = Some(route);
        }
    });
    found
}

/// What the caller of an operation needs; `None`: there is no such operation.
pub(crate) fn permissions_of(operation: &str) -> Option<Vec<Permission>> {
    ROUTES.iter().find(|route| route.id == operation).map(|route| route.permissions.clone())
}

/// The operations, with what their callers need.
pub(crate) fn needing() -> impl Iterator<Item = (&'static str, &'static [Permission])> {
    ROUTES.iter().map(|route| (route.id, route.permissions.as_slice()))
}

/// The scopes that ways to authenticate have to allow, each once.
fn permissions(security: &[HashMap<&'static str, Vec<&'static str>>]) -> Vec<Permission> {
    let words = security.iter().flat_map(HashMap::values).flatten();
    let mut permissions: Vec<Permission> = words.filter_map(|word| word.parse().ok()).collect();
    permissions.sort_unstable();
    permissions.dedup();
    permissions
}

/// The names of all operations.
#[cfg(test)]
pub(crate) fn ids() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|route| route.id)
}

/// The name of an operation's parameter that poem-openapi calls `param0`, `param1`, ….
pub(crate) fn path_parameter(operation: &str, positional: &str) -> Option<&'static str> {
    let position: usize = positional.strip_prefix("param")?.parse().ok()?;
    ROUTES.iter().find(|route| route.id == operation)?.in_path.get(position).map(String::as_str)
}

/// The methods that a path answers, for the header `Allow`.
pub(crate) fn allowed(path: &str) -> Option<String> {
    let mut words: Vec<&str> = Vec::new();
    TREE.fitting(parts(path), &mut |route| words.push(route.method.as_str()));
    words.sort_unstable();
    words.dedup();
    if words.contains(&"GET") {
        words.push("HEAD");
    }
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_of_a_path_are_known() {
        assert_eq!(allowed("/jobs").as_deref(), Some("GET, POST, HEAD"));
        assert_eq!(allowed("/jobs/job_1/cancel").as_deref(), Some("POST"));
        assert_eq!(allowed("/jobs/retry").as_deref(), Some("GET, POST, HEAD"));
        assert_eq!(allowed("/nowhere"), None);
    }

    #[test]
    fn the_parameters_of_a_path_are_known_by_name() {
        assert_eq!(path_parameter("getJob", "param0"), Some("job"));
        assert_eq!((path_parameter("getJob", "param1"), path_parameter("getJob", "limit")), (None, None));
    }

    #[test]
    fn operations_have_words_in_the_record() {
        let words =
            ["updateWebhookEndpoint", "askForJob", "askForJobs", "liftRate", "none", "putEventType"].map(action);
        let expected =
            ["webhook_endpoint.update", "job.ask_for", "jobs.ask_for", "rate.lift", "none", "event_type.put"];
        assert_eq!(words, expected);
        let mut all: Vec<&str> = ROUTES.iter().map(|route| route.action.as_str()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "two operations have the same word");
    }

    #[test]
    fn what_an_operation_is_about_and_needs_is_known() {
        let route = find(&Method::DELETE, "/webhook-endpoints/ep_1").unwrap();
        assert_eq!(route.last_parameter("/webhook-endpoints/ep_1"), Some(("endpoint", "ep_1")));
        assert_eq!(route.permission, Some("webhooks:write"));
        let route = find(&Method::POST, "/jobs").unwrap();
        assert_eq!((route.last_parameter("/jobs"), route.permission), (None, Some("jobs:write")));
    }

    #[test]
    fn a_request_is_for_one_operation() {
        let id = |method: Method, path: &str| find(&method, path).map(|route| route.id);
        assert_eq!(id(Method::GET, "/jobs"), Some("listJobs"));
        assert_eq!(id(Method::HEAD, "/jobs/"), Some("listJobs"));
        assert_eq!(id(Method::POST, "/jobs/retry"), Some("retryJobs"));
        assert_eq!(id(Method::GET, "/jobs/retry"), Some("getJob"));
        assert_eq!((id(Method::PATCH, "/jobs"), id(Method::GET, "/openapi.json")), (None, None));
        let streams = |path: &str| find(&Method::GET, path).is_some_and(|route| route.streams);
        assert!(streams("/jobs/job_1/events") && !streams("/jobs/job_1"));
    }

    #[test]
    fn parameters_that_an_operation_does_not_have_are_refused() {
        let check = |query: &str| find(&Method::GET, "/jobs").unwrap().check_query(query);
        assert!(check("").is_ok() && check("limit=5&cursor=x&state=running").is_ok() && check("li%6Dit=5").is_ok());
        let refused = |query: &str| {
            let problem = check(query).unwrap_err().problem("", "");
            (problem.field.unwrap_or_default(), problem.detail)
        };
        let (field, detail) = refused("limt=5");
        assert!(field == "limt" && detail.contains("did you mean limit?"), "{detail}");
        let (field, detail) = refused("colour=red");
        assert!(field == "colour" && detail.contains("cursor"), "{detail}");
        assert_eq!(refused("limit=5&limit=5").0, "limit");
        assert_eq!(refused(&"x".repeat(5_000)).0.len(), 100);
    }
}
