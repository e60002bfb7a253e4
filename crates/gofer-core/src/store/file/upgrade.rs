//! Makes a file of version 1 or 2 one of version 3, in one transaction.
//!
//! In those versions, all records were in one table, without checksums. Keys of runs, scopes of
//! events and what pipelines keep were not stored.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable as _};

use super::{HISTORY, RECORDS, checksum_of, damaged, record_of, refused, version_record};
use crate::store::events::{self, EventScope, StoredScope};
use crate::store::history::StoredRun;
use crate::store::initiator::split;
use crate::store::journal::{Part, RecordKind, Write};
use crate::store::objects::{ObjectInfo, object_key, object_size};
use crate::store::pipelines::{config_key, config_size};
use crate::store::run_keys::{RunKey, record_key};
use crate::store::runs::run_key;
use crate::store::seal::Seal;
use crate::store::usage::{Usage, size};
use gofer_proto::initiator::Type;
use gofer_proto::run::RunState;
use gofer_proto::{Event, PipelineConfig, PipelineMetadata, Run};
use gofer_sdk::Result;

/// An object with its content.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Object {
    #[prost(string, tag = "1")]
    pub(in crate::store) namespace: String,
    #[prost(string, tag = "2")]
    pub(in crate::store) pipeline: String,
    #[prost(int64, tag = "3")]
    pub(in crate::store) run: i64,
    #[prost(string, tag = "4")]
    pub(in crate::store) key: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(in crate::store) content: Bytes,
    #[prost(int64, tag = "6")]
    pub(in crate::store) created: i64,
}

/// # Errors
///
/// If what is encrypted was encrypted with another key.
pub(super) fn check(path: &Path, database: &Database, seal: &Seal) -> Result<()> {
    let before = database.begin_read().map_err(|error| damaged(path, &error))?;
    let records = before.open_table(RECORDS).map_err(|error| damaged(path, &error))?;
    for kind in [RecordKind::Registration, RecordKind::Secret] {
        let (from, to) = ([kind as u8], [kind as u8 + 1]);
        for record in records.range(&from[..]..&to[..]).map_err(|error| damaged(path, &error))? {
            let (key, value) = record.map_err(|error| damaged(path, &error))?;
            record_of(path, key.value(), value.value(), seal)?;
        }
    }
    Ok(())
}

/// # Errors
///
/// If a record cannot be read, or the file cannot be written. It is then as it was.
pub(super) fn upgrade(path: &Path, database: &Database) -> Result<()> {
    let before = database.begin_read().map_err(|error| damaged(path, &error))?;
    let records = before.open_table(RECORDS).map_err(|error| damaged(path, &error))?;
    let mut upgrade = Upgrade::default();
    // The names of extensions, which tell apart the labels in the initiators of runs.
    let registrations = [RecordKind::Registration as u8];
    for record in records.range(&registrations[..]..).map_err(|error| damaged(path, &error))? {
        let (key, _) = record.map_err(|error| damaged(path, &error))?;
        let Some(name) = key.value().strip_prefix(&registrations) else { break };
        let name = name.get(size_of::<u32>()..).and_then(|it| str::from_utf8(it).ok());
        upgrade.extensions.extend(name.map(str::to_owned));
    }
    let written = (|| {
        let transaction = database.begin_write()?;
        {
            let mut alive = transaction.open_table(RECORDS)?;
            let mut history = transaction.open_table(HISTORY)?;
            let mut write = |Write { of, key, value }: Write| {
                let table = match of {
                    Part::Alive => &mut alive,
                    Part::History => &mut history,
                };
                match value {
                    Some(value) => {
                        let record = [&*value, &checksum_of(&key, &value)].concat();
                        drop(table.insert(&*key, &*record)?);
                    }
                    None => drop(table.remove(&*key)?),
                }
                Ok::<_, redb::Error>(())
            };
            let unreadable = || redb::Error::Corrupted("a record cannot be read".to_owned());
            for record in records.iter()? {
                let (key, value) = record?;
                let writes = upgrade.record(key.value(), value.value()).ok_or_else(unreadable)?;
                writes.into_iter().try_for_each(&mut write)?;
            }
            upgrade.end().into_iter().try_for_each(&mut write)?;
        }
        transaction.commit().map_err(redb::Error::from)
    })();
    written.map_err(|error: redb::Error| match error {
        redb::Error::Corrupted(what) => damaged(path, &what),
        error => refused(format!(
            "the store `{}` is of an earlier version and cannot be upgraded: {error}",
            path.display()
        )),
    })
}

