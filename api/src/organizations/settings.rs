//! The settings of an organization, and where each comes from.

use std::collections::{BTreeMap, BTreeSet};

use gantry_schema::organizations::needed::{ManageSettings, ReadOrganizations};
use gantry_schema::organizations::settings::{self, Origin, Resolved, Setting};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{find, tell};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, IfNoneMatch, Tagged};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{AnyJson, Moment};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on settings.
#[derive(Debug, Clone, Copy)]
pub struct Settings;

/// What holds for an organization.
#[derive(Debug, Object)]
#[oai(example)]
struct OrganizationSettings {
    /// Whose settings.
    organization_id: OrganizationId,
    /// Every setting there is.
    settings: Vec<Held>,
}

example!(OrganizationSettings, {
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "settings": [{
        "name": "brand.name",
        "description": "What the platform is called where the organization's people see it.",
        "expects": "a text of 1 to 100 characters",
        "value": "Acme Hosting",
        "origin": "inherited",
        "set_by": "org_01h455vb4pex5vsknk084sn03r",
        "enforces": false,
    }],
});

/// Where a value comes from.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename_all = "snake_case", rename = "SettingOrigin")]
enum WhereFrom {
    /// Nobody has set it.
    Default,
    /// The organization has set it itself.
    Own,
    /// One above it has, and the organization may set it to something else.
    Inherited,
    /// One above it has, for all below it.
    Enforced,
}

/// A setting as it holds.
#[derive(Debug, Object)]
#[oai(rename = "Setting")]
struct Held {
    /// Its name.
    name: String,
    /// What it is for.
    description: String,
    /// What a value looks like.
    expects: String,
    /// What holds.
    value: Any<Value>,
    /// Where that comes from.
    origin: WhereFrom,
    /// Who has set it, where one above has.
    #[oai(skip_serializing_if_is_none)]
    set_by: Option<OrganizationId>,
    /// What the organization has set itself; absent: nothing. It does not hold while another value is enforced.
    #[oai(skip_serializing_if_is_none)]
    own: Option<Any<Value>>,
    /// The organization enforces what it has set itself on all below it.
    enforces: bool,
    /// When the organization set it.
    #[oai(skip_serializing_if_is_none)]
    set_at: Option<Moment>,
}

/// What to set; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct SettingsChange {
    /// Values by name: `{"brand.name": "Acme"}`.
    set: Option<BTreeMap<String, AnyJson>>,
    /// Names of settings to inherit again.
    unset: Option<Vec<String>>,
    /// By name whether all below inherit what the organization has set, whatever they set themselves; of settings it has
    /// set or sets now.
    enforce: Option<BTreeMap<String, bool>>,
}

example!(SettingsChange, {
    "set": { "brand.name": "Acme Hosting", "brand.primary_color": "#3b5bdb" },
    "unset": ["language"],
    "enforce": { "brand.name": true },
});

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Settings {
    /// Get the settings of an organization
    ///
    /// Every setting with the value that holds and where it comes from: of the topmost organization that enforces one, else of
    /// the nearest that has set one, else the default.
    #[oai(path = "/:organization/settings", method = "get", operation_id = "getOrganizationSettings")]
    async fn get(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
    ) -> Result<Tagged<OrganizationSettings>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        if own != id {
            let mut tx = app.db.tenant(own).await?;
            find(&mut tx, id).await?;
        }
        let mut tx = app.db.tenant(id).await?;
        Ok(if_none_match.answer(shown(&mut tx).await?))
    }

    /// Change the settings of an organization
    ///
    /// The caller's own. Those below it inherit what they do not set themselves.
    #[oai(path = "/:organization/settings", method = "patch", operation_id = "updateOrganizationSettings")]
    async fn update(
        &self,
        caller: May<ManageSettings>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<SettingsChange>,
    ) -> Result<Answered<Tagged<OrganizationSettings>>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let change = Change::read(&body.0)?;
        let update = once.run(&caller, id, async |tx| {
            if_match.check(&shown(tx).await?)?;
            change.make(tx).await?;
            let names: Vec<&str> = change.touched().into_iter().map(Setting::as_str).collect();
            let facts = json!({ "organization_id": id, "settings": names });
            tell(tx, PlatformEvent::OrganizationSettingsChanged, facts, &caller).await?;
            Ok(Tagged::of(shown(tx).await?))
        });
        update.await
    }
}

