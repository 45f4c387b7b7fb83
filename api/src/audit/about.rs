//! What the record says of a request by itself: which operation, by whom, from where, to what.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use gantry_schema::PersonId;
use gantry_schema::audit::{Actor, Author, Draft, Target, trace_id};
use poem::Request;
use poem::http::header;

use crate::caller::Caller;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::routes::Route;

/// What the record says of a request by itself. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct About(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    route: Option<&'static Route>,
    path: String,
    user_agent: Option<String>,
    info: RequestInfo,
    caller: OnceLock<Caller>,
}

impl About {
    pub(crate) fn of(request: &Request, route: Option<&'static Route>, info: &RequestInfo) -> Self {
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self(Arc::new(Inner {
            route,
            path: request.uri().path().to_owned(),
            user_agent: user_agent.map(str::to_owned),
            info: info.clone(),
            caller: OnceLock::new(),
        }))
    }

    /// That of a request that came in by the edge.
    ///
    /// # Errors
    /// When it did not.
    pub(crate) fn find(request: &Request) -> Result<Self, Error> {
        let about = request.data::<Self>().cloned();
        about.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))
    }

    /// Notes who it is from, once that is known.
    pub(crate) fn is_from(&self, caller: &Caller) {
        self.0.caller.get_or_init(|| caller.clone());
    }

    /// Who it is from, if that is known.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.0.caller.get()
    }

    /// Where it comes from, if that is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0.info.address
    }

    /// The operation it asks for.
    pub(crate) fn operation(&self) -> Option<&'static str> {
        self.0.route.map(|route| route.id)
    }

    /// What the record calls what it asks for.
    pub(crate) fn action(&self) -> &'static str {
        self.0.route.map_or("request", |route| route.action.as_str())
    }

    /// The entry about it.
    pub(crate) fn draft(&self) -> Draft {
        let mut draft = Draft::new(Cow::Borrowed(self.action()));
        if let Some((name, value)) = self.0.route.and_then(|route| route.last_parameter(&self.0.path)) {
            draft.target(target_of(name, value));
        }
        draft
    }

    /// Who asks, and from where.
    pub(crate) fn author(&self, caller: &Caller) -> Arc<Author> {
        self.by(caller.actor(), caller.source_of_authority())
    }

    /// Somebody about his own account, whether he was known when he asked or not.
    pub(crate) fn himself(&self, person: PersonId) -> Arc<Author> {
        self.by(Actor::person(person), "person".to_owned())
    }

    /// Somebody, by what gives him the right.
    pub(crate) fn by(&self, actor: Actor, authority: String) -> Arc<Author> {
        let Inner { route, user_agent, info, .. } = &*self.0;
        Arc::new(Author {
            actor,
            authority: Some(authority),
            permission: route.and_then(|route| route.permission).map(str::to_owned),
            address: info.address,
            user_agent: user_agent.clone(),
            request: Some(info.id.clone()),
            job: None,
            trace: trace_id(&info.traceparent),
        })
    }
}

/// What the last parameter of a path names: by its id, or by a name of its kind.
fn target_of(kind: &str, value: &str) -> Target {
    let shown: String = value.chars().take(100).collect();
    match shown.rsplit_once('_') {
        Some((_, digits)) if digits.len() == 26 => {
            Target { kind: kind.to_owned(), id: shown, display: None, subject: None }
        }
        _ => Target::named(kind, shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_names_is_the_target() {
        let target = |kind: &str, value: &str| target_of(kind, value).id;
        assert_eq!(target("job", "job_01h455vb4pex5vsknk084sn02q"), "job_01h455vb4pex5vsknk084sn02q");
        assert_eq!(target("queue", "default"), "queue:default");
        assert_eq!(target("name", &"x".repeat(500)).len(), 105);
    }
}
