//! Objects: bytes under a key, of a pipeline or of one run.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use super::history::{History, Order, unreadable};
use super::journal::{RecordKind, push_name};
use super::namespaces::NamespaceTable;
use super::pipelines::PipelineTable;
use super::usage::size;
use super::{By, Needs, Store, Tables, check_name, no_namespace, no_pipeline, or_default};
use gofer_proto::{ObjectStoreKey, PipelineMetadata};

/// Objects kept of one pipeline. One more evicts the oldest.
const PIPELINE_OBJECTS: usize = 50;

/// Objects accepted for one run.
const RUN_OBJECTS: usize = 50;

/// The newest runs of a pipeline keep their objects; those of older ones expire.
const RUNS_WITH_OBJECTS: i64 = 20;

/// The owner of objects, a run or without one the pipeline, and who asks for them.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pipeline: &'a str,
    pub(crate) run: Option<i64>,
    pub(crate) by: &'a By,
}

/// What is stored of an object beside its content.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ObjectInfo {
    #[prost(int64, tag = "1")]
    pub(super) created: i64,
    /// Bytes of the content.
    #[prost(uint64, tag = "2")]
    pub(super) length: u64,
}

/// An object in a listing.
struct Listed {
    run: i64,
    key: String,
    info: ObjectInfo,
}

impl Listed {
    fn size(&self) -> u64 {
        object_size(&self.key, self.info.length)
    }
}

pub(super) fn object_size(key: &str, length: u64) -> u64 {
    size(key.len()) + length
}

/// The key of a record of an object; with `run` 0, of the pipeline itself.
pub(super) fn object_key(kind: RecordKind, of: &PipelineMetadata, run: i64, key: &str) -> Vec<u8> {
    let mut record = of_run(kind, of, run);
    push_name(&mut record, key);
    record
}

fn of_run(kind: RecordKind, of: &PipelineMetadata, run: i64) -> Vec<u8> {
    kind.key(&[&of.namespace, &of.id], Some(run))
}

impl PipelineTable {
    /// The objects of runs in this range (0 for the pipeline), by run and key.
    fn listed(&self, history: &History, runs: Range<i64>) -> Result<Vec<Listed>, Status> {
        let [from, to] =
            [runs.start, runs.end].map(|it| of_run(RecordKind::ObjectInfo, &self.metadata, it));
        // Where the number of the run is in each key; that of the object follows.
        let place = from.len() - size_of::<i64>();
        let mut listed = Some(Vec::new());
        history.visit(from..to, Order::OldestFirst, |record_key, record| {
            let read = || {
                let (run, key) = record_key.get(place..)?.split_first_chunk()?;
                let (_, key) = key.split_first_chunk::<4>()?;
                Some(Listed {
                    run: i64::from_be_bytes(*run),
                    key: String::from_utf8(key.to_vec()).ok()?,
                    info: ObjectInfo::decode(record).ok()?,
                })
            };
            listed = listed.take().zip(read()).map(|(mut listed, object)| {
                listed.push(object);
                listed
            });
            ControlFlow::Continue(())
        })?;
        listed.ok_or_else(|| unreadable("the list of objects"))
    }
}

impl Tables {
    /// The pipeline of an owner, and the number its objects are under.
    fn owner(&self, owner: Owner<'_>) -> Result<(&PipelineTable, i64), Status> {
        self.authorize(owner.by, Needs::Pipeline(owner.namespace, owner.pipeline))?;
        let pipeline = self.pipeline(owner.namespace, owner.pipeline)?;
        if let Some(run) = owner.run {
            pipeline.check_run(self.journal.history(), run)?;
        }
        Ok((pipeline, owner.run.unwrap_or(0)))
    }

    fn object_info(
        &self,
        of: &PipelineTable,
        run: i64,
        key: &str,
    ) -> Result<Option<ObjectInfo>, Status> {
        let key = object_key(RecordKind::ObjectInfo, &of.metadata, run, key);
        let record = self.journal.history().get(&key)?;
        record.map(|it| ObjectInfo::decode(it).map_err(|_| unreadable("an object"))).transpose()
    }