/// A change whose names and values are as expected.
struct Change {
    set: BTreeMap<Setting, Value>,
    unset: BTreeSet<Setting>,
    enforce: BTreeMap<Setting, bool>,
}

impl Change {
    fn read(asked: &SettingsChange) -> Result<Self, Error> {
        let mut change = Self { set: BTreeMap::new(), unset: BTreeSet::new(), enforce: BTreeMap::new() };
        let (unset, enforces) = (asked.unset.as_deref().unwrap_or_default(), asked.enforce.as_ref());
        for (name, value) in asked.set.iter().flatten() {
            let field = format!("set.{name}");
            let setting = read_name(name, &field)?;
            let value = value.value().map_err(|wrong| Error::field(&field, wrong.0))?;
            setting.check(&value).map_err(|expected| Error::field(&field, format!("write {expected}")))?;
            change.set.insert(setting, value);
        }
        for (index, name) in unset.iter().enumerate() {
            let field = format!("unset[{index}]");
            let setting = read_name(name, &field)?;
            if change.set.contains_key(&setting) || enforces.and_then(|enforces| enforces.get(name)) == Some(&true) {
                return Err(Error::field(field, "it cannot be set and inherited again at once; leave one out"));
            }
            change.unset.insert(setting);
        }
        for (name, enforce) in enforces.into_iter().flatten() {
            change.enforce.insert(read_name(name, &format!("enforce.{name}"))?, *enforce);
        }
        Ok(change)
    }

    fn touched(&self) -> BTreeSet<Setting> {
        self.set.keys().chain(&self.unset).chain(self.enforce.keys()).copied().collect()
    }

    async fn make(&self, tx: &mut TenantTx) -> Result<(), Error> {
        for setting in self.touched() {
            let now = settings::get(tx, setting).await?;
            if self.unset.contains(&setting) {
                settings::unset(tx, setting).await?;
                continue;
            }
            if let (Origin::Enforced(by), Some(_)) = (now.origin, self.set.get(&setting)) {
                return Err(Error::new(
                    Code::Forbidden,
                    format!("{by} above this organization enforces {setting}; leave it out, or ask there"),
                )
                .at(format!("set.{setting}")));
            }
            let own = now.own;
            let enforced = self.enforce.get(&setting).copied();
            let enforced = enforced.unwrap_or_else(|| own.as_ref().is_some_and(|own| own.enforced));
            let value = self.set.get(&setting).cloned().or(own.map(|own| own.value));
            let value = value.ok_or_else(|| {
                Error::field(
                    format!("enforce.{setting}"),
                    "the organization has not set it, so there is nothing to enforce; set it in the same request",
                )
            })?;
            settings::set(tx, setting, &value, enforced).await?;
        }
        Ok(())
    }
}

fn read_name(name: &str, field: &str) -> Result<Setting, Error> {
    name.parse().map_err(|_| {
        let known: Vec<&str> = Setting::ALL.iter().map(|setting| setting.as_str()).collect();
        Error::field(field, format!("there is no such setting; there are {}", known.join(", ")))
    })
}

async fn shown(tx: &mut TenantTx) -> Result<OrganizationSettings, Error> {
    let settings = settings::all(tx).await?.into_iter().map(Held::from).collect();
    Ok(OrganizationSettings { organization_id: tx.organization(), settings })
}

impl From<Resolved> for Held {
    fn from(resolved: Resolved) -> Self {
        let Resolved { setting, value, origin, own } = resolved;
        let (origin, set_by) = match origin {
            Origin::Default => (WhereFrom::Default, None),
            Origin::Own => (WhereFrom::Own, None),
            Origin::Inherited(by) => (WhereFrom::Inherited, Some(by)),
            Origin::Enforced(by) => (WhereFrom::Enforced, Some(by)),
        };
        Self {
            name: setting.to_string(),
            description: setting.description().to_owned(),
            expects: setting.shape().to_string(),
            value: Any(value),
            origin,
            set_by,
            enforces: own.as_ref().is_some_and(|own| own.enforced),
            set_at: own.as_ref().map(|own| own.updated_at.into()),
            own: own.map(|own| Any(own.value)),
        }
    }
}
