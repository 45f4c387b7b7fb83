//! What can be allowed, and why somebody may do something or not.

use gantry_schema::access::{self, Behind, Reach, Subject};
use gantry_schema::api_keys;
use gantry_schema::memberships::{self, Role, members};
use gantry_schema::organizations::Permission;
use gantry_schema::organizations::needed::ReadMembers;
use gantry_schema::{ApiKeyId, OrganizationId, PersonId};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::licenses;
use crate::routes;
use crate::tag::Tag;

/// The operations on permissions.
#[derive(Debug, Clone, Copy)]
pub struct PermissionCatalogue;

/// Something that can be allowed.
#[derive(Debug, Object)]
#[oai(example)]
struct PermissionEntry {
    /// The word: scopes of keys and roles are lists of these.
    name: String,
    /// What it allows.
    description: String,
    /// The roles that every organization has and that allow it.
    roles: Vec<String>,
}

example!(PermissionEntry, {
    "name": "jobs:write",
    "description": "Ask for jobs, cancel and retry them.",
    "roles": ["owner", "admin", "member"],
});

/// Everything that can be allowed.
#[derive(Debug, Object)]
struct PermissionList {
    /// In the order of the catalogue.
    items: Vec<PermissionEntry>,
}

/// What is to be explained.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Question {
    /// Who: an API key, `key_…`, or a member, `usr_…`, of the caller's organization; left out: the caller.
    subject: Option<String>,
    /// What he wants to do: the `operationId` of an operation.
    operation: Option<String>,
    /// What he wants to be allowed, instead of an operation.
    permission: Option<String>,
    /// Where: the caller's organization, or one below it; left out: the caller's.
    organization_id: Option<OrganizationId>,
}

example!(Question, { "subject": "key_01h455vb4pex5vsknk084sn02q", "operation": "askForJob" });

/// Whether it is allowed, and why.
#[derive(Debug, Object)]
#[oai(example)]
struct Explanation {
    /// It is.
    allowed: bool,
    /// What is needed.
    permissions: Vec<String>,
    /// The first rule that refuses; absent: none does.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<String>,
    /// The same in a sentence.
    detail: String,
    /// Every rule that concerns the subject, in the order in which they are looked at.
    rules: Vec<RuleCheck>,
}

example!(Explanation, {
    "allowed": false,
    "permissions": ["jobs:write"],
    "reason": "scope",
    "detail": "refused by the rule scope. The key or token has the scope.",
    "rules": [
        { "rule": "organization_suspended", "passes": true, "wants": "The organization of the caller is not suspended, nor one above it." },
        { "rule": "scope", "passes": false, "wants": "The key or token has the scope." },
    ],
});

/// A rule, and whether it lets the subject through.
#[derive(Debug, Object)]
struct RuleCheck {
    /// Its name, which a refusal gives as `reason`.
    rule: String,
    /// It does.
    passes: bool,
    /// What it wants.
    wants: String,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Members")]
impl PermissionCatalogue {
    /// List permissions
    ///
    /// Everything that can be allowed, and the roles that allow it in the caller's organization.
    #[oai(path = "/", method = "get", operation_id = "listPermissions")]
    async fn list(&self, caller: May<ReadMembers>) -> Json<PermissionList> {
        let organization = caller.organization();
        let entry = |permission: &Permission| {
            let allows = |role: &Role| memberships::permissions_of(*role, organization).contains(permission);
            PermissionEntry {
                name: permission.to_string(),
                description: permission.describe().to_owned(),
                roles: Role::ALL.iter().filter(|role| allows(role)).map(ToString::to_string).collect(),
            }
        };
        Json(PermissionList { items: Permission::ALL.iter().map(entry).collect() })
    }

