//! The host names by which an organization is reached.

use std::fmt;
use std::str::FromStr;

use gantry_schema::OrganizationId;
use gantry_schema::organizations::needed::{ManageSettings, ReadOrganizations};
use gantry_schema::organizations::{Slug, hosts};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use super::find;
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Wrong, text_type};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on host names.
#[derive(Debug, Clone, Copy)]
pub struct Hosts;

/// Labels of letters, digits and `-` with dots between them, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostName(String);

impl HostName {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let name = text.to_ascii_lowercase();
        let is_label = |label: &str| label.parse::<Slug>().is_ok();
        if name.len() <= 253 && name.contains('.') && name.split('.').all(is_label) {
            Ok(Self(name))
        } else {
            Err(Wrong(
                "a host name is labels of a-z, 0-9 and - with dots between them, such as acme.cloud.example".into(),
            ))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(HostName, "hostname", |schema| {
    schema.max_length = Some(253);
    schema.example = Some("acme.cloud.example".into());
});

/// A host name.
#[derive(Debug, Object)]
#[oai(rename = "OrganizationHost", example)]
struct Host {
    /// The name.
    host: String,
    /// Since when it is the organization's.
    created_at: Moment,
}

example!(Host, { "host": "acme.cloud.example", "created_at": "2026-01-15T12:00:00Z" });

/// A host name to have.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewHost {
    /// One label before the base domain of the installation: `acme.cloud.example`.
    host: HostName,
}

example!(NewHost, { "host": "acme.cloud.example" });

/// The organization has the host name.
#[derive(ApiResponse)]
enum Added {
    /// What is asked for by this name is asked of the organization, or of one below it.
    #[oai(status = 201)]
    Added(Json<Host>),
}

/// The organization has the host name no more.
#[derive(ApiResponse)]
enum Removed {
    /// Somebody else may have it.
    #[oai(status = 204)]
    Removed,
}

/// Host names an organization may have.
const MOST: usize = 20;

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Hosts {
    /// List the host names of an organization
    ///
    /// All of them, in their order.
    #[oai(path = "/:organization/hosts", method = "get", operation_id = "listOrganizationHosts")]
    async fn list(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
    ) -> Result<Json<Vec<Host>>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        if own != id {
            let mut tx = app.db.tenant(own).await?;
            find(&mut tx, id).await?;
        }
        let mut tx = app.db.tenant(id).await?;
        Ok(Json(hosts::list(&mut tx).await?.into_iter().map(Host::from).collect()))
    }

    /// Give an organization a host name
    ///
    /// The caller's own. A request that comes by this name is for the organization, or for one below it; a key of any other is
    /// refused.
    /// A license has to have the feature `domain_management`, where there is one.
    ///
    /// Refused as `wrong_state` when the installation has no base domain, as `name_taken` when somebody has the name, as
    /// `too_many` when the organization has 20.
    #[oai(path = "/:organization/hosts", method = "post", operation_id = "addOrganizationHost")]
    async fn add(
        &self,
        caller: May<ManageSettings>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewHost>,
    ) -> Result<Answered<Added>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let host = below_base(&body.0.host, app.base_domain())?;
        let add = once.run(&caller, id, async |tx| {
            if hosts::list(tx).await?.len() >= MOST {
                return Err(Error::new(
                    Code::TooMany,
                    format!("it has {MOST} host names, as many as it may; remove one"),
                ));
            }
            let added = hosts::add(tx, &host).await?;
            let added = added
                .ok_or_else(|| Error::new(Code::NameTaken, "somebody has this host name; choose another").at("host"))?;
            Ok(Added::Added(Json(added.into())))
        });
        let added = add.await?;
        app.access_changed();
        Ok(added)
    }

    /// Take a host name from an organization
    ///
    /// The caller's own.
    ///
    /// Refused as `not_found` when the organization has no such name.
    #[oai(path = "/:organization/hosts/:host", method = "delete", operation_id = "removeOrganizationHost")]
    async fn remove(
        &self,
        caller: May<ManageSettings>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The host name.
        host: Path<HostName>,
    ) -> Result<Answered<Removed>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let remove = once.run(&caller, id, async |tx| {
            if !hosts::remove(tx, host.0.as_str()).await? {
                return Err(Error::new(Code::NotFound, "the organization has no such host name; GET lists them"));
            }
            Ok(Removed::Removed)
        });
        let removed = remove.await?;
        app.access_changed();
        Ok(removed)
    }
}

/// The name, if it is one label before the base domain.
fn below_base(host: &HostName, base: Option<&str>) -> Result<String, Error> {
    let Some(base) = base else {
        return Err(Error::new(
            Code::WrongState,
            "this installation has no base domain, so organizations have no host names; its operator sets \
             GANTRY_BASE_DOMAIN",
        ));
    };
    let label = host.as_str().strip_suffix(base).and_then(|rest| rest.strip_suffix('.'));
    // A slug is a label.
    match label.map(str::parse::<Slug>) {
        Some(Ok(_)) => Ok(host.to_string()),
        _ => {
            Err(Error::field("host", format!("write one label of a-z, 0-9 and - before .{base}, such as acme.{base}")))
        }
    }
}

impl From<hosts::Host> for Host {
    fn from(host: hosts::Host) -> Self {
        Self { host: host.host, created_at: host.created_at.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_label_before_the_base_domain_and_nothing_that_ends_alike() {
        let host = |text: &str| below_base(&text.parse().ok()?, Some("cloud.example")).ok();
        assert_eq!(host("Acme.Cloud.example").as_deref(), Some("acme.cloud.example"));
        for bad in [
            "cloud.example",
            "evilcloud.example",
            ".cloud.example",
            "a.b.cloud.example",
            "-a.cloud.example",
            "a.example",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
        assert!(below_base(&"acme.cloud.example".parse().unwrap(), None).is_err());
    }
}