    /// Removes objects of a pipeline, and adds `put` to what it keeps.
    fn change_objects(
        &mut self,
        of: Owner<'_>,
        removed: &[Listed],
        put: Option<(Listed, Bytes)>,
    ) -> Result<(), Status> {
        let namespace = or_default(of.namespace);
        let Tables { namespaces, journal, .. } = self;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let NamespaceTable { pipelines, usage, .. } = table;
        let pipeline = pipelines.get_mut(of.pipeline);
        let pipeline = pipeline.ok_or_else(|| no_pipeline(namespace, of.pipeline))?;
        let key = |kind, it: &Listed| object_key(kind, &pipeline.metadata, it.run, &it.key);
        let kinds = [RecordKind::ObjectInfo, RecordKind::ObjectContent];
        for object in removed {
            for kind in kinds {
                journal.write_history(key(kind, object), None);
            }
        }
        let freed = removed.iter().map(Listed::size).sum();
        let mut added = 0;
        if let Some((object, content)) = put {
            added = object.size();
            let info = object.info.encode_to_vec().into();
            journal.write_history(key(RecordKind::ObjectInfo, &object), Some(info));
            journal.write_history(key(RecordKind::ObjectContent, &object), Some(content));
        }
        usage.replace_content(&mut pipeline.usage, freed, added);
        journal.put_usage(&pipeline.metadata, &pipeline.usage);
        Ok(())
    }
}

impl Store {
    pub(crate) fn object(&self, of: Owner<'_>, key: &str) -> Result<Bytes, Status> {
        let tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        let record = object_key(RecordKind::ObjectContent, &pipeline.metadata, run, key);
        tables.journal.history().get(&record)?.ok_or_else(|| no_object(key))
    }

    /// By their keys.
    pub(crate) fn objects(&self, of: Owner<'_>) -> Result<Vec<ObjectStoreKey>, Status> {
        let tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        let listed = pipeline.listed(tables.journal.history(), run..run + 1)?;
        let key = |it: Listed| ObjectStoreKey { key: it.key, created: it.info.created };
        Ok(listed.into_iter().map(key).collect())
    }

    /// Puts an object. Returns the key of the one that was evicted for it.
    pub(crate) fn put_object(
        &self,
        of: Owner<'_>,
        key: String,
        content: Bytes,
        force: bool,
    ) -> Result<Option<String>, Status> {
        let created = self.clock.unix_millis();
        let mut tables = self.change()?;
        let (pipeline, run) = tables.owner(of)?;
        check_name("object's key", &key)?;
        let history = tables.journal.history();
        let replaced = tables.object_info(pipeline, run, &key)?;
        if replaced.is_some() && !force {
            let why = format!("an object `{key}` already exists; set `force` to replace it");
            return Err(Status::already_exists(why));
        }
        let mut removed = Vec::new();
        let mut evicted = None;
        if let Some(info) = replaced {
            removed.push(Listed { run, key: key.clone(), info });
        } else {
            let owned = pipeline.listed(history, run..run + 1)?;
            if run == 0 && owned.len() >= PIPELINE_OBJECTS {
                let oldest = owned.into_iter().min_by_key(|it| it.info.created);
                evicted = oldest.as_ref().map(|it| it.key.clone());
                removed.extend(oldest);
            } else if run != 0 && owned.len() >= RUN_OBJECTS {
                let why = format!("a run may have at most {RUN_OBJECTS} objects; delete one first");
                return Err(Status::resource_exhausted(why));
            }
        }
        // The objects of older runs.
        let expired = pipeline.usage.last_run.saturating_sub(RUNS_WITH_OBJECTS).max(0);
        let expired = pipeline.listed(history, 1..expired + 1)?;
        removed.extend(expired.into_iter().filter(|it| (it.run, &it.key) != (run, &key)));
        let info = ObjectInfo { created, length: content.len() as u64 };
        let object = Listed { run, key, info };
        let freed = removed.iter().map(Listed::size).sum();
        let namespace = tables.namespace(of.namespace)?;
        namespace.usage.check_content(&namespace.namespace.id, freed, object.size())?;
        tables.change_objects(of, &removed, Some((object, content)))?;
        Ok(evicted)
    }

    pub(crate) fn delete_object(&self, of: Owner<'_>, key: &str) -> Result<(), Status> {
        let mut tables = self.change()?;
        let (pipeline, run) = tables.owner(of)?;
        let info = tables.object_info(pipeline, run, key)?.ok_or_else(|| no_object(key))?;
        tables.change_objects(of, &[Listed { run, key: key.to_owned(), info }], None)
    }
}

/// The limit that the response to a put reports.
pub(crate) fn object_limit() -> i64 {
    i64::try_from(PIPELINE_OBJECTS).unwrap_or(i64::MAX)
}

fn no_object(key: &str) -> Status {
    Status::not_found(format!("there is no object `{key}`; it may have been evicted"))
}
