//! Namespaces, which separate the pipelines of different owners.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::json;
use tonic::Status;

use super::events::EventScope;
use super::pipelines::PipelineTable;
use super::usage::NamespaceUsage;
use super::{
    By, DEFAULT, EventKind, Needs, Page, Store, Tables, check_name, no_namespace, or_default,
};
use gofer_proto as proto;

pub(super) struct NamespaceTable {
    pub(super) namespace: proto::Namespace,
    pub(super) pipelines: BTreeMap<String, PipelineTable>,
    pub(super) usage: NamespaceUsage,
}

impl NamespaceTable {
    pub(super) fn new(namespace: proto::Namespace) -> Self {
        Self { namespace, pipelines: BTreeMap::new(), usage: NamespaceUsage::default() }
    }
}

impl Store {
    /// Creates the default namespace if there is none.
    pub(super) fn ensure_default(&self) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        let Tables { namespaces, journal, .. } = &mut *tables;
        namespaces.entry(DEFAULT.to_owned()).or_insert_with_key(|id| {
            let namespace = proto::Namespace {
                id: id.clone(),
                name: id.clone(),
                description: "Always there, and used if no namespace is given.".to_owned(),
                created: now,
                modified: now,
            };
            journal.put_namespace(&namespace);
            NamespaceTable::new(namespace)
        });
        Ok(())
    }

    pub(crate) fn create_namespace(
        &self,
        request: proto::CreateNamespaceRequest,
        by: &By,
    ) -> Result<proto::Namespace, Status> {
        check_name("namespace's id", &request.id)?;
        let now = self.clock.unix_millis();
        let proto::CreateNamespaceRequest { id, name, description } = request;
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(&id))?;
        let Tables { namespaces, events, journal, .. } = &mut *tables;
        let Entry::Vacant(free) = namespaces.entry(id) else {
            return Err(Status::already_exists("a namespace with this id already exists"));
        };
        let namespace = proto::Namespace {
            id: free.key().clone(),
            name,
            description,
            created: now,
            modified: now,
        };
        journal.put_namespace(&namespace);
        free.insert(NamespaceTable::new(namespace.clone()));
        let details = json!({ "namespace_id": namespace.id });
        let scope = EventScope::Namespace(&namespace.id);
        events.publish(now, EventKind::NamespaceCreated, scope, &details);
        Ok(namespace)
    }

    pub(crate) fn namespace(&self, id: &str) -> Result<proto::Namespace, Status> {
        Ok(self.tables().namespace(id)?.namespace.clone())
    }

    /// Those that the caller may see, by their ids.
    pub(crate) fn namespaces(
        &self,
        page: Page,
        seen: impl Fn(&proto::Namespace) -> bool,
    ) -> Vec<proto::Namespace> {
        let tables = self.tables();
        let all = tables.namespaces.values().map(|table| &table.namespace);
        page.of(all.filter(|namespace| seen(namespace)))
    }

    pub(crate) fn update_namespace(
        &self,
        request: proto::UpdateNamespaceRequest,
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(&request.id))?;
        let namespace = &mut tables.namespace_mut(&request.id)?.namespace;
        namespace.name = request.name;
        namespace.description = request.description;
        namespace.modified = now;
        let changed = namespace.clone();
        tables.journal.put_namespace(&changed);
        Ok(())
    }

    /// Refused while the namespace has pipelines: deleting a pipeline ends subscriptions, which
    /// should be asked for explicitly.
    pub(crate) fn delete_namespace(&self, id: &str, by: &By) -> Result<(), Status> {
        let id = or_default(id);
        if id == DEFAULT {
            return Err(Status::failed_precondition("the namespace `default` cannot be deleted"));
        }
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(id))?;
        let Some(table) = tables.namespaces.get(id) else { return Err(no_namespace(id)) };
        if !table.pipelines.is_empty() {
            return Err(Status::failed_precondition(format!(
                "the namespace `{id}` has pipelines; delete them first"
            )));
        }
        tables.namespaces.remove(id);
        tables.journal.remove_namespace(id);
        let (scope, details) = (EventScope::Namespace(id), json!({ "namespace_id": id }));
        tables.events.publish(now, EventKind::NamespaceDeleted, scope, &details);
        Ok(())
    }
}
