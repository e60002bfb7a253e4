//! `gofer service backup`: a copy of the store of a core that goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gofer_core::internal::{Restored, WrittenBackup};
use gofer_net::MAX_RESPONSE_BYTES;
use gofer_proto::embedded::backup_response::Part;
use gofer_proto::embedded::{BackupRequest, BackupResponse};
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::failure::Failure;
use crate::output::note;
use crate::progress::Spinner;
use crate::session::Session;

/// How long the core may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The file to write, which must not exist. The key and the certificate are written to FILE.key,
    /// FILE.crt and FILE.crt.key.
    file: PathBuf,
}

pub(super) async fn run(session: &Session, backup: Backup) -> Result<(), Failure> {
    let file = &backup.file;
    if let Some(taken) = Restored::taken(file) {
        let taken = taken.display();
        return Err(Failure::state(format!("`{taken}` exists, and a backup overwrites nothing")));
    }
    let spinner = Spinner::new("backing up");
    let mut api = session.embedded().max_decoding_message_size(MAX_RESPONSE_BYTES);
    let parts = api.backup(BackupRequest {}).await.map_err(|status| {
        let hint = "a full Gofer has a database of its own, which is backed up with its tools";
        Failure::from(status).hint_on(Code::Unimplemented, hint)
    })?;
    let (WrittenBackup { files, bytes, records }, has_key) =
        receive(file, parts.into_inner()).await?;
    drop(spinner);
    let names: Vec<_> = files.iter().map(|it| it.display().to_string()).collect();
    let sentence = format!("Backed up {records} records ({bytes} bytes) to {}.", names.join(", "));
    let json =
        json!({ "files": names, "bytes": bytes, "records": records, "key_included": has_key });
    session.out.done(&sentence, &json)?;
    Ok(note(&about_key(file, has_key))?)
}

fn about_key(file: &Path, has_key: bool) -> String {
    let shown = file.display();
    if has_key {
        format!(
            "The backup cannot be opened without its key, {shown}.key; who has both can read all."
        )
    } else {
        "The core was started with a key that was set (GOFER_ENCRYPTION_KEY), which is not in the \
         backup, and without which it cannot be opened."
            .to_owned()
    }
}

/// Writes what arrives, and whether the key is part of it. A stream that breaks off leaves nothing.
async fn receive(
    file: &Path,
    mut parts: Streaming<BackupResponse>,
) -> Result<(WrittenBackup, bool), Failure> {
    let not_written = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::state(error.to_string()),
        _ => Failure::file("write the backup", file, &error),
    };
    let Some(Part::Header(header)) = next(&mut parts).await? else { return Err(broken_off()) };
    let has_key = header.key.is_some();
    let mut restored = Restored::begin(file, header).map_err(not_written)?;
    loop {
        match next(&mut parts).await? {
            Some(Part::Records(it)) => restored.add(&it.records).map_err(not_written)?,
            Some(Part::End(end)) => {
                return Ok((restored.finish(end.records).map_err(not_written)?, has_key));
            }
            Some(Part::Header(_)) | None => return Err(broken_off()),
        }
    }
}

async fn next(parts: &mut Streaming<BackupResponse>) -> Result<Option<Part>, Failure> {
    match timeout(SILENCE, parts.message()).await {
        Ok(message) => Ok(message?.and_then(|it| it.part)),
        Err(_) => Err(Failure::unavailable(format!(
            "there is no backup: the core sent nothing for {} s",
            SILENCE.as_secs()
        ))),
    }
}

fn broken_off() -> Failure {
    Failure::unavailable("there is no backup: it broke off before its end; try again")
}
