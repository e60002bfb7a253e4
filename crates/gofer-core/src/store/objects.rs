//! Objects: bytes under a key, of a pipeline or of one run.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::Status;

use super::pipelines::PipelineTable;
use super::{By, Needs, Store, Tables, check_name, or_default};
use gofer_proto::ObjectStoreKey;

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

/// An object as stored in memory and on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Object {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) pipeline: String,
    /// 0 for the pipeline itself; runs count from 1.
    #[prost(int64, tag = "3")]
    pub(super) run: i64,
    #[prost(string, tag = "4")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) content: Bytes,
    #[prost(int64, tag = "6")]
    pub(super) created: i64,
}

/// By run (0 for the pipeline) and key.
pub(super) type Objects = BTreeMap<(i64, String), Object>;

impl PipelineTable {
    /// The objects of one owner, by their keys.
    fn objects_of(&self, run: i64) -> impl Iterator<Item = &Object> {
        let from = (run, String::new());
        self.objects.range(from..).map(|(_, object)| object).take_while(move |it| it.run == run)
    }
}

impl Tables {
    /// The pipeline of an owner, and the number its objects are under.
    fn owner(&mut self, owner: Owner<'_>) -> Result<(&mut PipelineTable, i64), Status> {
        self.authorize(owner.by, Needs::Pipeline(owner.namespace, owner.pipeline))?;
        let pipeline = self.pipeline_mut(owner.namespace, owner.pipeline)?;
        if let Some(run) = owner.run {
            pipeline.run(run)?;
        }
        Ok((pipeline, owner.run.unwrap_or(0)))
    }
}

impl Store {
    pub(crate) fn object(&self, of: Owner<'_>, key: &str) -> Result<Bytes, Status> {
        let mut tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        let found = pipeline.objects.get(&(run, key.to_owned()));
        found.map(|object| object.content.clone()).ok_or_else(|| no_object(key))
    }

    /// By their keys.
    pub(crate) fn objects(&self, of: Owner<'_>) -> Result<Vec<ObjectStoreKey>, Status> {
        let mut tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        let key = |it: &Object| ObjectStoreKey { key: it.key.clone(), created: it.created };
        Ok(pipeline.objects_of(run).map(key).collect())
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
        let mut tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        check_name("object's key", &key)?;
        let is_new = !pipeline.objects.contains_key(&(run, key.clone()));
        if !is_new && !force {
            let why = format!("an object `{key}` already exists; set `force` to replace it");
            return Err(Status::already_exists(why));
        }
        let count = pipeline.objects_of(run).count();
        let mut removed = Vec::new();
        if is_new && run == 0 && count >= PIPELINE_OBJECTS {
            let oldest = pipeline.objects_of(0).min_by_key(|it| it.created);
            removed.extend(oldest.map(|it| (0, it.key.clone())));
        } else if is_new && count >= RUN_OBJECTS {
            let why = format!("a run may have at most {RUN_OBJECTS} objects; delete one first");
            return Err(Status::resource_exhausted(why));
        }
        let evicted = removed.first().map(|(_, key): &(i64, String)| key.clone());
        // The objects of older runs.
        let expired = pipeline.last_run.saturating_sub(RUNS_WITH_OBJECTS);
        let old = pipeline.objects.range((1, String::new())..(expired.max(0) + 1, String::new()));
        removed.extend(old.map(|(key, _)| key.clone()));
        let removed: Vec<_> =
            removed.iter().filter_map(|key| pipeline.objects.remove(key)).collect();
        let object = Object {
            namespace: or_default(of.namespace).to_owned(),
            pipeline: of.pipeline.to_owned(),
            run,
            key: key.clone(),
            content,
            created,
        };
        pipeline.objects.insert((run, key), object.clone());
        for object in &removed {
            tables.journal.remove_object(object);
        }
        tables.journal.put_object(&object);
        Ok(evicted)
    }

    pub(crate) fn delete_object(&self, of: Owner<'_>, key: &str) -> Result<(), Status> {
        let mut tables = self.tables();
        let (pipeline, run) = tables.owner(of)?;
        let removed = pipeline.objects.remove(&(run, key.to_owned()));
        let removed = removed.ok_or_else(|| no_object(key))?;
        tables.journal.remove_object(&removed);
        Ok(())
    }
}

/// The limit that the response to a put reports.
pub(crate) fn object_limit() -> i64 {
    i64::try_from(PIPELINE_OBJECTS).unwrap_or(i64::MAX)
}

fn no_object(key: &str) -> Status {
    Status::not_found(format!("there is no object `{key}`; it may have been evicted"))
}