/// What is known of the records so far, which come in the order of their kinds.
#[derive(Default)]
struct Upgrade {
    extensions: BTreeSet<String>,
    /// The newest configuration of the pipeline that was read last.
    config: Option<PipelineConfig>,
    usage: std::collections::BTreeMap<(String, String), Usage>,
}

impl Upgrade {
    fn usage(&mut self, of: &PipelineMetadata) -> &mut Usage {
        self.usage.entry((of.namespace.clone(), of.id.clone())).or_default()
    }

    /// The records instead of one; `None` if it cannot be read.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<Vec<Write>> {
        let kind = RecordKind::of(*key.first()?)?;
        let mut writes = Vec::new();
        if kind != RecordKind::Config {
            writes.extend(self.live_config());
        }
        let removed = || Write { of: Part::Alive, key: key.to_vec(), value: None };
        match kind {
            RecordKind::Version => writes.push(version_record()),
            RecordKind::Config => {
                let config = PipelineConfig::decode(value).ok()?;
                writes.push(removed());
                let of = [&config.namespace, &config.pipeline];
                let before = self.config.take();
                if let Some(before) = before {
                    if [&before.namespace, &before.pipeline] == of {
                        writes.push(self.earlier_config(&before));
                    } else {
                        writes.push(live(&before));
                    }
                }
                self.config = Some(config);
            }
            RecordKind::Run => {
                let run = Run::decode(value).ok()?;
                let of = pipeline(&run.namespace, &run.pipeline);
                let run_key_of = self.key(&run);
                let record = StoredRun::encode(&run, run_key_of);
                let usage = self.usage(&of);
                usage.last_run = usage.last_run.max(run.id);
                if run.state() == RunState::Complete {
                    usage.runs += 1;
                    usage.run_bytes += size(record.len());
                    writes.extend([removed(), history(run_key(&of, run.id), record)]);
                } else {
                    writes.push(alive(key.to_vec(), record));
                }
                let number = run.id.to_be_bytes().to_vec();
                writes.extend(run_key_of.map(|key| history(record_key(&of, key), number)));
            }
            RecordKind::Event => {
                let event = Event::decode(value).ok()?;
                let scope = EventScope::text_of_details(&event.details);
                let mut record = value.to_vec();
                record.extend(StoredScope { scope }.encode_to_vec());
                writes.extend([removed(), history(events::key(event.id), record)]);
            }
            RecordKind::Object => {
                let object = Object::decode(value).ok()?;
                let of = pipeline(&object.namespace, &object.pipeline);
                let length = object.content.len() as u64;
                let info = ObjectInfo { created: object.created, length };
                let key = |kind| object_key(kind, &of, object.run, &object.key);
                writes.extend([
                    removed(),
                    history(key(RecordKind::ObjectInfo), info.encode_to_vec()),
                    history(key(RecordKind::ObjectContent), object.content.to_vec()),
                ]);
                self.usage(&of).content_bytes += object_size(&object.key, length);
            }
            _ => writes.push(alive(key.to_vec(), value.to_vec())),
        }
        Some(writes)
    }

    /// After the last record.
    fn end(&mut self) -> Vec<Write> {
        let mut writes = Vec::from_iter(self.live_config());
        for ((namespace, id), usage) in std::mem::take(&mut self.usage) {
            let key = RecordKind::Usage.key(&[&namespace, &id], None);
            writes.push(alive(key, usage.encode_to_vec()));
        }
        writes
    }

    fn live_config(&mut self) -> Option<Write> {
        self.config.take().as_ref().map(live)
    }

    fn earlier_config(&mut self, config: &PipelineConfig) -> Write {
        let of = pipeline(&config.namespace, &config.pipeline);
        let usage = self.usage(&of);
        usage.earlier_configs += 1;
        usage.content_bytes += config_size(config);
        history(config_key(&of, config.version), config.encode_to_vec())
    }

    /// The key of a run that an extension started.
    fn key(&self, run: &Run) -> Option<RunKey> {
        let initiator = run.initiator.as_ref().filter(|it| it.r#type() == Type::Extension)?;
        let (name, label) = split(&initiator.name, |it| self.extensions.contains(it))?;
        RunKey::of(name, label, &run.variables)
    }
}

fn live(config: &PipelineConfig) -> Write {
    let key = RecordKind::Config.key(&[&config.namespace, &config.pipeline], None);
    alive(key, config.encode_to_vec())
}

fn alive(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { of: Part::Alive, key, value: Some(value.into()) }
}

fn history(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { of: Part::History, key, value: Some(value.into()) }
}

fn pipeline(namespace: &str, id: &str) -> PipelineMetadata {
    PipelineMetadata { namespace: namespace.to_owned(), id: id.to_owned(), ..Default::default() }
}

#[cfg(test)]
mod tests;