    /// Explain whether somebody may do something
    ///
    /// By the same rules that every request is decided by, with what is stored at this moment. It is only about who may: what
    /// else a request needs, it does not say. A key that was revoked or has expired is explained as if it had not.
    ///
    /// Refused as `not_found` when there is no such key, member or organization here.
    #[oai(path = "/explain", method = "post", operation_id = "explainPermission")]
    async fn explain(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        body: Body<Question>,
    ) -> Result<Json<Explanation>, Error> {
        let Question { subject, operation, permission, organization_id } = body.0;
        let wanted = wanted(operation.as_deref(), permission.as_deref())?;
        let own = caller.organization();
        let (mut subject, holder) = match subject.as_deref() {
            None => (*caller.subject(), caller.by().to_string()),
            Some(subject) => named(&app, own, subject).await?,
        };
        if let Some(operation) = operation.as_deref().filter(|operation| licenses::needs(operation).is_some()) {
            let standing = app.standings.of(&app.db, own).await?;
            subject.license = subject.license.and(standing.licensed(app.db.now(), None, Some(operation)));
        }
        if let Some(there) = organization_id.filter(|there| *there != own) {
            let mut tx = app.db.tenant(own).await?;
            let reached = access::reach(&mut tx, there, &holder).await?;
            let reached = reached.ok_or_else(|| Error::not_found(there).at("organization_id"))?;
            (subject.organization, subject.reach) = (there, reached.reach);
        }
        let rules: Vec<_> = wanted.iter().flat_map(|permission| subject.explain(*permission)).collect();
        let refuses = wanted.iter().find_map(|permission| subject.decide(*permission).err());
        Ok(Json(Explanation {
            allowed: refuses.is_none(),
            permissions: wanted.iter().map(ToString::to_string).collect(),
            reason: refuses.map(|rule| rule.to_string()),
            detail: match refuses {
                Some(rule) => format!("refused by the rule {rule}. {}", rule.describe()),
                None if wanted.is_empty() => "whoever is known may do it, about himself".to_owned(),
                None => "allowed".to_owned(),
            },
            rules: rules
                .into_iter()
                .map(|check| RuleCheck {
                    rule: check.rule.to_string(),
                    passes: check.passes,
                    wants: check.rule.describe().to_owned(),
                })
                .collect(),
        }))
    }
}

/// The permissions that are needed.
fn wanted(operation: Option<&str>, permission: Option<&str>) -> Result<Vec<Permission>, Error> {
    match (operation, permission) {
        (Some(operation), None) => routes::permissions_of(operation).ok_or_else(|| {
            Error::field("operation", "no operation has this name; it is the operationId of the document")
        }),
        (None, Some(permission)) => match permission.parse() {
            Ok(permission) => Ok(vec![permission]),
            Err(_) => Err(Error::field("permission", "there is no such permission; GET /permissions lists them")),
        },
        _ => Err(Error::field("operation", "write either an operation or a permission that is to be explained")),
    }
}

/// The subject of this id in the organization, and how it is named as holder of support.
async fn named(app: &App, own: OrganizationId, subject: &str) -> Result<(Subject, String), Error> {
    let standing = app.standings.of(&app.db, own).await?;
    let (hold, license) = (standing.hold.as_ref().map(|held| held.hold), standing.licensed(app.db.now(), None, None));
    let mut tx = app.db.tenant(own).await?;
    let not_found = || {
        Error::new(Code::NotFound, "there is no such API key or member here; write key_… or usr_… of the organization")
            .at("subject")
    };
    if let Ok(id) = subject.parse::<ApiKeyId>() {
        let key = api_keys::find(&mut tx, id).await?.ok_or_else(not_found)?;
        let subject = Subject {
            organization: own,
            reach: Reach::Inside,
            hold,
            barred: None,
            unproven: false,
            scopes: Some(key.scopes.iter().copied().collect()),
            behind: key.behind,
            license,
        };
        return Ok((subject, format!("api_key:{id}")));
    }
    let Ok(id) = subject.parse::<PersonId>() else {
        return Err(Error::field("subject", "write the id of an API key, key_…, or of a member, usr_…"));
    };
    let member = members::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let behind: Behind = member.behind;
    Ok((
        Subject {
            organization: own,
            reach: Reach::Inside,
            hold,
            barred: None,
            unproven: false,
            scopes: None,
            behind,
            license,
        },
        format!("person:{id}"),
    ))
}
