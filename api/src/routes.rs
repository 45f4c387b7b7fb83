//! What the document says of paths, for refusals that poem cannot word: which methods a path answers, and what
//! the parameters of a path are called.

use std::collections::HashMap;
use std::sync::LazyLock;

use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::MetaParamIn;

use crate::Features;
use crate::parameters::Described;

/// The paths and parameters of every operation.
#[derive(Debug, Default)]
struct Routes {
    methods: HashMap<String, Vec<Method>>,
    path_parameters: HashMap<&'static str, Vec<String>>,
}

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let mut routes = Routes::default();
    for path in Described::<Features>::meta().into_iter().flat_map(|api| api.paths) {
        let methods = routes.methods.entry(path.path).or_default();
        for operation in path.operations {
            methods.push(operation.method);
            let in_path = operation.params.iter().filter(|parameter| parameter.in_type == MetaParamIn::Path);
            let names = in_path.map(|parameter| parameter.name.clone()).collect();
            routes.path_parameters.extend(operation.operation_id.map(|id| (id, names)));
        }
    }
    routes
});

/// The name of an operation's parameter that poem-openapi calls `param0`, `param1`, ….
pub(crate) fn path_parameter(operation: &str, positional: &str) -> Option<&'static str> {
    let position: usize = positional.strip_prefix("param")?.parse().ok()?;
    ROUTES.path_parameters.get(operation)?.get(position).map(String::as_str)
}

/// The methods that a path answers, for the header `Allow`.
pub(crate) fn allowed(path: &str) -> Option<String> {
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let methods = ROUTES.methods.iter().filter(|(template, _)| fits(template)).flat_map(|(_, methods)| methods);
    let mut words: Vec<&str> = methods.map(Method::as_str).collect();
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
}
