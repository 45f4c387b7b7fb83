//! The tree below an organization, with what each has, and moving a part of it.

use std::collections::BTreeMap;

use gantry_schema::OrganizationId;
use gantry_schema::organizations::needed::{ManageOrganizations, ReadOrganizations};
use gantry_schema::organizations::tree;
use gantry_schema::organizations::{self, Count};
use gantry_schema::webhooks::event_types::PlatformEvent;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::{Organization, find, find_to_change, from_above, placed, tell};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, Tagged};
use crate::error::Error;
use crate::example::example;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::tag::Tag;

/// The operations on the tree.
#[derive(Debug, Clone, Copy)]
pub struct Tree;

/// An organization in the tree.
#[derive(Debug, Object)]
#[oai(rename = "OrganizationNode", example)]
struct Node {
    /// How far below the organization that was asked about: 0 is that one.
    depth: i32,
    /// The organization.
    organization: Organization,
    /// What it has, by kind: `members`, `organizations`, `api_keys`, ….
    counts: BTreeMap<String, Counts>,
}

example!(Node, {
    "depth": 1,
    "organization": {
        "id": "org_01h455vb4pex5vsknk084sn02q",
        "parent_id": "org_01h455vb4pex5vsknk084sn03r",
        "type": "master_branch",
        "name": "Acme Hosting",
        "slug": "acme-hosting",
        "state": "active",
        "weight": 1,
        "created_at": "2026-01-15T12:00:00Z",
        "updated_at": "2026-01-15T12:00:00Z",
    },
    "counts": { "members": { "own": 3, "total": 41 }, "organizations": { "own": 12, "total": 12 } },
});

/// How many there are.
#[derive(Debug, Object)]
#[oai(rename = "OrganizationCounts")]
struct Counts {
    /// The organization's own; of organizations those directly below it.
    own: i64,
    /// Together with those of all below it.
    total: i64,
}

/// Where an organization is to be.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewPlace {
    /// The one above it from now on: the caller's or one below it.
    parent_id: OrganizationId,
}

example!(NewPlace, { "parent_id": "org_01h455vb4pex5vsknk084sn03r" });

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Tree {
    /// Look at the tree below an organization
    ///
    /// The organization, then those directly below it, and so on level by level, each with what it has and what all below it
    /// have together with it. Counts are exact at the moment of the answer.
    #[oai(path = "/:organization/tree", method = "get", operation_id = "getOrganizationTree")]
    async fn tree(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        /// How many levels below it, 0 to 1000; left out: all.
        depth: Query<Option<i32>>,
        paging: Paging,
    ) -> Result<Paged<Node>, Error> {
        let (own, root) = (caller.organization(), organization.0);
        let depth = depth.0.unwrap_or(DEEPEST);
        if !(0..=DEEPEST).contains(&depth) {
            return Err(Error::parameter("depth", "write how many levels below it are wanted, 0 to 1000"));
        }
        let after = paging.after(root)?.map(|place| place.to_level()).transpose()?;
        let after = after.map(|(depth, id)| tree::Place { depth, id });
        if own != root {
            let mut tx = app.db.tenant(own).await?;
            find(&mut tx, root).await?;
        }
        let mut tx = app.db.tenant(root).await?;
        let nodes = tree::page(&mut tx, depth, after, paging.and_one()).await?;
        let place = |node: &tree::Node| Place::level(node.depth, node.organization.id.uuid());
        Ok(paging.page(root, nodes, place, Node::from))
    }

    /// Move an organization
    ///
    /// With all that is below it, below another. Both places lie below the caller's organization or are it; so nobody moves
    /// itself. Types are checked as for a new one.
    ///
    /// Refused as `wrong_place` when its type may not stand there or it would be below itself, as `name_taken` when another
    /// one there has its slug, as `license_limit` when a license above the new place allows no more, as `license_state` when
    /// one is not in force.
    #[oai(path = "/:organization/move", method = "post", operation_id = "moveOrganization")]
    async fn r#move(
        &self,
        caller: May<ManageOrganizations>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewPlace>,
    ) -> Result<Answered<Tagged<Organization>>, Error> {
        let (own, id, parent) = (caller.organization(), organization.0, body.0.parent_id);
        from_above(own, id)?;
        let put = once.run(&caller, own, async |tx| {
            tree::take_turn(tx).await?;
            let before = find_to_change(tx, id).await?;
            if_match.check(&Organization::from(before.clone()))?;
            let found = organizations::find(tx, parent).await?;
            if found.is_none_or(|parent| parent.deleted_at.is_some()) {
                return Err(Error::not_found(parent).at("parent_id"));
            }
            if before.parent != Some(parent) {
                placed(tree::put_below(tx, id, parent).await, parent, "parent_id")?;
                let facts = json!({ "organization_id": id, "parent_id": parent, "previous_parent_id": before.parent });
                tell(tx, PlatformEvent::OrganizationMoved, facts, &caller).await?;
            }
            Ok(Tagged::of(find(tx, id).await?.into()))
        });
        let put = put.await?;
        // What it inherits is of elsewhere now.
        app.access_changed();
        Ok(put)
    }
}

/// Levels that can be asked for; no tree comes near.
const DEEPEST: i32 = 1_000;

impl From<tree::Node> for Node {
    fn from(node: tree::Node) -> Self {
        let counts = |Count { kind, own, total }: Count| (kind.to_owned(), Counts { own, total });
        Self {
            depth: node.depth,
            organization: node.organization.into(),
            counts: node.counts.into_iter().map(counts).collect(),
        }
    }
}
